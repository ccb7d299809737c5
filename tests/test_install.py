"""`scripts/install` makes .venv with a good Python: the default one, unless another is clearly quicker.

The Pythons here are the one of the tests, each under a name of its own and with something done to it as it starts.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
VERSIONED = f"python{sys.version_info.major}.{sys.version_info.minor}"
TIMEOUT_S = 60
SLOWED = """
def trace(frame, event, argument):
    for _ in range(50):
        pass
    return trace

sys.settrace(trace)
"""
TOO_OLD = "sys.version_info = (3, 10, 0, 'final', 0)"
PYPY = "sys.implementation.name = 'pypy'"
WITHOUT_ENSUREPIP = "sys.modules['ensurepip'] = None"


def clock(speed: int) -> str:
    """An interpreter whose every loop takes as long as one of that speed would need, to the nanosecond."""
    return f"import itertools, time; time.perf_counter = map(lambda n: n / {speed}, itertools.count()).__next__"


class Chosen(NamedTuple):
    path: str
    said: str  # on stderr


class Machine:
    """Folders with Pythons, those of PATH in order and one that is not on it, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = [folder / "first", folder / "second"]
        self.elsewhere = folder / "elsewhere"
        for place in (*self._path, self.elsewhere):
            place.mkdir()

    def add(self, place: str, name: str = VERSIONED, *, done_to_it: str = "") -> Path:
        """A Python that takes itself for another one than the rest, as its path would tell if it were installed."""
        executable = self._folder / place / name
        home = self._folder / f"{place}-{name}"
        venv.create(home, symlinks=True)
        (site,) = home.glob("lib/*/site-packages")
        (site / "done_to_it.py").write_text(f"import sys\nsys.executable = {str(executable)!r}\n{done_to_it}\n")
        (site / "done_to_it.pth").write_text("import done_to_it\n")  # not sitecustomize: Debian's own would win
        executable.write_text(f'#!/bin/sh\nexec "{home}/bin/python" "$@"\n')
        executable.chmod(0o755)
        return executable

    def run(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        bash = shutil.which("bash")
        assert bash is not None
        return subprocess.run(
            [bash, ROOT / "scripts/python", self.elsewhere],
            env={"PATH": ":".join(map(str, self._path)), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def chosen(self, **environment: str) -> Chosen:
        result = self.run(**environment)
        assert result.returncode == 0, result.stderr
        return Chosen(result.stdout.removesuffix("\n"), result.stderr)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("place", ["second", "elsewhere"])
def test_one_that_is_several_times_as_fast_is_taken_and_said(machine: Machine, place: str) -> None:
    """Whoever finds another Python in .venv than python3 has to know why, and how to have it otherwise."""
    machine.add("first", "python3", done_to_it=SLOWED)
    quick = machine.add(place)
    path, said = machine.chosen()
    assert path == str(quick)
    found = re.fullmatch(r"(.+) is taken, ([\d.]+) times as fast as python3 in a plain loop; (.+)\n", said)
    assert found is not None, said
    assert (found[1], found[3]) == (str(quick), "PYTHON=python3 keeps the default.")
    assert float(found[2]) > 2


@pytest.mark.parametrize(
    ("speed", "taken"),
    [(50, False), (100, False), (124, False), (126, True), (207, True)],
)
def test_the_default_stays_unless_another_is_a_quarter_faster(machine: Machine, speed: int, taken: bool) -> None:
    """Less is what noise makes of two alike."""
    machine.add("first", "python3", done_to_it=clock(100))
    other = machine.add("second", done_to_it=clock(speed))
    path, said = machine.chosen()
    assert path == (str(other) if taken else "python3")
    assert re.findall(r"[\d.]+ times", said) == ([f"{speed / 100:.2f} times"] if taken else [])


def test_the_fastest_of_several_is_taken(machine: Machine) -> None:
    machine.add("first", "python3", done_to_it=clock(100))
    machine.add("first", done_to_it=clock(150))
    fastest = machine.add("second", done_to_it=clock(300))
    machine.add("elsewhere", done_to_it=clock(200))
    assert machine.chosen().path == str(fastest)


def test_one_python_under_several_names_is_not_measured_against_itself(machine: Machine) -> None:
    """It would be said to be quicker than itself when the machine is busy. Measuring would fail here."""
    default = machine.add("first", "python3", done_to_it="import time; del time.perf_counter")
    (default.parent / VERSIONED).symlink_to(default)
    (machine.elsewhere / VERSIONED).symlink_to(default)
    assert machine.chosen() == ("python3", "")


def test_a_python_that_is_set_is_taken_unmeasured(machine: Machine) -> None:
    slow = machine.add("first", "python3", done_to_it=SLOWED)
    machine.add("second")
    assert machine.chosen(PYTHON="python3") == ("python3", "")
    assert machine.chosen(PYTHON=str(slow)) == (str(slow), "")


@pytest.mark.parametrize("lacking", [WITHOUT_ENSUREPIP, TOO_OLD, PYPY])
def test_one_that_cannot_make_a_venv_is_passed_over(machine: Machine, lacking: str) -> None:
    """However fast it is: Debian's has no ensurepip without python3-venv, and the wheels are CPython's."""
    machine.add("first", "python3", done_to_it=SLOWED)
    machine.add("first", done_to_it=lacking)
    assert machine.chosen() == ("python3", "")


@pytest.mark.parametrize("lacking", [WITHOUT_ENSUREPIP, TOO_OLD, "sys.exit(127)"])
def test_another_stands_in_for_a_default_that_cannot(machine: Machine, lacking: str) -> None:
    machine.add("first", "python3", done_to_it=lacking)
    other = machine.add("second")
    assert machine.chosen() == (str(other), "")


def test_another_minor_version_is_not_taken_for_its_speed(machine: Machine) -> None:
    """Constraints and wheels are tried with the version that was asked for."""
    machine.add("first", "python3", done_to_it=SLOWED)
    machine.add("second", "python3.99", done_to_it="sys.version_info = (3, 99, 0, 'final', 0)")
    machine.add("second", done_to_it="sys.version_info = (3, 99, 0, 'final', 0)")  # whatever its name
    assert machine.chosen() == ("python3", "")


@pytest.mark.parametrize("missing", [True, False])
def test_none_that_can_is_refused_with_what_to_do(machine: Machine, missing: bool) -> None:
    if not missing:
        machine.add("first", "python3", done_to_it=WITHOUT_ENSUREPIP)
    result = machine.run()
    assert (result.returncode, result.stdout) == (2, "")
    found = "no python3" if missing else f"Python {sys.version.split()[0]}"
    assert result.stderr == (
        "CPython 3.11 or newer with venv and ensurepip (in Debian's package python3-venv) is needed, "
        f"{found} was found. Set PYTHON to a newer one.\n"
    )


def test_a_set_python_that_is_too_old_is_refused(machine: Machine) -> None:
    """And not replaced: who sets it means it."""
    old = machine.add("first", "python3", done_to_it=TOO_OLD)
    machine.add("second")
    result = machine.run(PYTHON=str(old))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Python 3.11 or newer is needed, ")


def test_installing_chooses_once(tmp_path: Path) -> None:
    """An installed checkout stays with its Python, whatever becomes quicker; what pip does is left out here."""
    for name in ("scripts/install", "scripts/python", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "mine"
    python.write_text(
        '#!/bin/sh\necho "$@" >> asked\n[ "$1" = -c ] && exit\n'
        "mkdir -p .venv/bin && cp /bin/sh .venv/bin/python && printf '#!/bin/sh\\n' > .venv/bin/pip && chmod +x .venv/bin/pip\n"
    )
    python.chmod(0o755)
    install = str(tmp_path / "scripts/install")
    for command in ([install], [install, "dev"]):
        subprocess.run(command, env={**os.environ, "PYTHON": str(python)}, check=True, timeout=TIMEOUT_S)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("-m")] == ["-m venv .venv"]
    assert len(asked) == 2
