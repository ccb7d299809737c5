"""A second factor: codes that change with the time (TOTP, RFC 6238), and recovery codes for its loss.

The secret and the hashes of the recovery codes are one secret of the account's, sealed under the person's key and replaced by
compare-and-set: of two uses of one code at the same moment one succeeds, and no guess goes uncounted.
"""

import base64
import hashlib
import hmac
import os
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pyotp

from commands import mails, repeats, sessions
from commands.accounts import challenges, logging_in, password
from commands.accounts.challenges import Challenge
from commands.passwords import Passwords
from commands.repeats import repeatable
from domain import accounts, refusals
from ledger import errors, ids
from ledger.caller import Caller
from ledger.store import Ledger, Receipt, Secret

FACTOR = "second factor"
PENDING = "second factor to confirm"
"""Kinds of an account's secrets: what counts, and what was shown and not confirmed yet."""
STEP_S = 30
STEPS_OFF_MAX = 1
"""A clock that is half a minute off, or a code that was typed as it changed."""
RECOVERY_CODES = 10
RECOVERY_BYTES = 10  # 80 bits, 16 letters
FREE_GUESSES = 5
"""Wrong codes in a row that cost no wait."""
WAIT_S_MIN, WAIT_S_MAX = 30, 3600
"""After the free guesses each wrong one doubles the wait: some 40 guesses in the first day, of a million codes."""
PENDING_LASTS = timedelta(minutes=30)
PENDING_GUESSES_MAX = 10
"""Wrong codes after which one begins anew: a clock that is off, or somebody guesses at what another one has begun."""
GUESSES_AT_ONCE_MAX = 5
"""Each that has to look again met another one."""


class CodeWrong(refusals.Refusal):
    """Says nothing of the code. One that was used before is wrong as well."""

    def __init__(self) -> None:
        super().__init__(
            "The code is not right, or was used before", "(not shown)", "Wait for the next one", field="code"
        )


class GuessedTooOften(refusals.Refusal):
    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "Too many wrong codes were sent for this account", "(not shown)", f"Wait {wait_s} s and send another one"
        )
        self.retry_after_s = wait_s


