"""Over HTTP: passwords, addresses, second factors, invitations; what strangers learn, and what the answers leave in caches."""

import statistics
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pyotp
import pytest

from commands import passwords
from commands.accounts import mailed
from tests.api.house import PASSWORD, House, Served
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import World

NEW = "quite another secret"


@pytest.fixture
def mailbox(world: World) -> Mailbox:
    return Mailbox(world)


async def log_in(served: Served, house: House, email: str, password: str = PASSWORD) -> httpx.Response:
    return await served.post(None, "/auth/login", {"email": email, "password": password, "tenant": house.slug})


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['data']['access_token']}"}


def fields(answer: httpx.Response) -> list[str]:
    return list(answer.json()["errors"])


async def test_who_changes_the_password_stays_logged_in_and_nobody_else(served: Served, a: House) -> None:
    here, elsewhere = [await log_in(served, a, a.user.email) for _ in range(2)]
    body = {"current_password": "wrong horse battery", "password": NEW}
    path = "/api/v1/users/me/password"
    wrong = await served.client.put(path, json=body, headers=bearer(here))
    assert (wrong.status_code, wrong.json()["type"]) == (403, "urn:bitnexus:problem:wrong-password")
    body["current_password"] = PASSWORD
    common = await served.client.put(path, json={**body, "password": "password1"}, headers=bearer(here))
    assert (common.status_code, fields(common)) == (422, ["password"])
    done = await served.client.put(path, json=body, headers=bearer(here))
    assert (done.status_code, done.content) == (204, b"")
    assert (await served.client.get("/api/v1/users/me", headers=bearer(here))).status_code == 200
    assert (await served.client.get("/api/v1/users/me", headers=bearer(elsewhere))).status_code == 401
    assert (await log_in(served, a, a.user.email)).status_code == 401
    assert (await log_in(served, a, a.user.email, NEW)).status_code == 200


async def test_a_forgotten_password(served: Served, a: House, mailbox: Mailbox) -> None:
    known, unknown = [
        await served.post(None, "/auth/password/forgot", {"email": email, "tenant": a.slug})
        for email in (a.user.email.upper(), "nobody@alpha.test")
    ]
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content) == (202, b"")
    assert set(known.headers) == set(unknown.headers)
    (letter,) = await mailbox.fetch()
    body = {"token": token_in(letter), "password": NEW}
    assert (await served.post(None, "/auth/password/reset", body)).status_code == 204
    again = await served.post(None, "/auth/password/reset", body)
    assert (again.status_code, fields(again)) == (422, ["token"])
    assert (await log_in(served, a, a.user.email, NEW)).status_code == 200
    assert (await served.get(a.user, "/users/me")).status_code == 401


