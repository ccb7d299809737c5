"""Mails as they were sent, and the tokens in them."""

import re
from collections.abc import Mapping
from email.message import EmailMessage

from reactions import answer_forgotten, outbox, send_mail
from tests.world import World

SENDER = "BitNexus <no-reply@bitnexus.test>"
TOKEN = re.compile(r"^[A-Za-z0-9_-]{86}$", re.MULTILINE)


class Mailbox:
    """Where all mails of a world go. `refuse`: what the next deliveries raise, instead."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.letters: list[EmailMessage] = []
        self.refuse: list[Exception] = []

    async def deliver(self, letter: EmailMessage) -> None:
        if self.refuse:
            raise self.refuse.pop(0)
        self.letters.append(letter)

    def doers(self) -> Mapping[str, outbox.Do]:
        ledger, projector = self._world.ledger, self._world.projector
        return {
            "mail": send_mail.doer(ledger, projector, self.deliver, SENDER, None),
            "forgotten": answer_forgotten.doer(ledger),
        }

    async def fetch(self) -> list[EmailMessage]:
        """What has come since the last time, once nothing is due any more."""
        before = len(self.letters)
        while await outbox.look(self._world.projector, self.doers()):
            pass
        return self.letters[before:]


def token_in(letter: EmailMessage) -> str:
    found = TOKEN.findall(letter.get_content())
    assert len(found) == 1
    return str(found[0])
