"""The application against its own OpenAPI document: schemathesis makes requests from it, good and bad, for every role.

No 5xx, no undocumented status, no answer that breaks its schema, no bad value that passes. `scripts/fuzz` does it for longer.
One check is left out: that whatever the schemas allow is taken. Rules such as "a price has its currency's digits" are no schema.
"""

import asyncio
import os
import time
from typing import Any

import hypothesis
import schemathesis.openapi
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api import house
from tests.api.house import House, Person, Served

SECONDS = float(os.environ.get("FUZZ_S", "50"))
"""Of all operations and roles together."""
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
"""Of each operation, role and mode, as far as the time allows."""
ENDLESS = {"listen"}
"""A stream does not end by itself."""
ENDS_THE_RUN = {"logOut", "endSessions", "eraseUser", "logIn"}
"""Whoever did it has no rights left for the rest, or is made to wait; these have tests of their own."""
REQUEST_S_MAX = 20
IGNORED = "query: violates `additionalProperties`"
"""A parameter that nobody knows, as mails and advertisements add them to links, changes nothing."""

_CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_S" not in os.environ,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


async def test_the_application_keeps_to_its_own_document(served: Served, a: House) -> None:
    """A client that was generated from the document would stumble over whatever is found here."""
    product = await a.lists()
    await a.sells(product, buyer=a.user)
    await served.views_reach(a)
    document = (await served.client.get("/schema/openapi.json")).json()
    async with house.listening(served.app, served.parts) as url:
        found = await asyncio.to_thread(_tried, document, url, (a.admin, a.user, a.affiliate, None))
    assert found == [], f"{len(found)} failures:\n" + "\n\n".join(found[:10])


def _tried(document: dict[str, Any], url: str, people: tuple[Person | None, ...]) -> list[str]:
    """What did not go as the document says, once for each operation, role and mode."""
    schema = schemathesis.openapi.from_dict(document)
    until = time.monotonic() + SECONDS
    failures = []
    for person in people:
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            if operation.definition.raw["operationId"] in ENDLESS | ENDS_THE_RUN:
                continue
            for mode in GenerationMode:
                if time.monotonic() < until:
                    failures += _of_operation(operation, mode, url, person, until)
    return failures


def _of_operation(operation: Any, mode: GenerationMode, url: str, person: Person | None, until: float) -> list[str]:
    headers = {} if person is None else person.headers

    @_CHECKED
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        if time.monotonic() < until:
            case.call_and_validate(
                base_url=url, headers=headers, timeout=REQUEST_S_MAX, excluded_checks=[positive_data_acceptance]
            )

    try:
        check()
    except FailureGroup as group:
        role = "nobody" if person is None else person.role
        return [
            f"{operation.label} as {role}, {mode.value}: {each}"
            for each in group.exceptions
            if IGNORED not in str(each)
        ]
    except hypothesis.errors.Unsatisfiable:
        pass  # there is nothing bad that could be sent to it
    return []
