"""Mails: sent at least once and not for ever, by one process at a time, to a real SMTP server or into files."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import psycopg_pool
import pytest
import pytest_asyncio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from bitnexus import doing
from commands import accounts, mails, tenant_settings, tenants
from domain import accounts as domain_accounts
from domain.tenants import PLATFORM_ID, Branding
from ledger import ids
from reactions import letters, outbox, send_mail
from tests.reactions.mailbox import SENDER, Mailbox, token_in
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann Archer", password="correct horse battery", verify=True)


@pytest_asyncio.fixture
async def shop(world: World) -> UUID:
    await tenants.ensure_platform(world.ledger)
    create = tenants.Create(
        slug="shop",
        name="The Shop",
        currency="EUR",
        admin_email="admin@shop.test",
        admin_name="Ada",
        admin_password=ANN.password,
    )
    return (await tenants.create(create, caller(PLATFORM_ID), world.ledger, world.passwords)).aggregate.id


@pytest_asyncio.fixture
async def ann(world: World, shop: UUID) -> domain_accounts.Account:
    """With one mail that waits."""
    return (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate


def due_again(world: World) -> None:
    """As if the wait were over."""
    with psycopg.connect(world.database.owner_url) as owner:
        owner.execute("UPDATE ledger.deliveries SET due_at = clock_timestamp()")


def waiting(world: World) -> list[str]:
    with psycopg.connect(world.database.owner_url) as owner:
        rows = owner.execute("SELECT kind FROM ledger.secrets WHERE kind LIKE 'outbox %%'")
        return [kind for (kind,) in rows]


def tried(world: World) -> list[int]:
    with psycopg.connect(world.database.owner_url) as owner:
        return [tries for (tries,) in owner.execute("SELECT tries FROM ledger.deliveries")]


async def test_a_mail_is_sent_once_and_forgotten(world: World, ann: domain_accounts.Account, mailbox: Mailbox) -> None:
    (letter,) = await mailbox.fetch()
    assert letter["Subject"] == "The Shop: Is this your address?"
    assert (waiting(world), tried(world)) == ([], [])
    assert await mailbox.fetch() == []


async def test_a_tenants_mails_are_from_its_own_address(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    branding = Branding(name='Ann\'s "Shop", Ltd', sender_address="hello@shop.test")
    await tenant_settings.brand(tenant_settings.Brand(branding=branding), caller(ann.tenant_id), world.ledger)
    (letter,) = await mailbox.fetch()
    (sender,) = letter["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (branding.name, "hello@shop.test")


async def test_what_fails_is_tried_again_later_and_is_the_same_mail(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    (kind,) = waiting(world)
    mailbox.refuse = [outbox.TriedInVain("it is away"), OSError("a bug")]
    for count in (1, 2):
        assert await mailbox.fetch() == []
        assert tried(world) == [count]
        assert await outbox.look(world.projector, mailbox.doers()) == 0, "not before its time"
        due_again(world)
    (letter,) = await mailbox.fetch()
    assert letter["Message-ID"] == f"<{kind.rpartition(' ')[2]}@bitnexus.test>"
    assert (waiting(world), tried(world)) == ([], [])


async def test_what_always_fails_is_given_up_and_the_log_names_nobody(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox.refuse = [outbox.TriedInVain("it is away")] * (outbox.TRIES_MAX + 1)
    for _ in range(outbox.TRIES_MAX):
        assert await mailbox.fetch() == []
        due_again(world)
    assert waiting(world) == []
    assert len(mailbox.refuse) == 1
    assert [each.levelno for each in caplog.records].count(logging.ERROR) == 1
    for personal in ("xample.com", "Archer"):
        assert personal not in caplog.text


async def test_a_mail_is_not_given_up_because_the_database_was_away(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It would never arrive, though nobody refused it; and the log would show a bug where there is none."""
    for _ in range(outbox.TRIES_MAX - 1):
        mailbox.refuse = [outbox.TriedInVain("it is away")]
        assert await mailbox.fetch() == []
        due_again(world)
    mailbox.refuse = [psycopg.errors.AdminShutdown("terminating connection"), psycopg_pool.PoolTimeout("none is free")]
    for _ in range(2):
        assert await mailbox.fetch() == []
        due_again(world)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
    assert len(await mailbox.fetch()) == 1


