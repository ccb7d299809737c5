"""Malformed arrays are refused whole: nothing is written and no chain breaks, whoever calls `ledger.append` and why ever.

Most of what is tried here is tried in three companies, because what one path of the function trips over by itself another
may never look at.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, IsolationLevel, errors
from psycopg.rows import TupleRow

from ledger import ids
from tests.ledger import calls
from tests.ledger.calls import APPENDED, REPLAYED, TENANT_UNKNOWN, Arrays, Command, Event, Key, Secret

App = Connection[TupleRow]

pytestmark = pytest.mark.usefixtures("through")

COMPANIES = {
    "all good": [APPENDED] * 3,
    "the last one's tenant is unknown": [APPENDED] * 3 + [TENANT_UNKNOWN],
    "the first one is a repeat": [REPLAYED] + [APPENDED] * 3,
}
"""What becomes of a well-formed call."""


class Tenants:
    """Two streams with an event each, and the id of a tenant that has none."""

    def __init__(self, app: App) -> None:
        self.one, self.two = calls.open_streams(app, 2)
        self.unknown = UUID(int=self.two.int + 1)
        self.stored = Command(tenant=self.one, events=[Event(ids.new_id())])
        calls.append(app, self.stored, Command(tenant=self.two, events=[Event(ids.new_id())]))

    def well_formed(self, company: str) -> Arrays:
        """Ids, originators and keys are new each time, so that one call's outcome does not hang on another's."""
        commands = [self._full(self.one, 2), Command(tenant=self.one), self._full(self.two, 1)]
        if company == "the last one's tenant is unknown":
            commands.append(self._full(self.unknown, 1))
        elif company == "the first one is a repeat":
            commands.insert(0, self.stored)
        return calls.arrays_of(commands)

    def of_one(self) -> Arrays:
        """What most calls are: commands of one tenant, with an event each and nothing else."""
        return calls.arrays_of([Command(tenant=self.one, events=[Event(ids.new_id())]) for _ in range(3)])

    @staticmethod
    def _full(tenant: UUID, versions: int) -> Command:
        a, b = ids.new_id(), ids.new_id()
        return Command(
            tenant=tenant,
            fingerprint=a.bytes,
            outcome=b.bytes,
            events=[Event(a, version, state=b"%d" % version) for version in range(1, versions + 1)],
            releases=[Key(calls.key(a.int), a)],
            claims=[Key(calls.key(b.int), b)],
            secrets=[Secret(a, b"new"), Secret(b, None)],
        )


@pytest.fixture
def tenants(app: App) -> Tenants:
    return Tenants(app)


@pytest.fixture(autouse=True)
def nothing_is_written(tenants: Tenants, owner: App, projector: App) -> Iterator[None]:
    """Holds for every test of this module."""
    before = calls.contents(owner)
    yield
    calls.assert_good(projector, tenants.one, 1)
    calls.assert_good(projector, tenants.two, 1)
    assert calls.contents(owner) == before


def accepted(app: App, arrays: Arrays, reshaped: dict[str, str] | None = None) -> bool:
    """Whether the call got through. A refusal is of class 22 or 23: then the appender sends command by command."""
    try:
        calls.call(app, arrays, reshaped)
    except (psycopg.DataError, psycopg.IntegrityError):
        return False
    return True


@pytest.mark.parametrize("company", COMPANIES)
def test_the_well_formed_call_is_accepted(app: App, tenants: Tenants, company: str) -> None:
    """Else the refusals below would prove nothing."""
    with app.transaction(force_rollback=True):
        assert calls.statuses(calls.call(app, tenants.well_formed(company))) == COMPANIES[company]


SHAPES: dict[str, Callable[[str], str]] = {
    "from 0": lambda type_name: f"('[0:' || cardinality({{}}) - 1 || ']=' || ({{}})::text)::{type_name}",
    "from 2": lambda type_name: f"('[2:' || cardinality({{}}) + 1 || ']=' || ({{}})::text)::{type_name}",
    "one row": lambda type_name: "ARRAY[{}]",
    "one column": lambda type_name: "(SELECT array_agg(ARRAY[x] ORDER BY n) FROM unnest({}) WITH ORDINALITY u (x, n))",
    "NULL": lambda type_name: f"NULL::{type_name}",
}


@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_array_of_another_shape_is_refused(app: App, tenants: Tenants, shape: str, company: str) -> None:
    """Subscripts and unnest number its elements differently: the hash could cover what is not stored."""
    got_through = [
        name
        for name, type_name in calls.PARAMETERS.items()
        if accepted(app, tenants.well_formed(company), {name: SHAPES[shape](type_name)})
    ]
    assert ", ".join(got_through) == ""


Change = Callable[[list[Any]], list[Any]]
CHANGES: dict[str, Change] = {
    "one short": lambda array: array[:-1],
    "one too many": lambda array: [*array, array[-1]],
    "empty": lambda array: [],
    "the first is NULL": lambda array: [None, *array[1:]],
    "the last is NULL": lambda array: [*array[:-1], None],
    "all are NULL": lambda array: [None] * len(array),
}
NULLABLE = ("s_value",)
"""A secret's value may be NULL: that deletes it."""


