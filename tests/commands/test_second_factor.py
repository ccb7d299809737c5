"""A second factor: what it asks for, what it accepts once, and what becomes of guesses."""

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pyotp
import pytest

from commands import accounts, admins, privacy, sessions, tenants
from commands.accounts import challenges, password, second_factor
from domain import accounts as domain_accounts
from domain.tenants import RegistrationMode, SecondFactor
from tests.reactions.mailbox import Mailbox
from tests.world import World, caller

ANN = accounts.Register(email="ann@example.com", name="Ann Archer", password="correct horse battery")


@pytest.fixture
async def ann(world: World, shop: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(shop), world.ledger, world.passwords)).aggregate


class Authenticator:
    """Ann's telephone: each code it gives is of a later step than the one before, within what is accepted."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)
        self.step = int(time.time()) // second_factor.STEP_S - second_factor.STEPS_OFF_MAX

    def code(self) -> str:
        """The next one; the first is the oldest that is accepted."""
        self.step += 1
        return self._totp.generate_otp(self.step)

    def again(self) -> str:
        return self._totp.generate_otp(self.step)


async def enrol(world: World, ann: domain_accounts.Account) -> Authenticator:
    command = second_factor.Enrol(account_id=ann.id, current_password=ANN.password)
    made = await second_factor.enrol(command, "The Shop", caller(ann.tenant_id), world.ledger, world.passwords)
    assert made.uri == f"otpauth://totp/The%20Shop:ann%40example.com?secret={made.secret}&issuer=The%20Shop"
    return Authenticator(made.secret)


async def confirm(world: World, ann: domain_accounts.Account, code: str) -> list[str]:
    return (await second_factor.confirm(ann.id, code, caller(ann.tenant_id), world.ledger)).recovery_codes


@pytest.fixture
async def phone(world: World, ann: domain_accounts.Account) -> Authenticator:
    """Enrolled and confirmed; its next code is good."""
    made = await enrol(world, ann)
    await confirm(world, ann, made.code())
    return made


async def challenge(world: World, ann: domain_accounts.Account, *, enrol: bool = False) -> str:
    command = accounts.LogIn(email=ANN.email, password=ANN.password)
    with pytest.raises(challenges.SecondFactorNeeded) as needed:
        await accounts.log_in(command, caller(ann.tenant_id), world.ledger, world.passwords)
    assert needed.value.enrol is enrol
    assert needed.value.challenge not in str(needed.value)
    return needed.value.challenge


async def answer(world: World, ann: domain_accounts.Account, given: str, code: str) -> sessions.LoggedIn:
    return await second_factor.log_in(challenges.parse(given, world.ledger), code, caller(ann.tenant_id), world.ledger)


async def test_the_password_is_not_enough_any_more(
    world: World, ann: domain_accounts.Account, phone: Authenticator, mailbox: Mailbox
) -> None:
    given = await challenge(world, ann)
    logged_in = await answer(world, ann, given, phone.code())
    assert logged_in.account.id == ann.id
    (notice,) = await mailbox.fetch()
    assert "is on" in notice.get_content()


async def test_a_code_is_good_once(world: World, ann: domain_accounts.Account, phone: Authenticator) -> None:
    """Who looks over somebody's shoulder must not get in with what they saw, also not with the confirmation's code."""
    given = await challenge(world, ann)
    with pytest.raises(second_factor.CodeWrong):
        await answer(world, ann, given, phone.again())
    await answer(world, ann, given, phone.code())
    with pytest.raises(second_factor.CodeWrong):
        await answer(world, ann, await challenge(world, ann), phone.again())


async def test_of_two_uses_of_a_code_at_once_one_wins(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    given, code = await challenge(world, ann), phone.code()
    tried = (answer(world, ann, given, code) for _ in range(2))
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["CodeWrong", "LoggedIn"]


async def test_a_factor_counts_from_its_confirmation_on(world: World, ann: domain_accounts.Account) -> None:
    """A mistyped secret must not lock anybody out."""
    made = await enrol(world, ann)
    with pytest.raises(second_factor.CodeWrong):
        await confirm(world, ann, "000000" if made.code() != "000000" else "111111")
    command = accounts.LogIn(email=ANN.email, password=ANN.password)
    await accounts.log_in(command, caller(ann.tenant_id), world.ledger, world.passwords)
    await confirm(world, ann, made.again())
    with pytest.raises(second_factor.NotBegun):
        await confirm(world, ann, made.code())


async def test_each_recovery_code_is_good_once(world: World, ann: domain_accounts.Account) -> None:
    made = await enrol(world, ann)
    codes = await confirm(world, ann, made.code())
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    await answer(world, ann, await challenge(world, ann), f" {codes[0].upper()} ")
    with pytest.raises(second_factor.CodeWrong):
        await answer(world, ann, await challenge(world, ann), codes[0])
    await answer(world, ann, await challenge(world, ann), codes[1])
    topics = [each.topic for each in await world.ledger.entries(ann.tenant_id, 0, 100)]
    assert topics.count("account.recovery_code_used") == 2


async def test_guesses_are_counted_also_side_by_side_and_soon_have_to_wait(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """A million codes are few."""
    given = await challenge(world, ann)
    wrong = [f"{n:06}" for n in range(second_factor.FREE_GUESSES + 1)]
    for some in (wrong[:3], wrong[3:]):
        tried = (answer(world, ann, given, code) for code in some)
        outcomes = await asyncio.gather(*tried, return_exceptions=True)
        assert {type(each) for each in outcomes} == {second_factor.CodeWrong}
    with pytest.raises(second_factor.GuessedTooOften) as refused:
        await answer(world, ann, given, phone.code())
    assert 0 < refused.value.retry_after_s <= second_factor.WAIT_S_MIN + 1


async def test_a_challenge_is_worth_nothing_after_a_change_of_the_account(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """It stands for the password that was checked: another password makes it worthless."""
    given = await challenge(world, ann)
    account = await world.ledger.load(domain_accounts.Account, ann.tenant_id, ann.id)
    account.change_password(domain_accounts.PasswordSet.CHANGED)
    await world.ledger.append(caller(ann.tenant_id), account)
    with pytest.raises(challenges.ChallengeInvalid):
        await answer(world, ann, given, phone.code())


async def test_a_challenge_ends_by_itself(
    world: World, ann: domain_accounts.Account, phone: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenges, "LASTS", timedelta(0))
    given = await challenge(world, ann)
    with pytest.raises(challenges.ChallengeInvalid):
        await answer(world, ann, given, phone.code())


@pytest.mark.parametrize("text", ["", "x", "ä", "A" * 150, "A" * 10_000])
async def test_what_is_no_challenge_is_refused(world: World, ann: domain_accounts.Account, text: str) -> None:
    with pytest.raises(challenges.ChallengeInvalid):
        await answer(world, ann, text, "123456")


async def test_a_challenge_to_enrol_cannot_be_had_where_there_is_a_factor(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """Else whoever knows the password could put a factor of their own in the place of the person's."""
    given = await challenge(world, ann)
    with pytest.raises(challenges.ChallengeInvalid):
        await challenges.account_of(challenges.parse(given, world.ledger), world.ledger, enrol=True)


