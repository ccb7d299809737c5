"""The words of the command line. What each does stands in the module that it names."""

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

PORT = 4000
WORKERS_MAX = 64
"""Each has some 25 connections to the database."""
JOBS_MAX = 32
"""Tenants rebuilt at one time: each has two connections to the database."""
SHARE = 25
"""Percent of the time in which a rebuild works; it rests after each batch for what is left. At all of it a rebuild and the
database's part in it would have one of two cores, and whoever sells meanwhile would wait."""
ROWS, ROWS_MAX = 100, 100_000
"""Shown of a table: all of them are in memory, 1 KiB each."""
CONCURRENCY, CONCURRENCY_MAX = 64, 1_000  # as in bitnexus.retail.run, which is not imported for `--help`


class UsageWrong(Exception):
    """What argparse has to say."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises UsageWrong."""
        raise UsageWrong(f"The command cannot be understood: {message}. Run `{self.prog} --help` for what it takes.")


def parser() -> Parser:
    """Its result has `command`, "module.function" in bitnexus.cli."""
    main = Parser(prog="bitnexus", description="The back end of an affiliate marketplace on a verifiable ledger.")
    main.add_argument("--version", action="version", version=f"bitnexus {metadata.version('bitnexus')}")
    groups = main.add_subparsers(metavar="COMMAND", required=True)
    _serve(groups)
    _project(groups)
    _demo(groups)
    _leaf(groups, "migrate", "setup.migrate", "apply what the database lacks, as its owner")
    _tenants(groups)
    _platform(groups)
    _service_accounts(groups)
    _projections(groups)
    _import(groups)
    _persons(groups)
    _audit(groups)
    _keys(groups)
    _leaf(groups, "rights", "rights.show", "which role may do what")
    return main


def _leaf(groups: Any, name: str, command: str, text: str) -> argparse.ArgumentParser:
    leaf: argparse.ArgumentParser = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    leaf.set_defaults(command=command)
    leaf.add_argument(
        "--data-dir", type=Path, metavar="D", help="where the embedded database and its key are (BITNEXUS_DATA_DIR)"
    )
    leaf.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    return leaf


def _group(groups: Any, name: str, text: str) -> Any:
    group = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return group.add_subparsers(metavar="COMMAND", required=True)


