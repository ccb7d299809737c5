"""Which worker runs which tests, and in what order, when several share them (pytest-xdist, by `-n`).

The groups stand here and not as marks `xdist_group` at the tests: pytest-xdist 3.8 writes a mark's group into a node id in a way
that pytest 9.2 no longer reads, without a word.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    # They hold something to a fraction of a second, or to a bound that was promised.
    "clock": (
        "tests/api/socket/test_longpoll.py::test_a_session_joins_hears_and_leaves",
        "tests/api/test_account_flows.py::test_the_time_of_asking_does_not_tell_who_has_an_account",
        "tests/bitnexus/test_telemetry.py::test_lag_grows_by_real_time_while_nothing_is_projected",
        "tests/faults/test_revoked.py",
        "tests/projections/test_leases.py::test_a_process_that_cannot_beat_stops_believing_in_its_leases",
        "tests/projections/test_leases.py::test_a_tenant_with_much_to_do_leaves_the_others_their_two_seconds",
    ),
    # One pair of servers serves all.
    "replica": ("tests/api/test_replica.py",),
    # What one of them compiles another must not take away.
    "js": ("tests/clients/test_js.py",),
}
"""Begins of node ids. Tests of a group are run one after another, by one worker."""
LONGEST = ("tests/faults/", "tests/clients/", "tests/api/test_contract.py", "tests/test_readme.py", "tests/bitnexus/")
"""These come first: else the others would be done, and one worker have minutes to go."""


def arrange(items: list[pytest.Item]) -> None:
    """Brings all of a worker's tests into order. Raises UsageError if there are no tests of a group any more."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    files = {item.nodeid.partition("::")[0] for item in items}
    for begin in (begin for group in GROUPS.values() for begin in group):
        if begin.partition("::")[0] in files and not any(item.nodeid.startswith(begin) for item in items):
            raise pytest.UsageError(f"A group has tests that there are not: {begin!r}. Correct tests/parallel.py.")


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each worker a test at a time, or a group."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name, begins in GROUPS.items() if nodeid.startswith(begins)), nodeid)