async def test_a_tenant_that_wants_a_factor_lets_nobody_in_without_one(
    world: World, ann: domain_accounts.Account
) -> None:
    command = tenants.ConfigureSignIn(registration=RegistrationMode.OPEN, second_factor=SecondFactor.REQUIRED)
    await tenants.configure_sign_in(command, caller(ann.tenant_id), world.ledger)
    given = await challenge(world, ann, enrol=True)
    with pytest.raises(challenges.ChallengeInvalid):
        await answer(world, ann, given, "123456")
    parsed = challenges.parse(given, world.ledger)
    account = await challenges.account_of(parsed, world.ledger, enrol=True)
    made = await second_factor.begin(account, "The Shop", parsed.before, caller(ann.tenant_id), world.ledger)
    phone = Authenticator(made.secret)
    await confirm(world, ann, phone.code())
    await answer(world, ann, await challenge(world, ann), phone.code())
    disable = second_factor.Disable(account_id=ann.id, current_password=ANN.password, required=True)
    with pytest.raises(second_factor.FactorRequired):
        await second_factor.disable(disable, caller(ann.tenant_id), world.ledger, world.passwords)


async def test_it_is_made_and_taken_away_with_the_password(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """A browser that was left open must not be enough."""
    wrong = second_factor.Enrol(account_id=ann.id, current_password="wrong horse battery")
    with pytest.raises(password.PasswordWrong):
        await second_factor.enrol(wrong, "x", caller(ann.tenant_id), world.ledger, world.passwords)
    disable = second_factor.Disable(account_id=ann.id, current_password="wrong horse battery", required=False)
    with pytest.raises(password.PasswordWrong):
        await second_factor.disable(disable, caller(ann.tenant_id), world.ledger, world.passwords)
    right = second_factor.Disable(account_id=ann.id, current_password=ANN.password, required=False, code=phone.code())
    await second_factor.disable(right, caller(ann.tenant_id), world.ledger, world.passwords)
    command = accounts.LogIn(email=ANN.email, password=ANN.password)
    await accounts.log_in(command, caller(ann.tenant_id), world.ledger, world.passwords)


async def test_nothing_of_it_lies_in_clear_and_it_goes_with_the_person(
    world: World, ann: domain_accounts.Account
) -> None:
    made = await enrol(world, ann)
    secret = made._totp.secret
    codes = await confirm(world, ann, made.code())
    with psycopg.connect(world.database.owner_url) as owner:
        kept = [bytes(value) for (value,) in owner.execute("SELECT value FROM ledger.secrets")]
    kept += [each.state + each.metadata for each in await world.ledger.entries(ann.tenant_id, 0, 100)]
    for value in kept:
        assert secret.encode() not in value
        assert not any(code.encode() in value for code in codes)
    erase = privacy.Erase(account_id=ann.id)
    await privacy.erase(erase, caller(ann.tenant_id), world.ledger, privacy.noted_nowhere)
    assert await world.ledger.secret_kinds(ann.tenant_id, ann.id) == []


async def replaced(world: World, ann: domain_accounts.Account, code: str | None) -> Authenticator:
    command = second_factor.Enrol(account_id=ann.id, current_password=ANN.password, code=code)
    made = await second_factor.enrol(command, "The Shop", caller(ann.tenant_id), world.ledger, world.passwords)
    return Authenticator(made.secret)


async def removed(world: World, ann: domain_accounts.Account, code: str | None) -> None:
    command = second_factor.Disable(account_id=ann.id, current_password=ANN.password, required=False, code=code)
    await second_factor.disable(command, caller(ann.tenant_id), world.ledger, world.passwords)


@pytest.mark.parametrize("doing", [replaced, removed])
async def test_what_replaces_or_removes_a_factor_takes_a_code_of_it(
    world: World, ann: domain_accounts.Account, phone: Authenticator, doing: Any
) -> None:
    """Else the password and a stolen session were enough to be rid of it, and it was made for the loss of the password."""
    with pytest.raises(second_factor.CodeNeeded):
        await doing(world, ann, None)
    with pytest.raises(second_factor.CodeWrong):
        await doing(world, ann, "x")
    await challenge(world, ann)
    await doing(world, ann, phone.code())


async def test_a_recovery_code_removes_it_and_that_is_recorded(world: World, ann: domain_accounts.Account) -> None:
    codes = await confirm(world, ann, (await enrol(world, ann)).code())
    await removed(world, ann, codes[0])
    topics = [each.topic for each in await world.ledger.entries(ann.tenant_id, 0, 100)]
    assert topics[-2:] == ["account.recovery_code_used", "account.second_factor_disabled"]


async def test_a_factor_that_replaces_another_one_is_recorded_and_counts(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """Of two confirmations at once, both with recovery codes to show, one is refused by the version."""
    new = await replaced(world, ann, phone.code())
    await confirm(world, ann, new.code())
    assert [each.topic for each in await world.ledger.entries(ann.tenant_id, 0, 100)][-2:] == [
        "account.second_factor_enabled"
    ] * 2
    with pytest.raises(second_factor.CodeWrong):
        await answer(world, ann, await challenge(world, ann), phone.code())
    await answer(world, ann, await challenge(world, ann), new.code())


async def test_what_was_begun_without_a_code_replaces_no_factor(world: World, ann: domain_accounts.Account) -> None:
    """It may have been begun in the moment before there was one."""
    made = await enrol(world, ann)
    begun = await world.ledger.secret(ann.tenant_id, ann.id, second_factor.PENDING)
    await confirm(world, ann, made.code())
    await world.ledger.replace_secret(ann.tenant_id, ann.id, second_factor.PENDING, None, begun)
    with pytest.raises(second_factor.NotBegun):
        await confirm(world, ann, made.code())


async def test_what_was_begun_ends_by_itself_and_after_some_guesses(
    world: World, ann: domain_accounts.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds an open browser could guess, for ever, at what its owner has begun."""
    made = await enrol(world, ann)
    for _ in range(second_factor.PENDING_GUESSES_MAX):
        with pytest.raises(second_factor.CodeWrong):
            await confirm(world, ann, "x")
    with pytest.raises(second_factor.NotBegun):
        await confirm(world, ann, made.code())
    monkeypatch.setattr(second_factor, "PENDING_LASTS", timedelta(0))
    made = await enrol(world, ann)
    with pytest.raises(second_factor.NotBegun):
        await confirm(world, ann, made.code())


async def test_a_repeated_confirmation_is_answered_and_shows_no_codes_that_are_not_stored(
    world: World, ann: domain_accounts.Account
) -> None:
    code = (await enrol(world, ann)).code()
    who = caller(ann.tenant_id)
    first = await second_factor.confirm(ann.id, code, who, world.ledger)
    again = await second_factor.confirm(ann.id, code, who, world.ledger)
    assert (again.receipt.replayed, again.receipt.position) == (True, first.receipt.position)
    assert (len(first.recovery_codes), again.recovery_codes) == (second_factor.RECOVERY_CODES, [])


async def test_an_admin_removes_the_own_factor_as_everybody_does(
    world: World, ann: domain_accounts.Account, phone: Authenticator
) -> None:
    """An admin's stolen session would be enough, without the password."""
    who = msgspec.structs.replace(caller(ann.tenant_id), actor_id=ann.id)
    with pytest.raises(second_factor.OwnFactor):
        await second_factor.remove(ann.id, who, world.ledger)
    await second_factor.remove(ann.id, msgspec.structs.replace(who, actor_id=ann.tenant_id), world.ledger)


async def test_the_operator_lets_an_admin_in_whose_factor_is_lost(world: World, shop: UUID) -> None:
    """After an import the account asks for codes of a secret that stayed at the old home: nobody could log in, for good."""
    found = await world.ledger.find(shop, accounts.EMAIL, ["admin@shop.test"])
    admin = await world.ledger.load(domain_accounts.Account, shop, found["admin@shop.test"])
    await confirm(world, admin, Authenticator(await _secret(world, admin)).code())
    appoint = admins.Appoint(email=admin.email, name="Ada", password="another long secret")
    await admins.appoint(appoint, caller(shop), world.ledger, world.passwords)
    command = accounts.LogIn(email=admin.email, password=appoint.password)
    logged_in = await accounts.log_in(command, caller(shop), world.ledger, world.passwords)
    assert not logged_in.account.second_factor
    kinds = await world.ledger.secret_kinds(shop, admin.id)
    assert not {second_factor.FACTOR, second_factor.PENDING} & set(kinds)


async def _secret(world: World, account: domain_accounts.Account) -> str:
    command = second_factor.Enrol(account_id=account.id, current_password=ANN.password)
    return (await second_factor.enrol(command, "x", caller(account.tenant_id), world.ledger, world.passwords)).secret
