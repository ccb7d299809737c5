"""Every command that there is, asked for twice under one Idempotency-Key, and upon a version that is gone."""

import asyncio
import re
from typing import Any
from uuid import UUID

import httpx
import psycopg

from api import answers, rights
from domain import tenants
from ledger import ids
from tests.api import walk
from tests.api.house import House, Served
from tests.world import World

SHOWN_ONCE = {
    "createServiceAccount": "key",
    "issueKey": "key",
    "enrolSecondFactor": "another secret each time, of which the last one counts",
}
"""What cannot be answered again, as it is not kept."""
NEEDS_A_CODE = {"confirmSecondFactor"}  # tests/api/test_account_flows.py
ENDS_ITSELF = {"logOut", "endSession", "endSessions"}
"""Whose repeat finds that the caller has no session any more: 401."""
LOOKED_AT = {"limitTenant"}
"""That nothing was to change is answered with the tenant, and that a super admin saw it is recorded each time."""
NAMES_NO_VERSION = {
    *("createUser", "invite", "listProduct", "recordTransaction", "createTenant", "createServiceAccount"),
    *("eraseBuyer", "logOut", "endSession", "endSessions", "revokeInvitation", "changeHosts"),
}
"""What is made anew, and what has no tag that anybody was given."""


def commands(served: Served) -> list[tuple[str, str, str]]:
    """Method, path and operation of every route that takes an Idempotency-Key."""
    found = []
    for name, handler in rights.declared(served.app).items():
        if getattr(handler, "operation_class", None) is answers.Command:
            method, path = name.split(" ", 1)
            found.append((method, path, walk.operation_of(handler, method)))
    assert len(found) > 30
    return sorted(found)


NO_STREAM = {"resumeTenant", "suspendTenant", "limitTenant"}
"""Of a tenant that there is not, nothing can be stored."""
OWN_TENANT = {"brandTenant", "configureTenant", "configureSignIn"}
"""Of another tenant than one's own the edge tells that there is none."""
PARAMETER = re.compile(r"\{(\w+)")


class Asking:
    """A command asked for by somebody who may, about things made for it alone."""

    def __init__(
        self, stage: walk.Stage, served: Served, operation: str, method: str, path: str, **given: UUID
    ) -> None:
        """`given`: instead of what there is."""
        self._given = given
        self._stage, self._served, self._operation = stage, served, operation
        self._method, self._path = method, path
        self._cast: walk.Cast | None = None
        self._body: Any = None

    async def __call__(self, **headers: str) -> httpx.Response:
        caller = "super_admin" if "/platform/" in self._path else "owner" if "/me" in self._path else "admin"
        if self._cast is None:
            self._cast = await self._stage._cast(caller, with_program="{service_account_id}" in self._path)
            self._body = self._stage._body(self._operation)
            for parameter, value in {**self._cast.given, **self._given}.items():
                self._path = self._path.replace(f"{{{parameter}}}", str(value))
        person = self._cast.people[caller]
        assert person is not None
        headers = {**person.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self._served.client.request(self._method, self._path, headers=headers, json=self._body)


async def recorded(a: House) -> int:
    """How many events there are of the tenant and the platform."""
    heads = await asyncio.gather(*(a.ledger.head(each) for each in (a.id, tenants.PLATFORM_ID)))
    return sum(head.position for head in heads)


async def refused(world: World) -> list[bytes]:
    """The refusals that are stored."""
    async with await psycopg.AsyncConnection.connect(world.database.owner_url) as owner:
        found = await owner.execute(
            "SELECT outcome FROM ledger.commands WHERE fingerprint <> '' AND substr(outcome, 1, 1) = '\\x01'"
        )
        return [bytes(each) for (each,) in await found.fetchall()]


async def test_every_command_is_done_once_and_answered_alike(world: World, served: Served, a: House, b: House) -> None:
    stage = walk.Stage(world, served, a, b)
    await stage.open()
    wrong = []
    for method, path, operation in commands(served):
        if operation in NEEDS_A_CODE | ENDS_ITSELF:
            continue
        ask, key = Asking(stage, served, operation, method, path), str(ids.new_id())
        first = await ask(Idempotency_Key=key)
        assert first.is_success, (operation, first.text)
        stands = await recorded(a)
        second = await ask(Idempotency_Key=key)
        if operation not in SHOWN_ONCE and (second.status_code, second.content) != (first.status_code, first.content):
            wrong.append(f"{operation}: {first.status_code} {first.text} / {second.status_code} {second.text}")
        if second.headers.get("X-Position") != first.headers.get("X-Position"):
            wrong.append(f"{operation}: at another position")
        if operation not in LOOKED_AT and await recorded(a) != stands:
            wrong.append(f"{operation}: recorded twice")
        if operation == "suspendTenant":
            assert (await ask(Idempotency_Key=key)).is_success
            await served.client.request("DELETE", first.request.url.path, headers=dict(first.request.headers))
    assert wrong == []


async def test_every_command_about_what_there_is_not_is_refused_for_good(
    world: World, served: Served, a: House, b: House
) -> None:
    """A command that forgets to say what it refused would do under the same key what its sender was told is not done."""
    stage = walk.Stage(world, served, a, b)
    await stage.open()
    asked, wrong = [], []
    for method, path, operation in commands(served):
        parameters = PARAMETER.findall(path)
        if not parameters or operation in NO_STREAM | OWN_TENANT:
            continue
        ask, key = Asking(stage, served, operation, method, path, **{parameters[-1]: ids.new_id()}), str(ids.new_id())
        first, second = await ask(Idempotency_Key=key), await ask(Idempotency_Key=key)
        asked.append(operation)
        if first.status_code not in (404, 409) or (first.status_code, first.content) != (
            second.status_code,
            second.content,
        ):
            wrong.append(f"{operation}: {first.status_code} {first.text} / {second.status_code} {second.text}")
        elif len(await refused(world)) != len(asked):
            wrong.append(f"{operation}: {first.text} was not kept")
    assert wrong == []
    assert len(asked) > 15


async def test_every_change_of_what_has_a_tag_is_refused_upon_a_version_that_is_gone(
    world: World, served: Served, a: House, b: House
) -> None:
    """Somebody would undo unseen what another one did meanwhile."""
    stage = walk.Stage(world, served, a, b)
    await stage.open()
    done = []
    for method, path, operation in commands(served):
        if operation in NAMES_NO_VERSION:
            continue
        ask = Asking(stage, served, operation, method, path)
        answer = await ask(If_Match='"999"')
        if answer.status_code != 412:
            done.append(f"{operation}: {answer.status_code}")
    assert done == []
