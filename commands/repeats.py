"""A repeated command gets its first answer, also where its own effect would now refuse it, and where what refused it is gone by now;
one that only met another is decided again."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from domain import aggregates, refusals
from ledger import errors
from ledger.caller import Caller
from ledger.optimistic import Optimistic
from ledger.outcomes import Refused
from ledger.store import Ledger, Receipt

A = TypeVar("A", bound=aggregates.Aggregate)
C = TypeVar("C")  # the command
P = ParamSpec("P")
Handler = Callable[Concatenate[C, Caller, Ledger, P], Coroutine[Any, Any, Receipt[A]]]


DECIDED_MAX = 5
"""How often a command is decided: each time others were quicker, so that all of them together get on."""

_LOOKED_AT = (
    refusals.Refusal,
    errors.NotFound,
    errors.VersionConflict,
    errors.ReservationTaken,
    errors.SubjectErased,
)
"""What the first sending may have caused."""


def repeatable(cls: type[A], *, optimistic: bool = False) -> Callable[[Handler[C, P, A]], Handler[C, P, A]]:
    """For handlers whose receipt is a `cls`. A refusal is held back until the command id is known to be new (`before`).

    A refund of all that is left, sent twice, finds nothing left the second time: the refusal is its own doing. Whatever
    refuses because of the first sending sees it committed, so looking the id up after the refusal is enough, and a command
    that is not refused pays nothing: the append itself finds the record, also that of a refusal.

    A command that names no `version` and meets another one on the same aggregate loads again and decides again, at most
    DECIDED_MAX times; then VersionConflict is raised. Nothing of it was written before, so its id is still good. So is one about
    somebody who was erased meanwhile: a later sale under the same reference is somebody else's.

    `optimistic`: what it reads is validated by the append, and met like a version; only the last time it is taken as it was looked up,
    so that changes without end refuse nobody. It is first decided upon what the process has at hand; a refusal upon that counts for
    nothing. Only for handlers all of whose receipts come from an append.
    """

    def decorate(handler: Handler[C, P, A]) -> Handler[C, P, A]:
        @functools.wraps(handler)
        async def handle(
            command: C, caller: Caller, ledger: Ledger, /, *args: P.args, **kwargs: P.kwargs
        ) -> Receipt[A]:
            at: Ledger = Optimistic(ledger, asks=False) if optimistic else ledger
            for left in reversed(range(DECIDED_MAX)):
                try:
                    return await handler(command, caller, at, *args, **kwargs)
                except _LOOKED_AT as refused:
                    guessed = isinstance(at, Optimistic) and at.guessed
                    if not guessed and not isinstance(refused, errors.ReadOutdated):
                        first = await before(refused, cls, caller, ledger)
                        if first is not None:
                            return first
                        if not left or not _is_met(refused, command):
                            raise
                    at = Optimistic(ledger, asks=True) if optimistic and left > 1 else ledger
            raise AssertionError

        return handle

    return decorate


async def before(refused: Exception, cls: type[A], caller: Caller, ledger: Ledger) -> Receipt[A] | None:
    """What the sending before this one, which is `refused`, was answered; None if there was none, and then the refusal is the answer
    to all that follow it: it is stored. Not one that says who asks, how often, or that only the moment was wrong, nor one of a
    command that cannot be known again.

    Raises RefusedBefore, CommandIdReused and, as nobody may be told of an outcome that is not stored, what an append raises.
    """
    kept = kept_as(refused)
    if kept is None or not caller.fingerprint:
        return await ledger.recall(cls, caller)
    try:
        return await ledger.refuse(cls, caller, Refused(kept, str(refused), getattr(refused, "fields", {})))
    except errors.TenantUnknown:
        return None  # there is no stream in which it could be stored, and none will come of this id


def kept_as(refused: Exception) -> Literal["invalid", "conflict", "not-found"] | None:
    """What a refusal is stored as; None: it is not."""
    if isinstance(refused, refusals.Refusal):
        return refused.kept_as
    if isinstance(refused, errors.NotFound):
        return "not-found"
    return "conflict" if isinstance(refused, errors.ReservationTaken) else None


def check_version(aggregate: aggregates.Aggregate, version: int | None) -> None:
    """`version`: the one that a command was decided upon, None if any will do. Raises VersionConflict."""
    if version is not None and aggregate.version != version:
        raise errors.VersionConflict(aggregate.id)


def _is_met(refused: Exception, command: object) -> bool:
    """Whether only the moment was wrong. Who names a version wants it decided upon that one or not at all."""
    if isinstance(refused, errors.SubjectErased):
        return True
    return isinstance(refused, errors.VersionConflict) and getattr(command, "version", None) is None
