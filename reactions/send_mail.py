"""When a mail waits, send it: to the mail server of the settings, or into a folder where there is none."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formataddr
from pathlib import Path

import aiosmtplib
import msgspec

from commands import mails
from domain import tenants
from ledger import sealing
from ledger.store import Ledger, Pool
from reactions import letters
from reactions.outbox import NeverPossible, TriedInVain, Waiting

SERVER_S_MAX = 20.0
"""For each step of the conversation; a piece of work may take outbox.TRY_S_MAX in all."""
MODE = 0o600

Deliver = Callable[[EmailMessage], Awaitable[None]]
"""Raises NeverPossible, TriedInVain."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server. `tls`: from the first byte; else STARTTLS, which is insisted upon where a password would go over the wire."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = None


def doer(
    ledger: Ledger, projector: Pool, deliver: Deliver, sender: str, front_end: str | None
) -> Callable[[Waiting], Awaitable[None]]:
    """`projector`: the pool of the role that sees every tenant's keys."""

    async def do(waiting: Waiting) -> None:
        async with projector.connection() as connection:
            keys = await ledger.keyring.find_now(connection, waiting.tenant_id, [waiting.owner])
        clear = sealing.unseal(keys, waiting.tenant_id, waiting.owner, mails.PURPOSE, waiting.value)
        if clear is None:
            return  # the person was erased
        mail = mails.DECODER.decode(clear)
        if mail.good_until is not None and mail.good_until <= datetime.now(UTC):
            raise NeverPossible("what is in it is good no longer")
        tenant = await ledger.load(tenants.Tenant, waiting.tenant_id, waiting.tenant_id)
        mail_id = waiting.kind.removeprefix(mails.KIND).strip()
        try:
            own = tenant.branding.sender_address
            by = sender if own is None else formataddr((tenant.name, own))
            letter = letters.written(mail, mail_id, tenant.name, by, front_end)
        except letters.Unwritable:
            raise NeverPossible("no mail can be written to that address") from None
        await deliver(letter)

    return do


def to_server(server: Server) -> Deliver:
    async def deliver(letter: EmailMessage) -> None:
        try:
            await aiosmtplib.send(
                letter,
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                use_tls=server.tls,
                start_tls=True if server.password is not None and not server.tls else None,
                timeout=SERVER_S_MAX,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {each.code for each in error.recipients}
            raise (NeverPossible if min(codes) >= 500 else TriedInVain)(f"refused with {sorted(codes)}") from None
        except aiosmtplib.SMTPResponseException as error:
            permanent = error.code >= 500 and not isinstance(error, aiosmtplib.SMTPAuthenticationError)
            raise (NeverPossible if permanent else TriedInVain)(f"the mail server said {error.code}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise TriedInVain(f"the mail server cannot be reached: {type(error).__name__}") from None

    return deliver


def to_folder(folder: Path) -> Deliver:
    """For trying things out: one file a mail. They hold what opens accounts, so that nobody else may read them."""

    async def deliver(letter: EmailMessage) -> None:
        try:
            await asyncio.to_thread(_write, letter, folder)
        except OSError as error:
            raise TriedInVain(f"{folder} cannot be written: {error.strerror}") from None

    return deliver


def _write(letter: EmailMessage, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = letter["Message-ID"].strip("<>").partition("@")[0]
    descriptor = os.open(folder / f"{name}.eml", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with open(descriptor, "wb") as file:
        file.write(letter.as_bytes())
