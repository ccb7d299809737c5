"""argon2id (RFC 9106) off the event loop, in a bounded pool: a hash costs 100 ms of a core and 64 MiB.

Its threads give way to everything else: while the cores are busy with hashes, other requests are answered as if they were not.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

from domain import accounts

T = TypeVar("T")

HASHES_AT_ONCE = 2
"""Each takes 64 MiB, and up to as many cores as it has lanes."""
WAITING_MAX = 20
"""About 1 s of work on two cores: whoever comes later is told to come back."""
NICENESS = 10
"""Of the threads that hash: a tenth of the processor's time where somebody else wants it, all of it where nobody does."""

PARAMETERS = argon2.profiles.RFC_9106_LOW_MEMORY  # 64 MiB, 3 passes, 4 lanes


class HashingOverloaded(Exception):
    """Too many passwords wait to be checked. Nothing was done."""

    def __init__(self) -> None:
        super().__init__(f"{WAITING_MAX} passwords are waiting to be checked already. Try again in a few seconds.")


class Passwords:
    """One per process; `close` ends its threads. The event loop's thread only.

    Passwords are normalised here and nowhere else, so that the one that was set is the one that is compared.
    """

    def __init__(self, parameters: argon2.Parameters = PARAMETERS, at_once: int = HASHES_AT_ONCE) -> None:
        self._parameters = parameters
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="argon2", initializer=_give_way)
        self._waiting = 0
        self._of_nobody: str | None = None

    def check_room(self) -> None:
        """For whoever would do something before they hash. Raises HashingOverloaded."""
        if self._waiting >= WAITING_MAX:
            raise HashingOverloaded

    async def hash(self, password: str) -> bytes:
        """The PHC string, ASCII. Raises HashingOverloaded, PasswordLengthWrong, PasswordUnreadable."""
        return (await self._run(self._hasher.hash, accounts.normalise_password(password))).encode()

    async def matches(self, password: str, hashed: bytes | None) -> bool:
        """Takes the same time when there is no hash to compare with.

        Raises HashingOverloaded, PasswordLengthWrong, PasswordUnreadable.
        """
        if hashed is None and self._of_nobody is None:
            self._of_nobody = await self._run(self._hasher.hash, "nobody's password")
        stored = hashed.decode() if hashed is not None else self._of_nobody
        assert stored is not None
        return await self._run(self._verify, stored, accounts.normalise_password(password)) and hashed is not None

    def is_weak(self, hashed: bytes) -> bool:
        """Whether it was made with less than is asked for now. One that cost more is left as it is."""
        wanted = self._parameters
        found = argon2.extract_parameters(hashed.decode())
        return (
            (found.type, found.version) != (wanted.type, wanted.version)
            or found.memory_cost < wanted.memory_cost
            or found.time_cost < wanted.time_cost
            or found.hash_len < wanted.hash_len
            or found.salt_len < wanted.salt_len
        )

    def close(self) -> None:
        """Waits for the hashes in work."""
        self._threads.shutdown()

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        self.check_room()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except argon2.exceptions.VerifyMismatchError:
            return False


def _give_way() -> None:
    """Of the thread that calls it, and of those that argon2 starts from it. Only Linux has niceness by thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
