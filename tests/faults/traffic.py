"""Clients that list products over HTTP while something breaks, and the count of what stands afterwards."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from tests.bitnexus import test_serve
from tests.bitnexus.commandline import CommandLine

CLIENTS = 12
AGAIN_S = 0.05
"""Before a command is sent again. A 503 says to wait a second, but here the worst moment is sought, not missed."""
ANSWER_S_MAX = 40.0
"""Longer than the appender tries by itself: who gives up earlier never hears of a 503."""
POLL_S = 0.005
PATIENCE_S = 40.0
"""For what comes within seconds; then the test fails."""
COUNT_S_MAX = 5.0
"""After a failure the process may be gone."""
READ_TRIES_MAX = 10
"""A second each."""
ENTRIES_MAX = 1_000
"""The most that the ledger gives at once."""


class Count(NamedTuple):
    """`found` and the rest are about the commands of these clients."""

    acknowledged: int
    found: int
    lost: list[str]  # SKUs: acknowledged, and not in the ledger as they were acknowledged
    doubled: list[str]  # in the ledger more than once

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.found} found, {len(self.lost)} lost, {len(self.doubled)} doubled"
        )


class Traffic:
    """From entering until `finish`, CLIENTS clients send commands with SKUs of their own, one after another each.

    A command is sent again under its Idempotency-Key until it is acknowledged: after a lost connection, and after a 503.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=ANSWER_S_MAX)
        self._enough = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sent: set[str] = set()
        self.acknowledged: dict[str, str] = {}  # SKU to the product's id
        self.refused = 0  # sendings that were answered with a 503
        self.unanswered = 0  # sendings

    async def __aenter__(self) -> Self:
        self._http.headers.update(await asyncio.to_thread(test_serve.log_in, str(self._http.base_url).rstrip("/")))
        self._tasks = [asyncio.create_task(self._send_on(client)) for client in range(CLIENTS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is not None:
            await self._print_failed()
        await self._http.aclose()

    async def _print_failed(self) -> None:
        try:
            async with asyncio.timeout(COUNT_S_MAX):
                count = str(await self.count())
        except (httpx.HTTPError, TimeoutError) as error:
            count = f"{len(self.acknowledged)} acknowledged, and the ledger does not answer ({type(error).__name__})"
        print(f"failed: {count}; {self._sendings()}")

    def _sendings(self) -> str:
        return f"{self.unanswered} sendings unanswered, {self.refused} refused"

    async def acknowledges(self, more: int) -> None:
        """Returns once so many commands more are acknowledged."""
        wanted = len(self.acknowledged) + more
        await self._until(lambda: len(self.acknowledged) >= wanted)

    async def is_refused(self) -> None:
        """Returns once a command more is answered with a 503."""
        before = self.refused
        await self._until(lambda: self.refused > before)

    async def _until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                for task in self._tasks:
                    if task.done():
                        task.result()  # raises what it failed with
                await asyncio.sleep(POLL_S)

    async def finish(self) -> None:
        """No new commands; returns once all that were sent are acknowledged."""
        self._enough.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def _send_on(self, client: int) -> None:
        number = 0
        while not self._enough.is_set():
            await self._send(f"{client}-{number}")
            number += 1

    async def _send(self, sku: str) -> None:
        """Until it is acknowledged."""
        self._sent.add(sku)
        body = {"sku": sku, "name": "Mug", "price": "1.00"}
        while True:
            try:
                answer = await self._http.post("/api/v1/products", json=body, headers={"Idempotency-Key": sku})
            except httpx.TransportError:
                self.unanswered += 1
            else:
                if answer.status_code == 201:
                    self.acknowledged[sku] = answer.json()["data"]["id"]
                    return
                # 409: what was sent before, and lost its connection to us, is still being done
                assert answer.status_code == 503 or answer.json()["type"].endswith(":in-flight"), answer.text
                assert answer.headers["Retry-After"]
                self.refused += answer.status_code == 503
            await asyncio.sleep(AGAIN_S)

    async def count(self) -> Count:
        """By what the ledger's own pages say. Asserts that their positions have no gap and their hashes link."""
        found: dict[str, list[str]] = {}
        for entry in await self._entries():
            if entry["topic"] == "product.listed":
                found.setdefault(json.loads(entry["state"])["sku"], []).append(entry["originator_id"])
        assert found.keys() <= self._sent
        return Count(
            len(self.acknowledged),
            len(found),
            [sku for sku, product_id in self.acknowledged.items() if product_id not in found.get(sku, [])],
            [sku for sku, product_ids in found.items() if len(product_ids) > 1],
        )

    async def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        cursor: str | None = "1"
        while cursor is not None:
            asked = {"from": cursor, "limit": str(ENTRIES_MAX)}
            page = (await self._read("/api/v1/ledger/entries", asked)).raise_for_status().json()
            entries += page["data"]
            cursor = page["meta"]["next_cursor"]
        assert [entry["position"] for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry["previous_hash"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:-1]]
        return entries

    async def _read(self, path: str, asked: dict[str, str]) -> httpx.Response:
        """As a client does that was told to try again: a fault may just have taken the connections of queries."""
        for _ in range(READ_TRIES_MAX):
            answer = await self._http.get(path, params=asked)
            if answer.status_code != 503:
                break
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        return answer

    async def assert_stands(self, bitnexus: CommandLine, what: str) -> None:
        """Nothing lost, nothing doubled, the chain is good, and the views show all of it. Prints the counts."""
        count = await self.count()
        print(f"{what}: {count}; {self._sendings()}")
        assert (count.lost, count.doubled) == ([], [])
        assert count.found == count.acknowledged
        audited = await asyncio.to_thread(bitnexus, "audit", "verify", "--json")
        assert audited.code == 0, audited.out + audited.err
        await self._views_show_all()

    async def _views_show_all(self) -> None:
        """The projectors go on by themselves, too."""
        head = (await self._http.get("/api/v1/ledger/head")).raise_for_status().headers["X-Position"]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    shown = await self._http.get("/api/v1/products", params={"limit": 1}, headers={"X-Position": head})
                    if shown.status_code == 200:
                        return
                    assert shown.status_code == 503, shown.text
                await asyncio.sleep(AGAIN_S)
