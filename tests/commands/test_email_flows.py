"""Addresses: shown to be somebody's, changed, and unique however they are written."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from commands import accounts, admins, mails, privacy
from commands.accounts import administering, email, forgotten, mailed, password, registering
from domain import accounts as domain_accounts
from ledger import codec
from tests.reactions.mailbox import TOKEN, Mailbox, token_in
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann Archer", password="correct horse battery", verify=True)
NEW = "Ann.Archer@Elsewhere.example"


@pytest.fixture
async def ann(world: World, shop: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate


async def shown(world: World, account: domain_accounts.Account) -> domain_accounts.Account:
    return await world.ledger.load(domain_accounts.Account, account.tenant_id, account.id)


async def ask(world: World, ann: domain_accounts.Account, address: str = NEW) -> None:
    command = email.AskChange(account_id=ann.id, email=address, current_password=ANN.password)
    await email.ask_change(command, caller(ann.tenant_id), world.ledger, world.passwords)


async def change(world: World, tenant_id: UUID, token: str) -> domain_accounts.Account:
    return (await email.change(email.Confirm(token=token), caller(tenant_id), world.ledger)).aggregate


async def test_who_registers_shows_the_address_by_mail_once(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    (letter,) = await mailbox.fetch()
    assert letter["To"] == "Ann Archer <Ann@Example.com>"
    assert not ann.email_verified
    await email.verify(email.Confirm(token=token_in(letter)), caller(ann.tenant_id), world.ledger)
    assert (await shown(world, ann)).email_verified
    with pytest.raises(mailed.MailedTokenInvalid):
        await email.verify(email.Confirm(token=token_in(letter)), caller(ann.tenant_id), world.ledger)
    await email.ask_verification(ann.id, caller(ann.tenant_id), world.ledger)
    assert await mailbox.fetch() == []


async def test_another_mail_is_instead_of_the_one_before(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailed, "BETWEEN_MAILS", timedelta(0))
    (first,) = await mailbox.fetch()
    await email.ask_verification(ann.id, caller(ann.tenant_id), world.ledger)
    (second,) = await mailbox.fetch()
    with pytest.raises(mailed.MailedTokenInvalid):
        await email.verify(email.Confirm(token=token_in(first)), caller(ann.tenant_id), world.ledger)
    await email.verify(email.Confirm(token=token_in(second)), caller(ann.tenant_id), world.ledger)


async def test_nobodys_mailbox_is_filled_by_asking_again(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """Whoever registers with a stranger's address in an open tenant could have it flooded."""
    (first,) = await mailbox.fetch()
    for _ in range(3):
        await email.ask_verification(ann.id, caller(ann.tenant_id), world.ledger)
    assert await mailbox.fetch() == []
    await email.verify(email.Confirm(token=token_in(first)), caller(ann.tenant_id), world.ledger)


