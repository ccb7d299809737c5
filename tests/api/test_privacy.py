"""Erasing a person over HTTP, and giving a person all that is held of them."""

import dataclasses
from uuid import UUID

import pytest

from api import privacy as privacy_routes
from api.app import create_app
from commands import privacy
from domain import accounts
from ledger import codec, ids
from tests.api.house import PASSWORD, House, Served


async def test_who_erases_oneself_is_gone(served: Served, a: House) -> None:
    path = f"/api/v1/users/{a.user.id}/erasure"
    answer = await served.client.post(path, headers=a.user.headers)
    assert (answer.status_code, answer.json()["data"]["user_id"]) == (200, str(a.user.id))
    log_in = {"email": a.user.email, "password": PASSWORD, "tenant": a.slug}
    assert (await served.client.post("/api/v1/auth/login", json=log_in)).status_code == 401
    assert (await served.client.get("/api/v1/users/me", headers=a.user.headers)).status_code == 401
    account = await served.parts.ledger.load(accounts.Account, a.id, a.user.id)
    assert (account.email, account.name) == (codec.ERASED, codec.ERASED)
    again = await served.client.post(path, headers=a.admin.headers)
    assert (again.status_code, again.json()) == (200, answer.json())


async def test_who_is_erased_over_http_is_noted_outside_the_database(served: Served, a: House) -> None:
    """Else the person would be back with the next backup that is restored."""
    noted: list[tuple[UUID, UUID]] = []

    async def note(tenant_id: UUID, subject_id: UUID) -> None:
        noted.append((tenant_id, subject_id))
        if len(noted) == 1:
            raise privacy.NotNoted

    app = create_app(dataclasses.replace(served.parts, noted=note))
    async with Served(app, served.parts).client as client:
        path = f"/api/v1/users/{a.user.id}/erasure"
        refused = await client.post(path, headers=a.user.headers)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert (await a.ledger.load(accounts.Account, a.id, a.user.id)).email == a.user.email
        assert (await client.post(path, headers=a.user.headers)).status_code == 200
    assert noted == [(a.id, a.user.id)] * 2


async def test_nobody_erases_or_exports_somebody_else_but_an_admin_of_the_tenant(
    served: Served, a: House, b: House
) -> None:
    for method, what in (("POST", "erasure"), ("GET", "export")):
        path = f"/api/v1/users/{a.affiliate.id}/{what}"
        for headers, status in ((a.user.headers, 404), (b.user.headers, 404), (b.admin.headers, 404), ({}, 401)):
            assert (await served.client.request(method, path, headers=headers)).status_code == status
        unknown = f"/api/v1/users/{ids.new_id()}/{what}"
        assert (await served.client.request(method, unknown, headers=a.admin.headers)).status_code == 404
    for method, what in (("GET", "export"), ("POST", "erasure")):
        path = f"/api/v1/users/{a.affiliate.id}/{what}"
        assert (await served.client.request(method, path, headers=a.admin.headers)).status_code == 200


@pytest.mark.parametrize("sales", [0, 1, 103])
async def test_the_export_has_all_of_the_person_and_nothing_of_others(served: Served, a: House, sales: int) -> None:
    """More than a page too."""
    mug = await a.lists()
    made = [await a.sells(mug, buyer=a.user) for _ in range(sales)]
    if made:
        await a.refunds(made[0], 1)
    await a.sells(mug, buyer=a.affiliate)
    answer = await served.client.get(f"/api/v1/users/{a.user.id}/export", headers=a.user.headers)
    assert answer.headers["Cache-Control"] == "no-store"
    exported = answer.json()["data"]
    known = {"id": str(a.user.id), "email": a.user.email, "name": "alpha user", "role": "user", "tenant_id": str(a.id)}
    assert {name: exported["user"][name] for name in known} == known
    assert len(exported["user"]["sessions"]) == 1
    assert {each["id"] for each in exported["transactions"]} == {str(sale.id) for sale in made}
    assert len(exported["transactions"]) == sales
    assert [each["transaction_id"] for each in exported["refunds"]] == [str(sale.id) for sale in made[:1]]


