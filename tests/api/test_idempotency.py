"""The same request under the same Idempotency-Key is done once and answered alike."""

import asyncio
import hashlib
from typing import Any

import httpx
import psycopg
import pytest

from ledger import codec, errors, ids
from tests.api.house import PASSWORD, House, Served
from tests.world import World

MUG = {"sku": "MUG", "name": "Mug", "price": "9.00"}


def same(answers: list[httpx.Response]) -> None:
    first = answers[0]
    for answer in answers[1:]:
        assert answer.status_code == first.status_code
        assert answer.content == first.content
        for header in ("X-Position", "ETag", "Location"):
            assert answer.headers.get(header) == first.headers.get(header)


async def repeated(served: Served, house: House, method: str, path: str, body: Any) -> list[httpx.Response]:
    """Asked three times."""
    headers = {"Idempotency-Key": str(ids.new_id())}
    return [await served.ask(house.admin, method, path, json=body, headers=headers) for _ in range(3)]


async def test_a_repeat_of_what_is_being_done_is_told_so(served: Served, a: House) -> None:
    """A client that lost patience: it waits for the answer instead of queueing the same thing up; another key is not held up."""
    await a.lists()
    body = {"lines": [{"sku": "MUG", "quantity": 1}]}
    head = (await a.ledger.head(a.id)).position

    async def sells(key: str) -> httpx.Response:
        return await served.ask(a.admin, "POST", "/transactions", json=body, headers={"Idempotency-Key": key})

    *answers, other = await asyncio.gather(*(sells("k") for _ in range(6)), sells("another"))
    first = next(each for each in answers if each.status_code == 201)
    told = [each for each in answers if each.status_code == 409]
    assert told
    assert {each.json()["type"] for each in told} == {"urn:bitnexus:problem:in-flight"}
    assert {each.headers["Retry-After"] for each in told} == {"1"}
    same([first, *(each for each in answers if each.status_code != 409), await sells("k")])
    assert other.status_code == 201
    assert (await a.ledger.head(a.id)).position == head + 2


async def test_a_key_is_free_again_after_every_kind_of_answer(served: Served, a: House) -> None:
    """A refusal, a body that cannot be read, an id that there is not."""
    asked: list[tuple[str, Any]] = [("/products", {"sku": "", "name": "Mug", "price": "9"}), ("/products", {"x": 1})]
    for path, body in [*asked, (f"/transactions/{ids.new_id()}/refunds", {})]:
        for _ in range(2):
            refused = await served.ask(a.admin, "POST", path, json=body, headers={"Idempotency-Key": "k"})
            assert refused.status_code in (404, 422), refused.text


async def test_a_repeated_creation_makes_one_product(served: Served, a: House) -> None:
    answers = await repeated(served, a, "POST", "/products", MUG)
    assert answers[0].status_code == 201
    same(answers)


async def test_a_repeated_sale_is_sold_once(served: Served, a: House) -> None:
    await a.lists()
    head = (await a.ledger.head(a.id)).position
    answers = await repeated(served, a, "POST", "/transactions", {"lines": [{"sku": "MUG", "quantity": 1}]})
    assert answers[0].status_code == 201
    same(answers)
    assert (await a.ledger.head(a.id)).position == head + 1


async def test_a_repeated_partial_refund_gives_back_once(served: Served, a: House) -> None:
    sale = await a.sells(await a.lists(), quantity=5)
    body = {"lines": [{"line_id": 1, "quantity": 1}]}
    answers = await repeated(served, a, "POST", f"/transactions/{sale.id}/refunds", body)
    assert answers[0].status_code == 201
    same(answers)


async def test_a_repeated_change_is_answered_as_it_was_then(served: Served, a: House) -> None:
    """Also when others went on changing it in between."""
    product = await a.lists()
    headers = {"Idempotency-Key": "k"}
    path = f"/products/{product.id}"
    first = await served.ask(a.admin, "PATCH", path, json={"name": "Cup"}, headers=headers)
    await served.ask(a.admin, "PATCH", path, json={"name": "Beaker"})
    same([first, await served.ask(a.admin, "PATCH", path, json={"name": "Cup"}, headers=headers)])
    assert first.json()["data"]["name"] == "Cup"


