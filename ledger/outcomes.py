"""What is stored with the id of a command: what became of it, from which its repeats are answered.

A refusal quotes what was sent, perhaps a person's address. So it is sealed under a key of the very request: only a repeat that brings
the same one again can open it, and an erasure has nothing to look for. One byte, nonce (12) ‖ AES-256-GCM ciphertext, associated
data "refused" ‖ tenant (16) ‖ command id (16). What stands is JSON, which begins otherwise.
"""

import os
from typing import Literal
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger import errors, packing
from ledger.caller import Caller
from ledger.keys import NONCE_BYTES, MasterKey

_SEALED = b"\1"


class Stands(msgspec.Struct, frozen=True, array_like=True):
    """Enough to render the answer again: the command's first aggregate, as the command left it."""

    originator_id: UUID
    version: int


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """What whoever sent the command was told; `fields` as in domain/refusals.py."""

    kept_as: Literal["invalid", "conflict", "not-found"]
    detail: str
    fields: dict[str, list[str]]


_ENCODER = msgspec.json.Encoder()
_STANDS = msgspec.json.Decoder(Stands)
_REFUSED = msgspec.json.Decoder(Refused)


def stands(originator_id: UUID, version: int) -> bytes:
    """The outcome of a command that is appended."""
    return _ENCODER.encode(Stands(originator_id, version))


def refusing(master: MasterKey, caller: Caller, refused: Refused) -> packing.Command:
    """A command that appends nothing but its refusal."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = _cipher(master, caller).encrypt(nonce, _ENCODER.encode(refused), _about(caller))
    return packing.Command(caller.tenant_id, caller.command_id, caller.fingerprint, _SEALED + nonce + sealed, ())


def read(master: MasterKey, caller: Caller, outcome: bytes) -> Stands:
    """Of a command that has the caller's id and fingerprint. Raises RefusedBefore, cryptography's InvalidTag if it was tampered with."""
    if not outcome.startswith(_SEALED):
        return _STANDS.decode(outcome)
    nonce, sealed = outcome[1 : NONCE_BYTES + 1], outcome[NONCE_BYTES + 1 :]
    refused = _REFUSED.decode(_cipher(master, caller).decrypt(nonce, sealed, _about(caller)))
    raise errors.RefusedBefore(refused.kept_as, refused.detail, refused.fields)


def _cipher(master: MasterKey, caller: Caller) -> AESGCM:
    return AESGCM(master.refusal_key(caller.asked))


def _about(caller: Caller) -> bytes:
    return b"refused" + caller.tenant_id.bytes + caller.command_id.bytes
