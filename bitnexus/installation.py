"""What a process stands on: a database that fits it, and the master key."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from bitnexus import database, keyfile, schema
from bitnexus.settings import Settings
from ledger.keys import MasterKey
from migrations import runner

Say = Callable[[str], None]
"""Is told what a start waits for, and what it makes."""


class KeyLost(Exception):
    def __init__(self, path: os.PathLike[str], ids: list[str]) -> None:
        super().__init__(
            f"The master key is missing, and the database cannot be used without it: {os.fspath(path)} is not there, the "
            f"database needs the key with the id {' or '.join(ids)}. Put the file back from where you keep a copy of it, "
            "or set BITNEXUS_MASTER_KEY."
        )


@dataclass(frozen=True)
class Installation:
    """A worker process gets its own from the same settings."""

    app_url: str = field(repr=False)  # of the login role
    master: MasterKey = field(repr=False)
    migrated: list[str] = field(default_factory=list)  # files applied by this start
    owner_url: str | None = field(default=None, repr=False)  # None where this process does not have it


@contextmanager
def opened(settings: Settings, say: Say, *, migrate: bool = False, keep: bool = False) -> Iterator[Installation]:
    """The embedded database is in use, and by this process, until the end. `migrate`: do it as the owner in any case.
    `keep`: start it again whenever it dies.

    Raises EmbeddedError, MigrationError, KeyFileUnusable, KeyLost, MasterKeyWrong, MasterKeyOrderWrong, NotMigrated.
    """
    if not settings.embedded:
        assert settings.master_key is not None  # settings.read saw to it
        yield _prepared(settings, settings.database_url, MasterKey.parse(settings.master_key), migrate)
        return
    from bitnexus import keeping  # an image for production has no embedded database
    from bitnexus.embedded import Embedded

    with Embedded(settings.data_dir, say) as embedded:
        made = _prepared(settings, embedded.owner_url, _ensured_key(settings, embedded.owner_url, say), migrate)
        with keeping.running(embedded) if keep else nullcontext():
            yield made


def key(settings: Settings) -> MasterKey | None:
    """The one given, or the file's if the database is embedded. Raises KeyFileUnusable."""
    if settings.master_key is not None:
        return MasterKey.parse(settings.master_key)
    return keyfile.read(settings.data_dir) if settings.embedded else None


def _ensured_key(settings: Settings, owner_url: str, say: Say) -> MasterKey:
    """Of an embedded database; a new one gets a new key."""
    found = key(settings)
    if found is not None:
        return found
    ids = schema.key_ids(owner_url)
    if not ids:
        return keyfile.make(settings.data_dir, say)
    found = keyfile.read(settings.data_dir)  # of two first starts at once the other one may have made both meanwhile
    if found is None:
        raise KeyLost(settings.data_dir / keyfile.NAME, ids)
    return found


def _prepared(settings: Settings, owner_url: str | None, master: MasterKey, migrate: bool) -> Installation:
    migrated = _migrated(owner_url, master) if migrate else None
    app_url = settings.database_app_url
    if app_url is None:
        assert owner_url is not None  # one of the two is given
        app_url = runner.login_url(owner_url, database.login_password(master))
    applied = schema.ensure(owner_url, app_url, master) if migrated is None else migrated
    return Installation(app_url, master, applied, owner_url)


def _migrated(owner_url: str | None, master: MasterKey) -> list[str]:
    if owner_url is None:
        raise schema.NotMigrated(None, "it was not given the owner's DATABASE_URL.", master.root_id)
    return schema.migrate(owner_url, master)