class NotBegun(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__("There is no second factor to confirm", account_id, "Begin with making one")


class CodeNeeded(refusals.Invalid):
    def __init__(self) -> None:
        super().__init__(
            "The account has a second factor, and what replaces or removes it takes a code of it",
            "there is none",
            "Send one, or a recovery code; who has neither asks an admin",
            field="code",
        )


class OwnFactor(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        advice = "Remove it at /api/v1/users/me/second-factor/removal, with password and code"
        super().__init__("Nobody removes the own second factor as an admin", account_id, advice)


class FactorRequired(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__("This tenant lets nobody in without a second factor", account_id, "Make another one instead")


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept. `last_step`: of the last code that was accepted; it and earlier ones are not accepted again."""

    secret: str
    recovery: list[bytes]
    last_step: int = 0
    wrong: int = 0
    wait_until: datetime | None = None


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one that was shown and not confirmed. `replaces`: another one that there was, of which a code was asked for."""

    secret: str
    replaces: bool
    good_until: datetime
    wrong: int = 0


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """Shown once. `uri` is what a QR code for the authenticator holds."""

    secret: str
    uri: str


class Enrol(msgspec.Struct, frozen=True, kw_only=True):
    """`code`: of the second factor that there is, needed if there is one. `version`: the account's that this was decided upon, None
    if any will do. The same in `Disable`."""

    account_id: UUID
    current_password: str
    code: str | None = None
    version: int | None = None


class Disable(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    current_password: str
    required: bool
    code: str | None = None
    version: int | None = None


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """`recovery_codes` are shown once, none if the command is a repeat; their hashes are what is kept."""

    receipt: Receipt[accounts.Account]
    recovery_codes: list[str]


_DECODER = msgspec.json.Decoder(Factor)
_PENDING = msgspec.json.Decoder(Pending)


async def enrol(command: Enrol, issuer: str, caller: Caller, ledger: Ledger, passwords: Passwords) -> Enrolment:
    """Nothing counts until it is confirmed; asked again the one before is forgotten. As there is no event, the version is compared
    as the account is loaded: what is begun is refused if the fence moved since (commands/accounts/email.py), cannot be confirmed
    if there is another second factor than then, and undoes nothing else that was changed.

    Raises PasswordWrong, CodeNeeded, HashingOverloaded, NotFound, VersionConflict and what `check` raises.
    """
    # Before account and password are looked at.
    before = await sessions.fence(command.account_id, caller.tenant_id, ledger)
    account = await ledger.load(accounts.Account, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    await password.check_current(account, command.current_password, ledger, passwords)
    await _check_old(account, command.code, ledger)
    another_one = another(caller)  # a repeat shows another secret, which has to count
    return await begin(account, issuer, before, another_one, ledger)


async def begin(
    account: accounts.Account, issuer: str, before: UUID | None, caller: Caller, ledger: Ledger
) -> Enrolment:
    """For an account whose password was just checked; `before` as for `sessions.start`. Raises VersionConflict."""
    secret = pyotp.random_base32()
    pending = Pending(secret=secret, replaces=account.second_factor, good_until=datetime.now(UTC) + PENDING_LASTS)
    sealed = await ledger.seal(account.tenant_id, account.id, PENDING, msgspec.json.encode(pending))
    fenced = sessions.unmoved(account.id, before)
    await sessions.append(fenced, caller, ledger, account, secrets=[Secret(account.id, PENDING, sealed)])
    uri = pyotp.TOTP(secret, interval=STEP_S).provisioning_uri(name=account.email, issuer_name=issuer)
    return Enrolment(secret=secret, uri=uri)


async def confirm(
    account_id: UUID, code: str, caller: Caller, ledger: Ledger, *, version: int | None = None
) -> Confirmed:
    """From now on logging in takes a code. Raises NotFound, NotBegun, CodeWrong, VersionConflict."""
    first = await ledger.recall(accounts.Account, caller)  # first: its code would count as a wrong guess at a later one
    if first is not None:
        return Confirmed(receipt=first, recovery_codes=[])
    try:
        return await _confirm(account_id, code, version, caller, ledger)
    except (refusals.Conflict, errors.NotFound) as refused:
        first = await repeats.before(refused, accounts.Account, caller, ledger)
        if first is None:
            raise
        return Confirmed(receipt=first, recovery_codes=[])


async def _confirm(account_id: UUID, code: str, version: int | None, caller: Caller, ledger: Ledger) -> Confirmed:
    fenced = await sessions.fenced(account_id, caller.tenant_id, ledger)  # before the code is looked at
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    repeats.check_version(account, version)
    secret, step = await _check_pending(account, code, ledger)
    codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
    factor = Factor(secret=secret, recovery=[_hash(each) for each in codes], last_step=step)
    account.enable_second_factor()
    secrets = [
        Secret(account_id, PENDING, None),
        Secret(account_id, FACTOR, await _sealed(factor, caller.tenant_id, account_id, ledger)),
        await _notice(account, "is on", ledger),
    ]
    receipt = await sessions.append(fenced, caller, ledger, account, secrets=secrets)
    return Confirmed(receipt=receipt, recovery_codes=[] if receipt.replayed else codes)


@repeatable(accounts.Account)
async def disable(command: Disable, caller: Caller, ledger: Ledger, passwords: Passwords) -> Receipt[accounts.Account]:
    """The password alone is enough again.

    Raises PasswordWrong, FactorRequired, CodeNeeded, HashingOverloaded, NotFound, VersionConflict and what `check` raises.
    """
    account = await ledger.load(accounts.Account, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    await password.check_current(account, command.current_password, ledger, passwords)
    if command.required:
        raise FactorRequired(account.id)
    await _check_old(account, command.code, ledger)
    return await _remove(account, caller, ledger)


@repeatable(accounts.Account)
async def remove(
    account_id: UUID, caller: Caller, ledger: Ledger, *, version: int | None = None
) -> Receipt[accounts.Account]:
    """By an admin, for somebody else who lost it and the recovery codes.

    Raises OwnFactor, NotFound, AccountDeactivated, VersionConflict.
    """
    if caller.actor_id == account_id:  # of an admin too the session alone is not enough
        raise OwnFactor(account_id)
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    repeats.check_version(account, version)
    return await _remove(account, caller, ledger)


async def log_in(
    challenge: Challenge,
    code: str,
    caller: Caller,
    ledger: Ledger,
    device: sessions.Device = sessions.Device(),
    limits: accounts.SessionLimits = accounts.SESSION_LIMITS,
) -> sessions.LoggedIn:
    """`caller.tenant_id` is the challenge's.

    Raises ChallengeInvalid, CodeWrong, GuessedTooOften, VersionConflict (the account's sessions were all ended meanwhile).
    """
    account = await challenges.account_of(challenge, ledger, enrol=False)
    recovery_left = await check(account, code, ledger)
    if recovery_left is not None:
        account.use_recovery_code(recovery_left)
        await ledger.append(another(caller), account)
    return await logging_in.start_session(account, challenge.before, device, caller, ledger, limits)


async def check(account: accounts.Account, code: str, ledger: Ledger) -> int | None:
    """None: a code of the second factor, which is used up now. Else how many recovery codes are left after this one.

    Raises CodeWrong, GuessedTooOften, VersionConflict (many guesses at the same moment).
    """
    for _ in range(GUESSES_AT_ONCE_MAX):
        stored = await ledger.secret(account.tenant_id, account.id, FACTOR)
        clear = None if stored is None else await ledger.unseal(account.tenant_id, account.id, FACTOR, stored)
        if clear is None:
            raise CodeWrong
        factor = _DECODER.decode(clear)
        now = datetime.now(UTC)
        if factor.wait_until is not None and factor.wait_until > now:
            raise GuessedTooOften(int((factor.wait_until - now).total_seconds()) + 1)
        after = _guessed(factor, code, now)
        sealed = await _sealed(after, account.tenant_id, account.id, ledger)
        if await ledger.replace_secret(account.tenant_id, account.id, FACTOR, stored, sealed):
            if after.wrong:
                raise CodeWrong
            return len(after.recovery) if len(after.recovery) < len(factor.recovery) else None
    raise errors.VersionConflict(account.id)


async def _check_old(account: accounts.Account, code: str | None, ledger: Ledger) -> None:
    """For who replaces or removes a second factor. Raises CodeNeeded and what `check` raises."""
    if not account.second_factor:
        return
    if code is None:
        raise CodeNeeded
    recovery_left = await check(account, code, ledger)
    if recovery_left is not None:
        account.use_recovery_code(recovery_left)


async def _check_pending(account: accounts.Account, code: str, ledger: Ledger) -> tuple[str, int]:
    """The secret of the factor that was begun, and the code's step. Wrong ones are counted.

    Raises NotBegun, CodeWrong, VersionConflict (many guesses at the same moment).
    """
    for _ in range(GUESSES_AT_ONCE_MAX):
        stored = await ledger.secret(account.tenant_id, account.id, PENDING)
        clear = None if stored is None else await ledger.unseal(account.tenant_id, account.id, PENDING, stored)
        if clear is None:
            raise NotBegun(account.id)
        pending = _PENDING.decode(clear)
        is_over = pending.good_until <= datetime.now(UTC) or pending.wrong >= PENDING_GUESSES_MAX
        if is_over or pending.replaces != account.second_factor:
            raise NotBegun(account.id)
        step = _step_of(pending.secret, code, after=0)
        if step is not None:
            return pending.secret, step
        wrong = msgspec.json.encode(msgspec.structs.replace(pending, wrong=pending.wrong + 1))
        sealed = await ledger.seal(account.tenant_id, account.id, PENDING, wrong)
        if await ledger.replace_secret(account.tenant_id, account.id, PENDING, stored, sealed):
            raise CodeWrong
    raise errors.VersionConflict(account.id)


def taken_away(account: accounts.Account) -> list[Secret]:
    """Decides that the account has none, and gives what the append carries. Raises AccountDeactivated."""
    account.disable_second_factor()
    return [Secret(account.id, FACTOR, None), Secret(account.id, PENDING, None)]


def another(caller: Caller) -> Caller:
    """The same one with a command id of its own, for the first of two appends."""
    return msgspec.structs.replace(caller, command_id=ids.new_id(), fingerprint=b"")


def _guessed(factor: Factor, code: str, now: datetime) -> Factor:
    """What is kept after this guess; `wrong` is 0 if it was right."""
    right = msgspec.structs.replace(factor, wrong=0, wait_until=None)
    step = _step_of(factor.secret, code, after=factor.last_step)
    if step is not None:
        return msgspec.structs.replace(right, last_step=step)
    hashed = _hash(code)
    if any(hmac.compare_digest(hashed, each) for each in factor.recovery):
        return msgspec.structs.replace(right, recovery=[each for each in factor.recovery if each != hashed])
    wrong = factor.wrong + 1
    wait_s = 0 if wrong <= FREE_GUESSES else min(WAIT_S_MIN * 2 ** min(wrong - FREE_GUESSES - 1, 16), WAIT_S_MAX)
    wait_until = now + timedelta(seconds=wait_s) if wait_s else None
    return msgspec.structs.replace(factor, wrong=wrong, wait_until=wait_until)


def _step_of(secret: str, code: str, *, after: int) -> int | None:
    """The step whose code it is, later than `after` and near the present one; None if it is none's."""
    totp = pyotp.TOTP(secret, interval=STEP_S)
    now = int(time.time()) // STEP_S
    given = "".join(code.split())
    for step in range(max(after + 1, now - STEPS_OFF_MAX), now + STEPS_OFF_MAX + 1):
        if given.isascii() and hmac.compare_digest(totp.generate_otp(step), given):
            return step
    return None


def _new_recovery_code() -> str:
    letters = base64.b32encode(os.urandom(RECOVERY_BYTES)).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def _hash(recovery_code: str) -> bytes:
    letters = "".join(each for each in recovery_code.upper() if each.isalnum())
    return hashlib.sha256(letters.encode("utf-8", "replace")).digest()


async def _sealed(factor: Factor, tenant_id: UUID, account_id: UUID, ledger: Ledger) -> bytes:
    return await ledger.seal(tenant_id, account_id, FACTOR, msgspec.json.encode(factor))


async def _remove(account: accounts.Account, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    notices = [await _notice(account, "is off", ledger)] if account.second_factor else []
    secrets = [*taken_away(account), *notices]
    return await ledger.append(caller, account, secrets=secrets)


async def _notice(account: accounts.Account, word: str, ledger: Ledger) -> Secret:
    mail = mails.Mail(template=mails.Template.SECOND_FACTOR, to=account.email, name=account.name, word=word)
    return await mails.to_send(mail, account.tenant_id, account.id, ledger)
