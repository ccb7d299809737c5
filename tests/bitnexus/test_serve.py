"""`bitnexus serve` as a supervisor of processes sees it: ready, stopped, killed, in one process and in several."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests import logged
from tests.bitnexus import commandline
from tests.bitnexus.commandline import CommandLine
from tests.world import Database

WAIT_S_MAX = 30.0
POLL_S = 0.02


class Served:
    """A running `bitnexus serve`."""

    def __init__(self, process: "subprocess.Popen[str]", url: str = "url") -> None:
        """`url`: the member of what it announces that says where it answers."""
        self.process = process
        said = ""
        assert process.stdout is not None
        while not said.endswith("\n}\n"):  # the document that it prints when it is ready
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            said += line
        self.announced: dict[str, Any] = json.loads(said)
        self.url: str = self.announced[url]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=WAIT_S_MAX)
        if logged.RUN is not None:
            logged.RUN.of_process(said)
        return self.process.returncode, said


@contextmanager
def serving(bitnexus: CommandLine, *words: object, command: str = "serve") -> Iterator[Served]:
    """Until the block's end, unless it has been stopped in it."""
    process = bitnexus.start(command, "--port", "0", "--json", *words)
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=WAIT_S_MAX)
            if logged.RUN is not None:
                logged.RUN.of_process(said)
        process.communicate(timeout=WAIT_S_MAX)


@pytest.fixture
def database(shop_database: Database) -> Database:
    """With the tenant `shop`."""
    return shop_database


@pytest.fixture
def bitnexus(database: Database) -> CommandLine:
    return commandline.on(database)


def log_in(url: str) -> dict[str, str]:
    """The header that an admin's requests carry."""
    body = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
    answer = httpx.post(f"{url}/api/v1/auth/login", json=body, trust_env=False, timeout=WAIT_S_MAX)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(POLL_S)


def is_well(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_serving_process_forgets_commands_after_a_day(bitnexus: CommandLine, database: Database) -> None:
    """Nothing else would, and the table would grow for ever."""
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("UPDATE ledger.commands SET recorded_at = recorded_at - interval '1 day'")
        with serving(bitnexus):
            until(lambda: owner.execute("SELECT count(*) <= 1 FROM ledger.commands").fetchone() == (True,))
    assert bitnexus("audit", "verify").code == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_was_answered_before_a_stop_is_recorded(
    bitnexus: CommandLine, database: Database, workers: int
) -> None:
    """SIGTERM in the middle of a load of commands, and with a feed open: nothing is lost, the end is clean."""
    with serving(bitnexus, "--workers", workers) as served:
        assert served.announced == {"url": served.url, "pid": served.process.pid, "workers": workers}
        headers = await asyncio.to_thread(log_in, served.url)
        answered: list[str] = []
        enough = asyncio.Event()
        async with httpx.AsyncClient(
            base_url=served.url, headers=headers, trust_env=False, timeout=WAIT_S_MAX
        ) as client:
            assert (await client.get("/ready")).status_code == 200
            feed = asyncio.create_task(_follow(client))
            load = [asyncio.create_task(_list_products(client, n, answered, enough)) for n in range(8)]
            async with asyncio.timeout(WAIT_S_MAX):
                await enough.wait()
                served.process.send_signal(signal.SIGTERM)
                await asyncio.gather(*load)
                assert await feed > 0
        code, said = await asyncio.to_thread(served.stop)
    assert code == 0
    assert "Stopped. Every command that was accepted is recorded." in said
    with psycopg.connect(database.owner_url) as connection:
        recorded = {
            json.loads(bytes(state))["sku"]
            for (state,) in connection.execute("SELECT state FROM ledger.events WHERE topic = 'product.listed'")
        }
    assert set(answered) <= recorded
    assert bitnexus.good("audit", "verify")["verdict"] == "good"


async def _list_products(client: httpx.AsyncClient, n: int, answered: list[str], enough: asyncio.Event) -> None:
    """One after another, until the server is gone."""
    number = 0
    while True:
        sku = f"{n}-{number}"
        number += 1
        try:
            answer = await client.post("/api/v1/products", json={"sku": sku, "name": "Mug", "price": "1.00"})
        except httpx.TransportError:
            return
        if answer.status_code == 503:
            return
        assert answer.status_code == 201, answer.text
        answered.append(sku)
        if len(answered) >= 40:
            enough.set()


async def _follow(client: httpx.AsyncClient) -> int:
    """Characters of a feed until it ends, which the server has to do."""
    received = 0
    async with client.stream("GET", "/api/v1/feed", headers={"Accept": "text/event-stream"}) as answer:
        async for text in answer.aiter_text():
            received += len(text)
    return received


def test_a_worker_that_dies_is_replaced(bitnexus: CommandLine) -> None:
    with serving(bitnexus, "--workers", 2) as served:
        before = children(served.process.pid)
        assert len(before) == 2
        victim = before[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(children(served.process.pid)) - {victim}) == 2)
        until(lambda: all(is_well(served.url) for _ in range(10)))
        assert served.stop(signal.SIGINT)[0] == 0
        assert all(is_gone(pid) for pid in before)


