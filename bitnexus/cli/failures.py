"""Failures that are not bugs: their messages are told, without a traceback."""

import psycopg
import psycopg_pool

from bitnexus import counting, erasures, installation, keyfile, listening, schema, settings, supervision
from bitnexus.cli import loop, parser
from bitnexus.embedded import errors as embedded
from bitnexus.moving import errors as moving
from bitnexus.retail import rows
from commands import passwords
from domain import refusals
from ledger import errors as ledger
from migrations import errors as migrations
from projections import comparison, rebuild, repairing, switching, travel

# Their messages have three parts already.
TOLD = (
    parser.UsageWrong,
    loop.InputWrong,
    settings.SettingInvalid,
    keyfile.KeyFileUnusable,
    installation.KeyLost,
    schema.MasterKeyWrong,
    schema.MasterKeyOrderWrong,
    schema.NotMigrated,
    migrations.MigrationError,
    embedded.EmbeddedError,
    ledger.LedgerError,
    refusals.Refusal,
    passwords.HashingOverloaded,
    rows.RetailFileError,
    listening.AddressUnusable,
    erasures.ErasureListUnusable,
    supervision.WorkersFailed,
    counting.NowhereToCount,
    moving.MovingError,
    rebuild.Refused,
    comparison.TableMissing,
    comparison.NotAtOnePosition,
    switching.NothingThere,
    repairing.NothingParked,
    travel.Undigested,
)
DATABASE_GONE = (psycopg.OperationalError, psycopg_pool.PoolTimeout)


def is_expected(error: Exception) -> bool:
    return isinstance(error, (*TOLD, *DATABASE_GONE))


def described(error: Exception) -> str:
    """What happened, the value, what to do."""
    if isinstance(error, DATABASE_GONE):
        why = str(error).strip().replace("\n", " ")
        return f"The database did not answer: {why}. See that it runs and can be reached, then run the command again."
    return str(error)
