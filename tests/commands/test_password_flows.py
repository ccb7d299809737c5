"""Another password, and a forgotten one: who gets in, who is put out, and what a stranger learns."""

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from commands import accounts, admins, privacy, sessions
from commands.accounts import forgotten, mailed, password
from domain import accounts as domain_accounts
from ledger import ids
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann Archer", password="correct horse battery")
NEW = "quite another secret"


@pytest.fixture
async def ann(world: World, shop: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate


async def log_in(world: World, tenant_id: UUID, password: str = ANN.password) -> sessions.LoggedIn:
    command = accounts.LogIn(email=ANN.email, password=password)
    return await accounts.log_in(command, caller(tenant_id), world.ledger, world.passwords)


async def change(world: World, ann: domain_accounts.Account, session_id: UUID, current: str, new: str = NEW) -> None:
    command = password.ChangePassword(account_id=ann.id, session_id=session_id, current=current, new=new)
    await password.change_password(command, caller(ann.tenant_id), world.ledger, world.passwords)


async def reset(world: World, tenant_id: UUID, token: str, new: str = NEW) -> None:
    command = password.ResetPassword(token=token, new=new)
    await password.reset_password(command, caller(tenant_id), world.ledger, world.passwords)


async def test_a_changed_password_puts_everybody_else_out(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    here, elsewhere = await log_in(world, ann.tenant_id), await log_in(world, ann.tenant_id)
    await change(world, ann, here.session.aggregate.id, ANN.password)
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, ann.tenant_id)
    await log_in(world, ann.tenant_id, NEW)
    await sessions.refresh(here.refresh_token, sessions.Device(), caller(ann.tenant_id), world.ledger)
    with pytest.raises(domain_accounts.SessionRevoked):
        await sessions.refresh(elsewhere.refresh_token, sessions.Device(), caller(ann.tenant_id), world.ledger)
    (notice,) = await mailbox.fetch()
    assert (str(notice["To"]), "was changed" in notice["Subject"]) == ("Ann Archer <Ann@Example.com>", True)


async def test_who_does_not_know_the_password_does_not_change_it(world: World, ann: domain_accounts.Account) -> None:
    session_id = (await log_in(world, ann.tenant_id)).session.aggregate.id
    for wrong in ("wrong horse battery", "x", "\ud800" * 10):
        with pytest.raises(password.PasswordWrong):
            await change(world, ann, session_id, wrong)
    await log_in(world, ann.tenant_id)


async def test_a_new_password_is_held_to_the_rules(world: World, ann: domain_accounts.Account) -> None:
    session_id = (await log_in(world, ann.tenant_id)).session.aggregate.id
    for new, refused in (
        ("ann archer", domain_accounts.PasswordIsTheirs),
        ("password1", domain_accounts.PasswordCommon),
    ):
        with pytest.raises(refused):
            await change(world, ann, session_id, ANN.password, new)


async def test_of_two_changes_at_once_one_wins(world: World, ann: domain_accounts.Account) -> None:
    session_id = (await log_in(world, ann.tenant_id)).session.aggregate.id
    news = ("first new secret", "second new secret")
    tried = (change(world, ann, session_id, ANN.password, new) for new in news)
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert [type(each) for each in outcomes if each is not None] == [password.PasswordWrong]
    winner = news[outcomes.index(None)]
    await log_in(world, ann.tenant_id, winner)


async def test_who_forgot_a_password_gets_in_by_mail_once(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    before = await log_in(world, ann.tenant_id)
    await forgotten.ask("ann@example.COM", ann.tenant_id, world.ledger)
    (letter,) = await mailbox.fetch()
    assert letter["To"] == "Ann Archer <Ann@Example.com>"
    token = token_in(letter)
    await reset(world, ann.tenant_id, token)
    account = (await log_in(world, ann.tenant_id, NEW)).account
    assert account.email_verified
    with pytest.raises(domain_accounts.SessionRevoked):
        await sessions.refresh(before.refresh_token, sessions.Device(), caller(ann.tenant_id), world.ledger)
    with pytest.raises(mailed.MailedTokenInvalid):
        await reset(world, ann.tenant_id, token, "yet another secret")
    await log_in(world, ann.tenant_id, NEW)


async def test_of_two_uses_of_a_token_at_once_one_wins(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    token = token_in((await mailbox.fetch())[0])
    tried = (reset(world, ann.tenant_id, token, new) for new in ("first new secret", "second new secret"))
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert [type(each) for each in outcomes if each is not None] == [mailed.MailedTokenInvalid]


async def test_asking_is_the_same_work_whether_there_is_an_account_or_not(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks learns neither by the answer nor by its time which addresses have an account: nothing is looked up, one row is
    written."""
    head = await world.ledger.head(ann.tenant_id)
    with monkeypatch.context() as patched:
        for name in ("find", "load", "load_many", "secret", "append"):
            patched.setattr(world.ledger, name, None)
        for email in (ANN.email, "nobody@example.com"):
            await forgotten.ask(email, ann.tenant_id, world.ledger)
    kinds = [value for value in secrets_of(world) if value.startswith(forgotten.KIND.encode())]
    assert len(kinds) == 2
    assert await world.ledger.head(ann.tenant_id) == head
    assert len(await mailbox.fetch()) == 1


async def test_not_more_wait_than_there_is_room_for(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for a million addresses must not fill the table; the next one that asks when they are gone gets in."""
    monkeypatch.setattr(forgotten, "WAITING_MAX", 3)
    for email in ("1@x.test", "2@x.test", "3@x.test", "4@x.test", ANN.email):
        await forgotten.ask(email, ann.tenant_id, world.ledger)
    assert await world.ledger.count(ann.tenant_id, forgotten.KIND, 100, secrets=True) == 3
    assert await mailbox.fetch() == []
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    assert len(await mailbox.fetch()) == 1


async def test_what_nobody_waits_for_any_more_is_deleted_without_an_answer(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After days without a process that does it, nobody gets a mail that they have forgotten to have asked for."""
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    monkeypatch.setattr(forgotten, "ANSWERED_WITHIN", timedelta(seconds=-2))
    assert await mailbox.fetch() == []
    assert await world.ledger.count(ann.tenant_id, forgotten.KIND, 100, secrets=True) == 0


async def test_nobodys_mailbox_is_filled_by_strangers(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    for _ in range(3):
        await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    assert len(await mailbox.fetch()) == 1
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    assert await mailbox.fetch() == []


async def test_a_token_ends_by_itself(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mailed.LASTS, mailed.Purpose.RESET, timedelta(milliseconds=600))
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    token = token_in((await mailbox.fetch())[0])
    await asyncio.sleep(0.6)
    with pytest.raises(mailed.MailedTokenInvalid):
        await reset(world, ann.tenant_id, token)


@pytest.mark.parametrize("token", ["", "x", "ä", "A" * 86, "A" * 5_000])
async def test_what_is_no_token_is_refused(world: World, shop: UUID, token: str) -> None:
    with pytest.raises(mailed.MailedTokenInvalid):
        await reset(world, shop, token)


async def test_a_token_of_one_purpose_serves_no_other(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    token = token_in((await mailbox.fetch())[0])
    for purpose in set(mailed.Purpose) - {mailed.Purpose.RESET}:
        with pytest.raises(mailed.MailedTokenInvalid):
            await mailed.find(token, purpose, world.ledger)


async def test_no_token_lies_in_the_database_and_no_address_in_clear(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """Neither before the mail is sent nor after. Whoever reads a backup must not get in with it."""
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    kept = secrets_of(world)
    token = token_in((await mailbox.fetch())[0])
    kept += secrets_of(world)
    for value in kept:
        assert token.encode() not in value
        assert b"xample.com" not in value
    assert not any(b"outbox" in value for value in secrets_of(world))
    stored = b"".join(each.state + each.metadata for each in await world.ledger.entries(ann.tenant_id, 0, 100))
    assert token.encode() not in stored


def secrets_of(world: World) -> list[bytes]:
    with psycopg.connect(world.database.owner_url) as owner:
        return [kind.encode() + bytes(value) for kind, value in owner.execute("SELECT kind, value FROM ledger.secrets")]


async def test_who_was_erased_gets_no_mail(world: World, ann: domain_accounts.Account, mailbox: Mailbox) -> None:
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    erase = privacy.Erase(account_id=ann.id)
    await privacy.erase(erase, caller(ann.tenant_id), world.ledger, privacy.noted_nowhere)
    assert await mailbox.fetch() == []


async def test_a_deactivated_account_gets_no_mail_and_is_not_opened_by_one(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    token = token_in((await mailbox.fetch())[0])
    ann.deactivate()
    await world.ledger.append(caller(ann.tenant_id), ann)
    with pytest.raises(domain_accounts.AccountDeactivated):
        await reset(world, ann.tenant_id, token)
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, ann.tenant_id)


async def test_who_was_deactivated_is_sent_no_way_in(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    ann.deactivate()
    await world.ledger.append(caller(ann.tenant_id), ann)
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    assert await mailbox.fetch() == []


async def test_an_admin_who_is_given_a_password_by_the_operator_has_no_session_any_more(
    world: World, shop: UUID
) -> None:
    """It is done when somebody else may know the old one."""
    old = accounts.LogIn(email="admin@shop.test", password="correct horse battery")
    before = await accounts.log_in(old, caller(shop), world.ledger, world.passwords)
    command = admins.Appoint(email="admin@shop.test", name="Ada", password=NEW)
    await admins.appoint(command, caller(shop), world.ledger, world.passwords)
    with pytest.raises(domain_accounts.SessionRevoked):
        await sessions.refresh(before.refresh_token, sessions.Device(), caller(shop), world.ledger)


async def test_a_repeated_change_is_answered_as_it_was(world: World, ann: domain_accounts.Account) -> None:
    """The old password is not the current one any more when the answer got lost and the command comes again."""
    session_id = (await log_in(world, ann.tenant_id)).session.aggregate.id
    command = password.ChangePassword(account_id=ann.id, session_id=session_id, current=ANN.password, new=NEW)
    who = caller(ann.tenant_id, ids.new_id())
    first = await password.change_password(command, who, world.ledger, world.passwords)
    again = await password.change_password(command, who, world.ledger, world.passwords)
    assert (again.replayed, again.position) == (True, first.position)