async def test_of_changes_of_address_asked_for_at_once_one_mail_goes_out(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """Refused, not passed over: who mistyped the address would wait for a mail that never comes."""
    await mailbox.fetch()
    await ask(world, ann)
    with pytest.raises(mailed.MailedTooOften) as refused:
        await ask(world, ann, "stranger@example.com")
    assert 1 <= refused.value.retry_after_s <= mailed.BETWEEN_MAILS.total_seconds()
    (letter,) = await mailbox.fetch()
    assert (await change(world, ann.tenant_id, token_in(letter))).email == NEW


async def test_a_new_address_counts_once_it_is_confirmed_there_and_the_old_one_is_told_and_free(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await mailbox.fetch()
    await ask(world, ann)
    (letter,) = await mailbox.fetch()
    assert letter["To"] == f"Ann Archer <{NEW}>"
    assert (await shown(world, ann)).email == ANN.email
    changed = await change(world, ann.tenant_id, token_in(letter))
    assert (changed.email, changed.email_verified) == (NEW, True)
    (notice,) = await mailbox.fetch()
    assert notice["To"] == "Ann Archer <Ann@Example.com>"
    assert NEW in notice.get_content()
    found = await world.ledger.find(ann.tenant_id, accounts.EMAIL, ["ann@example.com", NEW.casefold()])
    assert found == {NEW.casefold(): ann.id}
    other = await accounts.register(ANN, caller(ann.tenant_id), world.ledger, world.passwords)
    assert other.aggregate.id != ann.id
    command = accounts.LogIn(email=NEW, password=ANN.password)
    logged_in = await accounts.log_in(command, caller(ann.tenant_id), world.ledger, world.passwords)
    assert logged_in.account.id == ann.id


async def test_an_address_that_somebody_took_meanwhile_stays_theirs(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await mailbox.fetch()
    await ask(world, ann)
    token = token_in((await mailbox.fetch())[0])
    other = registering.Register(email=NEW.upper(), name="Bob", password="correct horse battery")
    bob = (await accounts.register(other, caller(ann.tenant_id), world.ledger, world.passwords)).aggregate
    with pytest.raises(accounts.EmailTaken):
        await change(world, ann.tenant_id, token)
    found = await world.ledger.find(ann.tenant_id, accounts.EMAIL, ["ann@example.com", NEW.casefold()])
    assert found == {"ann@example.com": ann.id, NEW.casefold(): bob.id}
    assert (await shown(world, ann)).email == ANN.email


async def test_of_two_who_confirm_one_address_at_once_one_has_it(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    register = registering.Register(email="bob@example.com", name="Bob", password=ANN.password)
    bob = (await accounts.register(register, caller(ann.tenant_id), world.ledger, world.passwords)).aggregate
    await mailbox.fetch()
    tokens = []
    for each in (ann, bob):
        await ask(world, each)
        tokens.append(token_in((await mailbox.fetch())[0]))
    tried = (change(world, ann.tenant_id, token) for token in tokens)
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert len([each for each in outcomes if isinstance(each, accounts.EmailTaken)]) == 1
    owner = next(each.id for each in outcomes if isinstance(each, domain_accounts.Account))
    assert await world.ledger.find(ann.tenant_id, accounts.EMAIL, [NEW.casefold()]) == {NEW.casefold(): owner}


async def test_another_spelling_of_the_same_address_can_be_chosen(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    await mailbox.fetch()
    await ask(world, ann, "ann@EXAMPLE.com")
    changed = await change(world, ann.tenant_id, token_in((await mailbox.fetch())[0]))
    assert changed.email == "ann@EXAMPLE.com"
    assert await world.ledger.find(ann.tenant_id, accounts.EMAIL, ["ann@example.com"]) == {"ann@example.com": ann.id}


async def test_who_does_not_know_the_password_asks_for_no_other_address(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """A browser that was left open must not be enough to take an account away."""
    await mailbox.fetch()
    command = email.AskChange(account_id=ann.id, email=NEW, current_password="wrong horse battery")
    with pytest.raises(password.PasswordWrong):
        await email.ask_change(command, caller(ann.tenant_id), world.ledger, world.passwords)
    assert await mailbox.fetch() == []


async def test_what_was_mailed_to_the_old_address_opens_nothing_any_more(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    verification = token_in((await mailbox.fetch())[0])
    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    reset = token_in((await mailbox.fetch())[0])
    await ask(world, ann)
    await change(world, ann.tenant_id, token_in((await mailbox.fetch())[0]))
    with pytest.raises(mailed.MailedTokenInvalid):
        await email.verify(email.Confirm(token=verification), caller(ann.tenant_id), world.ledger)
    command = password.ResetPassword(token=reset, new="quite another secret")
    with pytest.raises(mailed.MailedTokenInvalid):
        await password.reset_password(command, caller(ann.tenant_id), world.ledger, world.passwords)


async def test_nothing_of_an_erased_person_is_legible_in_events_or_secrets(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox
) -> None:
    """Changed addresses and names are as personal as the first ones, and the new address is free again."""
    await mailbox.fetch()
    await ask(world, ann)
    account = await change(world, ann.tenant_id, token_in((await mailbox.fetch())[0]))
    account.rename("Ann Other")
    await world.ledger.append(caller(ann.tenant_id), account)
    erase = privacy.Erase(account_id=ann.id)
    await privacy.erase(erase, caller(ann.tenant_id), world.ledger, privacy.noted_nowhere)
    gone = await shown(world, ann)
    assert (gone.email, gone.name) == (codec.ERASED, codec.ERASED)
    assert await world.ledger.find(ann.tenant_id, accounts.EMAIL, [NEW.casefold()]) == {}
    assert await world.ledger.secret_kinds(ann.tenant_id, ann.id) == []
    assert await mailbox.fetch() == []


@pytest.mark.parametrize("how", ["changed", "reset", "appointed", "deactivated"])
async def test_a_change_of_address_that_was_asked_for_with_the_old_password_is_off(
    world: World, shop: UUID, mailbox: Mailbox, how: str
) -> None:
    """A thief would have the account whatever its owner does: the mail is in the thief's box."""
    find = await world.ledger.find(shop, accounts.EMAIL, ["admin@shop.test"])
    admin = await world.ledger.load(domain_accounts.Account, shop, find["admin@shop.test"])
    await mailbox.fetch()
    await ask(world, admin, "thief@evil.example")
    token = token_in((await mailbox.fetch())[0])
    if how == "changed":
        changing = password.ChangePassword(
            account_id=admin.id, session_id=admin.id, current=ANN.password, new="another long secret"
        )
        await password.change_password(changing, caller(shop), world.ledger, world.passwords)
    elif how == "reset":
        made = await reset_token(world, mailbox, admin)
        resetting = password.ResetPassword(token=made, new="another long secret")
        await password.reset_password(resetting, caller(shop), world.ledger, world.passwords)
    elif how == "appointed":
        appoint = admins.Appoint(email=admin.email, name="Ada", password="another long secret")
        await admins.appoint(appoint, caller(shop), world.ledger, world.passwords)
    else:
        other = accounts.Register(email="other@shop.test", name="O", password=ANN.password, role="admin")
        await accounts.register(other, caller(shop), world.ledger, world.passwords)
        await administering.deactivate(administering.Deactivate(account_id=admin.id), caller(shop), world.ledger)
        await administering.reactivate(administering.Reactivate(account_id=admin.id), caller(shop), world.ledger)
    with pytest.raises(mailed.MailedTokenInvalid):
        await change(world, shop, token)


async def test_a_change_of_address_that_is_being_asked_for_while_the_password_changes_is_refused(
    world: World, ann: domain_accounts.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old password was right when it was looked at."""
    seal = world.ledger.seal

    async def after_a_change(*given: Any) -> bytes:
        monkeypatch.setattr(world.ledger, "seal", seal)
        changing = password.ChangePassword(
            account_id=ann.id, session_id=ann.id, current=ANN.password, new="another long secret"
        )
        await password.change_password(changing, caller(ann.tenant_id), world.ledger, world.passwords)
        return await seal(*given)

    monkeypatch.setattr(world.ledger, "seal", after_a_change)
    with pytest.raises(password.PasswordWrong):
        await ask(world, ann)
    assert await mailed.kept(ann.tenant_id, ann.id, mailed.Purpose.CHANGE, world.ledger) is None


async def reset_token(world: World, mailbox: Mailbox, account: domain_accounts.Account) -> str:
    await forgotten.ask(account.email, account.tenant_id, world.ledger)
    return token_in((await mailbox.fetch())[0])


async def test_a_token_that_is_made_while_the_address_changes_is_not_good(
    world: World, ann: domain_accounts.Account, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the former mailbox would reset the password a moment after the account left it."""
    await mailbox.fetch()
    await ask(world, ann)
    token = token_in((await mailbox.fetch())[0])
    to_send = mails.to_send

    async def after_the_change(*given: Any) -> Any:
        monkeypatch.setattr(mails, "to_send", to_send)
        await change(world, ann.tenant_id, token)
        return await to_send(*given)

    await forgotten.ask(ANN.email, ann.tenant_id, world.ledger)
    monkeypatch.setattr(mails, "to_send", after_the_change)
    letters = await mailbox.fetch()
    (made,) = [token for each in letters for token in TOKEN.findall(each.get_content())]
    resetting = password.ResetPassword(token=made, new="another long secret")
    with pytest.raises(mailed.MailedTokenInvalid):
        await password.reset_password(resetting, caller(ann.tenant_id), world.ledger, world.passwords)
