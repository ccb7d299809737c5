"""What passes between a parent and its worker processes, over a socket pair: the orders there, a word when ready back."""

import os
from uuid import UUID

import msgspec

from bitnexus.counting import Slot
from bitnexus.settings import Settings

READY = b"ready\n"
BYTES_MAX = 64 * 1024


class Orders(msgspec.Struct, frozen=True):
    """One line of JSON. Here and not in the worker's environment or on its command line: the URL holds a password."""

    settings: Settings
    app_url: str
    slot: Slot
    process_id: UUID  # as what it holds leases of views: when it dies, the parent lets them go


def encoded(orders: Orders) -> bytes:
    return msgspec.json.encode(orders, enc_hook=os.fspath) + b"\n"


def decoded(line: bytes) -> Orders:
    return msgspec.json.decode(line, type=Orders, dec_hook=lambda kind, text: kind(text))  # a Path
