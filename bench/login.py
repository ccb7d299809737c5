"""Logins over HTTP against argon2 alone on the same cores, and what a flood of logins does to everything else.

First argon2id verifies as fast as the cores can, by itself; then `bitnexus serve` answers logins, as many at a time as it lets
wait; both in one run, with the parameters of production. Then 50 logins a second are asked for, whatever becomes of them, while
other commands go on: what is too much has to be refused at once, and nobody else may notice.

    scripts/bench login [--seconds 10] [--workers 1]
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import argon2
import httpx

from bench import http as serving
from bench import server
from commands import passwords

AT_ONCE = 8
"""Logins under way in the measurement of their rate: enough to keep the threads busy, fewer than may wait."""
ASKED_PER_S = 50
OTHERS_PER_S = 20
TARGET_RATIO, TARGET_REFUSED_MS, TARGET_OTHERS_P99_MS = 0.9, 200.0, 100.0
LOGIN = {"email": "a@shop.example", "password": serving.PASSWORD, "tenant": "shop"}


def alone(seconds: float) -> float:
    """Verifications a second of argon2id on all cores, nothing else running."""
    hasher = argon2.PasswordHasher.from_parameters(passwords.PARAMETERS)
    hashed = hasher.hash(serving.PASSWORD)
    ends = time.monotonic() + seconds

    def verify() -> int:
        done = 0
        while time.monotonic() < ends:
            hasher.verify(hashed, serving.PASSWORD)
            done += 1
        return done

    begun = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        done = sum(each.result() for each in [threads.submit(verify) for _ in range(os.cpu_count() or 1)])
    return done / (time.monotonic() - begun)


async def rate(client: httpx.AsyncClient, seconds: float) -> float:
    """Logins a second, AT_ONCE under way."""
    ends, done = time.monotonic() + seconds, 0

    async def one_after_the_other() -> None:
        nonlocal done
        while time.monotonic() < ends:
            answer = await client.post("/api/v1/auth/login", json=LOGIN)
            assert answer.status_code == 200, answer.text
            done += 1

    begun = time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return done / (time.monotonic() - begun)


async def flood(client: httpx.AsyncClient, key: str, seconds: float) -> dict[str, Any]:
    """ASKED_PER_S logins and OTHERS_PER_S other commands a second, each sent at its time."""
    logins = asyncio.create_task(_steadily(ASKED_PER_S, seconds, lambda _: _timed(client, "auth/login", LOGIN, None)))
    others = asyncio.create_task(_steadily(OTHERS_PER_S, seconds, lambda n: _timed(client, "products", _mug(n), key)))
    asked, done = await logins, await others
    refused = [ms for status, ms in asked if status in (429, 503)]
    assert {status for status, _ in asked} <= {200, 429, 503}, {status for status, _ in asked}
    assert {status for status, _ in done} == {201}, {status for status, _ in done}
    return {
        "logins_asked": len(asked),
        "logins_answered": sum(status == 200 for status, _ in asked),
        "refused": len(refused),
        "refused_p99_ms": _p99(refused) if refused else None,
        "others": len(done),
        "others_p50_ms": round(statistics.median(ms for _, ms in done), 1),
        "others_p99_ms": _p99([ms for _, ms in done]),
    }


def _mug(n: int) -> dict[str, Any]:
    return {"sku": f"MUG-{n}", "name": "Mug", "price": "9.50"}


async def _timed(client: httpx.AsyncClient, path: str, body: dict[str, Any], token: str | None) -> tuple[int, float]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    begun = time.monotonic()
    answer = await client.post(f"/api/v1/{path}", json=body, headers=headers)
    return answer.status_code, (time.monotonic() - begun) * 1e3


async def _steadily(per_s: int, seconds: float, ask: Any) -> list[tuple[int, float]]:
    begun, tasks = time.monotonic(), []
    for n in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, begun + n / per_s - time.monotonic()))
        tasks.append(asyncio.create_task(ask(n)))
    return list(await asyncio.gather(*tasks))


def _p99(found: list[float]) -> float:
    return round(sorted(found)[min(len(found) - 1, int(len(found) * 0.99))], 1)


async def _served(url: str, seconds: float) -> tuple[float, dict[str, Any]]:
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        token = (await client.post("/api/v1/auth/login", json=LOGIN)).json()["data"]["access_token"]
        shop = {"name": "Others", "scopes": ["products:write"]}  # the admin's own sessions end as newer ones come
        made = await client.post("/api/v1/service-accounts", json=shop, headers={"Authorization": f"Bearer {token}"})
        key = made.json()["data"]["key"]
        return await rate(client, seconds), await flood(client, key, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the three parts")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    machine = server.machine()
    hashes_per_s = alone(arguments.seconds)
    with (
        tempfile.TemporaryDirectory(prefix="bitnexus-bench-") as folder,
        serving.served(Path(folder), arguments.workers) as url,
    ):
        logins_per_s, flooded = asyncio.run(_served(url, arguments.seconds))
    ratio = logins_per_s / hashes_per_s
    report = {
        "benchmark": "login",
        "hashes_per_s": round(hashes_per_s, 1),
        "logins_per_s": round(logins_per_s, 1),
        "ratio": round(ratio, 3),
        "flood": flooded,
        "met": {
            "ratio": ratio >= TARGET_RATIO,
            "refused_ms": flooded["refused_p99_ms"] is None or flooded["refused_p99_ms"] <= TARGET_REFUSED_MS,
            "others_p99_ms": flooded["others_p99_ms"] <= TARGET_OTHERS_P99_MS,
        },
        "workers": arguments.workers,
        "machine": machine,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
