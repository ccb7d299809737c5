"""Service accounts and their keys.

A key is `bnx_`, then tenant, key id and 256 random bits in base 62, then a checksum of six characters: whoever finds one in a file
recognises it without asking us, and a slip of the pen is told from a revoked key. Only its SHA-256 is kept.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import msgspec

from commands import repeats
from commands.repeats import repeatable
from domain import refusals
from domain.service_accounts import ServiceAccount, create
from ledger import ids, key_uses
from ledger.caller import Caller
from ledger.store import Ledger, Pool, Receipt, Secret

PREFIX = "bnx_"
SECRET_BYTES = 32
BODY_BYTES = 16 + 16 + SECRET_BYTES  # tenant, key id, secret
BODY_CHARACTERS, CHECKSUM_CHARACTERS = 86, 6  # 62^86 > 2^512, 62^6 > 2^32
KEY_PATTERN = re.compile(rf"bnx_[0-9A-Za-z]{{{BODY_CHARACTERS + CHECKSUM_CHARACTERS}}}")
ACCOUNT_PREFIX = "service "
"""Of the kind of a secret of the tenant's own that names a service account which was not closed, so that all are found without a
search."""
OPEN_MAX = 100
"""Service accounts of one tenant at a time: they are listed whole."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class KeyInvalid(refusals.Refusal):
    """Says nothing of the key."""

    def __init__(self) -> None:
        super().__init__("The API key is not valid: it was revoked, or never issued", "(not shown)", "Use another one")


class TooManyServiceAccounts(refusals.Conflict):
    def __init__(self) -> None:
        super().__init__("The tenant has as many service accounts as it can have", OPEN_MAX, "Close one first")


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """`may_give`: the rights that the maker can give."""

    name: str
    scopes: Collection[str]
    may_give: Collection[str]


class Made(NamedTuple):
    """`key` is shown once: None when the command is a repeat."""

    receipt: Receipt[ServiceAccount]
    key_id: UUID
    key: str | None


