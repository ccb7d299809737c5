"""Log-ins that fail: who waits how long, what nobody can tell from the answers, and what the stream has of it."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from api import attempts as api_attempts
from commands import attempts, passwords
from commands.accounts import challenges
from commands.attempts import Attempted, Delay
from ledger import errors
from tests.api import house
from tests.api.house import House, Served
from tests.world import World, caller

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


async def closed(served: Served, attempted: Attempted) -> tuple[str, int] | None:
    """Which of both one has to wait for, and how long."""
    async with served.parts.projector.connection() as connection:
        rows = await connection.execute(
            "SELECT of, ceil(extract(epoch FROM closed_to - now()))::int FROM edges.attempts"
            " WHERE tenant_id = %s AND key IN (%s, %s) AND closed_to > now() ORDER BY closed_to DESC",
            (attempted.tenant_id, attempted.account, attempted.address),
        )
        return await rows.fetchone()


async def test_delays_grow_and_end(served: Served, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=1, longest_s=8))
    monkeypatch.setitem(attempts.DELAYS, attempts.ADDRESS, Delay(free=100, longest_s=900))
    attempted = Attempted(a.id, uuid4(), uuid4())
    waits = []
    for _ in range(7):
        await attempts.failed(attempted, served.parts.pool)
        found = await closed(served, attempted)
        waits.append(found and found[1])
    assert waits == [None, 1, 2, 4, 8, 8, 8]
    assert (await attempts.begin(attempted, served.parts.pool)).closed == (attempts.ACCOUNT, 8)
    await attempts.done(attempted, served.parts.pool, right=True)
    assert await attempts.begin(attempted, served.parts.pool) == (None, {})


async def test_of_guesses_side_by_side_one_is_looked_at_once_the_free_ones_are_gone(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever sends twenty at each opening guesses twenty times as often as we say."""
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=2, longest_s=60))
    for _ in range(2):
        await tries(served, a, a.user.email)
    looked_at = []
    matches = served.parts.passwords.matches

    async def noted(*given: Any) -> bool:
        looked_at.append(given)
        return await matches(*given)

    monkeypatch.setattr(served.parts.passwords, "matches", noted)
    answers = await asyncio.gather(*[tries(served, a, a.user.email) for _ in range(12)])
    assert sorted(each.status_code for each in answers) == [401] + [429] * 11
    assert len(looked_at) == 1


async def test_of_processes_that_ask_at_the_same_moment_one_may_look(served: Served, a: House, world: World) -> None:
    attempted = Attempted(a.id, uuid4(), uuid4())
    for _ in range(9):
        await attempts.failed(attempted, served.parts.pool)
    async with await psycopg.AsyncConnection.connect(world.database.owner_url) as other:
        await other.execute("ALTER TABLE edges.attempts NO FORCE ROW LEVEL SECURITY")
        await other.commit()
        await other.execute("SELECT FROM edges.attempts WHERE key = %s FOR UPDATE", (attempted.account,))
        asking = asyncio.gather(*(attempts.begin(attempted, served.parts.pool) for _ in range(3)))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(house.PATIENCE_S):
            while (await (await other.execute(waiting)).fetchone()) != (3,):
                await other.execute("SELECT pg_stat_clear_snapshot()")
        await other.commit()
    assert sorted(each.closed is None for each in await asking) == [False, False, True]


