"""Expected refusals: what the rules say no to, and how a refusal tells it."""

from typing import ClassVar, Literal, TypeAlias

KeptAs: TypeAlias = Literal["invalid", "conflict"]

# Enough to recognise what was sent; a body may hold a megabyte.
SHOWN_LENGTH_MAX = 80


class Refusal(Exception):
    """The root of everything that the domain refuses on purpose; one subclass for each rule.

    The message has three parts: what happened, the value that caused it, what to do about it. `fields` is
    `{field: [message]}`, or `{}` where no field is to blame; a field inside a list is written `lines.0.quantity`.
    `kept_as`: what it is where it becomes the outcome of a command, which a repeat gets again; None: it says who asked, or how
    often, and never does.
    """

    kept_as: ClassVar[KeptAs | None] = None

    def __init__(self, happened: str, value: object, advice: str, *, field: str | None = None) -> None:
        message = f"{happened}: {shown(value)}. {advice}."
        super().__init__(message)
        self.fields: dict[str, list[str]] = {} if field is None else {field: [message]}


class Invalid(Refusal):
    """A value breaks a rule: sending it again will not help, changing it will."""

    kept_as: ClassVar[KeptAs | None] = "invalid"


class Conflict(Refusal):
    """The value is fine; what is already recorded forbids it."""

    kept_as: ClassVar[KeptAs | None] = "conflict"


def shown(value: object) -> str:
    """One printable line of at most SHOWN_LENGTH_MAX characters and an ellipsis; safe for logs and terminals."""
    if isinstance(value, str):
        # Cut first: escaping a megabyte to show 80 characters is an invitation.
        written = repr(value[: SHOWN_LENGTH_MAX + 1])
    elif isinstance(value, int) and value.bit_length() > 4 * SHOWN_LENGTH_MAX:
        # Python refuses to write out integers of more than 4,300 digits.
        written = f"a whole number of {value.bit_length()} bits"
    else:
        written = str(value)
    return written if len(written) <= SHOWN_LENGTH_MAX else written[:SHOWN_LENGTH_MAX] + "…"