def _listening(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    leaf.add_argument("--port", type=_port, default=PORT, help="0 takes a free one (default %(default)s)")


def _serve(groups: Any) -> None:
    leaf = _leaf(groups, "serve", "serving.serve", "run the API until SIGTERM or Ctrl-C")
    _listening(leaf)
    leaf.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes (default %(default)s)")


def _project(groups: Any) -> None:
    leaf = _leaf(groups, "project", "projecting.project", "keep the views up until SIGTERM or Ctrl-C, without an API")
    leaf.add_argument("--metrics-host", default="127.0.0.1", help="of --metrics-port (default %(default)s)")
    leaf.add_argument("--metrics-port", type=_port, help="tell /metrics there; 0 takes a free one (default: nowhere)")


def _demo(groups: Any) -> None:
    leaf = _leaf(groups, "demo", "serving.demo", "the API with a tenant, users and sales to look at")
    _listening(leaf)
    leaf.add_argument("--no-serve", action="store_true", help="prepare everything and end")


def _tenants(groups: Any) -> None:
    group = _group(groups, "tenants", "organisations")
    leaf = _leaf(group, "create", "setup.create_tenant", "a tenant and its first admin")
    leaf.add_argument("slug", metavar="SLUG", help="its short name in addresses: a-z, 0-9 and -")
    leaf.add_argument("--name", required=True, metavar="N")
    leaf.add_argument("--admin-email", required=True, metavar="E")
    leaf.add_argument("--admin-name", default="Admin", metavar="N", help="(default %(default)s)")
    leaf.add_argument("--admin-password", required=True, metavar="P", help="- reads it from standard input")
    leaf.add_argument("--currency", default="EUR", metavar="C", help="of its prices, ISO 4217 (default %(default)s)")
    _moving(group)


def _moving(group: Any) -> None:
    leaf = _leaf(group, "export", "moving.export", "write a tenant's whole stream into a file")
    leaf.add_argument("slug", metavar="SLUG")
    leaf.add_argument("file", type=Path, metavar="FILE", help="a new one; its mode will be 0600")
    leaf.add_argument("--with-keys", action="store_true", help="persons' data stay readable: their keys travel too")
    leaf.add_argument("--passphrase", metavar="P", help="for --with-keys; - reads it from standard input")
    leaf = _leaf(group, "suspend", "tenants.suspend", "let nobody act in a tenant; its data stay")
    leaf.add_argument("slug", metavar="SLUG")
    leaf.add_argument("--reason", required=True, metavar="TEXT", help="why; it is recorded in the tenant's ledger")
    _leaf(group, "resume", "tenants.resume", "let a suspended tenant act again").add_argument("slug", metavar="SLUG")
    leaf = _leaf(group, "close", "tenants.close", "suspend and export a tenant, then close it for good")
    leaf.add_argument("slug", metavar="SLUG")
    leaf.add_argument("file", type=Path, metavar="FILE", help="of the export, as for `export`")
    leaf.add_argument("--reason", default="closed", metavar="TEXT", help="(default %(default)s)")
    leaf.add_argument("--with-keys", action="store_true", help="as for `export`")
    leaf.add_argument("--passphrase", metavar="P", help="as for `export`")
    leaf = _leaf(group, "import", "moving.import_tenant", "a tenant out of such a file, as the database's owner")
    leaf.add_argument("file", type=Path, metavar="FILE")
    leaf.add_argument("--passphrase", metavar="P", help="of the keys in the file; - reads it from standard input")
    leaf.add_argument("--without-keys", action="store_true", help="leave the keys out: persons read as erased for ever")
    leaf = _leaf(group, "admin", "moving.appoint", "give an admin a new password, or make a new admin")
    leaf.add_argument("slug", metavar="SLUG")
    _admin(leaf)


def _admin(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("--admin-email", required=True, metavar="E")
    leaf.add_argument("--admin-name", default="Admin", metavar="N", help="of a new one (default %(default)s)")
    leaf.add_argument("--admin-password", required=True, metavar="P", help="- reads it from standard input")


def _platform(groups: Any) -> None:
    group = _group(groups, "platform", "what stands above the tenants")
    _admin(_leaf(group, "admin", "moving.appoint_super_admin", "give a super admin a new password, or make a new one"))


def _service_accounts(groups: Any) -> None:
    group = _group(groups, "service-accounts", "programs with rights and keys of their own")
    leaf = _leaf(group, "create", "service_accounts.create", "a service account with its first key")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    leaf.add_argument("--name", required=True, metavar="N")
    leaf.add_argument(
        "--scope", required=True, action="append", metavar="RIGHT", help="such as ledger:read; may be given repeatedly"
    )
    leaf = _leaf(group, "list", "service_accounts.show", "those that were not closed")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    leaf = _leaf(group, "close", "service_accounts.close", "let no key of one count any more, for good")
    leaf.add_argument("id", type=_uuid, metavar="ID")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")


def _projections(groups: Any) -> None:
    group = _group(groups, "projections", "views: how far they are, and filling them again")
    leaf = _leaf(group, "list", "views.show", "every view, with how far it is behind")
    leaf.add_argument("--tenant", metavar="SLUG", help="only this one's")
    leaf.add_argument("--by-tenant", action="store_true", help="a line for each tenant")
    leaf = _leaf(group, "at", "travel.show", "the rows of a view as they stood, made aside")
    leaf.add_argument("view", metavar="VIEW")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    leaf.add_argument(
        "--time", required=True, metavar="T", help="a position, or an instant such as 2026-01-31T09:30:00Z"
    )
    leaf.add_argument("--limit", type=_rows, default=ROWS, metavar="N", help="rows of a table (default %(default)s)")
    leaf = _leaf(group, "rebuild", "rebuilds.fill", "fill a view anew beside the rows that are read, then read the new")
    _of_tenants(leaf)
    leaf.add_argument("--compare-only", action="store_true", help="go on reading the old rows; exit 1 if they differ")
    leaf.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="tenants at one time (default %(default)s)")
    leaf.add_argument(
        "--share",
        type=_share,
        default=SHARE,
        metavar="PERCENT",
        help="of its time it works, of each job (default %(default)s)",
    )
    leaf = _leaf(group, "parked", "repairs.parked", "what views could not digest, and why")
    leaf.add_argument("--view", metavar="VIEW", help="only this one's")
    leaf.add_argument("--tenant", metavar="SLUG", help="only this one's")
    _repair(_leaf(group, "retry", "repairs.retry", "apply what is parked, or let a stopped view go on"))
    _repair(_leaf(group, "skip", "repairs.skip", "pass over the first event that waits, and apply the rest"))
    leaf = _leaf(group, "switch", "rebuilds.switch", "read the other generation of a view")
    _of_tenants(leaf)
    leaf.add_argument("--back", action="store_true", help="the older one, as before the last switch")
    _of_tenants(_leaf(group, "drop", "rebuilds.drop", "delete the generation that is not read; ends a rebuild"))


def _repair(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("view", metavar="VIEW")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    leaf.add_argument(
        "--originator", type=_uuid, metavar="ID", help="whose events are parked (default: a stopped view)"
    )
    leaf.add_argument("--reason", required=True, metavar="TEXT", help="why; it is recorded in the tenant's ledger")
    leaf.add_argument(
        "--account", type=_uuid, metavar="ID", help="whose decision it is, recorded too (default: the command line's)"
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a UUID") from None


def _of_tenants(leaf: argparse.ArgumentParser) -> None:
    leaf.add_argument("view", metavar="VIEW")
    which = leaf.add_mutually_exclusive_group()
    which.add_argument("--tenant", metavar="SLUG", help="only this one's rows")
    which.add_argument("--all", action="store_true", help="every tenant's (the default)")


def _import(groups: Any) -> None:
    leaf = _leaf(
        _group(groups, "import", "sales from elsewhere"),
        "retail",
        "imports.retail",
        "sales in the Online Retail layout",
    )
    leaf.add_argument("file", type=Path, metavar="FILE", help="CSV, or CSV in gzip (.gz)")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    leaf.add_argument(
        "--source", default="retail", metavar="NAME", help="whose invoice numbers they are (default %(default)s)"
    )
    leaf.add_argument(
        "--concurrency",
        type=_concurrency,
        default=CONCURRENCY,
        metavar="N",
        help="commands at once (default %(default)s)",
    )
    leaf.add_argument(
        "--rejects", type=Path, metavar="FILE", help="write the rejected rows there, as CSV with the reason"
    )


def _persons(groups: Any) -> None:
    group = _group(groups, "persons", "whose data is kept")
    leaf = _leaf(group, "erase", "persons.erase", "forget a person, for good")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    who = leaf.add_mutually_exclusive_group(required=True)
    who.add_argument("--email", metavar="E", help="of an account; - reads it from standard input")
    who.add_argument("--buyer", metavar="REF", help="as in buyer_ref of sales; - reads it from standard input")


def _audit(groups: Any) -> None:
    group = _group(groups, "audit", "check and replay what was recorded")
    leaf = _leaf(group, "verify", "audit.verify", "recompute the hash chain of every event; exit 1 if one is broken")
    leaf.add_argument("--tenant", metavar="SLUG", help="only this one's (default: all)")
    leaf.add_argument(
        "--personal", action="store_true", help="decipher every personal field too; exit 1 if one cannot be"
    )
    leaf = _leaf(group, "replay", "audit.replayed", "what a tenant, or one aggregate of it, was once")
    leaf.add_argument("--tenant", required=True, metavar="SLUG")
    until = leaf.add_mutually_exclusive_group()
    until.add_argument("--to", type=_position, metavar="POSITION", help="up to this event (default: the last one)")
    until.add_argument("--at", metavar="INSTANT", help="as recorded by then, such as 2026-01-31T09:30:00Z")
    leaf.add_argument("--aggregate", metavar="ID", help="only this one, with its events")


def _keys(groups: Any) -> None:
    group = _group(groups, "keys", "the master keys, and the keys of access tokens")
    _leaf(group, "rotate", "keys.rotate", "wrap every person's key by the newest master key, as the database's owner")
    leaf = _leaf(
        group, "rotate-signing", "keys.rotate_signing", "make a new key to sign access tokens with, as the owner"
    )
    leaf.add_argument(
        "--at-once",
        action="store_true",
        help="the present key was stolen: it counts no more, and every client has to refresh",
    )


def _port(text: str) -> int:
    return _number(text, 0, 65_535)


def _workers(text: str) -> int:
    return _number(text, 1, WORKERS_MAX)


def _concurrency(text: str) -> int:
    return _number(text, 1, CONCURRENCY_MAX)


def _jobs(text: str) -> int:
    return _number(text, 1, JOBS_MAX)


def _share(text: str) -> int:
    return _number(text, 1, 100)


def _rows(text: str) -> int:
    return _number(text, 1, ROWS_MAX)


def _position(text: str) -> int:
    return _number(text, 1, 2**63 - 1)


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)
