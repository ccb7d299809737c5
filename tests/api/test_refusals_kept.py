"""A command that was refused for what it says, or for what is recorded, is refused in the same words when it is repeated under its
Idempotency-Key. What is answered 401, 403, 412, 429 or 5xx is decided anew."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import httpx
import msgspec
import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from psycopg import Connection
from psycopg.rows import TupleRow

from api import app, errors, rates
from bitnexus import expiry
from commands import accounts as account_commands
from commands import repeats
from domain import accounts, refusals, tenants
from ledger import errors as ledger_errors
from ledger import keyring, outcomes, replay
from ledger.caller import Caller
from projections import rebuild, sales
from tests.api import house
from tests.api.house import PASSWORD, PATIENCE_S, House, Served
from tests.api.test_idempotency import MUG, same
from tests.world import MASTER, World

SALE = {"lines": [{"sku": "MUG", "quantity": 1}]}
KEY = {"Idempotency-Key": "k"}
NOT_KEPT = {
    refusals.Refusal: "the root: each that is raised is one of the others",
    ledger_errors.TenantUnknown: "there is no stream in which it could be kept",
    ledger_errors.SubjectErased: "the same reference is somebody else's next time",
    keyring.SubjectKeyUnusable: "an operator may restore the key",
    replay.AggregateUnknown: "of a query",
    replay.AggregateTooLong: "of a query",
    sales.SummaryTooLong: "of a query",
    rebuild.Refused: "of work on views",
}
"""Answered 404, 409 or 422, and never the outcome of a command."""


@pytest.fixture
def owner(world: World) -> Iterator[Connection[TupleRow]]:
    with psycopg.connect(world.database.owner_url, autocommit=True) as connection:
        yield connection


def stored(owner: Connection[TupleRow]) -> list[bytes]:
    """The outcomes of commands that came with a key."""
    return [bytes(each) for (each,) in owner.execute("SELECT outcome FROM ledger.commands WHERE fingerprint <> ''")]


def open_to_all(owner: Connection[TupleRow]) -> list[str]:
    """The stored refusals that can be read by who has the database and the master key, and not the request."""
    found = []
    rows = owner.execute(
        "SELECT tenant_id, command_id, fingerprint, outcome FROM ledger.commands WHERE fingerprint <> ''"
    )
    for tenant_id, command_id, fingerprint, outcome in rows:
        known = Caller(tenant_id=tenant_id, actor_id=None, role="", command_id=command_id)
        for asked in (b"", fingerprint):
            try:
                outcomes.read(MASTER, msgspec.structs.replace(known, asked=bytes(asked)), bytes(outcome))
            except InvalidTag:
                continue
            except ledger_errors.RefusedBefore as refused:
                found.append(str(refused))
    return found


def is_refused(answer: httpx.Response, status: int, name: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:bitnexus:problem:{name}"), answer.text


async def test_a_sale_of_what_was_not_listed_stays_refused_under_its_key(
    served: Served, a: House, owner: Connection[TupleRow]
) -> None:
    """And under another key it is sold; another sale under the key is none of its repeats."""
    first = await served.post(a.admin, "/transactions", SALE, headers=KEY)
    is_refused(first, 422, "invalid")
    await a.lists()
    same([first, *[await served.post(a.admin, "/transactions", SALE, headers=KEY) for _ in range(2)]])
    twice = {"lines": [{"sku": "MUG", "quantity": 2}]}
    is_refused(await served.post(a.admin, "/transactions", twice, headers=KEY), 422, "idempotency-key-reused")
    other = await served.post(a.admin, "/transactions", SALE, headers={"Idempotency-Key": "another"})
    assert (other.status_code, len(stored(owner))) == (201, 2)
    assert (await served.post(a.admin, "/transactions", SALE)).status_code == 201


async def test_an_id_that_there_was_not_stays_unknown_under_its_key(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = await a.sells(await a.lists())
    path = f"/transactions/{sale.id}/refunds"

    async def finds_nothing(*_: object) -> dict[str, object]:
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(a.ledger, "load_many", finds_nothing)
        first = await served.post(a.admin, path, {}, headers=KEY)
    is_refused(first, 404, "not-found")
    same([first, await served.post(a.admin, path, {}, headers=KEY)])
    assert (await served.post(a.admin, path, {})).status_code == 201


async def test_what_was_recorded_before_stays_a_conflict_under_its_key(served: Served, a: House) -> None:
    await a.lists()
    sale = {**SALE, "source": "till", "external_id": "7"}
    assert (await served.post(a.admin, "/transactions", sale)).status_code == 201
    first = await served.post(a.admin, "/transactions", sale, headers=KEY)
    is_refused(first, 409, "conflict")
    same([first, await served.post(a.admin, "/transactions", sale, headers=KEY)])


async def test_an_address_that_was_taken_leaves_no_trace_and_stays_taken_under_its_key(
    served: Served, a: House, owner: Connection[TupleRow]
) -> None:
    """Whose it was is erased: nobody reads it in the database, and who sent it reads it in the answer as before."""
    body = {"email": a.user.email, "name": "Bob", "role": "user", "password": PASSWORD}
    first = await served.post(a.admin, "/users", body, headers=KEY)
    is_refused(first, 409, "conflict")
    assert a.user.email in first.text
    assert (await served.post(a.admin, f"/users/{a.user.id}/erasure", {})).status_code == 200
    rows = owner.execute("SELECT k::text FROM ledger.commands k").fetchall()
    assert not [row for (row,) in rows if a.user.email in row or a.user.email.encode().hex() in row]
    assert open_to_all(owner) == []
    same([first, await served.post(a.admin, "/users", body, headers=KEY)])
    assert (await served.post(a.admin, "/users", body)).status_code == 201


async def test_a_version_that_was_gone_is_not_kept(served: Served, a: House, owner: Connection[TupleRow]) -> None:
    path = f"/products/{(await a.lists()).id}"
    stale = await served.ask(a.admin, "PATCH", path, json={"name": "Cup"}, headers={**KEY, "If-Match": '"9"'})
    is_refused(stale, 412, "stale-version")
    assert stored(owner) == []
    fresh = await served.ask(a.admin, "PATCH", path, json={"name": "Cup"}, headers={**KEY, "If-Match": '"1"'})
    assert fresh.status_code == 200


async def test_a_wrong_password_is_not_kept(served: Served, a: House, owner: Connection[TupleRow]) -> None:
    """403: it may be the right one when it is sent again."""
    body = {"current_password": "another battery staple", "password": "a third battery staple"}
    wrong = await served.ask(a.user, "PUT", "/users/me/password", json=body, headers=KEY)
    is_refused(wrong, 403, "wrong-password")
    assert stored(owner) == []
    change = {"current_password": PASSWORD, "password": body["current_password"]}
    assert (await served.ask(a.user, "PUT", "/users/me/password", json=change)).status_code == 204
    assert (await served.ask(a.user, "PUT", "/users/me/password", json=body, headers=KEY)).status_code == 204


async def test_who_may_not_is_told_so_anew_each_time(served: Served, a: House, owner: Connection[TupleRow]) -> None:
    """401 and 403 of the edge, and of a body that only some may send."""
    await a.lists()
    for_others = {**SALE, "source": "till", "external_id": "7"}
    is_refused(await served.post(None, "/transactions", SALE, headers=KEY), 401, "unauthenticated")
    is_refused(await served.post(a.user, "/products", MUG, headers=KEY), 403, "forbidden")
    is_refused(await served.post(a.user, "/transactions", for_others, headers=KEY), 403, "forbidden")
    assert stored(owner) == []


async def test_a_log_out_keeps_nothing(served: Served, a: House, owner: Connection[TupleRow]) -> None:
    """No answer of /auth/* is ever a repeat."""
    assert (await served.post(a.user, "/auth/logout", None, headers=KEY)).status_code == 204
    assert stored(owner) == []


async def test_over_its_limit_a_tenant_still_gets_the_refusals_that_it_had(
    served: Served, a: House, world: World
) -> None:
    root = await house.person(world, tenants.PLATFORM_ID, accounts.Role.SUPER_ADMIN, "root@platform.test")
    path = f"/platform/tenants/{a.id}/limits"
    first = await served.post(a.admin, "/transactions", SALE, headers=KEY)
    is_refused(first, 422, "invalid")
    await a.lists()
    assert (await served.ask(root, "PUT", path, json={"events_per_day": 1})).status_code == 200
    async with asyncio.timeout(PATIENCE_S):
        while (await served.post(a.admin, "/transactions", SALE)).status_code != 403:  # noqa: ASYNC110  limits are read anew after seconds
            await asyncio.sleep(0.05)
    same([first, await served.post(a.admin, "/transactions", SALE, headers=KEY)])


async def test_after_a_day_the_key_of_a_refusal_is_free(
    served: Served, a: House, world: World, owner: Connection[TupleRow]
) -> None:
    is_refused(await served.post(a.admin, "/transactions", SALE, headers=KEY), 422, "invalid")
    await a.lists()
    for minutes, status in ((23 * 60 + 59, 422), (1, 201)):
        owner.execute(
            "UPDATE ledger.commands SET recorded_at = recorded_at - %s::interval", (timedelta(minutes=minutes),)
        )
        owner.execute("UPDATE ledger.expiry SET begun_at = begun_at - interval '1 hour'")
        async with world.projector.connection() as connection:
            while (await expiry.batch(connection, 100)).more:
                pass
        assert (await served.post(a.admin, "/transactions", SALE, headers=KEY)).status_code == status


def all_of(root: type[Exception]) -> set[type[Exception]]:
    """The class and all below it that are ours."""
    found = {root}
    for each in root.__subclasses__():
        if not each.__module__.startswith("tests."):
            found |= all_of(each)
    return found


def test_what_is_kept_is_answered_as_it_was_and_nothing_else_is_kept() -> None:
    """Every exception that the table turns into an answer, with all that are of its kind. One that is new is kept if it is an Invalid or
    a Conflict; where the table says that it is about who asks, how often, or trouble on our side, it must say so of itself
    (`kept_as = None`), or a repeat would be told 422 or 409 for a day."""
    assert app  # all of the application is imported, and so all that it raises
    listed = {each for each in errors.TABLE if not issubclass(each, psycopg.Error)}
    walked = set().union(*(all_of(each) for each in listed)) | all_of(ledger_errors.LedgerError)
    assert {account_commands.CredentialsWrong, rates.RateLimited} < walked
    wrong = []
    for each in sorted(walked, key=lambda each: each.__name__):
        kind = errors.kind_of(made := each.__new__(each)) if each is not ledger_errors.RefusedBefore else None
        kept_as = None if kind is None else repeats.kept_as(made)
        if kept_as is not None and (errors.KEPT[kept_as] is not kind or hasattr(each, "headers")):
            wrong.append(f"{each.__name__} is answered {kind} first, and then as {kept_as}")
        is_domains = kind in errors.KEPT.values()
        if is_domains and kept_as is None and each not in NOT_KEPT and not issubclass(each, rebuild.Refused):
            wrong.append(f"{each.__name__} is answered {kind} and not kept")
    assert wrong == []
    assert {kind.status for kind in errors.KEPT.values()} == {404, 409, 422}
