"""The account is changed by somebody else between the moment a command loads it and the one it is appended.

Who names a version wants it decided upon that one. Mails and second factors that are asked for append no event, whose version would be
in the way: what holds them is tried here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pyotp
import pytest
import pytest_asyncio

from commands import accounts, known_by, privacy, sessions, transactions
from commands.accounts import administering, email, mailed, password, second_factor
from domain import accounts as domain_accounts
from ledger import codec, errors
from tests.commands.test_privacy import sell
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import World, caller

ANN = accounts.Register(email="ann@example.com", name="Ann", password="correct horse battery")
SECOND, THIRD = "ann@second.example", "ann@third.example"

Meanwhile = Callable[[object, str, Callable[[], Awaitable[object]]], None]


@pytest_asyncio.fixture
async def ann(world: World, shop: UUID) -> UUID:
    """Registered, and logged in: else there is no fence that two commands could both find."""
    id = (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate.id
    log_in = accounts.LogIn(email=ANN.email, password=ANN.password)
    await accounts.log_in(log_in, caller(shop), world.ledger, world.passwords)
    return id


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Before the next call of that function another command is done, once."""

    def arm(of: object, name: str, other: Callable[[], Awaitable[object]]) -> None:
        real = getattr(of, name)

        async def other_first(*arguments: Any) -> Any:
            monkeypatch.undo()
            await other()
            return await real(*arguments)

        monkeypatch.setattr(of, name, other_first)

    return arm


async def ask(world: World, shop: UUID, ann: UUID, address: str, version: int | None = None) -> None:
    asks = email.AskChange(account_id=ann, email=address, current_password=ANN.password, version=version)
    await email.ask_change(asks, caller(shop), world.ledger, world.passwords)


async def confirm(world: World, shop: UUID, token: str) -> None:
    await email.change(email.Confirm(token=token), caller(shop), world.ledger)


@pytest_asyncio.fixture
async def to_second(world: World, shop: UUID, ann: UUID, mailbox: Mailbox) -> AsyncIterator[str]:
    """The token of a mail to her second address, after which another one may be asked for at once."""
    await ask(world, shop, ann, SECOND)
    (letter,) = await mailbox.fetch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mailed, "BETWEEN_MAILS", 0 * mailed.BETWEEN_MAILS)
        yield token_in(letter)


async def begun(world: World, shop: UUID, ann: UUID) -> set[str]:
    """What waits for an answer of Ann's."""
    return {mailed.Purpose.CHANGE, second_factor.PENDING} & set(await world.ledger.secret_kinds(shop, ann))


async def shown(world: World, shop: UUID, ann: UUID) -> domain_accounts.Account:
    return await world.ledger.load(domain_accounts.Account, shop, ann)


@pytest.mark.parametrize("when", ["before the fence is read", "before the password is looked at"])
async def test_no_other_address_is_asked_for_upon_one_that_is_gone(
    world: World, shop: UUID, ann: UUID, to_second: str, meanwhile: Meanwhile, when: str
) -> None:
    """Who named the version would change an address that they never saw, and the change before voids all that was asked."""
    of, name = (sessions, "fenced") if "fence" in when else (world.passwords, "matches")
    meanwhile(of, name, lambda: confirm(world, shop, to_second))
    with pytest.raises(errors.VersionConflict):
        await ask(world, shop, ann, THIRD, version=1)
    assert (await shown(world, shop, ann)).email == SECOND
    assert await begun(world, shop, ann) == set()


async def test_another_address_is_asked_for_again_if_no_version_was_named(
    world: World, shop: UUID, ann: UUID, to_second: str, mailbox: Mailbox, meanwhile: Meanwhile
) -> None:
    meanwhile(world.passwords, "matches", lambda: confirm(world, shop, to_second))
    await ask(world, shop, ann, THIRD)
    notice, question = await mailbox.fetch()
    assert [ANN.email in notice["To"], THIRD in question["To"]] == [True, True]
    await confirm(world, shop, token_in(question))
    assert (await shown(world, shop, ann)).email == THIRD


