"""A Node process that tells lines of JSON and is told them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE_S = 30.0
LINE_BYTES_MAX = 16 * 1024 * 1024


class Node:
    """What it tells is heard in order; `until` keeps what it passes over."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []

    async def do(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        assert line, "Node ended"
        told: dict[str, Any] = json.loads(line)
        self.heard.append(told)
        return told

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """The next that it tells with these values."""
        passed: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    told = await self.hear()
                    if told.items() >= wanted.items():
                        return told
                    passed.append(told)
        except TimeoutError:
            raise AssertionError(f"{wanted} did not come, but {passed[-10:]}") from None

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """The next messages, whatever else is told between them."""
        return [await self.until(on="message") for _ in range(count)]


@contextlib.asynccontextmanager
async def node(script: str, *words: str) -> AsyncIterator[Node]:
    """Killed at the end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "node", script, *words, stdin=pipe, stdout=pipe, cwd=HERE, limit=LINE_BYTES_MAX
    )
    try:
        yield Node(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
