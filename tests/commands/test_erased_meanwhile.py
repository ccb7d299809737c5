"""Somebody is erased by another process while a command of theirs is under way in this one, which has their key for two seconds more."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pyotp
import pytest
import pytest_asyncio

from commands import accounts, mails, privacy, transactions
from commands.accounts import email, mailed, password, registering, second_factor
from ledger import errors, ids
from ledger.store import Ledger
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import World, caller

ANN = accounts.Register(email="ann@example.com", name="Ann", password="correct horse battery")
NEW = "ann@elsewhere.example"


@pytest_asyncio.fixture
async def ann(world: World, shop: UUID) -> UUID:
    return (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate.id


Arm = Callable[[object, str], None]


@pytest.fixture
def erase_at(monkeypatch: pytest.MonkeyPatch, shop: UUID, ann: UUID, elsewhere: Ledger) -> Arm:
    """From then on Ann is erased before the next call of that function."""

    def arm(of: object, name: str) -> None:
        real = getattr(of, name)

        async def erase_first(*arguments: Any) -> Any:
            monkeypatch.undo()
            command = privacy.Erase(account_id=ann)
            await privacy.erase(command, caller(shop), elsewhere, privacy.noted_nowhere)
            return await real(*arguments)

        monkeypatch.setattr(of, name, erase_first)

    return arm


def left(world: World, ann: UUID) -> list[str]:
    """The kinds of Ann's secrets."""
    with psycopg.connect(world.database.owner_url) as owner:
        return [kind for (kind,) in owner.execute("SELECT kind FROM ledger.secrets WHERE owner = %s", [ann]).fetchall()]


async def asked_for(world: World, shop: UUID, ann: UUID, mailbox: Mailbox) -> str:
    """The token of the mail to another address."""
    asks = email.AskChange(account_id=ann, email=NEW, current_password=ANN.password)
    await email.ask_change(asks, caller(shop), world.ledger, world.passwords)
    (letter,) = await mailbox.fetch()
    return token_in(letter)


async def test_no_address_is_taken_for_ever(
    world: World, shop: UUID, ann: UUID, mailbox: Mailbox, erase_at: Arm
) -> None:
    """Nobody could ever register with it, and what is kept of it would be of somebody who was forgotten."""
    token = await asked_for(world, shop, ann, mailbox)
    erase_at(mails, "to_send")
    with pytest.raises(mailed.MailedTokenInvalid):
        await email.change(email.Confirm(token=token), caller(shop), world.ledger)
    assert await world.ledger.find(shop, registering.EMAIL, [ANN.email, NEW]) == {}


async def test_no_new_password_is_kept(world: World, shop: UUID, ann: UUID, erase_at: Arm) -> None:
    erase_at(world.passwords, "hash")
    command = password.ChangePassword(
        account_id=ann, session_id=ids.new_id(), current=ANN.password, new="battery horse"
    )
    with pytest.raises(password.PasswordWrong):
        await password.change_password(command, caller(shop), world.ledger, world.passwords)
    assert left(world, ann) == []


async def test_no_second_factor_is_kept(world: World, shop: UUID, ann: UUID, erase_at: Arm) -> None:
    enrol = second_factor.Enrol(account_id=ann, current_password=ANN.password)
    made = await second_factor.enrol(enrol, "The Shop", caller(shop), world.ledger, world.passwords)
    erase_at(mails, "to_send")
    with pytest.raises(errors.VersionConflict):
        await second_factor.confirm(ann, pyotp.TOTP(made.secret).now(), caller(shop), world.ledger)
    assert left(world, ann) == []


async def test_no_second_factor_is_begun(world: World, shop: UUID, ann: UUID, erase_at: Arm) -> None:
    erase_at(world.passwords, "matches")
    enrol = second_factor.Enrol(account_id=ann, current_password=ANN.password)
    with pytest.raises(errors.VersionConflict):
        await second_factor.enrol(enrol, "The Shop", caller(shop), world.ledger, world.passwords)
    assert left(world, ann) == []


async def test_what_is_bought_meanwhile_is_recorded_of_somebody_new(
    world: World, shop: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shop would be told that its sale cannot be, for a reason that is nobody's."""
    line = transactions.LineOrdered(sku="OLD", quantity=1, unit_price=Decimal("1.00"))
    refund = transactions.RecordRefund(lines=[line], currency="EUR", buyer_ref="17850")
    before = (await transactions.record_refund(refund, caller(shop), world.ledger)).aggregate
    append = world.ledger.append

    async def erase_first(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        await privacy.erase(privacy.Erase(buyer_ref="17850"), caller(shop), world.ledger, privacy.noted_nowhere)
        return await append(*arguments, **named)

    monkeypatch.setattr(world.ledger, "append", erase_first)
    after = (await transactions.record_refund(refund, caller(shop), world.ledger)).aggregate
    assert after.buyer_subject_id not in (None, before.buyer_subject_id)
    assert after.buyer_ref == "17850"
