"""Users as admins have them, over HTTP."""

from tests.api.house import PASSWORD, House, Served


async def test_an_admin_makes_changes_and_deactivates_a_user(served: Served, a: House) -> None:
    """What they were told by each answer is what the next query shows."""
    body = {"user": {"email": "New@Alpha.test", "name": "New", "password": PASSWORD, "role": "affiliate"}}
    made = await served.post(a.admin, "/users", body)
    assert made.status_code == 201
    user = made.json()["data"]
    path = f"/users/{user['id']}"
    assert made.headers["Location"] == f"/api/v1{path}"
    assert (user["email"], user["role"], user["status"]) == ("New@Alpha.test", "affiliate", "active")
    position = {"X-Position": made.headers["X-Position"]}
    listed = (await served.get(a.admin, "/users", params={"role": "affiliate"}, headers=position)).json()["data"]
    assert [each["id"] for each in listed] == [user["id"], str(a.affiliate.id)]
    assert listed[0] == user

    changed = await served.ask(
        a.admin, "PATCH", path, json={"role": "user"}, headers={"If-Match": made.headers["ETag"]}
    )
    assert (changed.status_code, changed.json()["data"]["role"]) == (200, "user")
    stale = await served.ask(a.admin, "PATCH", path, json={"name": "X"}, headers={"If-Match": made.headers["ETag"]})
    assert stale.status_code == 412
    replaced = await served.ask(a.admin, "PUT", path, json={"name": "Newer", "role": "user"})
    assert replaced.json()["data"]["name"] == "Newer"

    assert (await served.ask(a.admin, "DELETE", path)).status_code == 204
    login = {"email": "new@alpha.test", "password": PASSWORD, "tenant": "alpha"}
    assert (await served.post(None, "/auth/login", login)).status_code == 401
    assert (await served.ask(a.admin, "PATCH", path, json={"name": "X"})).status_code == 409
    assert (await served.get(a.admin, path)).json()["data"]["status"] == "deactivated"
    assert (await served.post(a.admin, f"{path}/reactivation", None)).json()["data"]["status"] == "active"
    assert (await served.post(None, "/auth/login", login)).status_code == 200


async def test_what_a_body_may_not_say_is_refused(served: Served, a: House) -> None:
    """No field makes somebody a super admin, or an account of another tenant."""
    body = {"email": "new@alpha.test", "name": "New", "password": PASSWORD}
    for extra in ({"id": str(a.user.id)}, {"tenant_id": str(a.id)}, {"status": "active"}, {"role": "super_admin"}):
        refused = await served.post(a.admin, "/users", {**body, **extra})
        assert refused.status_code == 422
        assert list(refused.json()["errors"]) == list(extra)
        refused = await served.ask(a.admin, "PATCH", f"/users/{a.user.id}", json=extra)
        assert (refused.status_code, list(refused.json()["errors"])) == (422, list(extra))


async def test_the_last_admin_cannot_be_demoted_or_deactivated(served: Served, a: House) -> None:
    path = f"/users/{a.admin.id}"
    assert (await served.ask(a.admin, "PATCH", path, json={"role": "user"})).status_code == 409
    assert (await served.ask(a.admin, "DELETE", path)).status_code == 409


async def test_one_deactivates_oneself(served: Served, a: House) -> None:
    """And nobody else; the token is good no longer at once."""
    assert (await served.ask(a.user, "DELETE", f"/users/{a.affiliate.id}")).status_code == 404
    assert (await served.ask(a.user, "DELETE", f"/users/{a.user.id}")).status_code == 204
    assert (await served.get(a.user, "/users/me")).status_code == 401


async def test_lists_are_asked_for_roles_and_statuses_that_there_are(served: Served, a: House) -> None:
    for parameters in ({"role": "king"}, {"status": "dead"}, {"limit": 0}, {"cursor": "%%"}):
        refused = await served.get(a.admin, "/users", params=parameters)
        assert (refused.status_code, list(refused.json()["errors"])) == (422, list(parameters))
