"""Where one is logged in, logging out there, and what becomes of the tokens."""

from typing import Any

import httpx

from tests.api.house import PASSWORD, House, Served


async def log_in(served: Served, house: House, device: str = "Phone") -> dict[str, Any]:
    body = {"email": house.user.email, "password": PASSWORD, "tenant": house.slug}
    answer = await served.post(None, "/auth/login", body, headers={"User-Agent": device})
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()["data"]
    return data


async def ask(served: Served, tokens: dict[str, Any], method: str, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    return await served.client.request(method, f"/api/v1{path}", headers=headers)


async def refresh(served: Served, tokens: dict[str, Any]) -> httpx.Response:
    return await served.post(None, "/auth/refresh", {"refresh_token": tokens["refresh_token"]})


async def is_good(served: Served, tokens: dict[str, Any]) -> bool:
    return (await ask(served, tokens, "GET", "/users/me")).status_code == 200


async def listed(served: Served, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    found = await ask(served, tokens, "GET", "/users/me/sessions")
    assert (found.status_code, found.json()["meta"]) == (200, {"next_cursor": None})
    data: list[dict[str, Any]] = found.json()["data"]
    return data


async def test_one_sees_where_one_is_logged_in(served: Served, a: House, b: House) -> None:
    phone = await log_in(served, a, "Phone")
    laptop = await log_in(served, a, "Laptop")
    shown = await listed(served, laptop)
    assert [(each["device"], each["address"], each["current"]) for each in shown] == [
        ("Laptop", "127.0.0.1", True),
        ("Phone", "127.0.0.1", False),
        ("", "", False),  # of the fixture
    ]
    renewed = (await refresh(served, phone)).json()["data"]
    first = (await listed(served, renewed))[0]
    assert (first["current"], first["last_seen_at"] > first["started_at"]) == (True, True)


async def test_a_session_is_ended_from_another_one(served: Served, a: House) -> None:
    """The phone was lost: its tokens must be good no longer, the others must."""
    phone, laptop = await log_in(served, a, "Phone"), await log_in(served, a, "Laptop")
    lost = next(each["id"] for each in await listed(served, laptop) if each["device"] == "Phone")
    for _ in range(2):
        assert (await ask(served, laptop, "DELETE", f"/users/me/sessions/{lost}")).status_code == 204
    assert not await is_good(served, phone)
    assert (await refresh(served, phone)).status_code == 401
    assert await is_good(served, laptop)
    assert lost not in {each["id"] for each in await listed(served, laptop)}


async def test_a_session_of_somebody_else_is_not_found(served: Served, a: House, b: House) -> None:
    mine = await log_in(served, a)
    (theirs,) = (await served.get(a.admin, "/users/me/sessions")).json()["data"]
    (elsewhere,) = (await served.get(b.user, "/users/me/sessions")).json()["data"]
    for session in (theirs, elsewhere):
        assert (await ask(served, mine, "DELETE", f"/users/me/sessions/{session['id']}")).status_code == 404
    assert (await served.get(a.admin, "/users/me")).status_code == 200
    assert (await served.get(b.user, "/users/me")).status_code == 200


async def test_one_logs_out_everywhere(served: Served, a: House) -> None:
    phone, laptop = await log_in(served, a, "Phone"), await log_in(served, a, "Laptop")
    assert (await ask(served, laptop, "DELETE", "/users/me/sessions")).status_code == 204
    for tokens in (phone, laptop):
        assert not await is_good(served, tokens)
        assert (await refresh(served, tokens)).status_code == 401
    assert (await served.get(a.user, "/users/me")).status_code == 401
    assert (await served.get(a.admin, "/users/me")).status_code == 200
    assert await is_good(served, await log_in(served, a))


async def test_who_logs_out_is_out_at_once(served: Served, a: House) -> None:
    """The access token is good for a quarter of an hour otherwise."""
    tokens = await log_in(served, a)
    assert await is_good(served, tokens)
    assert (await ask(served, tokens, "POST", "/auth/logout")).status_code == 204
    refused = await ask(served, tokens, "GET", "/users/me")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await refresh(served, tokens)).status_code == 401


async def test_a_replayed_refresh_token_ends_all_that_came_of_it(served: Served, a: House) -> None:
    """The thief's tokens and the owner's are good no longer, and the tenant's stream says why."""
    stolen = await log_in(served, a)
    renewed = (await refresh(served, stolen)).json()["data"]
    assert await is_good(served, renewed)
    assert (await refresh(served, stolen)).status_code == 401
    for tokens in (stolen, renewed):
        assert not await is_good(served, tokens)
        assert (await refresh(served, tokens)).status_code == 401
    last = (await a.ledger.entries(a.id, 0, 1_000))[-2:]
    assert [entry.topic for entry in last] == ["security.refresh_token_replayed", "session.revoked"]


async def test_nobody_chooses_the_session_that_is_begun(served: Served, a: House) -> None:
    """Else somebody could have another log in to a session whose tokens they know (session fixation)."""
    body = {"email": a.user.email, "password": PASSWORD, "tenant": a.slug}
    for extra in ({"session_id": str(a.id)}, {"sid": str(a.id)}, {"refresh_token": "x"}):
        assert (await served.post(None, "/auth/login", {**body, **extra})).status_code == 422
    first = await log_in(served, a)
    headers = {"Authorization": f"Bearer {first['access_token']}", "Cookie": "session=x"}
    second = (await served.post(None, "/auth/login", body, headers=headers)).json()["data"]
    sessions = await listed(served, second)
    assert len({each["id"] for each in sessions}) == len(sessions) == 3
