"""Row-level security alone keeps tenants apart: with the tenant's filter taken out of every query, nothing of B comes out.

The filter (`tenant_id = …`) is taken out at run time, textually: of the statements that this process sends, and of the functions
in the database. What runs with the writer's rights or for the projectors sees all tenants by design and is not meant here: it is
held by test_rights and test_rights_catalogue.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

import ledger
import projections
from api.parts import Parts
from ledger import counts, key_uses, read, replay, security, tenancy
from projections import accounts, cross_tenant, products, reading, refunds, sales, transactions
from tests.api import test_isolation
from tests.api.house import House, Served
from tests.api.test_isolation import ids_of_b
from tests.world import World

__all__ = ["ids_of_b"]  # a fixture

FILTER = re.compile(
    r"\b(?:\w+\.)?tenant_id = (?:%\(tenant\)s|tenant\b|p_tenants\[t\])|\bh\.tenant_id = ANY \(%\(tenants\)s::uuid\[\]\)"
)
FOR_PROJECTORS = {
    *("batches", "comparison", "filling", "generations", "parking", "rebuild", "repairing", "settling", "stream"),
    "switching",
}
"""Modules of `projections` whose statements are sent on the projector's connections."""
NO_QUERIES = {
    "reading.many": "all queries of views are made of it, and of the next one",
    "reading.page": "",
    "reading.first_parked": "of both: one position",
    "tenancy.query": "this is what the filter is taken out in",
    "key_uses.use": "runs with the writer's rights; the key's hash says whose it is",
    "feed_tickets.issue": "writes only, by a function with the writer's rights",
    "read.decode": "of entries that were read",
    "legibility.check": "the operator's, on the projector's connections, as the next two",
    "replay.tenant": "",
    "replay.aggregate": "",
}
ANYBODY = UUID(int=1)
EVER = datetime(2100, 1, 1, tzinfo=UTC)


async def lags(connection: reading.Connection, tenant_id: UUID) -> list[tuple[str, UUID, int]]:
    """Without what changes by itself."""
    found = await cross_tenant.lag_of_tenant(connection, tenant_id, ["sales", "products"])
    return [(each.view, each.tenant_id, each.head) for each in found]


QUERIES: dict[str, Callable[[reading.Connection, UUID, UUID], Awaitable[Any]]] = {
    "accounts.page": lambda c, t, id: accounts.page(c, t, None, 100),
    "products.page": lambda c, t, id: products.page(c, t, None, 100),
    "refunds.page": lambda c, t, id: refunds.page(c, t, None, 100),
    "refunds.page_of_transaction": lambda c, t, id: refunds.page_of_transaction(c, t, id, None, 100),
    "refunds.page_of_subject": lambda c, t, id: refunds.page_of_subject(c, t, None, 100, subject_id=id),
    "sales.summary": lambda c, t, id: sales.summary(c, t, None, None),
    "transactions.page": lambda c, t, id: transactions.page(c, t, None, 100),
    "transactions.page_of_subject": lambda c, t, id: transactions.page_of_subject(
        *(c, t, None, 100), subject_id=id, but_of=ANYBODY
    ),
    "security.entries": lambda c, t, id: security.entries(c, t, 0, 2**62, 100),
    "security.of_person": lambda c, t, id: security.of_person(c, t, id, 2**62, 100),
    "cross_tenant.lag_of_tenant": lambda c, t, id: lags(c, t),
    "counts.reservations": lambda c, t, id: counts.reservations(c, t, "email", 100),
    "counts.secrets": lambda c, t, id: counts.secrets(c, t, "password", 100),
    "counts.events": lambda c, t, id: counts.events(c, t, 0, []),
    "key_uses.last": lambda c, t, id: key_uses.last(c, t, [id]),
    "read.head": lambda c, t, id: read.head(c, t),
    "read.entries": lambda c, t, id: read.entries(c, t, 0, 5_000),
    "replay.position_at": lambda c, t, id: replay.position_at(c, t, EVER),
}
"""By module and name. `id` is of something of tenant B's."""
AMBIGUOUS = {"read.head", "replay.position_at"}
"""Without filter and policy they give some tenant's, perhaps the right one's: that they leak cannot be shown."""


def stripped(statement: str) -> str:
    return FILTER.sub("true", statement)


