"""Who may make an account in a tenant, and invitations into it."""

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from commands import accounts, invitations, tenants
from commands.accounts import joining, mailed, registering
from domain import accounts as domain_accounts
from domain import invitations as domain_invitations
from domain.tenants import RegistrationMode, SecondFactor
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import World, caller

EMAIL = "Cat@Example.com"
PASSWORD = "correct horse battery"


async def issue(world: World, tenant_id: UUID, email: str = EMAIL, role: str = "affiliate") -> UUID:
    command = invitations.Issue(email=email, role=role)
    return (await invitations.issue(command, caller(tenant_id), world.ledger)).aggregate.id


async def join(
    world: World, tenant_id: UUID, token: str | None, email: str = "cat@example.com"
) -> domain_accounts.Account:
    command = joining.Join(email=email, name="Cat", password=PASSWORD, invitation=token)
    return (await joining.join(command, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def configure(world: World, tenant_id: UUID, mode: RegistrationMode) -> None:
    command = tenants.ConfigureSignIn(registration=mode, second_factor=SecondFactor.OPTIONAL)
    await tenants.configure_sign_in(command, caller(tenant_id), world.ledger)


async def test_an_invitation_gives_its_role_once_and_shows_the_address(
    world: World, shop: UUID, mailbox: Mailbox
) -> None:
    id = await issue(world, shop)
    (letter,) = await mailbox.fetch()
    assert letter["To"] == EMAIL
    (listed,) = await invitations.still_open(shop, world.ledger)
    assert (listed.id, listed.email, listed.role) == (id, EMAIL, "affiliate")
    cat = await join(world, shop, token_in(letter))
    assert (cat.role, cat.email, cat.email_verified) == ("affiliate", "cat@example.com", True)
    assert await invitations.still_open(shop, world.ledger) == []
    with pytest.raises((mailed.MailedTokenInvalid, domain_invitations.InvitationClosed)):
        await join(world, shop, token_in(letter), "dan@example.com")
    with pytest.raises(domain_invitations.InvitationClosed):
        await invitations.revoke(id, caller(shop), world.ledger)


@pytest.mark.parametrize(
    ("mode", "stranger", "invited"),
    [
        (RegistrationMode.OPEN, True, True),
        (RegistrationMode.INVITATION, False, True),
        (RegistrationMode.CLOSED, False, False),
    ],
)
async def test_who_may_make_an_account_is_the_tenants_word(
    world: World, shop: UUID, mailbox: Mailbox, mode: RegistrationMode, stranger: bool, invited: bool
) -> None:
    await issue(world, shop)
    token = token_in((await mailbox.fetch())[0])
    await configure(world, shop, mode)
    for may, given, email in ((stranger, None, "dan@example.com"), (invited, token, EMAIL)):
        if may:
            assert (await join(world, shop, given, email)).active
        else:
            with pytest.raises(registering.RegistrationNotOpen):
                await join(world, shop, given, email)
    if mode == RegistrationMode.CLOSED:
        with pytest.raises(registering.RegistrationNotOpen):
            await issue(world, shop, "eve@example.com")


async def test_an_invitation_serves_nobody_else(world: World, shop: UUID, mailbox: Mailbox) -> None:
    """Who finds a forwarded mail must not make an account under another address with its role."""
    await issue(world, shop)
    token = token_in((await mailbox.fetch())[0])
    with pytest.raises(invitations.InvitedOtherwise) as refused:
        await join(world, shop, token, "mallory@example.com")
    assert "cat" not in str(refused.value).casefold()


async def test_a_revoked_invitation_lets_nobody_in_and_forgets_the_address(
    world: World, shop: UUID, mailbox: Mailbox
) -> None:
    id = await issue(world, shop)
    token = token_in((await mailbox.fetch())[0])
    for _ in range(2):
        await invitations.revoke(id, caller(shop), world.ledger)
    with pytest.raises(mailed.MailedTokenInvalid):
        await join(world, shop, token)
    left = await world.ledger.secret_kinds(shop, invitations.owner_of(shop))
    assert [kind for kind in left if not kind.startswith(invitations.MAILED)] == []


async def test_an_invitation_ends_by_itself_and_is_forgotten_with_the_next(
    world: World, shop: UUID, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mailed.LASTS, mailed.Purpose.INVITATION, timedelta(milliseconds=600))
    old = await issue(world, shop)
    token = token_in((await mailbox.fetch())[0])
    await asyncio.sleep(0.6)
    assert await invitations.still_open(shop, world.ledger) == []
    with pytest.raises(mailed.MailedTokenInvalid):
        await join(world, shop, token)
    monkeypatch.undo()
    new = await issue(world, shop)
    kinds = await world.ledger.secret_kinds(shop, invitations.owner_of(shop))
    assert f"{invitations.ENTRY}{new}" in kinds
    assert f"{invitations.ENTRY}{old}" not in kinds


async def test_of_two_uses_at_once_one_wins(world: World, shop: UUID, mailbox: Mailbox) -> None:
    await issue(world, shop)
    token = token_in((await mailbox.fetch())[0])
    outcomes = await asyncio.gather(join(world, shop, token), join(world, shop, token), return_exceptions=True)
    assert sum(isinstance(each, domain_accounts.Account) for each in outcomes) == 1


async def test_who_has_an_account_is_not_invited(world: World, shop: UUID) -> None:
    with pytest.raises(accounts.EmailTaken):
        await issue(world, shop, "ADMIN@shop.test")


@pytest.mark.parametrize(
    ("role", "refusal"), [("super_admin", domain_accounts.RoleNotHere), ("root", domain_accounts.RoleUnknown)]
)
async def test_nobody_is_invited_to_more_than_a_tenant_has(
    world: World, shop: UUID, role: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await issue(world, shop, role=role)


async def test_there_are_so_many_invitations_at_the_most(
    world: World, shop: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "OPEN_MAX", 2)
    for name in ("a", "b"):
        await issue(world, shop, f"{name}@example.com")
    with pytest.raises(invitations.TooManyOpen):
        await issue(world, shop, "c@example.com")


async def test_no_address_is_mailed_invitation_after_invitation(
    world: World, shop: UUID, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked and issued again and again they would fill a stranger's mailbox."""
    for written in (EMAIL, EMAIL.upper(), EMAIL):
        await invitations.revoke(await issue(world, shop, written), caller(shop), world.ledger)
    with pytest.raises(mailed.MailedTooOften) as refused:
        await issue(world, shop)
    assert 86_300 < refused.value.retry_after_s <= 86_400
    await issue(world, shop, "dan@example.com")
    assert len(await mailbox.fetch()) == invitations.TO_ONE_MAX + 1
    monkeypatch.setattr(invitations, "DAY", timedelta(0))
    await issue(world, shop)
    left = await world.ledger.secret_kinds(shop, invitations.owner_of(shop))
    assert len([kind for kind in left if kind.startswith(invitations.MAILED)]) == 1


async def test_a_tenant_sends_so_many_invitations_a_day(
    world: World, shop: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody else's mails wait in the same line."""
    monkeypatch.setattr(invitations, "A_DAY_MAX", 2)
    for name in ("a", "b"):
        await invitations.revoke(await issue(world, shop, f"{name}@example.com"), caller(shop), world.ledger)
    with pytest.raises(mailed.MailedTooOften):
        await issue(world, shop, "c@example.com")


async def test_no_address_and_no_token_of_an_invitation_lies_in_clear(
    world: World, shop: UUID, mailbox: Mailbox
) -> None:
    await issue(world, shop)
    with psycopg.connect(world.database.owner_url) as owner:
        kept = [bytes(value) for (value,) in owner.execute("SELECT value FROM ledger.secrets")]
    token = token_in((await mailbox.fetch())[0])
    stored = [each.state + each.metadata for each in await world.ledger.entries(shop, 0, 100)]
    for value in kept + stored:
        assert b"at@" not in value
        assert token.encode() not in value
