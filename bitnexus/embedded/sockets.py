"""Where the server listens: a Unix socket in a directory that nobody else can enter or have put there."""

import contextlib
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from bitnexus.embedded import errors
from bitnexus.embedded.processes import Account

SOCKET_NAME = ".s.PGSQL.5432"
PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103  # sockaddr_un.sun_path, less the final NUL


def directory(data_dir: Path) -> Path:
    """Of this data directory, always the same. Raises SocketPathTooLong.

    Below the system's temporary directory rather than XDG_RUNTIME_DIR, which goes when its user logs out.
    """
    name = "bitnexus-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    for parent in (tempfile.gettempdir(), "/tmp"):  # nosec B108  # a folder of its own in it, checked below
        path = Path(parent, name)
        if len(os.fsencode(path / SOCKET_NAME)) <= PATH_BYTES_MAX:
            return path
    raise errors.SocketPathTooLong(path / SOCKET_NAME, PATH_BYTES_MAX)


def make(path: Path, account: Account) -> None:
    """Creates it 0700 for the server's user if it is not there, and checks it. Raises SocketDirUnsafe."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if account.switch and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)  # just made, or we were killed before this line
    check(path, account)


def check(path: Path, account: Account) -> None:
    """Raises SocketDirUnsafe: somebody else could listen there in the server's place and be sent what is meant for it."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise errors.SocketDirUnsafe(path, "it is gone while the server runs") from None
    if not stat.S_ISDIR(found.st_mode):
        raise errors.SocketDirUnsafe(path, "it is not a directory")
    if found.st_uid != account.uid:
        raise errors.SocketDirUnsafe(path, f'it belongs to user id {found.st_uid}, not to "{account.name}"')
    if found.st_mode & 0o077:
        raise errors.SocketDirUnsafe(path, f"others may enter it (mode {stat.S_IMODE(found.st_mode):04o}, not 0700)")


def listens(path: Path, pid: int) -> bool:
    """Whether that process listens on the socket now; where the system cannot tell which one does, whether any does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path / SOCKET_NAME))
        except OSError:
            return False
        if not hasattr(socket, "SO_PEERCRED"):
            return True
        found, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(found == pid)  # 0 is a process that this container cannot see