async def test_the_time_of_asking_does_not_tell_who_has_an_account(served: Served, a: House, mailbox: Mailbox) -> None:
    """By construction both do the same; this would notice if one of them began to do more. With wide slack."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    for n in range(40):
        for known in (True, False):
            email = f"p{n}@alpha.test"
            if known:
                body = {"email": email, "name": "P", "password": PASSWORD, "tenant": a.slug}
                assert (await served.post(None, "/auth/register", body)).status_code == 201
            else:
                email = f"nobody{n}@alpha.test"
            begun = time.perf_counter()
            await served.post(None, "/auth/password/forgot", {"email": email, "tenant": a.slug})
            spent[known].append(time.perf_counter() - begun)
    medians = [statistics.median(each) for each in spent.values()]
    assert max(medians) < 3 * min(medians)


async def test_a_new_address_and_a_new_name(served: Served, a: House, mailbox: Mailbox) -> None:
    body = {"email": "Una@Elsewhere.example", "current_password": PASSWORD}
    assert (await served.post(a.user, "/users/me/email", {**body, "current_password": "x"})).status_code == 403
    asked = await served.post(a.user, "/users/me/email", body)
    assert (asked.status_code, asked.content) == (202, b"")
    token = token_in((await mailbox.fetch())[0])
    assert (await served.post(None, "/auth/email/change", {"token": token})).status_code == 204
    named = await served.ask(a.user, "PATCH", "/users/me", json={"name": "Una"})
    assert named.status_code == 200
    me = (await served.get(a.user, "/users/me")).json()["data"]
    assert (me["email"], me["name"], me["email_verified"]) == ("Una@Elsewhere.example", "Una", True)
    await served.views_reach(a)
    listed = (await served.get(a.admin, "/users")).json()["data"]
    assert {"Una@Elsewhere.example"} == {each["email"] for each in listed if each["id"] == str(a.user.id)}
    await served.post(a.user, "/users/me/email", {**body, "email": "una@third.example"})
    held = (await served.get(a.user, f"/users/{a.user.id}/export")).json()["data"]["user"]
    assert (held["former_emails"], held["former_names"]) == ([a.user.email], ["alpha user"])
    assert (held["asked_email"], held["email_verified"], held["second_factor"]) == ("una@third.example", True, False)
    stale = await served.ask(a.user, "PATCH", "/users/me", json={"name": "Eve"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412


async def test_who_asks_for_mails_too_often_is_told_when_to_come_back(served: Served, a: House) -> None:
    body = {"email": "Una@Elsewhere.example", "current_password": PASSWORD}
    assert (await served.post(a.user, "/users/me/email", body)).status_code == 202
    again = await served.post(a.user, "/users/me/email", body)
    assert (again.status_code, again.json()["type"]) == (429, "urn:bitnexus:problem:too-often")
    assert 1 <= int(again.headers["retry-after"]) <= 60


async def test_who_registers_is_asked_whether_the_address_is_theirs(
    served: Served, a: House, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailed, "BETWEEN_MAILS", timedelta(0))
    body = {"email": "Ann@Example.com", "name": "Ann", "password": PASSWORD, "tenant": a.slug}
    registered = await served.post(None, "/auth/register", body)
    assert registered.json()["data"]["user"]["email_verified"] is False
    (first,) = await mailbox.fetch()
    again = await served.client.post("/api/v1/users/me/email/verification", headers=bearer(registered))
    assert again.status_code == 202
    (second,) = await mailbox.fetch()
    statuses = [
        (await served.post(None, "/auth/email/verify", {"token": token_in(each)})).status_code
        for each in (first, second)
    ]
    assert statuses == [422, 204]
    me = await served.client.get("/api/v1/users/me", headers=bearer(registered))
    assert me.json()["data"]["email_verified"] is True


class Phone:
    def __init__(self, secret: str) -> None:
        self._totp, self._step = pyotp.TOTP(secret), int(time.time()) // 30 - 1

    def code(self) -> str:
        self._step += 1
        return self._totp.generate_otp(self._step - 1)


async def test_a_second_factor(served: Served, a: House) -> None:
    made = await served.post(a.user, "/users/me/second-factor", {"current_password": PASSWORD})
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert made.json()["data"]["uri"].startswith("otpauth://totp/alpha%20Ltd:")
    phone = Phone(made.json()["data"]["secret"])
    confirmed = await served.post(a.user, "/users/me/second-factor/confirmation", {"code": phone.code()})
    assert (confirmed.status_code, len(confirmed.json()["data"]["recovery_codes"])) == (200, 10)
    assert (await served.get(a.user, "/users/me")).json()["data"]["second_factor"] is True
    needed = await log_in(served, a, a.user.email)
    problem = needed.json()
    assert (needed.status_code, problem["type"]) == (401, "urn:bitnexus:problem:second-factor")
    assert problem["second_factor"]["enrol"] is False
    assert "second_factor" not in (await log_in(served, a, a.user.email, "wrong horse battery")).json()
    challenge = problem["second_factor"]["challenge"]
    wrong = await served.post(None, "/auth/second-factor", {"challenge": challenge, "code": "x"})
    assert (wrong.status_code, wrong.json()["type"]) == (403, "urn:bitnexus:problem:wrong-code")
    body = {"challenge": challenge, "code": phone.code()}
    let_in = await served.post(None, "/auth/second-factor", body)
    assert (let_in.status_code, let_in.headers["Cache-Control"]) == (200, "no-store")
    assert (await served.post(None, "/auth/second-factor", body)).status_code == 403
    for n in range(5):
        await served.post(None, "/auth/second-factor", {"challenge": challenge, "code": f"00000{n}"})
    waits = await served.post(None, "/auth/second-factor", {"challenge": challenge, "code": "000009"})
    assert (waits.status_code, 0 < int(waits.headers["Retry-After"]) <= 31) == (429, True)
    removal = "/users/me/second-factor/removal"
    without = await served.post(a.user, removal, {"current_password": PASSWORD})
    assert (without.status_code, fields(without)) == (422, ["code"])
    too_often = await served.post(a.user, removal, {"current_password": PASSWORD, "code": phone.code()})
    assert too_often.status_code == 429


async def test_a_second_factor_is_removed_with_password_and_code(served: Served, a: House) -> None:
    made = await served.post(a.admin, "/users/me/second-factor", {"current_password": PASSWORD})
    phone = Phone(made.json()["data"]["secret"])
    confirmation = await served.post(a.admin, "/users/me/second-factor/confirmation", {"code": phone.code()})
    assert confirmation.status_code == 200
    as_admin = await served.ask(a.admin, "DELETE", f"/users/{a.admin.id}/second-factor")
    assert as_admin.status_code == 409
    removal = {"current_password": PASSWORD, "code": phone.code()}
    assert (await served.post(a.admin, "/users/me/second-factor/removal", removal)).status_code == 204
    assert (await log_in(served, a, a.admin.email)).status_code == 200


async def test_an_admin_helps_who_lost_the_authenticator(served: Served, a: House, b: House, mailbox: Mailbox) -> None:
    made = await served.post(a.user, "/users/me/second-factor", {"current_password": PASSWORD})
    code = Phone(made.json()["data"]["secret"]).code()
    await served.post(a.user, "/users/me/second-factor/confirmation", {"code": code})
    assert (await log_in(served, a, a.user.email)).status_code == 401
    path = f"/users/{a.user.id}/second-factor"
    for person, status in ((a.affiliate, 403), (b.admin, 404), (a.admin, 204)):
        assert (await served.ask(person, "DELETE", path)).status_code == status
    assert (await log_in(served, a, a.user.email)).status_code == 200
    assert [each["To"].addresses[0].addr_spec for each in await mailbox.fetch()] == [a.user.email] * 2


async def configure(served: Served, a: House, registration: str, second_factor: str) -> None:
    body = {"registration": registration, "second_factor": second_factor}
    answer = await served.ask(a.admin, "PUT", f"/tenants/{a.id}/sign-in", json=body)
    assert (answer.status_code, answer.json()["data"]["registration"]) == (200, registration)


async def test_a_tenant_that_wants_a_second_factor(served: Served, a: House) -> None:
    await configure(served, a, "open", "required")
    body = {"email": "ann@example.com", "name": "Ann", "password": PASSWORD, "tenant": a.slug}
    for needed in (await served.post(None, "/auth/register", body), await log_in(served, a, "ann@example.com")):
        assert (needed.status_code, needed.json()["second_factor"]["enrol"]) == (401, True)
    challenge = needed.json()["second_factor"]["challenge"]
    made = await served.post(None, "/auth/second-factor/enrolment", {"challenge": challenge})
    phone = Phone(made.json()["data"]["secret"])
    done = await served.post(None, "/auth/second-factor/confirmation", {"challenge": challenge, "code": phone.code()})
    assert (done.status_code, len(done.json()["data"]["recovery_codes"])) == (200, 10)
    me = await served.client.get("/api/v1/users/me", headers=bearer(done))
    assert me.json()["data"]["second_factor"] is True
    removed = await served.client.post(
        "/api/v1/users/me/second-factor/removal", json={"current_password": PASSWORD}, headers=bearer(done)
    )
    assert removed.status_code == 409
    again = await served.post(None, "/auth/second-factor/enrolment", {"challenge": challenge})
    assert again.status_code == 401


async def test_invitations(served: Served, a: House, b: House, mailbox: Mailbox) -> None:
    made = await served.post(a.admin, "/invitations", {"email": "Cat@Example.com", "role": "affiliate"})
    assert made.status_code == 201
    assert "token" not in made.text
    listed = (await served.get(a.admin, "/invitations")).json()["data"]
    assert [(each["id"], each["email"], each["role"]) for each in listed] == [
        (made.json()["data"]["id"], "Cat@Example.com", "affiliate")
    ]
    assert (await served.get(b.admin, "/invitations")).json()["data"] == []
    await configure(served, a, "invitation", "optional")
    body: dict[str, Any] = {"email": "cat@example.com", "name": "Cat", "password": PASSWORD}
    refused = await served.post(None, "/auth/register", {**body, "tenant": a.slug})
    assert refused.status_code == 403
    token = token_in((await mailbox.fetch())[0])
    elsewhere = await served.post(None, "/auth/register", {**body, "tenant": b.slug, "invitation": token})
    assert elsewhere.json()["data"]["user"]["tenant_id"] == str(a.id), "the invitation says the tenant"
    assert elsewhere.json()["data"]["user"]["role"] == "affiliate"
    for _ in range(2):
        gone = await served.ask(a.admin, "DELETE", f"/invitations/{listed[0]['id']}")
        assert gone.status_code == 409
    second = (await served.post(a.admin, "/invitations", {"email": "dan@example.com"})).json()["data"]["id"]
    assert (await served.ask(a.admin, "DELETE", f"/invitations/{second}")).status_code == 204
    assert (await served.get(a.admin, "/invitations")).json()["data"] == []
    assert (await served.ask(a.admin, "DELETE", f"/invitations/{UUID(int=7)}")).status_code == 404


async def test_a_login_too_many_is_refused_before_anything_is_looked_up(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a flood the refusals must cost next to nothing: neither a query nor a place in the queue."""
    with monkeypatch.context() as flooded:
        flooded.setattr(served.parts.passwords, "_waiting", passwords.WAITING_MAX)
        for name in ("find", "load", "load_many", "secret"):
            flooded.setattr(served.parts.ledger, name, None)
        refused = await log_in(served, a, a.user.email)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert (await log_in(served, a, a.user.email)).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e4", "A" * 86, "A" * 5_000])
async def test_what_is_no_token_or_challenge_is_refused(served: Served, a: House, token: str) -> None:
    for path, body, status in (
        ("/auth/password/reset", {"token": token, "password": NEW}, 422),
        ("/auth/email/verify", {"token": token}, 422),
        ("/auth/email/change", {"token": token}, 422),
        ("/auth/second-factor", {"challenge": token, "code": "123456"}, 401),
        ("/auth/second-factor/enrolment", {"challenge": token}, 401),
        ("/auth/second-factor/confirmation", {"challenge": token, "code": "123456"}, 401),
        ("/auth/register", {"email": "a@b", "name": "A", "password": NEW, "invitation": token}, 422),
    ):
        assert (await served.post(None, path, body)).status_code == status, path
