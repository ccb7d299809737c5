"""What moving a tenant refuses. Messages say what happened, the value that caused it, and what to do."""

from pathlib import Path
from uuid import UUID

from domain import refusals


class MovingError(Exception):
    """Root of the refusals of an export or an import."""

    def __init__(self, happened: str, value: object, advice: str) -> None:
        super().__init__(f"{happened}: {refusals.shown(value)}. {advice}.")


class FileUnusable(MovingError):
    """It cannot be opened, read or written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"The file cannot be used, {error.strerror or error}", str(path), "Give a file that can, and begin again"
        )


class FileExists(MovingError):
    def __init__(self, path: Path) -> None:
        super().__init__("There is a file of this name already", str(path), "Give another name, or remove it")


class NotATenantFile(MovingError):
    def __init__(self, begins: bytes) -> None:
        super().__init__("This is no tenant's file, it begins with", begins.hex(), "Give what `tenants export` wrote")


class FormatUnknown(MovingError):
    def __init__(self, version: int, known: int) -> None:
        super().__init__(
            f"The file's format is not known, this release reads version {known}", version, "Import it with a newer one"
        )


class FileDamaged(MovingError):
    """At least one byte is not what `export` wrote. `offset` is about where that was seen."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(
            f"The file is damaged, {why}", f"byte {offset}", "Nothing was imported; copy it again, or export again"
        )
        self.offset = offset


class FileContradictory(MovingError):
    """The file is whole and still cannot be a tenant's: whoever wrote it was no export."""

    def __init__(self, why: str, value: object) -> None:
        super().__init__(
            f"The file contradicts itself, {why}",
            value,
            "Nothing was imported; find out who wrote it, and export again",
        )


class StreamBroken(MovingError):
    """What is in the database does not verify, so it is not spread any further."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(
            f"The tenant's chain is broken, {why}", f"position {position}", "Nothing was exported; run `audit verify`"
        )


class TenantExists(MovingError):
    def __init__(self, tenant_id: UUID) -> None:
        super().__init__(
            "The tenant is here already", tenant_id, "A tenant is imported once; look at it with `audit verify`"
        )


class PlatformStays(MovingError):
    def __init__(self, slug: str) -> None:
        super().__init__(
            "The platform's own tenant cannot be moved, every installation has one", slug, "Name another tenant"
        )


class PassphraseMissing(MovingError):
    def __init__(self, keys: str) -> None:
        super().__init__(
            "The passphrase is missing", keys, "Give it with --passphrase, or import with --without-keys for ever"
        )


class PassphraseTooShort(MovingError):
    """Says the length, never the passphrase."""

    def __init__(self, length: int, least: int) -> None:
        super().__init__("The passphrase is too short", f"{length} characters", f"Give {least} or more")


class PassphraseWrong(MovingError):
    """Says nothing of it."""

    def __init__(self) -> None:
        super().__init__(
            "The passphrase does not open the file's keys", "(not shown)", "Give the one that it was exported with"
        )


class KeysAbsent(MovingError):
    def __init__(self, slug: str) -> None:
        super().__init__(
            "The file holds no keys of persons, so a passphrase opens nothing",
            slug,
            "Leave --passphrase out, or export again with --with-keys",
        )


class OwnerUnknown(MovingError):
    def __init__(self) -> None:
        super().__init__(
            "Only the database's owner may import a tenant, and its URL was not given",
            "DATABASE_URL is not set",
            "Set it for this command",
        )