class _Issue(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    version: int | None


class _NewKey(NamedTuple):
    id: UUID
    key: str
    hashed: bytes

    @classmethod
    def of(cls, tenant_id: UUID) -> "_NewKey":
        key_id = ids.new_id()
        return cls(key_id, *new_key(tenant_id, key_id))


class Found(NamedTuple):
    """Whose key it is."""

    tenant_id: UUID
    key_id: UUID
    account: ServiceAccount


async def make(command: Create, caller: Caller, ledger: Ledger) -> Made:
    """A service account with its first key. Raises TooManyServiceAccounts and what `service_accounts.create` raises."""
    new = _NewKey.of(caller.tenant_id)
    return _made(await _make(command, caller, ledger, new), new)


@repeatable(ServiceAccount)
async def _make(command: Create, caller: Caller, ledger: Ledger, new: _NewKey) -> Receipt[ServiceAccount]:
    if len(await all_ids(caller.tenant_id, ledger)) >= OPEN_MAX:
        raise TooManyServiceAccounts
    account = create(
        id=ids.new_id(),
        tenant_id=caller.tenant_id,
        name=command.name,
        scopes=command.scopes,
        may_give=command.may_give,
        created_by=caller.actor_id,
    )
    marked = Secret(caller.tenant_id, _kind(account.id), b"\1")
    return await _append(account, new, caller, ledger, marked)


async def issue_key(account_id: UUID, caller: Caller, ledger: Ledger, *, version: int | None = None) -> Made:
    """One more key. `version`: the account's that this was decided upon, None if any will do.

    Raises NotFound, ServiceAccountClosed, TooManyKeys, VersionConflict.
    """
    new = _NewKey.of(caller.tenant_id)
    return _made(await _issue(_Issue(account_id=account_id, version=version), caller, ledger, new), new)


@repeatable(ServiceAccount)
async def _issue(command: _Issue, caller: Caller, ledger: Ledger, new: _NewKey) -> Receipt[ServiceAccount]:
    account = await ledger.load(ServiceAccount, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    return await _append(account, new, caller, ledger)


async def _append(
    account: ServiceAccount, new: _NewKey, caller: Caller, ledger: Ledger, *secrets: Secret
) -> Receipt[ServiceAccount]:
    account.issue_key(new.id)
    kept = Secret(new.id, key_uses.KIND, account.id.bytes + new.hashed)
    return await ledger.append(caller, account, secrets=[kept, *secrets])


def _made(receipt: Receipt[ServiceAccount], new: _NewKey) -> Made:
    if receipt.replayed:
        return Made(receipt, receipt.aggregate.keys[-1], None)
    return Made(receipt, new.id, new.key)


class RevokeKey(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: as in `issue_key`."""

    account_id: UUID
    key_id: UUID
    version: int | None = None


@repeatable(ServiceAccount)
async def revoke_key(command: RevokeKey, caller: Caller, ledger: Ledger) -> Receipt[ServiceAccount]:
    """The key counts no more in this process at once, in the others within two seconds. Raises NotFound, KeyUnknown, VersionConflict."""
    account = await ledger.load(ServiceAccount, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    account.revoke_key(command.key_id)
    return await ledger.append(
        caller, account, secrets=[Secret(command.key_id, key_uses.KIND, None)], revokes=[command.key_id]
    )


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: as in `issue_key`."""

    account_id: UUID
    version: int | None = None


@repeatable(ServiceAccount)
async def close(command: Close, caller: Caller, ledger: Ledger) -> Receipt[ServiceAccount]:
    """All its keys count no more. Doing it again changes nothing. Raises NotFound, VersionConflict."""
    account = await ledger.load(ServiceAccount, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    keys = account.keys
    account.close()
    gone = [Secret(key_id, key_uses.KIND, None) for key_id in keys]
    return await ledger.append(
        caller, account, secrets=[*gone, Secret(caller.tenant_id, _kind(account.id), None)], revokes=keys
    )


async def all_ids(tenant_id: UUID, ledger: Ledger) -> list[UUID]:
    """The tenant's service accounts that were not closed."""
    kinds = await ledger.secret_kinds(tenant_id, tenant_id)
    return [UUID(kind.removeprefix(ACCOUNT_PREFIX)) for kind in kinds if kind.startswith(ACCOUNT_PREFIX)]


async def of_key(key: str, ledger: Ledger, pool: Pool) -> Found:
    """Raises KeyInvalid and what psycopg raises."""
    tenant_id, key_id = parse(key)
    async with pool.connection() as connection:
        account_id = await key_uses.use(connection, tenant_id, key_id, _hash(key))
    if account_id is None:
        raise KeyInvalid
    account = await ledger.load(ServiceAccount, tenant_id, account_id)
    if key_id not in account.keys:
        raise KeyInvalid
    return Found(tenant_id, key_id, account)


def new_key(tenant_id: UUID, key_id: UUID) -> tuple[str, bytes]:
    """The key and its hash."""
    body = _base62(int.from_bytes(tenant_id.bytes + key_id.bytes + os.urandom(SECRET_BYTES)), BODY_CHARACTERS)
    key = f"{PREFIX}{body}{checksum(body)}"
    return key, _hash(key)


def parse(key: str) -> tuple[UUID, UUID]:
    """Tenant and key id. Raises KeyInvalid for what no key can be."""
    if KEY_PATTERN.fullmatch(key) is None:
        raise KeyInvalid
    body, check = key[len(PREFIX) : -CHECKSUM_CHARACTERS], key[-CHECKSUM_CHARACTERS:]
    number = 0
    for character in body:
        number = number * 62 + _DIGITS.index(character)
    if check != checksum(body) or number.bit_length() > 8 * BODY_BYTES:
        raise KeyInvalid
    raw = number.to_bytes(BODY_BYTES)
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32])


def checksum(body: str) -> str:
    """CRC-32 of the characters between prefix and checksum, in base 62: finds every slip of one character."""
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    found = []
    for _ in range(characters):
        number, digit = divmod(number, 62)
        found.append(_DIGITS[digit])
    return "".join(reversed(found))


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _kind(account_id: UUID) -> str:
    return f"{ACCOUNT_PREFIX}{account_id}"
