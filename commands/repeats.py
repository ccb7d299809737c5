"""A repeated command gets its first answer, also where its own effect would now refuse it."""

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


def repeatable(cls: type[A]) -> Callable[[Handler[C, P, A]], Handler[C, P, A]]:
    """For handlers whose receipt is a `cls`. A refusal is held back until the command id is known to be new.

    A refund of all that is left, sent twice, finds nothing left the second time: the refusal is its own doing. Whatever
    refuses because of the first sending sees it committed, so looking the id up after the refusal is enough, and a command
    that is not refused pays nothing: the append itself finds the record.
    """

    def decorate(handler: Handler[C, P, A]) -> Handler[C, P, A]:
        @functools.wraps(handler)
        async def handle(
            command: C, caller: Caller, ledger: Ledger, /, *args: P.args, **kwargs: P.kwargs
        ) -> Receipt[A]:
            try:
                return await handler(command, caller, ledger, *args, **kwargs)
            except (refusals.Refusal, errors.VersionConflict, errors.ReservationTaken):
                first = await ledger.recall(cls, caller)
                if first is None:
                    raise
                return first

        return handle

    return decorate
