"""Refresh tokens: opaque, 256 random bits, good once."""

import base64
import binascii
import hashlib
import hmac
import os
from typing import NamedTuple
from uuid import UUID

from domain import refusals
from ledger.keys import MasterKey

SECRET_BYTES = 32
MAC_BYTES = 16
BYTES = 16 + 16 + SECRET_BYTES + MAC_BYTES
"""Tenant, session, the random bits, and what says that we gave it out. A session's id stands in its access tokens: without the
MAC whoever has seen one could make up an "old" refresh token, and so end the session."""


class RefreshTokenInvalid(refusals.Refusal):
    """Says nothing of the token."""

    def __init__(self) -> None:
        super().__init__("The refresh token is not valid", "(not shown)", "Log in again")


class RefreshTokenReplayed(refusals.Refusal):
    """It was good once. The session has been ended."""

    def __init__(self) -> None:
        super().__init__(
            "The refresh token was used before, so the session was ended: somebody else may have it",
            "(not shown)",
            "Log in again",
        )


class RefreshToken(NamedTuple):
    """`owner` is what is kept of it: 128 bits of its SHA-256, as the owner of the session's reservation."""

    text: str
    tenant_id: UUID
    session_id: UUID
    owner: UUID


def new(tenant_id: UUID, session_id: UUID, master: MasterKey) -> RefreshToken:
    raw = tenant_id.bytes + session_id.bytes + os.urandom(SECRET_BYTES)
    return _of(raw + _mac(raw, master))


def parse(text: str, master: MasterKey) -> RefreshToken:
    """One that was given out here, however long ago. Raises RefreshTokenInvalid."""
    try:
        raw = base64.urlsafe_b64decode(text + "==")
    except (binascii.Error, ValueError):
        raise RefreshTokenInvalid from None
    if len(raw) != BYTES or not hmac.compare_digest(raw[-MAC_BYTES:], _mac(raw[:-MAC_BYTES], master)):
        raise RefreshTokenInvalid
    return _of(raw)


def _of(raw: bytes) -> RefreshToken:
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return RefreshToken(
        text, UUID(bytes=raw[:16]), UUID(bytes=raw[16:32]), UUID(bytes=hashlib.sha256(raw).digest()[:16])
    )


def _mac(raw: bytes, master: MasterKey) -> bytes:
    return hmac.digest(master.derive("refresh tokens"), raw, hashlib.sha256)[:MAC_BYTES]
