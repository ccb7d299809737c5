"""Which user PostgreSQL's programs run as, what that user needs to reach them, and running them."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bitnexus.embedded import errors

SYSTEM_USER = "bitnexus"
LAUNCHER = Path(__file__).with_name("launch.py")
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2

# Least first: most containers withhold READ_SEARCH from root but grant OVERRIDE.
CAPABILITIES = (None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)


@dataclass(frozen=True)
class Account:
    """The server's user. `switch`: we are root and have to become it."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True)
class Job:
    """What launch.py reads."""

    uid: int | None  # None: stay who we are
    gid: int | None
    groups: Sequence[int]
    capability: int | None
    argv: Sequence[str] = ()
    environment: dict[str, str] | None = None
    log: str = ""
    detach: bool = False
    probe: Sequence[tuple[str, int]] = ()


def account(data_dir: Path) -> Account:
    """We ourselves; for root, who owns the cluster or the data directory, else a system user that is created.

    Raises AccountMissing.
    """
    if (uid := os.geteuid()) != 0:
        return _account(uid, switch=False)
    for path in (data_dir / "pg", data_dir):
        if path.exists() and (owner := path.stat().st_uid) != 0:
            return _account(owner, switch=True)
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        entry = _create_system_user()
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)


def _account(uid: int, *, switch: bool) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise errors.AccountMissing(f"user id {uid}", "it has no name in the system's list of users") from None
    return Account(entry.pw_name, uid, entry.pw_gid, switch)


def _create_system_user() -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise errors.AccountMissing(SYSTEM_USER, "the program useradd is missing, so it cannot be created")
    command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(SYSTEM_USER)  # also when another process created it at the same time
    except KeyError:
        raise errors.AccountMissing(SYSTEM_USER, f"useradd failed: {done.stderr.strip()}") from None


class Programs:
    """PostgreSQL's programs, run as `account` with the least capability that reaches them and `data_dir`."""

    def __init__(self, binaries: Path, account: Account, data_dir: Path, socket_dir: Path) -> None:
        self.binaries = binaries
        self.account = account
        self.capability = self._least_capability(data_dir, socket_dir) if account.switch else None

    def run(self, program: str, *arguments: str, keep: int) -> None:
        """Runs to its end. `keep`: a descriptor that the program holds on to if we are killed. Raises LaunchFailed."""
        self._launch(program, arguments, keep)

    def start(self, program: str, *arguments: str, keep: int, log: Path, grandparent_pid: str) -> None:
        """Leaves it running in a session of its own, out of reach of the terminal's Ctrl-C. Raises LaunchFailed."""
        self._launch(program, arguments, keep, log=str(log), detach=True, grandparent_pid=grandparent_pid)

    def _launch(
        self,
        program: str,
        arguments: Sequence[str],
        keep: int,
        *,
        log: str = "",
        detach: bool = False,
        grandparent_pid: str = "",
    ) -> None:
        # Nothing of our environment: it holds secrets, and PG… variables that would redirect the programs.
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        if grandparent_pid:
            environment["PG_GRANDPARENT_PID"] = grandparent_pid
        argv = [str(self.binaries / program), *arguments]
        job = self._job(self.capability, argv=argv, environment=environment, log=log, detach=detach)
        done = _execute(job, keep)
        if done.returncode != 0:
            raise errors.LaunchFailed(program, done.stderr or done.stdout)

    def _job(
        self,
        capability: int | None,
        *,
        argv: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        log: str = "",
        detach: bool = False,
        probe: Sequence[tuple[str, int]] = (),
    ) -> Job:
        uid, gid, groups = None, None, list[int]()
        if self.account.switch:
            uid, gid = self.account.uid, self.account.gid
            groups = os.getgrouplist(self.account.name, gid)
        return Job(uid, gid, groups, capability, argv, environment, log, detach, probe)

    def _least_capability(self, data_dir: Path, socket_dir: Path) -> int | None:
        install = self.binaries.parent
        probe = [
            *((str(self.binaries / program), os.R_OK | os.X_OK) for program in ("postgres", "initdb")),
            (str(install / "share" / "postgresql" / "postgres.bki"), os.R_OK),
            (str(install / "lib" / "postgresql"), os.R_OK | os.X_OK),
            (str(data_dir), os.X_OK),
            (str(socket_dir), os.X_OK | os.W_OK),
        ]
        unreachable, why = "", ""
        for capability in CAPABILITIES:
            done = _execute(self._job(capability, probe=probe))
            if done.returncode == 0 and not done.stdout:
                return capability
            unreachable = unreachable or done.stdout
            why = done.stderr.strip() or "permission denied"
        raise errors.Unreachable(self.account.name, unreachable or str(data_dir), why)


def _execute(job: Job, *keep: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(asdict(job))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd="/",
        pass_fds=keep,
        start_new_session=True,
        check=False,
    )