async def test_a_repeat_is_not_refused_for_what_the_first_one_did(served: Served, a: House) -> None:
    """A client that lost the answer to a refund must not be told that nothing is left, or that its version is stale."""
    mug = await a.lists()
    asked = [
        ("POST", f"/transactions/{(await a.sells(mug)).id}/refunds", {}),
        ("DELETE", f"/transactions/{(await a.sells(mug)).id}", None),
        ("PATCH", f"/products/{mug.id}", {"name": "Cup"}),
    ]
    for method, path, body in asked:
        headers = {"Idempotency-Key": "k", "If-Match": '"1"'}
        answers = [await served.ask(a.admin, method, path, json=body, headers=headers) for _ in range(3)]
        assert answers[0].is_success, answers[0].text
        same(answers)
    headers = {"Idempotency-Key": "k", "If-Match": '"2"'}
    same([await served.ask(a.admin, "DELETE", f"/products/{mug.id}", headers=headers) for _ in range(3)])


async def test_a_repeat_is_answered_though_what_it_changed_is_hidden_by_now(served: Served, a: House) -> None:
    """Somebody was renamed, and erased before the answer came through."""
    asked = {"json": {"name": "Other"}, "headers": {"Idempotency-Key": "k"}}
    first = await served.ask(a.admin, "PATCH", f"/users/{a.user.id}", **asked)
    assert (await served.post(a.admin, f"/users/{a.user.id}/erasure", {})).status_code == 200
    again = await served.ask(a.admin, "PATCH", f"/users/{a.user.id}", **asked)
    assert (first.status_code, again.status_code) == (200, 200), again.text
    assert again.json()["data"]["name"] == "[erased]"
    assert again.headers["X-Position"] == first.headers["X-Position"]
    other = await served.ask(a.admin, "PATCH", f"/users/{a.user.id}", json={"name": "Third"})
    assert other.status_code == 404