async def test_what_can_never_be_sent_is_given_up_at_once(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    mailbox.refuse = [outbox.NeverPossible("no such mailbox")]
    assert await mailbox.fetch() == []
    assert waiting(world) == []


async def test_of_two_processes_one_sends(world: World, ann: domain_accounts.Account, mailbox: Mailbox) -> None:
    for n in range(4):
        register = accounts.Register(email=f"p{n}@example.com", name="P", password=ANN.password, verify=True)
        await accounts.register(register, caller(ann.tenant_id), world.ledger, world.passwords)
    counts = await asyncio.gather(*(outbox.look(world.projector, mailbox.doers()) for _ in range(4)))
    assert sum(counts) == 5
    assert len({letter["Message-ID"] for letter in mailbox.letters}) == len(mailbox.letters) == 5


async def test_the_mail_that_waits_longest_is_the_next(world: World, shop: UUID) -> None:
    """One tenant's flood would hold up the mails of all that come after it, for as long as it lasts."""
    kinds = [f"{mails.KIND} {ids.new_id()}" for _ in range(40)]
    with psycopg.connect(world.database.owner_url) as owner:
        for kind in sorted(kinds, key=lambda each: each[::-1]):  # as they lie in the table
            row = (uuid4(), uuid4(), kind)
            owner.execute("INSERT INTO ledger.secrets (tenant_id, owner, kind, value) VALUES (%s, %s, %s, 'x')", row)
    for begin in range(0, 40, 10):
        async with world.projector.connection() as connection:
            rows = await (await connection.execute(outbox.CLAIM, (10, outbox.WAITS_S))).fetchall()
        assert {kind for _, _, kind, _, _ in rows} == set(kinds[begin : begin + 10])


async def test_who_claimed_and_died_leaves_it_to_others(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    async with world.projector.connection() as connection:
        rows = await (await connection.execute(outbox.CLAIM, (10, outbox.WAITS_S))).fetchall()
    assert len(rows) == 1
    assert await mailbox.fetch() == []
    due_again(world)
    assert len(await mailbox.fetch()) == 1


async def test_one_that_hangs_is_cut_off_and_holds_up_no_other(
    world: World, ann: domain_accounts.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TRY_S_MAX", 0.05)

    async def hang(_: outbox.Waiting) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        assert await outbox.look(world.projector, {"mail": hang}) == 1
    assert tried(world) == [1]


async def test_what_was_sent_is_not_sent_again_because_another_one_hangs(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """A process that is stopped or killed meanwhile would send up to nine mails twice."""
    for n in range(2):
        register = accounts.Register(email=f"p{n}@example.com", name="P", password=ANN.password, verify=True)
        await accounts.register(register, caller(ann.tenant_id), world.ledger, world.passwords)
    doers = mailbox.doers()
    first = waiting(world)[0]

    async def do(each: outbox.Waiting) -> None:
        await (asyncio.Event().wait() if each.kind == first else doers["mail"](each))

    looking = asyncio.create_task(outbox.look(world.projector, {"mail": do}))
    async with asyncio.timeout(10):
        while waiting(world) != [first]:  # noqa: ASYNC110  the database has no event for it
            await asyncio.sleep(0.05)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert len(mailbox.letters) == 2


async def test_what_was_sent_is_noted_also_by_a_process_that_stops(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, end = asyncio.Event(), outbox._end

    async def slow(*arguments: Any) -> None:
        ending.set()
        await asyncio.sleep(0.2)
        await end(*arguments)

    monkeypatch.setattr(outbox, "_end", slow)
    async with outbox.running(world.projector, mailbox.doers()), asyncio.timeout(10):
        await ending.wait()
    assert waiting(world) == []


async def test_a_mail_whose_token_ended_is_not_sent(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await mailbox.fetch()
    late = mails.Mail(template=mails.Template.RESET, to=ANN.email, token="x", good_until=ann.created_on)
    secret = await mails.to_send(late, ann.tenant_id, ann.id, world.ledger)
    await world.ledger.append(caller(ann.tenant_id), ann, secrets=[secret])
    assert await mailbox.fetch() == []
    assert waiting(world) == []


def test_no_two_tries_of_one_mail_overlap() -> None:
    assert min(outbox.WAITS_S) >= outbox.TRY_S_MAX * 2


@pytest.mark.parametrize("template", mails.Template)
def test_every_mail_is_written(template: mails.Template) -> None:
    mail = mails.Mail(template=template, to="ann,o'hara@bücher.example", name='Ann "A"\u202e', word="is on")
    letter = letters.written(mail, "id", "The Shop", SENDER, "https://app.shop.test/")
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "{" not in letter.get_content()


def test_a_link_keeps_its_token_from_servers() -> None:
    """What is behind the # stays in the browser, out of every log."""
    made = mails.DECODER.decode(b'{"template":"reset","to":"a@b","token":"T","good_until":"2026-01-01T00:00:00Z"}')
    letter = letters.written(made, "id", "The Shop", SENDER, "https://app.shop.test/")
    assert "https://app.shop.test/reset-password#token=T\n" in letter.get_content()


# A real mail server


class Hall:
    """What an SMTP server received. `says`: its answer to a mail."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.says = "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.says.startswith("250"):
            self.envelopes.append(envelope)
        return self.says


@pytest_asyncio.fixture
async def hall() -> AsyncIterator[tuple[Hall, int]]:
    hall = Hall()

    def check(server: object, session: object, envelope: object, mechanism: str, data: LoginPassword) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"shop", b"s3cret"))

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    controller = Controller(
        hall, hostname="127.0.0.1", port=port, authenticator=check, auth_require_tls=False, enable_SMTPUTF8=True
    )
    controller.start()
    yield hall, port
    controller.stop()


def letter_to(address: str = ANN.email) -> EmailMessage:
    mail = mails.Mail(template=mails.Template.PASSWORD_CHANGED, to=address, name="Ann Archer")
    return letters.written(mail, "0199-id", "The Shop", SENDER, None)


@pytest.mark.parametrize("address", ["Ann@Example.com", "jörg@bücher.example"])
async def test_a_mail_server_receives_it(hall: tuple[Hall, int], address: str) -> None:
    received, port = hall
    await send_mail.to_server(send_mail.Server(host="127.0.0.1", port=port))(letter_to(address))
    (envelope,) = received.envelopes
    assert envelope.rcpt_tos == [address]
    content = envelope.original_content
    assert content is not None
    letter = message_from_bytes(content, policy=policy.default)
    assert (letter["From"], letter["Message-ID"]) == (SENDER, "<0199-id@bitnexus.test>")


async def test_a_password_never_goes_over_the_wire_in_clear(hall: tuple[Hall, int]) -> None:
    received, port = hall
    server = send_mail.Server(host="127.0.0.1", port=port, user="shop", password="s3cret")
    with pytest.raises(outbox.TriedInVain):
        await send_mail.to_server(server)(letter_to())
    assert received.envelopes == []


@pytest.mark.parametrize(
    ("says", "raises"), [("451 try later", outbox.TriedInVain), ("554 never", outbox.NeverPossible)]
)
async def test_what_the_server_says_decides_whether_it_is_tried_again(
    hall: tuple[Hall, int], says: str, raises: type[Exception]
) -> None:
    received, port = hall
    received.says = says
    with pytest.raises(raises, match=says[:3]):
        await send_mail.to_server(send_mail.Server(host="127.0.0.1", port=port))(letter_to())


async def test_a_server_that_is_away_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(outbox.TriedInVain):
        await send_mail.to_server(send_mail.Server(host="127.0.0.1", port=port))(letter_to())


async def test_the_whole_way_to_a_server(
    world: World, ann: domain_accounts.Account, hall: tuple[Hall, int], mailbox: Mailbox
) -> None:
    received, port = hall
    deliver = send_mail.to_server(send_mail.Server(host="127.0.0.1", port=port))
    doers = {"mail": send_mail.doer(world.ledger, world.projector, deliver, SENDER, None)}
    async with outbox.running(world.projector, doers):
        async with asyncio.timeout(20):
            while not received.envelopes:  # noqa: ASYNC110  it comes from another thread
                await asyncio.sleep(0.02)
            while waiting(world):  # noqa: ASYNC110  the database has no event for it
                await asyncio.sleep(0.02)
    assert len(received.envelopes) == 1


async def test_without_a_server_mails_are_files_that_nobody_else_reads(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    for _ in range(2):
        await send_mail.to_folder(folder)(letter_to())
    (file,) = folder.iterdir()
    assert (file.name, file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == ("0199-id.eml", 0o600, 0o700)
    assert b"To: Ann Archer <Ann@Example.com>" in file.read_bytes()
    (tmp_path / "taken").touch()
    with pytest.raises(outbox.TriedInVain):
        await send_mail.to_folder(tmp_path / "taken")(letter_to())


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.test", send_mail.Server(host="mail.test", port=587)),
        (
            "smtps://shop:s%40cret@mail.test",
            send_mail.Server(host="mail.test", port=465, tls=True, user="shop", password="s@cret"),
        ),
        ("smtp://mail.test:2525", send_mail.Server(host="mail.test", port=2525)),
    ],
)
def test_a_mail_server_is_named_by_a_url(url: str, server: send_mail.Server) -> None:
    assert doing.server(url) == server


def test_a_token_is_found_in_a_mail() -> None:
    """The tests above must be able to find none."""
    with pytest.raises(AssertionError):
        token_in(letter_to())