def query_functions() -> Iterator[str]:
    """All that read of one tenant, by module and name."""
    for package in (projections, ledger):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, function in vars(module).items():
                if (
                    inspect.iscoroutinefunction(function)
                    and function.__module__ == module.__name__
                    and not name.startswith("_")
                    and not (package is projections and found.name in FOR_PROJECTORS)
                    and {"connection", "tenant_id"} <= set(inspect.signature(function).parameters)
                ):
                    yield f"{found.name}.{name}"


def test_every_query_function_is_tried_here() -> None:
    assert set(query_functions()) == set(QUERIES) | set(NO_QUERIES)


def take_filters_out(world: World, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """From here on nothing is filtered. The functions of the database that had a filter."""
    query = tenancy.query

    async def without(connection: Any, tenant_id: UUID, parameters: Any, *statements: Any) -> Any:
        for statement in statements:
            assert FILTER.search(statement), f"This statement has no filter to take out: {statement}"
        if "tenants" in parameters:
            parameters = {**parameters, "tenants": None}
        return await query(connection, tenant_id, parameters, *map(stripped, statements))

    changed = set()
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        functions = owner.execute(
            "SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname = 'ledger' AND NOT p.prosecdef AND p.prorettype <> 'trigger'::regtype"
        ).fetchall()
        for name, definition in functions:
            if FILTER.search(definition):
                owner.execute(stripped(definition).encode())
                changed.add(name)
    monkeypatch.setattr(tenancy, "query", without)
    return changed


@pytest_asyncio.fixture
async def told(a: House, b: House, served: Served, ids_of_b: dict[str, UUID]) -> dict[str, UUID]:
    """Both tenants have something of everything, and the views have it. What there is of B's, by query."""
    mug = await a.lists("MUG")
    await a.sells(mug, buyer=a.user)
    known = (await b.sells(await b.lists("CUP"), buyer_ref="17850")).buyer_subject_id  # as of the refund without a sale
    assert known is not None
    program = await b.program("products:read")
    await served.get(program, "/products")
    await served.views_reach(a)
    await served.views_reach(b)
    return {**ids_of_b, "key_id": program.key_id, "subject_id": known}


def of_b(name: str, ids: dict[str, UUID]) -> UUID:
    """What a query is asked for."""
    kinds = {"products": "product_id", "refunds": "refund_id", "key_uses": "key_id", "security": "user_id"}
    if name.endswith(".page_of_subject"):
        return ids["subject_id"]
    if name == "refunds.page_of_transaction":
        return ids["transaction_id"]
    return ids[kinds.get(name.split(".")[0], "transaction_id")]


async def asked(parts: Parts, tenant_id: UUID, ids: dict[str, UUID]) -> dict[str, Any]:
    found = {}
    async with parts.pool.connection() as connection:
        for name, query in QUERIES.items():
            found[name] = await query(connection, tenant_id, of_b(name, ids))
    return found


async def test_without_its_filter_no_query_finds_more(
    parts: Parts, a: House, told: dict[str, UUID], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody will forget the filter once."""
    filtered = await asked(parts, a.id, told)
    assert not any(str(id) in str(filtered) for id in told.values())
    changed = take_filters_out(world, monkeypatch)
    assert {"read_stream", "read_head", "look_up", "read_reservations", "read_secret"} <= changed
    assert await asked(parts, a.id, told) == filtered
    # It was the policies that did it: without them every one of these queries gives out what is B's.
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        for (table,) in owner.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE rowsecurity"
        ).fetchall():
            owner.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY".encode())
    async with parts.pool.connection() as connection:
        for name in set(QUERIES) - AMBIGUOUS:
            try:
                leaked = await QUERIES[name](connection, a.id, of_b(name, told))
            except (ValueError, TypeError):
                continue  # more rows than one of one tenant's is
            assert leaked != filtered[name], name


async def test_without_any_filter_no_route_gives_out_anything_of_another_tenant(
    world: World, served: Served, a: House, b: House, ids_of_b: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of test_isolation's routes, on queries that ask for everybody's rows."""
    take_filters_out(world, monkeypatch)
    await test_isolation.test_no_route_gives_out_or_changes_anything_of_another_tenant(served, a, b, ids_of_b)
