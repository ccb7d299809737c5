"""Mails to be sent: written among the secrets, in the append that makes them necessary, because they may hold a way in.

Sealed under the key of the person they go to, and gone with it. reactions/send_mail.py sends them and deletes them.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from ledger import ids
from ledger.store import Ledger, Secret

KIND = "outbox mail"
"""Of the secret of a mail, before a blank and the mail's id."""
PURPOSE = "mail"


class Template(StrEnum):
    """What a mail is about; what it says stands in reactions/letters.py."""

    VERIFY = "verify"
    RESET = "reset"
    CHANGE = "change"
    CHANGED = "changed"
    PASSWORD_CHANGED = "password_changed"
    INVITATION = "invitation"
    SECOND_FACTOR = "second_factor"


class Mail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`token` opens something until `good_until`; a mail that is late is not sent at all. `word`: what a template adds."""

    template: Template
    to: str
    name: str = ""
    token: str | None = None
    good_until: datetime | None = None
    word: str = ""


ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Mail)


async def to_send(mail: Mail, tenant_id: UUID, person_id: UUID, ledger: Ledger) -> Secret:
    """What an append carries that lets it be sent. `person_id` is an account's or an invitation's: the subject of its key.

    Raises SubjectErased.
    """
    sealed = await ledger.seal(tenant_id, person_id, PURPOSE, ENCODER.encode(mail))
    return Secret(person_id, f"{KIND} {ids.new_id()}", sealed)
