"""An embedded PostgreSQL that dies while somebody serves on it, and one that cannot be started at all."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitnexus import keeping
from bitnexus.embedded import Embedded
from tests.bitnexus.embedded_user import WAIT_S, User, one, postmaster, runs

PAUSES_S = ["0.00", "0.05", "0.10", "0.20", "0.20"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_S", 0.01)
    monkeypatch.setattr(keeping, "PAUSE_S_MIN", 0.05)
    monkeypatch.setattr(keeping, "PAUSE_S_MAX", 0.2)


@pytest.fixture
def embedded(data_dir: Path) -> Iterator[Embedded]:
    with Embedded(data_dir) as server:
        yield server


def kill(data_dir: Path) -> None:
    os.kill(postmaster(data_dir), signal.SIGKILL)


def until(what: Callable[..., bool], *about: object) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what(*about):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_dies_is_started_again_each_time(embedded: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    with keeping.running(embedded):
        for times in (1, 2):
            kill(embedded.data_dir)
            until(lambda expected: caplog.text.count("runs again") == expected, times)
            assert one(embedded.owner_url, b"SELECT 1") == 1
    assert caplog.text.count("is gone") == 2


def test_one_that_cannot_start_is_tried_again_with_pauses_until_it_can(
    embedded: Embedded, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, a line in its configuration: the log says why, and whoever corrects it need not start anything."""
    settings = data_dir / "pg" / "postgresql.conf"
    good = settings.read_text()
    with keeping.running(embedded):
        settings.write_text(good + "\nnothing_of_the_kind = on\n")
        kill(data_dir)
        until(lambda: caplog.text.count("does not start") == len(PAUSES_S))
        assert "nothing_of_the_kind" in caplog.text
        settings.write_text(good)
        until(lambda: "runs again" in caplog.text)
        assert one(embedded.owner_url, b"SELECT 1") == 1
    assert re.findall(r"again in (\S+) s", caplog.text)[: len(PAUSES_S)] == PAUSES_S


def test_a_server_that_others_use_or_start_is_left_alone(
    embedded: Embedded, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with keeping.running(embedded):
        pid = postmaster(data_dir)
        other = User(data_dir)
        assert other.answer().startswith("using")
        assert other.leave() == "left"
        time.sleep(10 * keeping.LOOK_S)
        assert postmaster(data_dir) == pid
    assert caplog.text == ""
    embedded.close()
    assert not runs(data_dir)
