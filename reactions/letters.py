"""What mails say. Plain text: links and codes that can be read aloud."""

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from commands.mails import Mail, Template

_SUBJECTS = {
    Template.VERIFY: "Is this your address?",
    Template.RESET: "Choose a new password",
    Template.CHANGE: "Is this your new address?",
    Template.CHANGED: "Your address was changed",
    Template.PASSWORD_CHANGED: "Your password was changed",
    Template.INVITATION: "You are invited",
    Template.SECOND_FACTOR: "Your second factor was changed",
}
_TEXTS = {
    Template.VERIFY: "An account of {tenant} was made with this address. Show that it is yours:\n\n{way}\n\n"
    "If you made none, do nothing.",
    Template.RESET: "Somebody, hopefully you, asked for a new password for your account of {tenant}. Choose one:\n\n{way}\n\n"
    "If you did not ask, do nothing: your password stays as it is.",
    Template.CHANGE: "An account of {tenant} is to have this address from now on. Confirm it:\n\n{way}\n\n"
    "If you did not ask for that, do nothing.",
    Template.CHANGED: "Your account of {tenant} has another address from now on: {word}\n\n"
    "If you did not ask for that, tell an admin of {tenant} at once.",
    Template.PASSWORD_CHANGED: "The password of your account of {tenant} was changed, and everybody was logged out.\n\n"
    "If that was not you, ask for a new password at once and tell an admin of {tenant}.",
    Template.INVITATION: "You are invited to {tenant}. Make your account:\n\n{way}\n\nIf you do not want one, do nothing.",
    Template.SECOND_FACTOR: "The second factor of your account of {tenant} {word}.\n\n"
    "If that was not you, change your password and tell an admin of {tenant}.",
}
PATHS = {
    Template.VERIFY: "verify-email",
    Template.RESET: "reset-password",
    Template.CHANGE: "change-email",
    Template.INVITATION: "register",
}
"""Of the front end. The token is behind the #, which no server and no log of one sees."""


class Unwritable(Exception):
    """No mail can be written to that address."""


def written(mail: Mail, mail_id: str, tenant: str, sender: str, front_end: str | None) -> EmailMessage:
    """`mail_id` becomes the Message-ID, so that whoever receives it twice can tell. Raises Unwritable."""
    local, _, domain = mail.to.rpartition("@")
    letter = EmailMessage()
    try:
        letter["To"] = Address(mail.name, local, domain)
        letter["From"] = sender
        letter["Subject"] = f"{tenant}: {_SUBJECTS[mail.template]}"
        letter["Date"] = format_datetime(datetime.now(UTC))
        letter["Message-ID"] = f"<{mail_id}@{sender.rpartition('@')[2].rstrip('> ') or 'localhost'}>"
    except (ValueError, IndexError) as error:
        raise Unwritable from error
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: no machine should answer
    hello = f"Hello {mail.name},\n\n" if mail.name else ""
    text = _TEXTS[mail.template].format(tenant=tenant, word=mail.word, way=_way(mail, front_end))
    letter.set_content(f"{hello}{text}\n")
    return letter


def _way(mail: Mail, front_end: str | None) -> str:
    if mail.token is None or mail.good_until is None:
        return ""
    until = f"Good until {mail.good_until:%Y-%m-%d %H:%M} UTC, and once."
    if front_end is None:
        return f"{mail.token}\n\n{until}"
    return f"{front_end.rstrip('/')}/{PATHS[mail.template]}#token={mail.token}\n\n{until}"
