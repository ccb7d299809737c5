"""The export and the erasure of an account agree: what goes with the account was in the export before, and nothing of others is."""

from typing import Any
from uuid import UUID

import pytest

from commands import accounts as account_commands
from commands import invitations
from commands import transactions as transaction_commands
from domain import accounts
from ledger import codec, read
from ledger.store import Claim
from projections import reading
from tests.api import house
from tests.api.house import PASSWORD, House, Served
from tests.world import World, caller

FORMER, PRESENT = "Ann.Former@Example.com", "Ann@Example.com"
NOBODYS = "bob@example.com"

Said = dict[tuple[int, str], str]
"""By position and field."""


async def ann(world: World, shop: House) -> UUID:
    """The account of somebody who has changed name and address."""
    command = account_commands.Register(email=FORMER, name="Ann Former", password=PASSWORD)
    account = (await account_commands.register(command, caller(shop.id), world.ledger, world.passwords)).aggregate
    account.verify_email()
    account.change_email(PRESENT)
    account.rename("Ann Present")
    now, before = [
        Claim(account_commands.EMAIL, accounts.normalise_email(each), account.id) for each in (PRESENT, FORMER)
    ]
    return (await world.ledger.append(caller(shop.id), account, claims=[now], releases=[before])).aggregate.id


async def buys(served: Served, shop: House, buyer_ref: str, **more: Any) -> str:
    """The id of a sale under that reference."""
    body = {"lines": [{"sku": "MUG", "quantity": 2}], "buyer_ref": buyer_ref, **more}
    made = await served.post(shop.admin, "/transactions", body)
    assert made.status_code == 201, made.text
    id: str = made.json()["data"]["id"]
    return id


async def returns(served: Served, shop: House, sale: str) -> str:
    """The id of a refund of one unit of it."""
    body = {"lines": [{"line_id": 1, "quantity": 1}]}
    made = await served.post(shop.admin, f"/transactions/{sale}/refunds", body)
    assert made.status_code == 201, made.text
    id: str = made.json()["data"]["id"]
    return id


async def returns_unknown(shop: House, buyer_ref: str) -> str:
    """The id of a refund of a sale that is not known."""
    line = transaction_commands.LineOrdered(sku="MUG", quantity=1)
    command = transaction_commands.RecordRefund(lines=[line], currency="EUR", buyer_ref=buyer_ref)
    receipt = await transaction_commands.record_refund(command, caller(shop.id), shop.ledger)
    return str(receipt.aggregate.id)


async def exported(served: Served, shop: House, id: UUID) -> Any:
    answer = await served.get(shop.admin, f"/users/{id}/export")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def listed(document: Any, part: str) -> list[str]:
    return [each["id"] for each in document[part]]


async def personal(world: World, tenant_id: UUID) -> tuple[Said, dict[int, str]]:
    """What all events of the tenant say of persons, and which aggregate each is of."""
    said: Said = {}
    of: dict[int, str] = {}
    async with world.projector.connection() as connection:
        entries = await world.ledger.entries(tenant_id, 0, 5_000)
        for each in await read.decode(world.ledger.codec, world.ledger.keyring, connection, tenant_id, entries):
            for name in world.ledger.codec.personal_of(each.topic):
                if (value := getattr(each.event, name)) is not None:
                    said[each.position, name] = value
                    of[each.position] = str(each.event.originator_id)
    return said, of


@pytest.mark.parametrize("address", [PRESENT, FORMER])
@pytest.mark.parametrize("spelt", [str, str.lower])
async def test_what_goes_with_an_account_was_in_its_export(
    served: Served, a: House, world: World, address: str, spelt: Any
) -> None:
    """Whoever asks for all that is held before having it forgotten would otherwise never learn of the rest."""
    await a.lists()
    for email in (address.upper(), NOBODYS):  # before there is an account of it
        await a.invites(email)
    id = await ann(world, a)
    ref = spelt(address)
    sale = await buys(served, a, ref)
    await returns(served, a, sale)
    await returns_unknown(a, ref)
    await buys(served, a, ref, buyer_id=str(id))
    await buys(served, a, NOBODYS)
    await returns_unknown(a, NOBODYS)
    document = await exported(served, a, id)
    before, of = await personal(world, a.id)
    invited = {each.id: each.email for each in await invitations.still_open(a.id, world.ledger)}

    assert (await served.ask(a.admin, "POST", f"/users/{id}/erasure")).status_code == 200
    after, _ = await personal(world, a.id)
    gone = {where for where in before if after[where] == codec.ERASED}
    assert {before[where] for where in gone} == {FORMER, "Ann Former", PRESENT, "Ann Present", ref}
    holds = {str(id), *listed(document, "transactions"), *listed(document, "refunds")}
    assert {of[position] for position, _ in gone} <= holds
    told = {value for part in ("user", "transactions", "refunds") for value in strings(document[part])}
    assert {before[where] for where in gone} <= told
    still = {each.id for each in await invitations.still_open(a.id, world.ledger)}
    revoked = {str(each): email for each, email in invited.items() if each not in still}
    assert {each["id"]: each["email"] for each in document["user"]["invitations"]} == revoked
    assert list(revoked.values()) == [address.upper()]
    assert NOBODYS not in told
    later = await exported(served, a, id)
    assert (later["transactions"][1:], later["refunds"], later["user"]["invitations"]) == ([], [], [])


