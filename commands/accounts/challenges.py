"""Between the password and the code: what is given to who knows the password, and proves that for five minutes.

Encrypted by the installation and kept nowhere. It names the version of the account, so that a change of the password, of the
second factor or of anything else makes it worthless.
"""

import base64
import binascii
import os
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain import accounts, refusals, tenants
from ledger.keys import NONCE_BYTES
from ledger.store import Ledger

LASTS = timedelta(minutes=5)
CHARACTERS_MAX = 512
"""Ours have some 150."""
_LABEL = "second factor challenges"


class ChallengeInvalid(refusals.Refusal):
    """Says nothing of the challenge."""

    def __init__(self) -> None:
        super().__init__("The challenge is not good any more, or never was", "(not shown)", "Log in again")


class SecondFactorNeeded(refusals.Refusal):
    """The password was right. `enrol`: there is no second factor yet and the tenant wants one, so it is made first."""

    def __init__(self, challenge: str, *, enrol: bool) -> None:
        if enrol:
            advice = "Make one at /api/v1/auth/second-factor/enrolment with the challenge"
            super().__init__("This tenant lets nobody in without a second factor", "there is none", advice)
        else:
            advice = "Send one to /api/v1/auth/second-factor with the challenge"
            super().__init__("A code of the second factor is needed besides the password", "there is none", advice)
        self.challenge = challenge
        self.enrol = enrol


class Challenge(msgspec.Struct, frozen=True, array_like=True):
    """`before`: the fence of the account's sessions, read before the password was looked at."""

    tenant_id: UUID
    account_id: UUID
    version: int
    good_until: datetime
    enrol: bool
    before: UUID | None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Challenge)


def _given(account: accounts.Account, before: UUID | None, ledger: Ledger, *, enrol: bool) -> SecondFactorNeeded:
    made = Challenge(account.tenant_id, account.id, account.version, datetime.now(UTC) + LASTS, enrol, before)
    nonce = os.urandom(NONCE_BYTES)
    raw = nonce + _cipher(ledger).encrypt(nonce, _ENCODER.encode(made), None)
    return SecondFactorNeeded(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), enrol=enrol)


async def ask(account: accounts.Account, before: UUID | None, ledger: Ledger) -> None:
    """For an account whose password was just checked or set: nothing if the password is enough. `before`: the sessions' fence.

    Raises SecondFactorNeeded.
    """
    if account.second_factor:
        raise _given(account, before, ledger, enrol=False)
    tenant_id = account.tenant_id
    tenant = (await ledger.load_many(tenants.Tenant, tenant_id, [tenant_id])).get(tenant_id)
    if tenant is not None and tenant.second_factor == tenants.SecondFactor.REQUIRED:
        raise _given(account, before, ledger, enrol=True)


def parse(text: str, ledger: Ledger) -> Challenge:
    """Raises ChallengeInvalid."""
    try:
        if len(text) > CHARACTERS_MAX:
            raise ChallengeInvalid
        raw = base64.urlsafe_b64decode(text + "==")
        found = _DECODER.decode(_cipher(ledger).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], None))
    except (binascii.Error, ValueError, InvalidTag, msgspec.MsgspecError):
        raise ChallengeInvalid from None
    if found.good_until <= datetime.now(UTC):
        raise ChallengeInvalid
    return found


async def account_of(challenge: Challenge, ledger: Ledger, *, enrol: bool) -> accounts.Account:
    """As it was when the password was checked. Raises ChallengeInvalid."""
    found = await ledger.load_many(accounts.Account, challenge.tenant_id, [challenge.account_id])
    account = found.get(challenge.account_id)
    if account is None or (account.version, enrol) != (challenge.version, challenge.enrol):
        raise ChallengeInvalid
    return account


def _cipher(ledger: Ledger) -> AESGCM:
    return AESGCM(ledger.keyring.master.derive(_LABEL))
