"""The ordered SQL files of a folder: `NNNN_(pre|post)_name.sql`, read and checked before anything is applied."""

import hashlib
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from migrations import errors

FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<phase>pre|post)_[a-z0-9_]+\.sql")
OUTSIDE_TRANSACTION = re.compile(rb"^-- transaction: none\s*$", re.MULTILINE)

# What can hide a semicolon, and the semicolon itself. Block comments nest in PostgreSQL; `statements` counts them.
TOKEN = re.compile(
    r"""--[^\n]* | /\* | \*/ | (?<![\w$])[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
      | (?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$ | ;""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Migration:
    name: str  # the file's name
    number: int
    phase: str  # "pre" or "post"
    checksum: str  # SHA-256 in hex of `content`
    content: bytes  # UTF-8, lines end in LF

    @property
    def transactional(self) -> bool:
        return OUTSIDE_TRANSACTION.search(self.content) is None


def packaged() -> Traversable:
    """The folder of this package."""
    return importlib.resources.files("migrations")


def read(folder: Traversable) -> list[Migration]:
    """In order of number. Raises FilesInvalid for a wrong name, a gap, a double, or bytes that are not UTF-8."""
    entries = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    migrations = [_migration(entry) for entry in entries]
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            problem = "a number is given twice" if migration.number < expected else "a number is missing before"
            raise errors.FilesInvalid(problem, migration.name)
    return migrations


def _migration(entry: Traversable) -> Migration:
    match = FILE_NAME.fullmatch(entry.name)
    if match is None:
        raise errors.FilesInvalid("a file's name is not of the form", entry.name)
    content = entry.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows must not look like an edit
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise errors.FilesInvalid("a file is not UTF-8", f"{entry.name}, byte {error.start}") from None
    checksum = hashlib.sha256(content).hexdigest()
    return Migration(entry.name, int(match["number"]), match["phase"], checksum, content)


def statements(text: str) -> Iterator[str]:
    """The statements of `text`, without their semicolons; pieces that hold nothing but comments are left out.

    Several statements in one message are one implicit transaction, so a file that must run outside one is sent
    statement by statement.
    """
    start, depth, at, blank = 0, 0, 0, True
    while (token := TOKEN.search(text, at)) is not None:
        found = token.group()
        if depth == 0 and text[at : token.start()].strip():
            blank = False
        at = token.end()
        if found == "/*":
            depth += 1
        elif found == "*/":
            depth = max(0, depth - 1)
        elif depth > 0:
            at = token.start() + 1  # quotes mean nothing inside a comment
        elif found == ";":
            if not blank:
                yield text[start : token.start()].strip()
            start, blank = at, True
        elif not found.startswith("--"):
            blank = False
    if not blank or text[at:].strip():
        yield text[start:].strip()
