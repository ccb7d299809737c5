"""The application against its own OpenAPI document: schemathesis makes requests from it, good and bad, for every role.

All its checks are on: no 5xx, no undocumented status, no answer that breaks its schema, no bad value that passes, no good one that
is refused. `scripts/fuzz` does it for longer. What is not checked, and why:

- A good value may be refused with 422 (and 412) all the same, but never as malformed (400, 405, 415 …), and only for a field that
  the document names. A schema cannot say that a price has its currency's digits, that a tenant of that slug is there, that
  a version is the newest.
- Positions, cursors and tickets (OPAQUE) are left out of good requests: only the server can make one.
- Parameters of a query that nobody knows are not sent: OpenAPI 3 has no way to forbid them, so that ignoring them breaks nothing.
"""

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import hypothesis
import jwt
import schemathesis.openapi
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from api import tokens
from domain.accounts import Role
from domain.tenants import PLATFORM_ID
from ledger import ids
from tests.api import house
from tests.api.house import House, Person, Served
from tests.world import World

ALL_IN_S = 300.0
"""Three examples of each take half a minute to a minute, and twice that beside other tests. What there is no time for is a failure."""
SECONDS = float(os.environ.get("FUZZ_S", ALL_IN_S))
"""Of all operations and roles together, at the most."""
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
"""Of each operation, role and mode, as far as the time allows."""
ENDLESS = {"listen"}
"""A stream does not end by itself, but with the token that began it: here after LISTENS_S."""
LISTENS_S = 1
ENDS_A_SESSION = {"logOut", "endSession", "endSessions", "eraseUser", "deactivateUser", "changePassword", "logIn"}
"""Each of these is asked by somebody new, about themselves: whoever did it has no rights left for the rest."""
OPAQUE = {"X-Position", "Last-Event-ID", "cursor", "from", "ticket"}
REQUEST_S_MAX = 20

ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "422", "429", "5xx"]
REJECTED = ["400", "401", "403", "404", "405", "406", "409", "410", "412", "415", "422", "429", "5xx"]
CONFIG = {
    "generation": {"allow-extra-parameters": False},
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ACCEPTED},
        "negative_data_rejection": {"expected-statuses": REJECTED},
    },
}

_CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_S" not in os.environ,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who asks. `once` makes somebody new of the same role; nobody is always the same."""

    role: str
    person: Person | None
    once: Callable[[], Person | None]


async def test_the_application_keeps_to_its_own_document(world: World, served: Served, a: House, b: House) -> None:
    """A client that was generated from the document would stumble over whatever is found here."""
    product = await a.lists()
    sale = await a.sells(product, buyer=a.user)
    refund = await a.refunds(sale, 1)
    await served.views_reach(a)
    document = (await served.client.get("/schema/openapi.json")).json()
    known = {
        "product_id": str(product.id),
        "transaction_id": str(sale.id),
        "refund_id": str(refund.id),
        "tenant_id": str(b.id),  # which super admins suspend, and others must not see
    }
    root = await house.person(world, PLATFORM_ID, Role.SUPER_ADMIN, "root@platform.test")
    people = [(a.admin, a.id), (a.user, a.id), (a.affiliate, a.id), (root, PLATFORM_ID)]
    loop = asyncio.get_running_loop()

    def caller(person: Person, tenant_id: UUID) -> Caller:
        def once() -> Person:
            made = house.person(world, tenant_id, Role(person.role), f"{ids.new_id()}@fuzz.test")
            return asyncio.run_coroutine_threadsafe(made, loop).result(REQUEST_S_MAX)

        return Caller(person.role, person, once)

    callers = [Caller("nobody", None, lambda: None), *(caller(*each) for each in people)]
    async with house.listening(served.app, served.parts) as url:
        found = await asyncio.to_thread(lambda: list(_tried(document, url, callers, known)))
    assert found == [], f"{len(found)} failures:\n" + "\n\n".join(found[:10])


def _tried(document: dict[str, Any], url: str, callers: list[Caller], known: dict[str, str]) -> Iterator[str]:
    """What did not go as the document says, once for each operation, role and mode."""
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG))
    fields = {"detail", "", *_named(document)}
    until = time.monotonic() + SECONDS
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        is_public = operation.definition.raw["security"] == []
        for caller in callers[:1] if is_public else callers:
            for mode in GenerationMode:
                if time.monotonic() < until:
                    yield from _of_operation(operation, mode, url, caller, known, fields, until)
                elif "FUZZ_S" not in os.environ:
                    yield f"{operation.label}, {mode}: no time was left for it"


def _of_operation(
    operation: Any,
    mode: GenerationMode,
    url: str,
    caller: Caller,
    known: dict[str, str],
    fields: set[str],
    until: float,
) -> Iterator[str]:
    name = operation.definition.raw["operationId"]

    @_CHECKED
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        if time.monotonic() >= until:
            return
        person = caller.once() if name in ENDS_A_SESSION else caller.person
        headers = {} if person is None else person.headers
        if name in ENDLESS and person is not None:
            headers = {"Authorization": f"Bearer {_short(person.token)}"}
        if mode is GenerationMode.POSITIVE:
            _fill(case, known if person is None else {**known, **_own(person)})
        answer = case.call_and_validate(base_url=url, headers=headers, timeout=REQUEST_S_MAX)
        if mode is GenerationMode.POSITIVE and answer.status_code == 422:
            blamed = {field.partition(".")[0] for field in json.loads(answer.content)["errors"]}
            assert blamed <= fields, f"{operation.label} as {caller.role}: no schema names {blamed - fields}"

    try:
        check()
    except FailureGroup as group:
        yield from (f"{operation.label} as {caller.role}, {mode.value}: {each}" for each in group.exceptions)
    except AssertionError as error:
        yield str(error)
    except hypothesis.errors.Unsatisfiable:
        pass  # there is nothing bad that could be sent to it


def _fill(case: Case[Any], values: dict[str, str]) -> None:
    """Ids of what there is, and nothing that only the server can make."""
    path = case.path_parameters or {}
    path.update((name, value) for name, value in values.items() if name in path)
    for parameters in (case.query or {}, case.headers or {}):
        for name in OPAQUE & set(parameters):
            del parameters[name]


def _own(person: Person) -> dict[str, str]:
    return {"user_id": str(person.id), "session_id": str(person.session_id)}


def _short(token: str) -> str:
    """The same that ends soon."""
    claims = jwt.decode(token, options={"verify_signature": False})
    key = house.keys().signing()
    claims["exp"] = int(time.time()) + LISTENS_S
    return jwt.encode(claims, key.private, algorithm=tokens.ALGORITHM, headers={"kid": key.id})


def _named(document: Any) -> Iterator[str]:
    """Of all fields of bodies and all parameters."""
    if isinstance(document, list):
        for each in document:
            yield from _named(each)
    elif isinstance(document, dict):
        if "in" in document and "name" in document:
            yield str(document["name"])
        for key, each in document.items():
            if key == "properties":
                yield from map(str, each)
            yield from _named(each)
