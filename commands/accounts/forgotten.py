"""A forgotten password. Whoever asks learns nothing: asking writes down the address and does no more, whether it has an account
or not. What there is to do is done afterwards, by reactions/answer_forgotten.py, and the row deleted; it takes a second, or as long
as nothing runs. So what waits is bounded by number, for each tenant, and by age.
"""

import os
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from commands import mails
from commands.accounts import mailed
from commands.accounts.mailed import Purpose
from commands.accounts.registering import EMAIL
from domain import accounts
from ledger import codec, errors
from ledger.caller import Caller
from ledger.keys import NONCE_BYTES
from ledger.store import Ledger

KIND = "outbox forgotten"
WAITING_MAX = 1_000
"""Addresses of a tenant at a time. Whoever asks when there are more is told the same and has to ask again: somebody floods."""
ANSWERED_WITHIN = timedelta(days=1)
"""An older one is deleted without an answer: whoever asked has asked again since, and nobody expects that mail any more."""
_LABEL = "forgotten passwords, with their time"
_TIME = struct.Struct(">q")  # seconds since 1970, before the address


async def ask(email: str, tenant_id: UUID, ledger: Ledger) -> None:
    """Asked again before it was answered it stays as it is; nothing if WAITING_MAX wait. Raises EmailInvalid, which says nothing of
    any account."""
    key = accounts.normalise_email(email)
    reference = ledger.keyring.master.reference(tenant_id, KIND, key)
    owner = UUID(bytes=reference[:16])  # one of each address: asking a thousand times is asking once
    nonce, asked_at = os.urandom(NONCE_BYTES), _TIME.pack(int(datetime.now(UTC).timestamp()))
    sealed = nonce + _cipher(ledger).encrypt(nonce, asked_at + key.encode(), tenant_id.bytes + owner.bytes)
    if await ledger.count(tenant_id, KIND, WAITING_MAX, secrets=True) >= WAITING_MAX:
        return
    await ledger.replace_secret(tenant_id, owner, KIND, None, sealed)


async def answer(owner: UUID, sealed: bytes, caller: Caller, ledger: Ledger) -> None:
    """Let a mail be sent, if the address has an account. Raises VersionConflict."""
    try:
        about = caller.tenant_id.bytes + owner.bytes
        asked = _cipher(ledger).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
    except (InvalidTag, ValueError):
        return  # somebody wrote to the table
    key = asked[_TIME.size :].decode()
    if datetime.fromtimestamp(_TIME.unpack_from(asked)[0], UTC) + ANSWERED_WITHIN < datetime.now(UTC):
        return
    account_id = (await ledger.find(caller.tenant_id, EMAIL, [key])).get(key)
    if account_id is None:
        return
    account = await ledger.load(accounts.Account, caller.tenant_id, account_id)
    if await mailed.wait(caller.tenant_id, account_id, Purpose.RESET, ledger):
        return
    if account.email == codec.ERASED or not account.active:
        return
    try:
        made = await mailed.to_address(account, Purpose.RESET, ledger)
        mail = mails.Mail(
            template=mails.Template.RESET,
            to=account.email,
            name=account.name,
            token=made.token,
            good_until=made.good_until,
        )
        letter = await mails.to_send(mail, caller.tenant_id, account_id, ledger)
        await ledger.append(caller, account, secrets=[made.secret, letter])
    except errors.SubjectErased:
        return


def _cipher(ledger: Ledger) -> AESGCM:
    """Of the installation: there may be no person whose key it could be."""
    return AESGCM(ledger.keyring.master.derive(_LABEL))


def caller_of(tenant_id: UUID, command_id: UUID) -> Caller:
    return msgspec.structs.replace(
        Caller(tenant_id=tenant_id, actor_id=None, role="system", command_id=command_id), correlation_id=command_id
    )