def strings(value: Any) -> list[str]:
    """All that stand anywhere in it."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in strings(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in strings(inner)]
    return [value] if isinstance(value, str) else []


async def test_an_export_has_each_sale_under_the_persons_address_once(
    served: Served, a: House, b: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that are the account's too, and however many pages there are; those without the account's are the last."""
    for shop in (a, b):
        await shop.lists()
    id = await ann(world, a)
    by_account = [
        await buys(served, a, NOBODYS, buyer_id=str(id)),
        await buys(served, a, PRESENT, buyer_id=str(id)),
        await buys(served, a, PRESENT, affiliate_id=str(id)),
    ]
    now = [await buys(served, a, PRESENT) for _ in range(5)]
    then = [await buys(served, a, FORMER, buyer_id=str(a.user.id)) for _ in range(3)]
    others = [await buys(served, a, NOBODYS), await buys(served, a, f"x{PRESENT}"), await buys(served, b, PRESENT)]
    refunds_of_account = [await returns(served, a, sale) for sale in by_account]
    unknown = [await returns_unknown(a, PRESENT) for _ in range(3)]
    refunds_of_buyer = [await returns(served, a, sale) for sale in (*now[:3], now[0], then[0])]
    for shop, ref in ((a, NOBODYS), (b, PRESENT)):
        await returns_unknown(shop, ref)
    await returns(served, a, others[0])
    monkeypatch.setattr(reading, "PAGE_ROWS_MAX", 2)
    document = await exported(served, a, id)
    assert listed(document, "transactions") == [*by_account[::-1], *now[::-1], *then[::-1]]
    refunds = listed(document, "refunds")
    assert refunds[:6] == [*refunds_of_account[::-1], *unknown[::-1]]
    assert sorted(refunds[6:]) == sorted(refunds_of_buyer)
    shown = (await served.get(a.admin, f"/transactions/{now[0]}")).json()["data"]
    assert next(each for each in document["transactions"] if each["id"] == now[0]) == shown


@pytest.mark.parametrize("verified", [False, True])
async def test_who_has_not_shown_to_receive_mail_at_an_address_is_not_its_buyer(
    served: Served, a: House, world: World, verified: bool
) -> None:
    """Anybody may register under it, and would read what a stranger bought, or have it forgotten. An admin knows who asks."""
    await a.lists()
    stranger = await house.person(world, a.id, accounts.Role.USER, NOBODYS)
    sale, refund = await buys(served, a, NOBODYS), await returns_unknown(a, NOBODYS)
    if verified:
        account = await world.ledger.load(accounts.Account, a.id, stranger.id)
        account.verify_email()
        await world.ledger.append(caller(a.id), account)
    own = (await served.get(stranger, f"/users/{stranger.id}/export")).json()["data"]
    assert (listed(own, "transactions"), listed(own, "refunds")) == (([sale], [refund]) if verified else ([], []))
    admins = await exported(served, a, stranger.id)
    assert (listed(admins, "transactions"), listed(admins, "refunds")) == ([sale], [refund])
    erased = await served.ask(stranger, "POST", f"/users/{stranger.id}/erasure")
    assert erased.status_code == 200
    shown = await served.get(a.admin, f"/transactions/{sale}", headers={"X-Position": erased.headers["X-Position"]})
    assert shown.json()["data"]["buyer_ref"] == (codec.ERASED if verified else NOBODYS)


async def test_an_address_that_somebody_else_has_by_now_is_theirs(served: Served, a: House, world: World) -> None:
    """Who was sales@ before would read what the next one buys, and take it along."""
    await a.lists()
    id = await ann(world, a)
    email = accounts.normalise_email(FORMER)
    registered = await served.post(
        a.admin, "/users", {"email": email, "name": "Next", "password": PASSWORD, "role": "user"}
    )
    assert registered.status_code == 201, registered.text
    sale = await buys(served, a, email)
    assert listed(await exported(served, a, id), "transactions") == []
    assert listed(await exported(served, a, UUID(registered.json()["data"]["id"])), "transactions") == [sale]
    erased = await served.ask(a.admin, "POST", f"/users/{id}/erasure")
    shown = await served.get(a.admin, f"/transactions/{sale}", headers={"X-Position": erased.headers["X-Position"]})
    assert (erased.status_code, shown.json()["data"]["buyer_ref"]) == (200, email)


async def test_an_export_of_somebody_without_a_purchase_has_none(served: Served, a: House, world: World) -> None:
    await a.lists()
    await buys(served, a, NOBODYS)
    document = await exported(served, a, await ann(world, a))
    assert (document["transactions"], document["refunds"], document["user"]["invitations"]) == ([], [], [])
    assert await world.ledger.load_many(accounts.Account, a.id, [UUID(document["user"]["id"])])