async def test_the_export_says_what_the_audit_trail_says_of_the_person(
    served: Served, a: House, b: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When somebody logged in, and who changed or looked at the account, is about the person as well."""
    monkeypatch.setattr(privacy_routes, "EVENTS_PER_READ", 2)
    changed = await served.ask(a.admin, "PATCH", f"/users/{a.user.id}", json={"name": "Other"})
    assert changed.status_code == 200
    await served.ask(b.admin, "PATCH", f"/users/{b.user.id}", json={"name": "Other"})
    assert (await served.ask(a.user, "PATCH", "/users/me", json={"name": "Third"})).status_code == 200
    for person in (a.admin, a.user):
        path = f"/api/v1/users/{person.id}/export"
        events = (await served.client.get(path, headers=person.headers)).json()["data"]["events"]
        audit = (await served.get(a.admin, "/audit", params={"limit": 100})).json()["data"]
        assert [(each["kind"], each["subject_id"], each["details"]) for each in events] == [
            (each["kind"], each["subject_id"], each["details"])
            for each in audit
            if str(person.id) in (each["subject_id"], each["actor_id"], each["details"].get("account_id"))
        ]
    kinds = [each["kind"] for each in events]
    assert kinds == ["person.exported", "account.renamed", "account.renamed", "session.started", "account.registered"]
    assert "Third" not in str(events)  # former names stand beside the account


async def recorded(served: Served, house: House, buyer_ref: str) -> str:
    """The id of a sale under that reference."""
    body = {"lines": [{"sku": "MUG", "quantity": 1}], "buyer_ref": buyer_ref}
    made = await served.post(house.admin, "/transactions", body)
    assert made.status_code == 201, made.text
    id: str = made.json()["data"]["id"]
    return id


async def test_a_buyer_without_an_account_is_erased_by_an_admin(served: Served, a: House) -> None:
    """Whoever bought as a guest can ask to be forgotten too, and a repeat has the first answer."""
    await a.lists()
    ours, others = await recorded(served, a, "ann@example.com"), await recorded(served, a, "bob@example.com")
    headers = {"Idempotency-Key": "forget Ann"}
    body = {"buyer": {"buyer_ref": " ann@example.com "}}
    erased = await served.post(a.admin, "/buyers/erasure", body, headers=headers)
    assert erased.status_code == 200, erased.text
    again = await served.post(a.admin, "/buyers/erasure", body, headers=headers)
    assert (again.status_code, again.json()) == (200, erased.json())
    shown = {"X-Position": erased.headers["X-Position"]}
    for id, ref in ((ours, codec.ERASED), (others, "bob@example.com")):
        sale = (await served.get(a.admin, f"/transactions/{id}", headers=shown)).json()["data"]
        assert sale["buyer_ref"] == ref
    (entry,) = (await served.get(a.admin, "/ledger/entries", params={"from": erased.headers["X-Position"]})).json()[
        "data"
    ]
    assert (entry["topic"], entry["recorded_at"]) == ("person.erased", erased.json()["data"]["erased_at"])
    assert erased.json()["data"]["subject_id"] in entry["state"]
    assert "ann" not in entry["state"] + entry["metadata"]


async def test_a_reference_of_nobody_is_told_without_being_repeated(served: Served, a: House, b: House) -> None:
    """It may be an e-mail address, and answers are logged on the way."""
    await b.lists()
    await recorded(served, b, "ann@example.com")
    head = (await a.ledger.head(a.id)).position
    for reference in ("ann@example.com", "", "x" * 300):
        refused = await served.post(a.admin, "/buyers/erasure", {"buyer_ref": reference})
        assert refused.status_code == 422, refused.text
        assert "ann@" not in refused.text
    for body in ({}, {"buyer_ref": None}, {"buyer_ref": "1", "source": "till"}):
        assert (await served.post(a.admin, "/buyers/erasure", body)).status_code == 422
    assert (await a.ledger.head(a.id)).position == head
    await served.views_reach(b)
    sale = (await served.get(b.admin, "/transactions")).json()["data"][0]
    assert sale["buyer_ref"] == "ann@example.com"


async def test_only_admins_erase_buyers(served: Served, a: House) -> None:
    for person in (a.user, a.affiliate):
        assert (await served.post(person, "/buyers/erasure", {"buyer_ref": "1"})).status_code == 403


async def test_the_last_admin_cannot_be_erased(served: Served, a: House) -> None:
    """Nobody could run the tenant any more; the answer says what to do first."""
    path = f"/users/{a.admin.id}/erasure"
    refused = await served.ask(a.admin, "POST", path)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:bitnexus:problem:conflict")
    assert "Let there be another admin first" in refused.json()["detail"]
    assert (await served.get(a.admin, "/users/me")).json()["data"]["email"] == a.admin.email


async def test_an_affiliate_is_given_the_sales_that_they_brought(served: Served, a: House) -> None:
    mug = await a.lists()
    brought = await a.sells(mug, buyer=a.user, affiliate=a.affiliate)
    await a.sells(mug, buyer=a.user)
    await a.refunds(brought, 1)
    path = f"/api/v1/users/{a.affiliate.id}/export"
    exported = (await served.client.get(path, headers=a.affiliate.headers)).json()["data"]
    assert [each["id"] for each in exported["transactions"]] == [str(brought.id)]
    assert [each["transaction_id"] for each in exported["refunds"]] == [str(brought.id)]
