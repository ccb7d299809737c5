"""Programs with keys, over HTTP."""

import asyncio
import time

import pytest

from api import api_keys, tokens
from api.parts import Parts
from api.rights import Who
from commands import service_accounts as commands
from domain.accounts import Role
from domain.service_accounts import ServiceAccount
from ledger import ids, key_uses
from ledger.store import Secret
from tests.api import house
from tests.api.house import House, Program, Served
from tests.world import World, caller

REVOKED_S_MAX = 2.0


async def test_an_auditor_reads_the_ledger_and_nothing_else(served: Served, a: House) -> None:
    made = await served.post(a.admin, "/service-accounts", {"name": "Auditor", "scopes": ["ledger:read"]})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    account = made.json()["data"]
    auditor = Program(a.id, "", "service", account["key"], account["key_id"])
    head = await served.get(auditor, "/ledger/head")
    assert (head.status_code, head.json()["data"]["tenant_id"]) == (200, str(a.id))
    for path in ("/transactions", "/products", "/users", "/users/me", "/service-accounts", "/feed"):
        assert (await served.get(auditor, path)).status_code == 403, path
    shown = (await served.get(a.admin, f"/service-accounts/{account['id']}")).json()["data"]
    assert shown["keys"][0]["last_used_at"] is not None
    listed = (await served.get(a.admin, "/service-accounts")).json()["data"]
    assert listed == [shown]
    assert "key" not in shown


async def test_what_a_program_does_is_recorded_as_its_doing(served: Served, a: House) -> None:
    shop = await a.program("products:write", "ledger:read")
    assert (await served.post(shop, "/products", {"sku": "X", "name": "X", "price": "1.00"})).status_code == 201
    last = (await a.ledger.entries(a.id, (await a.ledger.head(a.id)).position - 1, 1))[0]
    assert f'"actor_id":"{shop.id}"'.encode() in last.metadata
    assert b'"role":"service"' in last.metadata


async def test_a_program_gives_no_rights(served: Served, a: House) -> None:
    """A stolen key makes no other key, and no admin."""
    for scope in ("service_accounts:write", "accounts:write", "accounts:invite", "account:read", "made:up"):
        refused = await served.post(a.admin, "/service-accounts", {"name": "X", "scopes": [scope]})
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["scopes"])


async def test_a_scope_that_keys_may_not_have_any_more_counts_no_more(served: Served, a: House) -> None:
    """By an invitation a stolen key, also one that was issued before, would make itself an admin."""
    scopes = ("accounts:invite", "products:read")
    command = commands.Create(name="Old", scopes=scopes, may_give=scopes)
    made = await commands.make(command, caller(a.id), a.ledger)
    headers = {"Authorization": f"Bearer {made.key}"}
    body = {"email": "mallory@example.com", "role": "admin"}
    assert (await served.client.post("/api/v1/invitations", json=body, headers=headers)).status_code == 403
    assert (await served.client.get("/api/v1/products", headers=headers)).status_code == 200


async def test_a_revoked_key_counts_no_more_here_at_once(served: Served, a: House) -> None:
    program = await a.program("products:read")
    assert (await served.get(program, "/products")).status_code == 200
    path = f"/service-accounts/{program.id}/keys/{program.key_id}"
    assert (await served.ask(a.admin, "DELETE", path)).status_code == 204
    assert (await served.get(program, "/products")).status_code == 401
    assert (await served.ask(a.admin, "DELETE", path)).status_code == 409
    assert (await served.post(a.admin, f"/service-accounts/{program.id}/keys", None)).status_code == 201
    assert (await served.ask(a.admin, "DELETE", f"/service-accounts/{program.id}")).status_code == 204
    assert (await served.get(a.admin, f"/service-accounts/{program.id}")).json()["data"]["status"] == "closed"


async def test_a_program_is_the_tenants_and_not_of_who_made_it(served: Served, a: House, world: World) -> None:
    """An invoice run must not stop because the admin who set it up left; whoever left can change nothing of it any more."""
    other = await house.person(world, a.id, Role.ADMIN, "other@alpha.test")
    made = await served.post(other, "/service-accounts", {"name": "Invoices", "scopes": ["products:write"]})
    program, key = made.json()["data"]["id"], made.json()["data"]["key"]
    product = {"sku": "NEW", "name": "Cup", "price": "1.00"}
    assert (await served.ask(a.admin, "PATCH", f"/users/{other.id}", json={"role": "user"})).status_code == 200
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await served.post(None, "/products", product, headers=bearer)).status_code == 201
    demoted = await served.post(
        None, "/auth/login", {"email": other.email, "password": house.PASSWORD, "tenant": a.slug}
    )
    token = {"Authorization": f"Bearer {demoted.json()['data']['access_token']}"}
    assert (await served.ask(None, "DELETE", f"/service-accounts/{program}", headers=token)).status_code == 403
    assert (await served.ask(a.admin, "DELETE", f"/users/{other.id}")).status_code == 204
    assert (await served.post(None, "/products", {**product, "sku": "NEXT"}, headers=bearer)).status_code == 201
    shown = (await served.get(a.admin, f"/service-accounts/{program}")).json()["data"]
    assert (shown["created_by"], shown["scopes"]) == (
        str(other.id),
        ["products:write"],
    )  # who looks it through sees whose it was
    assert (await served.ask(a.admin, "DELETE", f"/service-accounts/{program}")).status_code == 204
    assert (await served.post(None, "/products", product, headers=bearer)).status_code == 401


async def test_a_revoked_key_counts_no_more_elsewhere_within_two_seconds(served: Served, a: House) -> None:
    """Also where this process is told nothing: the key itself is looked up again."""
    program = await a.program("products:read")
    assert (await served.get(program, "/products")).status_code == 200
    account = await a.ledger.load(ServiceAccount, a.id, program.id)
    account.revoke_key(program.key_id)
    await a.ledger.append(caller(a.id), account, secrets=[Secret(program.key_id, key_uses.KIND, None)])
    begin = time.monotonic()
    while (await served.get(program, "/products")).status_code == 200:
        assert time.monotonic() - begin < 3 * REVOKED_S_MAX
        await asyncio.sleep(0.05)
    assert api_keys.LOOKED_UP_EVERY_S < REVOKED_S_MAX


async def test_many_requests_with_one_key_look_it_up_once(
    parts: Parts, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy program must not cost the database a query a request."""
    program = await a.program("products:read")
    keys, looked_up, of_key = (
        api_keys.ApiKeys(parts.ledger, parts.pool, lambda who: None, parts.rates),
        [],
        commands.of_key,
    )

    async def counted(key: str, *arguments: object) -> commands.Found:
        looked_up.append(key)
        return await of_key(key, *arguments)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(commands, "of_key", counted)

    async def who() -> object:
        found = keys.authenticate(program.token)
        return found if isinstance(found, Who) else await found

    first, *others = await asyncio.gather(*(who() for _ in range(100)))
    assert all(each is first for each in others)
    assert await who() is first
    assert len(looked_up) == 1


async def test_whoever_goes_away_takes_nobody_elses_look_up_along(parts: Parts, a: House) -> None:
    program = await a.program("products:read")
    keys = api_keys.ApiKeys(parts.ledger, parts.pool, lambda who: None, parts.rates)
    impatient, patient = (asyncio.ensure_future(keys.authenticate(program.token)) for _ in range(2))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).account_id == program.id


async def test_a_key_that_counts_no_more_is_refused_also_when_it_was_just_looked_up(parts: Parts, a: House) -> None:
    """A suspended tenant's programs that come for the first time."""

    def suspended(who: Who) -> None:
        raise tokens.TenantSuspended

    program = await a.program("products:read")
    found = api_keys.ApiKeys(parts.ledger, parts.pool, suspended, parts.rates).authenticate(program.token)
    assert not isinstance(found, Who)
    with pytest.raises(tokens.TenantSuspended):
        await found


async def test_keys_of_nobody_are_refused_alike(served: Served, a: House, world: World) -> None:
    unknown = commands.new_key(a.id, ids.new_id())[0]
    foreign = commands.new_key(ids.new_id(), ids.new_id())[0]
    answers = [
        await served.client.get("/api/v1/products", headers={"Authorization": f"Bearer {key}"})
        for key in (unknown, foreign, "bnx_", f"{unknown}x", unknown[:-1] + "?")
    ]
    assert {each.status_code for each in answers} == {401}
    assert len({each.json()["detail"] for each in answers}) == 1