async def test_who_has_to_wait_does_not_wait_longer_for_asking_again(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the address, for an account that others made wait."""
    for of in (attempts.ACCOUNT, attempts.ADDRESS):
        monkeypatch.setitem(attempts.DELAYS, of, Delay(free=1, longest_s=900))
    attempted, elsewhere = Attempted(a.id, name := uuid4(), uuid4()), Attempted(a.id, name, uuid4())
    for each in (attempted, attempted, elsewhere):
        await attempts.failed(each, served.parts.pool)
    for _ in range(5):
        for each in (attempted, elsewhere):
            assert (await attempts.begin(each, served.parts.pool)).closed == (attempts.ACCOUNT, 2)
    assert (await attempts.begin(Attempted(a.id, uuid4(), elsewhere.address), served.parts.pool)).closed is None


async def test_a_right_password_after_the_free_failures_reopens_both_at_once(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted before it was looked at, it must not count as failed, neither for the account nor for who shares the address."""
    for of in (attempts.ACCOUNT, attempts.ADDRESS):
        monkeypatch.setitem(attempts.DELAYS, of, Delay(free=2, longest_s=900))
    for _ in range(2):
        await tries(served, a, a.user.email)
    for _ in range(3):
        assert (await tries(served, a, a.user.email, house.PASSWORD)).status_code == 200
    assert (await tries(served, a, "nobody@alpha.test")).status_code == 401
    assert (await tries(served, a, a.affiliate.email, house.PASSWORD)).status_code == 429


async def test_what_was_not_looked_at_does_not_count(served: Served, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is turned away because too many log in would wait for it as if the password had been wrong."""
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=1, longest_s=60))
    await tries(served, a, a.user.email)

    async def overloaded(*_: Any) -> bool:
        raise passwords.HashingOverloaded

    with monkeypatch.context() as patched:
        patched.setattr(served.parts.passwords, "matches", overloaded)
        assert [(await tries(served, a, a.user.email)).status_code for _ in range(3)] == [503] * 3
    assert (await tries(served, a, a.user.email, house.PASSWORD)).status_code == 200


async def test_a_right_password_that_needs_a_code_besides_clears_the_accounts_failures(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=2, longest_s=60))

    async def needed(*_: Any) -> None:
        raise challenges.SecondFactorNeeded("a challenge", enrol=False)

    monkeypatch.setattr(challenges, "ask", needed)
    for _ in range(3):
        assert (await tries(served, a, a.user.email)).status_code == 401
        assert "challenge" in (await tries(served, a, a.user.email, house.PASSWORD)).text


async def test_guesses_at_the_current_password_wait_too_and_do_not_keep_anybody_from_logging_in(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever found an open browser could guess as fast as passwords are hashed, and then take the account."""
    monkeypatch.setitem(attempts.DELAYS, attempts.ACCOUNT, Delay(free=2, longest_s=60))
    asked = [
        ("PUT", "/users/me/password", {"password": "quite another secret"}),
        ("POST", "/users/me/email", {"email": "new@alpha.test"}),
        ("POST", "/users/me/second-factor", {}),
        ("POST", "/users/me/second-factor/removal", {}),
    ]
    for of, (method, path, body) in enumerate(asked):
        person = (a.user, a.affiliate, a.admin, a.user)[of]
        given = {**body, "current_password": WRONG}
        answers = [await served.ask(person, method, path, json=given) for _ in range(4 if of < 3 else 1)]
        expected = [403] * 3 + [429] if of < 3 else [429]
        assert [each.status_code for each in answers] == expected, path
        assert 'The limit "current password"' in answers[-1].json()["detail"]
    assert (await tries(served, a, a.user.email, house.PASSWORD)).status_code == 200
    assert {each["account_id"] for each in await counted(a)} == {
        str(each.id) for each in (a.user, a.affiliate, a.admin)
    }


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


async def test_failures_that_could_not_be_recorded_are_counted_by_the_next_event(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A break-in could otherwise hide behind a moment in which nothing can be written."""
    monkeypatch.setattr(attempts, "TOLD_EVERY_S", 0)
    attempted = Attempted(a.id, uuid4(), uuid4())
    for _ in range(5):
        await attempts.failed(attempted, served.parts.pool)

    async def away(*_: Any) -> None:
        raise errors.DatabaseAway

    with monkeypatch.context() as patched:
        patched.setattr(a.ledger, "append", away)
        with pytest.raises(errors.DatabaseAway):
            await attempts.tell(attempted, a.user.id, caller(a.id), a.ledger, served.parts.pool)
    assert not await attempts.tell(attempted, a.user.id, caller(a.id), a.ledger, served.parts.pool)
    assert [each["attempts"] for each in await counted(a)] == [5]


async def test_what_failed_within_the_minute_after_an_event_is_told_at_its_end(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand guesses that stop before the minute is over would stand in the audit trail as one."""
    for of in (attempts.ACCOUNT, attempts.ADDRESS):
        monkeypatch.setitem(attempts.DELAYS, of, Delay(free=1_000, longest_s=1))
    await tries(served, a, a.user.email)
    await api_attempts.told()  # else the event may count what failed meanwhile
    for _ in range(3):
        await tries(served, a, a.user.email)
    assert [each["attempts"] for each in await counted(a)] == [1]
    ((key, timer),) = [each for each in api_attempts._later.items() if each[0].tenant_id == a.id]
    assert timer.when() - asyncio.get_running_loop().time() <= attempts.TOLD_EVERY_S + 1
    monkeypatch.setattr(attempts, "TOLD_EVERY_S", 0)
    timer._run()  # the minute is over
    timer.cancel()
    assert [each["attempts"] for each in await counted(a)] == [1, 3]
    assert key not in api_attempts._later


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
    assert (await attempts.begin(Attempted(a.id, name, address), served.parts.pool)).closed is not None
    assert (await attempts.begin(Attempted(b.id, name, address), served.parts.pool)).closed is None
