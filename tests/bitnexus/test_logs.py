"""What a line of the log is, and what never stands in one."""

import json
import logging
from typing import Any

import psycopg
import pytest

from api import request_ids
from bitnexus import logs
from tests import logged

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlIG9mIGl0"
REFRESH = "kR3-f0nq_ZtVbYw1LxT8uAeHjGmCpQsD5vN2oE7iKaUy4XcB6rWlM9ZgFdSh"


def line(message: str, *values: object, error: BaseException | None = None) -> dict[str, Any]:
    """What is written."""
    trace = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("bitnexus.test", logging.ERROR, __file__, 1, message, values, trace)
    written = logs.formatter().format(record)
    assert "\n" not in written
    found: dict[str, Any] = json.loads(written)
    return found


def raised(work: Any) -> BaseException:
    try:
        work()
    except Exception as error:  # noqa: BLE001  whatever it is
        return error
    raise AssertionError("nothing was raised")


def test_a_line_says_when_where_how_bad_and_in_which_request() -> None:
    """Without the request's id nobody finds the lines of one request among those of a busy minute."""
    token = request_ids.CURRENT.set("req-1")
    try:
        found = line("A flush of %d commands failed", 3)
    finally:
        request_ids.CURRENT.reset(token)
    assert found["timestamp"].endswith("Z")
    assert {name: found[name] for name in ("message", "level", "logger", "request_id")} == {
        "message": "A flush of 3 commands failed",
        "level": "error",
        "logger": "bitnexus.test",
        "request_id": "req-1",
    }
    assert "request_id" not in line("outside of any request")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"token {TOKEN} refused", "token [removed] refused"),
        (f"Authorization: Bearer {TOKEN[:20]}", "Authorization: [removed]"),
        (f"refresh {REFRESH}", "refresh [removed]"),
        ("postgresql://shop:pass word@db:5432/x".replace(" ", ""), "postgresql://[removed]@db:5432/x"),
        ("mail to ann.lee@example.org failed", "mail to [removed] failed"),
        ('duplicate key "x"\nDETAIL:  Key (email)=(ann) already exists.', 'duplicate key "x"'),
        ("hash " + "0f" * 32, "hash " + "0f" * 32),
    ],
)
def test_tokens_addresses_and_rows_are_taken_out(said: str, kept: str) -> None:
    """A library's message may hold what somebody sent."""
    assert line("%s", said)["message"] == kept


def test_an_exception_shows_where_and_not_what() -> None:
    """What could not be converted may be a password."""
    found = line("failed", error=raised(lambda: int("Tr0ub4dor and 3")))["exception"]
    assert found.startswith("ValueError\n  ")
    assert "in <lambda>" in found
    assert "Tr0ub4dor" not in found
    assert line("failed", error=TypeError("f() takes 1 argument"))["exception"] == "TypeError: f() takes 1 argument"


def test_a_refusal_of_the_database_shows_its_code_and_no_row(server: str) -> None:
    def insert() -> None:
        with psycopg.connect(server) as connection:
            connection.execute("SELECT 'ann-lee'::int")

    found = line("failed", error=raised(insert))["exception"]
    assert found.startswith("InvalidTextRepresentation: SQLSTATE 22P02\n")
    assert "ann-lee" not in found


def test_causes_are_told_too() -> None:
    def fail() -> None:
        try:
            raise OSError("no route to host")
        except OSError as error:
            raise RuntimeError("secret") from error

    found = line("failed", error=raised(fail))["exception"]
    assert "RuntimeError\n" in found
    assert "OSError: no route to host" in found
    assert "secret" not in found


def test_a_line_is_bounded() -> None:
    """A body of a megabyte in a message would be a megabyte in each place where logs go."""

    def deep(depth: int) -> None:
        if depth == 0:
            raise OSError("x " * 50_000)
        deep(depth - 1)

    found = line("y " * 50_000, error=raised(lambda: deep(100)))
    assert len(found["message"]) == logs.MESSAGE_CHARACTERS_MAX
    assert len(found["exception"]) <= logs.EXCEPTION_CHARACTERS_MAX


def test_what_is_no_unicode_is_logged_all_the_same() -> None:
    assert line("half a pair: \ud800")["message"] == "half a pair: ?"


def test_the_runs_log_is_searched_for_what_the_tests_used() -> None:
    """The search itself: it must find what it looks for."""
    values = {"correct horse battery", "Ann Lee"}
    assert logged.found('{"message": "well"}\n', values) == []
    for said in ("by Ann Lee", "password correct horse battery", f"a {TOKEN}", f"a {REFRESH}", "to ann@example.org"):
        (found,) = logged.found(json.dumps({"message": "x", "exception": said}) + "\n", values)
        assert "was logged" in found
    (found,) = logged.found("Traceback (most recent call last):\n", values)
    assert "is no JSON" in found
