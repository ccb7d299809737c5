"""The audit trail: what it shows, to whom, and how one finds something in it."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from api import audit
from commands import accounts as commands
from commands import exports, rotations
from domain.accounts import Role
from domain.rotations import Rotated
from domain.tenants import PLATFORM_ID
from ledger import errors
from tests.api import house
from tests.api.house import House, Served
from tests.world import World, caller


async def trail(served: Served, a: House, **query: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(100):
        answer = await served.get(a.admin, "/audit", params={**query, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        if page["meta"]["next_cursor"] is None:
            return found
        cursor = {"cursor": page["meta"]["next_cursor"]}
    raise AssertionError("the trail has no end")


async def test_it_shows_who_did_what_and_no_persons_data_and_no_sales(served: Served, a: House) -> None:
    """Names and addresses are ciphertext in the stream; an auditor needs neither."""
    await a.sells(await a.lists())
    found = await trail(served, a)
    assert {each["kind"] for each in found} == {"tenant.created", "account.registered", "session.started"}
    assert [each["position"] for each in found] == sorted((each["position"] for each in found), reverse=True)
    login = next(each for each in found if each["kind"] == "session.started")
    assert login["details"] == {"account_id": str(a.affiliate.id)}
    registered = [each for each in found if each["kind"] == "account.registered"]
    assert {tuple(sorted(each["details"])) for each in registered} == {("role", "tenant_id")}
    assert a.user.email not in str(found)


async def test_it_is_for_admins_and_of_ones_own_tenant(served: Served, a: House, b: House) -> None:
    for person in (a.user, a.affiliate):
        assert (await served.get(person, "/audit")).status_code == 403
    assert (await served.get(None, "/audit")).status_code == 401
    ours = {each["subject_id"] for each in await trail(served, a)}
    theirs = {each["subject_id"] for each in await trail(served, b)}
    assert ours
    assert not ours & theirs


async def test_it_is_read_page_by_page_by_kind_and_by_actor(served: Served, a: House) -> None:
    for _ in range(5):
        body = {"email": a.user.email, "password": "correct horse battery", "tenant": a.slug}
        token = (await served.client.post("/api/v1/auth/login", json=body)).json()["data"]["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await served.client.post("/api/v1/auth/logout", headers=headers)).status_code == 204
    everything = await trail(served, a)
    assert await trail(served, a, limit=1) == everything
    assert await trail(served, a, limit=3) == everything
    sessions = [each for each in everything if each["kind"].startswith("session.")]
    assert await trail(served, a, kind="session", limit=2) == sessions
    revoked = await trail(served, a, kind="session.revoked")
    assert (len(revoked), {each["details"]["reason"] for each in revoked}) == (5, {"logged out"})
    assert await trail(served, a, actor=str(a.user.id)) == revoked
    assert await trail(served, a, actor=str(a.admin.id)) == []


async def test_it_is_read_by_time(served: Served, a: House) -> None:
    everything = await trail(served, a)
    middle = everything[2]["recorded_at"]
    late = await trail(served, a, since=middle)
    early = await trail(served, a, until=middle)
    assert everything[2] in late
    assert everything[2] in early
    assert {each["position"] for each in late + early} == {each["position"] for each in everything}
    after = (datetime.fromisoformat(everything[0]["recorded_at"]) + timedelta(seconds=60)).isoformat()
    assert await trail(served, a, since=after) == []


async def test_what_cannot_be_asked_is_said(served: Served, a: House) -> None:
    for query in ({"kind": "Session*"}, {"cursor": "x"}, {"since": "yesterday"}, {"actor": "me"}, {"limit": "0"}):
        answer = await served.get(a.admin, "/audit", params=query)
        (field,) = query
        assert (answer.status_code, list(answer.json()["errors"])) == (422, [field]), answer.text


async def test_an_answer_looks_at_a_bounded_number_of_events(served: Served, a: House, monkeypatch: Any) -> None:
    """A search for what is not there must not read a stream of millions in one request."""
    monkeypatch.setattr(audit, "LOOKED_AT_MAX", 3)
    for number in range(5):
        command = commands.Register(email=f"{number}@alpha.test", name="Some One", password="correct horse battery")
        await commands.register(command, caller(a.id), a.ledger, served.parts.passwords)
    answer = await served.get(a.admin, "/audit", params={"kind": "session.revoked", "limit": 2})
    assert answer.json()["data"] == []
    assert answer.json()["meta"]["next_cursor"] is not None
    assert await trail(served, a, kind="tenant", limit=2) == (await trail(served, a))[-1:]


async def test_positions_are_opaque_to_who_may_not_read_the_ledger(served: Served, a: House) -> None:
    """Of two of them one would read how much the tenant sells."""
    program = await a.program("audit:read")
    first = (await served.get(program, "/audit", params={"limit": 1})).json()
    assert not str(first["data"][0]["position"]).isdigit()
    cursor = first["meta"]["next_cursor"]
    assert not cursor.isdigit()
    second = await served.get(program, "/audit", params={"limit": 1, "cursor": cursor})
    assert second.json()["data"][0]["subject_id"] == (await trail(served, a))[1]["subject_id"]
    assert not second.headers["x-position"].isdigit()


async def test_who_takes_a_persons_data_out_is_in_it(served: Served, a: House) -> None:
    """A person's data that left by an admin's hand are what an auditor asks for first."""
    for person, of in ((a.user, a.user), (a.admin, a.user), (a.affiliate, a.user)):
        await served.get(person, f"/users/{of.id}/export")
    found = await trail(served, a, kind="person.exported")
    assert [(each["actor_id"], each["role"], each["details"]) for each in found] == [
        (str(person.id), person.role, {"account_id": str(a.user.id)}) for person in (a.admin, a.user)
    ]


async def test_who_asks_for_the_own_data_in_a_loop_does_not_fill_the_stream(served: Served, a: House) -> None:
    """Events of security count towards no limit: each minute has one for each person and who asks."""
    begun = time.time() // exports.RECORDED_EVERY_S
    answers = await asyncio.gather(*(served.get(a.user, f"/users/{a.user.id}/export") for _ in range(20)))
    assert {each.status_code for each in answers} == {200}
    minutes = time.time() // exports.RECORDED_EVERY_S - begun + 1
    assert 1 <= len(await trail(served, a, kind="person.exported")) <= minutes


async def test_what_was_not_recorded_is_not_handed_out(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise errors.Overloaded(1)

    monkeypatch.setattr(exports, "of_person", full)
    refused = await served.get(a.user, f"/users/{a.user.id}/export")
    assert (refused.status_code, a.user.email in refused.text) == (503, False)


async def test_the_platforms_trail_has_the_changes_of_keys(world: World, served: Served, a: House) -> None:
    """Keys are the installation's, so it is super admins who see that they were changed, and no tenant."""
    await rotations.record(Rotated.TOKENS, "kid-2", a.ledger, at_once=True)
    await rotations.record(Rotated.PERSONS, "2026", a.ledger)
    root = await house.person(world, PLATFORM_ID, Role.SUPER_ADMIN, "root@platform.test")
    found = (await served.get(root, "/audit", params={"kind": "security"})).json()["data"]
    assert [(each["kind"], each["role"], each["details"]) for each in found] == [
        ("security.key_rotated", "system", {"of": "persons", "key_id": "2026", "at_once": False}),
        ("security.key_rotated", "system", {"of": "tokens", "key_id": "kid-2", "at_once": True}),
    ]
    assert await trail(served, a, kind="security") == []
