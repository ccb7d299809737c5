"""A repeated command gets its first answer, also where its own effect would now refuse it; one that only met another is decided
again."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from domain import aggregates, refusals
from ledger import errors
from ledger.caller import Caller
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


def repeatable(cls: type[A]) -> Callable[[Handler[C, P, A]], Handler[C, P, A]]:
    """For handlers whose receipt is a `cls`. A refusal is held back until the command id is known to be new.

    A refund of all that is left, sent twice, finds nothing left the second time: the refusal is its own doing. Whatever
    refuses because of the first sending sees it committed, so looking the id up after the refusal is enough, and a command
    that is not refused pays nothing: the append itself finds the record.

    A command that names no `version` and meets another one on the same aggregate loads again and decides again, at most
    DECIDED_MAX times; then VersionConflict is raised. Nothing of it was written before, so its id is still good. So is one about
    somebody who was erased meanwhile: a later sale under the same reference is somebody else's.
    """

    def decorate(handler: Handler[C, P, A]) -> Handler[C, P, A]:
        @functools.wraps(handler)
        async def handle(
            command: C, caller: Caller, ledger: Ledger, /, *args: P.args, **kwargs: P.kwargs
        ) -> Receipt[A]:
            for left in reversed(range(DECIDED_MAX)):
                try:
                    return await handler(command, caller, ledger, *args, **kwargs)
                except _LOOKED_AT as refused:
                    first = await ledger.recall(cls, caller)
                    if first is not None:
                        return first
                    if not left or not _is_met(refused, command):
                        raise
            raise AssertionError

        return handle

    return decorate


def check_version(aggregate: aggregates.Aggregate, version: int | None) -> None:
    """`version`: the one that a command was decided upon, None if any will do. Raises VersionConflict."""
    if version is not None and aggregate.version != version:
        raise errors.VersionConflict(aggregate.id)


def _is_met(refused: Exception, command: object) -> bool:
    """Whether only the moment was wrong. Who names a version wants it decided upon that one or not at all."""
    if isinstance(refused, errors.SubjectErased):
        return True
    return isinstance(refused, errors.VersionConflict) and getattr(command, "version", None) is None
