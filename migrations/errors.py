"""What can stop a migration run. Each message has what happened, the value that caused it, and what to do about it."""


class MigrationError(Exception):
    """Root of all refusals of this package. No message holds a password."""


class OwnerUrlInvalid(MigrationError):
    """The URL is not shown: libpq's own message would quote it, password included."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The owner's database URL cannot be used: {why}. "
            "Write it as postgresql://user:password@host:port/database (DATABASE_URL)."
        )


class DatabaseUnreachable(MigrationError):
    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The database cannot be reached as its owner: {detail}. "
            "Check that the server runs and that host, port, database, user and password of DATABASE_URL are right."
        )


class ServerTooOld(MigrationError):
    def __init__(self, version: str) -> None:
        super().__init__(
            f"This PostgreSQL server is too old: it is version {version}, and 16 is the oldest that is supported. "
            "Upgrade the server, or point DATABASE_URL at a newer one."
        )


class VectorUnavailable(MigrationError):
    def __init__(self, database: str, detail: str) -> None:
        super().__init__(
            f'The extension pgvector cannot be used in database "{database}": {detail}. '
            "Install pgvector on the server (package postgresql-NN-pgvector), "
            "or have a superuser run CREATE EXTENSION vector in this database."
        )


class FilesInvalid(MigrationError):
    def __init__(self, problem: str, value: str) -> None:
        super().__init__(
            f"The migration files are not in order: {problem}: {value}. "
            "Name them NNNN_pre_name.sql or NNNN_post_name.sql, numbered 0001, 0002, … without gaps or doubles."
        )


class MigrationEdited(MigrationError):
    def __init__(self, name: str, checksum_applied: str, checksum_file: str) -> None:
        super().__init__(
            f"A migration was edited after it had been applied: {name} was applied with SHA-256 {checksum_applied}, "
            f"the file now has {checksum_file}. Restore the file and put the change into a new migration."
        )


class PostMigrationUnknown(MigrationError):
    def __init__(self, names: list[str]) -> None:
        super().__init__(
            "The database is newer than this release: it has post migrations that this release does not know: "
            f"{', '.join(names)}. Run the release that brought them, or a later one."
        )


class OutOfOrder(MigrationError):
    def __init__(self, name: str, newer: str) -> None:
        super().__init__(
            f"A migration was never applied although a later one, or another of its number, was: {name} is missing, "
            f"{newer} is there. Give the file a number after all that are applied."
        )


class MigrationFailed(MigrationError):
    """`repeatable`: the file ran outside a transaction, so what came before the failed statement stays."""

    def __init__(self, name: str, detail: str, *, repeatable: bool = False) -> None:
        left = "its earlier statements stay and will run again" if repeatable else "nothing of it was kept"
        super().__init__(f"A migration failed: {name}: {detail}. Correct the cause and start again: {left}.")


class LockHeld(MigrationError):
    def __init__(self, waited_s: float, holder: str) -> None:
        super().__init__(
            f"Another process has been migrating this database for longer than {waited_s:g} s: {holder}. "
            "Wait for it and start again, or end it with pg_terminate_backend(pid) if it hangs."
        )


class LoginRoleUnsafe(MigrationError):
    def __init__(self, role: str, attributes: list[str]) -> None:
        revoke = " ".join(f"NO{attribute}" for attribute in attributes)
        super().__init__(
            f'The login role could go round row-level security or alter roles: "{role}" has '
            f'{", ".join(attributes)}. As a superuser run: ALTER ROLE "{role}" {revoke}.'
        )


class LoginRoleNameTooLong(MigrationError):
    def __init__(self, role: str, bytes_max: int) -> None:
        super().__init__(
            f'The name of the login role does not fit into PostgreSQL\'s {bytes_max} bytes: "{role}". '
            "Use a database with a shorter name."
        )