async def test_no_second_factor_is_begun_upon_an_address_that_is_gone(
    world: World, shop: UUID, ann: UUID, to_second: str, meanwhile: Meanwhile
) -> None:
    """The authenticator would name the account by it for ever."""
    meanwhile(world.passwords, "matches", lambda: confirm(world, shop, to_second))
    enrol = second_factor.Enrol(account_id=ann, current_password=ANN.password, version=1)
    with pytest.raises(errors.VersionConflict):
        await second_factor.enrol(enrol, "The Shop", caller(shop), world.ledger, world.passwords)
    assert await begun(world, shop, ann) == set()


async def test_what_was_asked_for_undoes_nothing_that_was_changed_meanwhile(
    world: World, shop: UUID, ann: UUID, mailbox: Mailbox, meanwhile: Meanwhile
) -> None:
    """So the version may be compared when the account is loaded: the answer is decided upon the account as it is then."""

    async def rename(name: str) -> None:
        await administering.change(administering.Change(account_id=ann, name=name), caller(shop), world.ledger)

    meanwhile(world.passwords, "matches", lambda: rename("Ann Second"))
    await ask(world, shop, ann, SECOND, version=1)
    (letter,) = await mailbox.fetch()
    await confirm(world, shop, token_in(letter))
    meanwhile(password, "check_current", lambda: rename("Ann Third"))
    enrol = second_factor.Enrol(account_id=ann, current_password=ANN.password, version=3)
    made = await second_factor.enrol(enrol, "The Shop", caller(shop), world.ledger, world.passwords)
    await second_factor.confirm(ann, pyotp.TOTP(made.secret).now(), caller(shop), world.ledger)
    account = await shown(world, shop, ann)
    assert (account.name, account.email, account.second_factor) == ("Ann Third", SECOND, True)


async def test_a_second_factor_that_was_begun_beside_another_one_is_not_confirmed(
    world: World, shop: UUID, ann: UUID, meanwhile: Meanwhile
) -> None:
    """It would replace, without a code of it, one that its owner never saw."""

    async def enrol(version: int | None = None) -> str:
        command = second_factor.Enrol(account_id=ann, current_password=ANN.password, version=version)
        return (await second_factor.enrol(command, "The Shop", caller(shop), world.ledger, world.passwords)).secret

    async def other() -> None:
        code = pyotp.TOTP(await enrol()).now()
        await second_factor.confirm(ann, code, caller(shop), world.ledger)

    meanwhile(password, "check_current", other)
    secret = await enrol(version=1)
    with pytest.raises(second_factor.NotBegun):
        await second_factor.confirm(ann, pyotp.TOTP(secret).now(), caller(shop), world.ledger)


async def test_a_mail_that_verifies_an_address_is_good_for_that_one_alone(
    world: World, shop: UUID, ann: UUID, to_second: str, mailbox: Mailbox, meanwhile: Meanwhile
) -> None:
    meanwhile(mailed, "wait", lambda: confirm(world, shop, to_second))
    await email.ask_verification(ann, caller(shop), world.ledger, version=1)
    token = token_in((await mailbox.fetch())[-1])  # before it came that the address was changed
    with pytest.raises(mailed.MailedTokenInvalid):
        await email.verify(email.Confirm(token=token), caller(shop), world.ledger)


async def test_whoever_gets_another_address_while_being_erased_is_forgotten_under_it_too(
    world: World, shop: UUID, ann: UUID, to_second: str, meanwhile: Meanwhile
) -> None:
    """Nobody could ever register with it, and what was bought under it would stay."""
    sale = await sell(world, shop, SECOND)
    meanwhile(known_by, "of", lambda: confirm(world, shop, to_second))
    command = privacy.Erase(account_id=ann)
    await privacy.erase(command, caller(shop), world.ledger, privacy.noted_nowhere)
    assert await world.ledger.find(shop, accounts.EMAIL, [ANN.email, SECOND]) == {}
    assert await world.ledger.known_subject(shop, transactions.BUYER, SECOND) is None
    found = await world.ledger.load_many(type(sale), shop, [sale.id])
    assert found[sale.id].buyer_ref == codec.ERASED
    assert (await shown(world, shop, ann)).email == codec.ERASED
