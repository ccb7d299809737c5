"""The master key of an installation with an embedded database: a file beside the database, not in it.

Whoever copies the database alone has no key; whoever loses the file has lost every person's data in it.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ledger.keys import MasterKey, MasterKeyInvalid

NAME = "master.key"
MODE = stat.S_IRUSR | stat.S_IWUSR
BYTES_MAX = 1024
"""A key has 45 bytes with its line end. More is some other file."""


class KeyFileUnusable(Exception):
    def __init__(self, happened: str, path: Path, value: str, advice: str) -> None:
        super().__init__(f"{happened}: {path}: {value}. {advice}.")
        self.path = path


def read(data_dir: Path) -> MasterKey | None:
    """The key, None if there is no file. Raises KeyFileUnusable."""
    path = data_dir / NAME
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & ~MODE:
                raise KeyFileUnusable(
                    "The master key's file can be used by others than its owner",
                    path,
                    f"its mode is {mode:04o}, not {MODE:04o}",
                    f"Run `chmod 600 {path}`, and think about who may have read it",
                )
            return MasterKey.parse(file.read(BYTES_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileUnusable(
            "The master key's file cannot be read",
            path,
            error.strerror or str(error),
            "Run as the user that owns it, or set BITNEXUS_MASTER_KEY",
        ) from None
    except (UnicodeDecodeError, MasterKeyInvalid):
        raise KeyFileUnusable(
            "The master key's file holds no key",
            path,
            "it is not 32 bytes in base64 (not shown)",
            "Put the file back from where you keep a copy of it, or set BITNEXUS_MASTER_KEY",
        ) from None


def make(data_dir: Path, say: Callable[[str], None]) -> MasterKey:
    """A new key, or the one that another process made meanwhile. Raises KeyFileUnusable."""
    path = data_dir / NAME
    try:
        if _make(data_dir):
            say(f"Made a new master key: {path}. Keep a copy of it elsewhere: without it, data about persons is lost.")
    except OSError as error:
        raise KeyFileUnusable(
            "The master key's file cannot be written",
            path,
            error.strerror or str(error),
            "Set --data-dir or BITNEXUS_DATA_DIR to a directory of your own",
        ) from None
    found = read(data_dir)
    assert found is not None
    return found


def _make(data_dir: Path) -> bool:
    """Whole or not at all; of processes that start together one makes it, and is told so."""
    unfinished = data_dir / f".{NAME}.{os.urandom(8).hex()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(MasterKey.generate() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, data_dir / NAME)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink()
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