@pytest.mark.parametrize("company", COMPANIES)
@pytest.mark.parametrize("change", CHANGES)
def test_an_array_that_does_not_fit_the_others_or_has_a_null_is_refused(
    app: App, tenants: Tenants, change: str, company: str
) -> None:
    got_through = []
    for name in calls.PARAMETERS:
        if not ("NULL" in change and name in NULLABLE):
            arrays = tenants.well_formed(company)
            arrays[name] = CHANGES[change](arrays[name])
            if accepted(app, arrays):
                got_through.append(name)
    assert ", ".join(got_through) == ""


OF_ONE = [name for name in calls.PARAMETERS if not name.startswith(("r_", "s_"))]


def test_the_well_formed_call_of_one_tenant_is_accepted(app: App, tenants: Tenants) -> None:
    with app.transaction(force_rollback=True):
        assert calls.statuses(calls.call(app, tenants.of_one())) == [APPENDED] * 3


def test_no_array_of_another_shape_is_accepted_of_one_tenant(app: App, tenants: Tenants) -> None:
    got_through = [
        (shape, name)
        for shape in SHAPES
        for name in calls.PARAMETERS
        if (name in OF_ONE or shape == "NULL")
        and accepted(app, tenants.of_one(), {name: SHAPES[shape](calls.PARAMETERS[name])})
    ]
    assert got_through == []


def test_no_array_that_does_not_fit_the_others_is_accepted_of_one_tenant(app: App, tenants: Tenants) -> None:
    others = tenants.well_formed("all good")
    filled = [{name: others[name]} for name in calls.PARAMETERS if name not in OF_ONE]
    plain = tenants.of_one()
    changed = [{name: change(plain[name])} for name in OF_ONE for change in CHANGES.values()]
    got_through = [each for each in filled + changed if accepted(app, tenants.of_one() | each)]
    assert got_through == []


def test_a_null_among_what_is_given_back_is_refused(app: App, tenants: Tenants) -> None:
    """It would give nothing back, and nobody would hear of it."""
    got_through = []
    for name in ("r_kind", "r_key", "r_owner"):
        back = [Key(calls.key(n), ids.new_id()) for n in (1, 2)]
        arrays = calls.arrays_of([Command(tenant=tenants.one, releases=back)])
        arrays[name][1] = None
        if accepted(app, arrays):
            got_through.append(name)
    assert ", ".join(got_through) == ""


def set_all(name: str, *values: Any) -> Callable[[Arrays], None]:
    """The first elements of one array become these."""

    def change(arrays: Arrays) -> None:
        arrays[name][: len(values)] = values

    return change


def tenant_twice(arrays: Arrays) -> None:
    arrays["p_tenants"][1] = arrays["p_tenants"][0]


def tenants_unused_and_twice(arrays: Arrays) -> None:
    arrays["p_tenants"].append(arrays["p_tenants"][0])


def count_changed(by: int) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays["c_events"][-1] += by

    return change


def negative_count(arrays: Arrays) -> None:
    """The sum stays."""
    counts = arrays["c_events"]
    counts[-1] += 1
    counts[counts.index(0)] = -1


def tenants_reversed(arrays: Arrays) -> None:
    """None comes twice, so that nothing collides."""
    arrays["c_tenant"].reverse()


def events_without_originators(arrays: Arrays) -> None:
    arrays["e_originator"] = []
    arrays["c_events"] = [0] * len(arrays["c_events"])