async def test_what_may_have_been_done_is_said_to_be_so(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes the 503 for a refusal, and asks under another key, would do it twice."""

    async def lost(*arguments: Any, **named: Any) -> Any:
        raise errors.OutcomeUnknown(ids.new_id())

    with monkeypatch.context() as patch:
        patch.setattr(a.ledger, "append", lost)
        answer = await served.post(a.admin, "/products", MUG, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "may have been done" in answer.json()["detail"]
    assert "the same Idempotency-Key" in answer.json()["detail"]
    assert (await served.post(a.admin, "/products", MUG, headers={"Idempotency-Key": "k"})).status_code == 201


async def test_a_key_is_good_for_one_request(served: Served, a: House) -> None:
    headers = {"Idempotency-Key": "k"}
    await served.post(a.admin, "/products", MUG, headers=headers)
    other = await served.post(a.admin, "/products", {**MUG, "sku": "CUP"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "urn:bitnexus:problem:idempotency-key-reused")
    product = await a.lists("BEAKER")
    elsewhere = await served.ask(a.admin, "DELETE", f"/products/{product.id}", headers=headers)
    assert elsewhere.status_code == 204


async def test_a_key_belongs_to_who_sent_it(served: Served, a: House, b: House) -> None:
    """Another caller's key must give away nothing of the first one's answer."""
    for house in (a, b):
        await house.lists()
    body = {"lines": [{"sku": "MUG", "quantity": 1}]}
    headers = {"Idempotency-Key": "k"}
    answers = [
        await served.post(person, "/transactions", body, headers=headers) for person in (a.user, a.affiliate, b.user)
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.json()["data"]["id"] for answer in answers}) == 3


@pytest.mark.parametrize("key", ["k", None])
async def test_log_ins_are_never_repeats(served: Served, a: House, key: str | None) -> None:
    """A stored answer would hold tokens."""
    body = {"email": a.user.email, "password": "correct horse battery", "tenant": a.slug}
    headers = {"Idempotency-Key": key} if key else {}
    answers = [await served.post(None, "/auth/login", body, headers=headers) for _ in range(2)]
    assert len({answer.json()["data"]["refresh_token"] for answer in answers}) == 2


async def test_what_is_kept_of_a_command_lets_nobody_try_passwords(served: Served, a: House, world: World) -> None:
    """Whoever reads the database, or a dump of it, would get round argon2id by a plain hash of the body."""
    body = b'{"current_password":"%b","password":"another battery staple"}' % PASSWORD.encode()
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await served.ask(a.user, "PUT", "/users/me/password", content=body, headers=headers)
    assert answer.status_code == 204
    with psycopg.connect(world.database.owner_url) as owner:
        kept = [bytes(each) for (each,) in owner.execute("SELECT fingerprint FROM ledger.commands") if each]
    asked = b"\0".join((b"PUT", b"/api/v1/users/me/password", body))
    assert [len(each) for each in kept] == [32]
    assert kept != [hashlib.sha256(asked).digest()]
    assert kept == [world.ledger.keyring.master.fingerprint(asked)]


def subjects(world: World, house: House) -> tuple[object, ...]:
    """How many persons the tenant knows, and how many keys of persons."""
    of = "SELECT count(*) FROM ledger.{} WHERE tenant_id = %(tenant)s"
    query = f"SELECT ({of.format('subjects')}), ({of.format('subject_keys')})"
    with psycopg.connect(world.database.owner_url) as owner:
        (found,) = owner.execute(query.encode(), {"tenant": house.id}).fetchall()
    return found


async def test_a_repeat_of_an_erased_buyers_sale_makes_nobody_known_again(
    served: Served, a: House, world: World
) -> None:
    """The reference of somebody who was forgotten would lead to a row and a key again, of which no erasure is asked for."""
    await a.lists()
    body, headers = {"lines": [{"sku": "MUG", "quantity": 1}], "buyer_ref": "ann@example.com"}, {"Idempotency-Key": "k"}
    first = await served.post(a.admin, "/transactions", body, headers=headers)
    assert first.status_code == 201
    assert (await served.post(a.admin, "/buyers/erasure", {"buyer_ref": "ann@example.com"})).status_code == 200
    before = subjects(world, a)
    again = await served.post(a.admin, "/transactions", body, headers=headers)
    assert (again.status_code, again.json()["data"]["id"]) == (201, first.json()["data"]["id"])
    assert again.json()["data"]["buyer_ref"] == codec.ERASED
    assert subjects(world, a) == before
    other = await served.post(a.admin, "/transactions", {**body, "buyer_ref": "bob@example.com"}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "urn:bitnexus:problem:idempotency-key-reused")
    assert subjects(world, a) == before
    new = await served.post(a.admin, "/transactions", body, headers={"Idempotency-Key": "another"})
    assert (new.status_code, new.json()["data"]["buyer_ref"]) == (201, "ann@example.com")
    assert subjects(world, a) == tuple(int(str(each)) + 1 for each in before)


async def test_a_sale_to_a_buyer_who_is_known_is_not_looked_up_before(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a round trip more for every sale."""
    await a.lists()
    body = {"lines": [{"sku": "MUG", "quantity": 1}]}
    recall, asked = served.parts.ledger.recall, []

    async def counted(*arguments: Any) -> Any:
        asked.append(arguments)
        return await recall(*arguments)

    monkeypatch.setattr(served.parts.ledger, "recall", counted)
    new, known, without_key, nobody = ("1", "ann"), ("2", "ann"), (None, "bob"), ("3", None)
    for (key, ref), looks in ((new, 1), (known, 1), (without_key, 1), (nobody, 1)):
        headers = {} if key is None else {"Idempotency-Key": key}
        made = await served.post(a.admin, "/transactions", {**body, "buyer_ref": ref}, headers=headers)
        assert (made.status_code, len(asked)) == (201, looks)
