"""argon2id (RFC 9106) off the event loop, in a bounded pool: a hash costs 100 ms of a core and 64 MiB."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

T = TypeVar("T")

HASHES_AT_ONCE_MAX = 2
"""Each takes a core and 64 MiB; more at once would only slow everything else down."""
WAITING_MAX = 50
"""About 2.5 s of work on two cores: whoever comes later is told to come back."""

PARAMETERS = argon2.profiles.RFC_9106_LOW_MEMORY  # 64 MiB, 3 passes, 4 lanes


class HashingOverloaded(Exception):
    """Too many passwords wait to be checked. Nothing was done."""

    def __init__(self) -> None:
        super().__init__(f"{WAITING_MAX} passwords are waiting to be checked already. Try again in a few seconds.")


class Passwords:
    """One per process; `close` ends its threads. The event loop's thread only."""

    def __init__(self, parameters: argon2.Parameters = PARAMETERS) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE_MAX, thread_name_prefix="argon2")
        self._waiting = 0
        self._of_nobody: str | None = None

    async def hash(self, password: str) -> bytes:
        """The PHC string, ASCII. Raises HashingOverloaded."""
        return (await self._run(self._hasher.hash, password)).encode()

    async def matches(self, password: str, hashed: bytes | None) -> bool:
        """Takes the same time when there is no hash to compare with. Raises HashingOverloaded."""
        if hashed is None and self._of_nobody is None:
            self._of_nobody = await self._run(self._hasher.hash, "nobody's password")
        stored = hashed.decode() if hashed is not None else self._of_nobody
        assert stored is not None
        return await self._run(self._verify, stored, password) and hashed is not None

    def close(self) -> None:
        """Waits for the hashes in work."""
        self._threads.shutdown()

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= WAITING_MAX:
            raise HashingOverloaded
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
