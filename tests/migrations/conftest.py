"""Empty throwaway databases, and folders of small migrations."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

ROLES = """-- Why: the login role is granted these.
DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['bitnexus_app', 'bitnexus_projector', 'bitnexus_platform'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END $$;
"""


class Folder:
    """Files of migrations in a temporary directory; 0001 makes the roles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("0001_pre_roles.sql", ROLES)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def remove(self, name: str) -> None:
        (self.path / name).unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def owner_url(server: str) -> Iterator[str]:
    """The owner's URL of an empty database."""
    name = f"migrations_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield conninfo.make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{name}_login")))
