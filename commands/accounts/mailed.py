"""Tokens that go by mail: opaque, 256 random bits, stored hashed, good once and for a short while.

One of a purpose counts for an account at a time: a new one is instead of the one before.
"""

import base64
import binascii
import hashlib
import hmac
import math
import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from commands import mails
from domain import accounts, refusals
from ledger.store import Ledger, Secret

SECRET_BYTES = 32
TOKEN_BYTES = 16 + 16 + SECRET_BYTES  # tenant, owner, secret


class Purpose(StrEnum):
    """What the token is for, and so the kind of the secret that is kept of it."""

    RESET = "mailed reset"
    VERIFY = "mailed verify"
    CHANGE = "mailed change"
    INVITATION = "mailed invitation"


LASTS = {
    Purpose.RESET: timedelta(hours=1),
    Purpose.VERIFY: timedelta(days=7),
    Purpose.CHANGE: timedelta(days=1),
    Purpose.INVITATION: timedelta(days=14),
}

BEGUN_BY_PASSWORD = (Purpose.RESET, Purpose.CHANGE)
"""What is good no more once the password is another one or the account deactivated: whoever knew the old password may have asked
for another address, and would get the account by it."""
ADDRESS = "mailed to"
"""What the address that a token was mailed to is sealed for."""


BETWEEN_MAILS = timedelta(minutes=1)
"""Of one purpose to one account. Whoever asks again sooner gets no second mail: nobody's mailbox is to be filled by others."""


class MailedTooOften(refusals.Refusal):
    """`retry_after_s`: when another mail may go."""

    def __init__(self, wait: timedelta) -> None:
        self.retry_after_s = max(1, math.ceil(wait.total_seconds()))
        advice = f"Wait {self.retry_after_s} s, and look for the mail that was sent meanwhile"
        super().__init__("No other mail is sent so soon", "(not shown)", advice)


class MailedTokenInvalid(refusals.Invalid):
    """Says nothing of the token."""

    def __init__(self) -> None:
        super().__init__(
            "The token is not good any more, or never was", "(not shown)", "Ask for another mail", field="token"
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a token. `sealed`: what belongs to it, under the owner's key."""

    hashed: bytes
    made_at: datetime
    good_until: datetime
    sealed: bytes = b""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """`token` goes into the mail and nowhere else."""

    token: str
    good_until: datetime
    secret: Secret


_DECODER = msgspec.json.Decoder(Kept)


def make(tenant_id: UUID, owner_id: UUID, purpose: Purpose, sealed: bytes = b"") -> Made:
    """base64url of tenant (16) ‖ owner (16) ‖ 256 random bits."""
    raw = tenant_id.bytes + owner_id.bytes + os.urandom(SECRET_BYTES)
    token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    now = datetime.now(UTC)
    good_until = now + LASTS[purpose]
    kept = Kept(hashed=_hash(token), made_at=now, good_until=good_until, sealed=sealed)
    return Made(token=token, good_until=good_until, secret=Secret(owner_id, purpose, msgspec.json.encode(kept)))


async def find(token: str, purpose: Purpose, ledger: Ledger) -> tuple[UUID, UUID, Kept]:
    """Tenant and owner of a token that is good now. Raises MailedTokenInvalid."""
    tenant_id, owner_id = parse(token)
    found = await kept(tenant_id, owner_id, purpose, ledger)
    if found is None or not hmac.compare_digest(found.hashed, _hash(token)) or found.good_until <= datetime.now(UTC):
        raise MailedTokenInvalid
    return tenant_id, owner_id, found


async def kept(tenant_id: UUID, owner_id: UUID, purpose: Purpose, ledger: Ledger) -> Kept | None:
    """What is kept of the last token of that purpose."""
    value = await ledger.secret(tenant_id, owner_id, purpose)
    return None if value is None else _DECODER.decode(value)


async def wait(tenant_id: UUID, owner_id: UUID, purpose: Purpose, ledger: Ledger) -> timedelta:
    """Until another mail of that purpose may go to the owner; zero: now."""
    before = await kept(tenant_id, owner_id, purpose, ledger)
    if before is None:
        return timedelta(0)
    return max(before.made_at + BETWEEN_MAILS - datetime.now(UTC), timedelta(0))


def used(owner_id: UUID, *purposes: Purpose) -> list[Secret]:
    """What an append carries after which the owner's tokens of these purposes are good no more."""
    return [Secret(owner_id, purpose, None) for purpose in purposes]


async def to_address(account: accounts.Account, purpose: Purpose, ledger: Ledger) -> Made:
    """One that is good as long as the account has the address that it has: its append carries no event, and so nobody notices if
    the address changes meanwhile. Raises SubjectErased."""
    sealed = await ledger.seal(account.tenant_id, account.id, ADDRESS, account.email.encode())
    return make(account.tenant_id, account.id, purpose, sealed)


async def check_address(account: accounts.Account, kept: Kept, ledger: Ledger) -> None:
    """Raises MailedTokenInvalid: it went to a former address."""
    clear = await ledger.unseal(account.tenant_id, account.id, ADDRESS, kept.sealed)
    if clear is None or clear.decode() != account.email:
        raise MailedTokenInvalid


async def verifying(account: accounts.Account, ledger: Ledger) -> list[Secret]:
    """What an append carries that lets the person show that the address is theirs. Raises SubjectErased."""
    made = await to_address(account, Purpose.VERIFY, ledger)
    mail = mails.Mail(
        template=mails.Template.VERIFY,
        to=account.email,
        name=account.name,
        token=made.token,
        good_until=made.good_until,
    )
    return [made.secret, await mails.to_send(mail, account.tenant_id, account.id, ledger)]


def parse(token: str) -> tuple[UUID, UUID]:
    """Tenant and owner. Raises MailedTokenInvalid."""
    try:
        raw = base64.urlsafe_b64decode(token + "==")
    except (binascii.Error, ValueError):
        raise MailedTokenInvalid from None
    if len(raw) != TOKEN_BYTES:
        raise MailedTokenInvalid
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