def test_workers_end_when_their_parent_is_killed(bitnexus: CommandLine) -> None:
    """They would hold the port and the database, and nobody would replace them."""
    with serving(bitnexus, "--workers", 2) as served:
        workers = children(served.process.pid)
        served.process.kill()
        served.process.wait()
        try:
            until(lambda: all(is_gone(pid) for pid in workers))
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_port_that_is_taken_is_said_so(bitnexus: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = bitnexus("serve", "--port", taken.getsockname()[1])
    assert (run.code, run.out) == (2, "")
    assert "another process listens there. End that process, or give another --port" in run.err


def test_logs_are_json_and_say_no_secret(bitnexus: CommandLine) -> None:
    bitnexus.environment["BITNEXUS_LOG_LEVEL"] = "debug"
    with serving(bitnexus, "--workers", 2) as served:
        log_in(served.url)
        _, said = served.stop()
    *logged, last = said.splitlines()
    assert last.startswith("Stopped.")
    assert {json.loads(line)["level"] for line in logged} >= {"info"}
    for secret in ("correct horse", "admin@shop.example", commandline.MASTER_KEY, "password="):
        assert secret not in said


def test_the_embedded_database_is_shared_and_goes_with_the_last(data_dir: Path) -> None:
    """A newcomer's way: no setting at all, a demo, and a command beside it."""
    bitnexus = CommandLine(BITNEXUS_DATA_DIR=str(data_dir))
    prepared = bitnexus("demo", "--no-serve", "--json")
    assert prepared.code == 0, prepared.err
    assert "Made a new master key" in prepared.err
    assert (prepared.json["new"], prepared.json["sales"]["events"]) == (True, 3_192)
    with serving(bitnexus, command="demo") as served:
        assert (served.announced["new"], served.announced["sales"]["events"]) == (False, 0)
        assert served.announced["logins"] == prepared.json["logins"]
        for login in served.announced["logins"]:
            body = {name: login[name] for name in ("tenant", "email", "password")}
            answer = httpx.post(f"{served.url}/api/v1/auth/login", json=body, trust_env=False, timeout=WAIT_S_MAX)
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"]["user"]["role"] == login["role"]
        assert bitnexus.good("audit", "verify")["verdict"] == "good"
        assert is_well(served.url)
        assert served.stop(signal.SIGINT)[0] == 0
    assert not (data_dir / "pg" / "postmaster.pid").exists()
    (data_dir / "master.key").rename(data_dir / "elsewhere")
    lost = bitnexus("audit", "verify")
    assert lost.code == 2
    assert "The master key is missing" in lost.err
    assert not (data_dir / "master.key").exists()