def no_commands(arrays: Arrays) -> None:
    for name in arrays:
        if name != "p_tenants":
            arrays[name] = []


KEY = calls.key(1)
OTHERS: dict[str, Callable[[Arrays], None]] = {
    "a tenant twice": tenant_twice,
    "a tenant twice, once unused": tenants_unused_and_twice,
    "tenants out of order": set_all("c_tenant", 2, 1),
    "tenants in reverse": tenants_reversed,
    "tenant 0": set_all("c_tenant", 0),
    "tenant −1": set_all("c_tenant", -1),
    "a tenant past the end": set_all("c_tenant", 1, 1, 99, 99),
    "a negative count": negative_count,
    "one event more than there are": count_changed(1),
    "one event less than there are": count_changed(-1),
    "events without originators": events_without_originators,
    "version 0": set_all("e_version", 0),
    "version −1": set_all("e_version", 1, -1),
    "a reservation of command 0": set_all("r_command", 0),
    "a reservation of a command past the end": set_all("r_command", 99),
    "a secret of command 0": set_all("s_command", 0),
    "a secret of a command past the end": set_all("s_command", 99),
    "a short key given back": set_all("r_key", KEY[:-1]),
    "a long key given back": set_all("r_key", KEY + b"\0"),
    "a short key claimed": set_all("r_key", KEY, KEY[:-1]),
    "an empty key claimed": set_all("r_key", KEY, b""),
    "no commands": no_commands,
    "nothing at all": lambda arrays: arrays.update({name: [] for name in arrays}),
}


@pytest.mark.parametrize("company", COMPANIES)
def test_other_nonsense_is_refused(app: App, tenants: Tenants, company: str) -> None:
    got_through = []
    for nonsense, change in OTHERS.items():
        arrays = tenants.well_formed(company)
        change(arrays)
        if accepted(app, arrays):
            got_through.append(nonsense)
    assert ", ".join(got_through) == ""


UNFIT = {
    "no topic": set_all("e_topic", ""),
    "a reservation of no kind": set_all("r_kind", "sku", ""),
    "a secret of no kind": set_all("s_kind", ""),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_value_that_its_column_refuses_is_refused(app: App, tenants: Tenants, unfit: str) -> None:
    arrays = tenants.well_formed("all good")
    UNFIT[unfit](arrays)
    assert not accepted(app, arrays)


@pytest.mark.parametrize("unfit", [set_all("e_topic", ""), set_all("e_version", 0), set_all("c_events", 2, 2)])
def test_a_value_that_its_column_refuses_is_refused_of_one_tenant(
    app: App, tenants: Tenants, unfit: Callable[[Arrays], None]
) -> None:
    arrays = tenants.of_one()
    unfit(arrays)
    assert not accepted(app, arrays)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_another_isolation_is_refused(app: App, tenants: Tenants, level: IsolationLevel) -> None:
    """Its snapshot is older than the lock: it would chain onto a head that has moved."""
    app.isolation_level = level
    for arrays in (tenants.well_formed("all good"), tenants.of_one()):
        with pytest.raises(errors.ActiveSqlTransaction), app.transaction():
            calls.call(app, arrays)


@pytest.mark.parametrize("state", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_another_isolation_by_the_sessions_default_is_refused(
    app: App, tenants: Tenants, state: IsolationLevel
) -> None:
    app.execute(f"SET default_transaction_isolation = '{state.name.replace('_', ' ').lower()}'".encode())
    with pytest.raises(errors.ActiveSqlTransaction):
        calls.call(app, tenants.well_formed("all good"))


def test_lower_bounds_cannot_make_the_hash_cover_what_is_not_stored(app: App, tenants: Tenants) -> None:
    """One step from the array's end, behind an event that is refused: what was hashed was another event's state."""
    got_through = []
    for name in ("e_originator", "e_version", "e_topic", "e_state", "e_metadata"):
        good = Command(tenant=tenants.two, events=[Event(ids.new_id(), 1, b"stored", "a.made", b"{}")])
        refused = Command(tenant=tenants.unknown, events=[Event(ids.new_id(), 2, b"hashed", "b.made", b"[]")])
        shape = SHAPES["from 0"](calls.PARAMETERS[name])
        if accepted(app, calls.arrays_of([good, refused]), {name: shape}):
            got_through.append(name)
    assert ", ".join(got_through) == ""
