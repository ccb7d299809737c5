"""The reactions of a serving process, on its parts and by its settings."""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from bitnexus.process import Process
from bitnexus.settings import MAIL_PORTS, Settings
from reactions import answer_forgotten, outbox, send_mail

MAILS = "mails"
"""Where mails lie in the data directory if there is no mail server."""


def doers(parts: Process, settings: Settings) -> Mapping[str, outbox.Do]:
    """By the kind of work that waits."""
    if settings.mail_server is None:
        deliver = send_mail.to_folder(settings.data_dir / MAILS)
    else:
        deliver = send_mail.to_server(server(settings.mail_server))
    return {
        "mail": send_mail.doer(parts.ledger, parts.projector, deliver, settings.mail_from, settings.front_end),
        "forgotten": answer_forgotten.doer(parts.ledger),
    }


def server(url: str) -> send_mail.Server:
    """From a URL that the settings let pass."""
    parts = urlsplit(url)
    return send_mail.Server(
        host=parts.hostname or "",
        port=parts.port or MAIL_PORTS[parts.scheme],
        tls=parts.scheme == "smtps",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )
