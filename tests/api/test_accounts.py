"""Register, log in, refresh, log out, and the tenant that is meant."""

import dataclasses

import httpx
import pytest

from api.accounts import meant_tenant
from api.app import create_app
from tests.api.house import PASSWORD, House, Served

ANN = {"email": "Ann@Example.com", "name": "Ann Archer", "password": PASSWORD}


async def test_who_registers_is_logged_in_as_a_user(served: Served, a: House) -> None:
    answer = await served.post(None, "/auth/register", {"user": {**ANN, "tenant": a.slug}})
    assert answer.status_code == 201
    data = answer.json()["data"]
    assert (data["token_type"], data["expires_in"]) == ("Bearer", 900)
    user = data["user"]
    assert (user["email"], user["name"], user["role"]) == ("Ann@Example.com", "Ann Archer", "user")
    assert (user["tenant_id"], answer.headers["Cache-Control"]) == (str(a.id), "no-store")
    me = await served.client.get("/api/v1/users/me", headers={"Authorization": f"bearer {data['access_token']}"})
    assert me.json() == {"data": user}
    taken = await served.post(None, "/auth/register", {**ANN, "email": "ann@example.com", "tenant": a.slug})
    assert (taken.status_code, list(taken.json()["errors"])) == (409, ["email"])


async def test_nobody_chooses_role_or_id(served: Served, a: House) -> None:
    for extra in ({"role": "admin"}, {"tenant_id": "x"}, {"id": "x"}):
        refused = await served.post(None, "/auth/register", {**ANN, "tenant": a.slug, **extra})
        assert (refused.status_code, list(refused.json()["errors"])) == (422, list(extra))


async def test_nobody_registers_with_the_platform(served: Served) -> None:
    """Its stream holds the super admins and the registrations of all tenants."""
    refused = await served.post(None, "/auth/register", {**ANN, "tenant": "platform"})
    assert (refused.status_code, list(refused.json()["errors"])) == (422, ["tenant"])


async def test_a_wrong_password_and_an_unknown_address_are_refused_alike(served: Served, a: House) -> None:
    """Whoever asks must not learn which addresses have an account."""
    answers = [
        await served.post(None, "/auth/login", {"email": email, "password": password, "tenant": a.slug})
        for email, password in (
            (a.user.email, "not the password"),
            ("nobody@alpha.test", PASSWORD),
            ("no address", "x"),
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert {answer.json()["detail"].split(":")[0] for answer in answers} == {
        "Address and password do not belong together"
    }


async def log_in(served: Served, house: House) -> httpx.Response:
    body = {"email": house.user.email, "password": PASSWORD, "tenant": house.slug}
    answer = await served.post(None, "/auth/login", body)
    assert answer.status_code == 200
    return answer


async def test_a_refresh_token_is_good_once(served: Served, a: House) -> None:
    first = (await log_in(served, a)).json()["data"]
    second = await served.post(None, "/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert second.json()["data"]["user"] == first["user"]
    assert second.json()["data"]["refresh_token"] != first["refresh_token"]
    again = await served.post(None, "/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert again.status_code == 401


async def test_who_logs_out_cannot_refresh(served: Served, a: House) -> None:
    session = (await log_in(served, a)).json()["data"]
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    out = await served.client.post("/api/v1/auth/logout", headers=headers)
    assert (out.status_code, out.content) == (204, b"")
    refused = await served.post(None, "/auth/refresh", {"refresh_token": session["refresh_token"]})
    assert refused.status_code == 401


async def test_a_refresh_token_that_was_never_given_is_refused(served: Served, a: House) -> None:
    for token in ("", "x", "é", "AAAA", "A" * 107, "A" * 3000):
        assert (await served.post(None, "/auth/refresh", {"refresh_token": token})).status_code == 401, token


@pytest.mark.parametrize(
    ("host", "slug"),
    [
        ("alpha.bitnexus.example", "alpha"),
        ("ALPHA.localhost:4000", "alpha"),
        ("alpha.localhost", "alpha"),
        ("a.b.c.d", "a"),
        ("bitnexus.example", None),
        ("localhost:4000", None),
        ("127.0.0.1:4000", None),
        ("[::1]:4000", None),
        ("[::1]", None),
        ("", None),
    ],
)
def test_a_host_name_says_the_tenant_if_it_has_room_for_one(host: str, slug: str | None) -> None:
    assert meant_tenant.slug_of_host(host) == slug


async def test_the_tenant_is_the_bodys_then_the_hosts_then_the_installations(
    served: Served, a: House, b: House
) -> None:
    async def asked(client: httpx.AsyncClient, host: str, tenant: str | None = None) -> httpx.Response:
        body = {"email": a.user.email, "password": PASSWORD, **({"tenant": tenant} if tenant else {})}
        return await client.post("/api/v1/auth/login", json=body, headers={"Host": host})

    assert (await asked(served.client, "api.test", "alpha")).status_code == 200
    assert (await asked(served.client, "alpha.bitnexus.example")).status_code == 200
    assert (await asked(served.client, "beta.bitnexus.example", "alpha")).status_code == 200
    assert (await asked(served.client, "beta.bitnexus.example")).status_code == 401
    for host in ("api.test", "www.bitnexus.example"):
        unknown = await asked(served.client, host)
        assert (unknown.status_code, list(unknown.json()["errors"])) == (422, ["tenant"])
    for slug in ("gamma", "Alpha", "a\0b", "x" * 5000):
        unknown = await asked(served.client, "api.test", slug)
        assert (unknown.status_code, list(unknown.json()["errors"])) == (422, ["tenant"])
    app = create_app(dataclasses.replace(served.parts, default_tenant="alpha"))
    async with Served(app, served.parts).client as client:
        assert (await asked(client, "www.bitnexus.example")).status_code == 200


async def test_a_tenant_is_shown_to_its_members_only(served: Served, a: House, b: House) -> None:
    shown = await served.get(a.user, f"/tenants/{a.id}")
    assert {k: shown.json()["data"][k] for k in ("id", "slug", "name", "currency")} == {
        "id": str(a.id),
        "slug": "alpha",
        "name": "alpha Ltd",
        "currency": "EUR",
    }
    assert (await served.get(a.admin, f"/tenants/{b.id}")).status_code == 404
