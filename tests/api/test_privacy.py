"""Erasing a person over HTTP, and giving a person all that is held of them."""

import pytest

from ledger import codec, ids
from tests.api.house import PASSWORD, House, Served


async def test_who_erases_oneself_is_gone(served: Served, a: House) -> None:
    path = f"/api/v1/users/{a.user.id}/erasure"
    answer = await served.client.post(path, headers=a.user.headers)
    assert (answer.status_code, answer.json()["data"]["user_id"]) == (200, str(a.user.id))
    log_in = {"email": a.user.email, "password": PASSWORD, "tenant": a.slug}
    assert (await served.client.post("/api/v1/auth/login", json=log_in)).status_code == 401
    me = (await served.client.get("/api/v1/users/me", headers=a.user.headers)).json()["data"]
    assert (me["email"], me["name"]) == (codec.ERASED, codec.ERASED)
    again = await served.client.post(path, headers=a.admin.headers)
    assert (again.status_code, again.json()) == (200, answer.json())


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
    exported = (await served.client.get(f"/api/v1/users/{a.user.id}/export", headers=a.user.headers)).json()["data"]
    assert exported["user"]["email"] == a.user.email
    assert len(exported["user"]["sessions"]) == 1
    assert {each["id"] for each in exported["transactions"]} == {str(sale.id) for sale in made}
    assert len(exported["transactions"]) == sales
    assert [each["transaction_id"] for each in exported["refunds"]] == [str(sale.id) for sale in made[:1]]
