"""Log-ins that fail: who waits how long, what nobody can tell from the answers, and what the stream has of it."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api import attempts as api_attempts
from commands import attempts
from commands.attempts import Attempted, Delay
from tests.api import house
from tests.api.house import House, Served
from tests.world import caller

WRONG = "wrong horse battery"


async def tries(served: Served, a: House, email: str, password: str = WRONG, address: str = "127.0.0.1") -> Any:
    body = {"email": email, "password": password, "tenant": a.slug}
    if address == "127.0.0.1":
        return await served.client.post("/api/v1/auth/login", json=body)
    app: Any = served.app
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        return await client.post("/api/v1/auth/login", json=body)


async def counted(a: House) -> list[dict[str, Any]]:
    await api_attempts.told()
    entries = await a.ledger.entries(a.id, 0, 1_000)
    return [json.loads(entry.state) for entry in entries if entry.topic == "security.log_ins_failed"]


async def test_who_fails_waits_longer_each_time_whether_the_account_is_there_or_not(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password could be guessed as fast as it can be hashed; and the wait must not say whose name is known."""
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=3, longest_s=60))
    told = {}
    for email in (a.user.email, "nobody@alpha.test", "no address at all"):
        answers = [await tries(served, a, email, address=f"203.0.113.{len(email)}") for _ in range(5)]
        told[email] = [(each.status_code, each.json()["type"], each.headers.get("retry-after")) for each in answers]
    expected = [(401, "urn:bitnexus:problem:unauthenticated", None)] * 4 + [
        (429, "urn:bitnexus:problem:rate-limited", "1")
    ]
    assert list(told.values()) == [expected] * 3
    refused = await tries(served, a, a.user.email, house.PASSWORD)
    assert (refused.status_code, 'The limit "log-in"' in refused.json()["detail"]) == (429, True)
    assert (await tries(served, a, a.affiliate.email, house.PASSWORD)).status_code == 200


async def test_delays_grow_and_end(served: Served, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=1, longest_s=8))
    monkeypatch.setitem(attempts.DELAYS, attempts.ADDRESS, Delay(free=100, longest_s=900))
    attempted = Attempted(a.id, uuid4(), uuid4())
    waits = []
    for _ in range(7):
        await attempts.failed(attempted, served.parts.pool)
        closed = await attempts.closed_for(attempted, served.parts.pool)
        waits.append(closed and closed[1])
    assert waits == [None, 1, 2, 4, 8, 8, 8]
    await attempts.succeeded(attempted, served.parts.pool)
    assert await attempts.closed_for(attempted, served.parts.pool) is None


async def test_an_address_that_tries_many_accounts_waits_and_a_success_does_not_clear_it(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One password tried on every account is as good as many on one; and the attacker may have an account too."""
    monkeypatch.setitem(attempts.DELAYS, attempts.ADDRESS, Delay(free=3, longest_s=900))
    answers = [await tries(served, a, f"guess{number}@alpha.test") for number in range(3)]
    assert (await tries(served, a, a.user.email, house.PASSWORD)).status_code == 200
    answers += [await tries(served, a, f"guess{number}@alpha.test") for number in range(3, 6)]
    assert [each.status_code for each in answers] == [401] * 4 + [429] * 2
    assert "of this address" in answers[-1].json()["detail"]
    assert (await tries(served, a, a.user.email, house.PASSWORD, "203.0.113.9")).status_code == 200


async def test_a_flood_leaves_one_event_of_an_account_and_none_of_a_name_that_nobody_has(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker could otherwise fill the chain, which is for ever."""
    for of in (attempts.ACCOUNT, attempts.ADDRESS):
        monkeypatch.setitem(attempts.DELAYS, of, Delay(free=1_000, longest_s=1))
    await asyncio.gather(*[tries(served, a, email) for email in (a.user.email, "nobody@alpha.test") for _ in range(15)])
    assert [(each["account_id"], 1 <= each["attempts"] <= 15) for each in await counted(a)] == [(str(a.user.id), True)]
    monkeypatch.setattr(attempts, "TOLD_EVERY_S", 0)
    await tries(served, a, a.user.email)
    told = await counted(a)
    assert (len(told), sum(each["attempts"] for each in told)) == (2, 16)


async def test_a_repeat_by_two_processes_at_once_counts_nothing_twice(served: Served, a: House) -> None:
    attempted = Attempted(a.id, uuid4(), uuid4())
    for _ in range(5):
        await attempts.failed(attempted, served.parts.pool)
    tellings = [attempts.tell(attempted, a.user.id, caller(a.id), a.ledger, served.parts.pool) for _ in range(5)]
    await asyncio.gather(*tellings)
    assert [each["attempts"] for each in await counted(a)] == [5]


async def test_another_tenants_attempts_are_its_own(served: Served, a: House, b: House) -> None:
    name, address = uuid4(), uuid4()
    for _ in range(12):
        await attempts.failed(Attempted(a.id, name, address), served.parts.pool)
    assert await attempts.closed_for(Attempted(a.id, name, address), served.parts.pool) is not None
    assert await attempts.closed_for(Attempted(b.id, name, address), served.parts.pool) is None
