"""What the whole run logged, and the values that its tests used: at the run's end none of them may be found in a line.

Values are noted where all of them pass: passwords at hashing, persons' data at encryption. Tokens and addresses are known by
their looks. Lines are those of this process, and of processes that it starts as somebody at a shell would.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitnexus import logs
from commands.passwords import Passwords
from ledger.codec import Codec

CHARACTERS_MIN = 6
"""A shorter value, such as 17850, stands in some line by chance."""
TOKEN_OR_ADDRESS = re.compile(
    r"eyJ[\w-]{10,}\.[\w-]{10,}|\bBearer [\w.-]{10,}|[\w.+-]+@[\w-]+\.[\w.-]+|(?<![\w-])(?![0-9a-f]+(?![\w-]))[\w-]{43,}"
)
_BY_CHANCE = re.compile(r"[0-9a-fA-F.:,+/ -]*|[a-z_]+")
"""Numbers, hexadecimal digits, and words that stand in code: they say nothing about a person, and are in some line anyway."""


class Run:
    """One a run of the tests."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handler = logging.FileHandler(file, encoding="utf-8")
        self._handler.setFormatter(logs.formatter())
        self._values: set[str] = set()

    def begin(self, patch: pytest.MonkeyPatch) -> None:
        """From now on lines and values are collected."""
        logging.getLogger().addHandler(self._handler)
        hash_, matches, encode = Passwords.hash, Passwords.matches, Codec.encode

        async def noting_hash(passwords: Passwords, password: str, *rest: Any) -> Any:
            self.note(password)
            return await hash_(passwords, password, *rest)

        async def noting_matches(passwords: Passwords, password: str, *rest: Any) -> Any:
            self.note(password)
            return await matches(passwords, password, *rest)

        def noting_encode(codec: Codec, tenant_id: Any, event: Any, keys: Any) -> bytes:
            for name in codec._by_class[type(event)].personal:
                self._note_all(getattr(event, name))
            return encode(codec, tenant_id, event, keys)

        patch.setattr(Passwords, "hash", noting_hash)
        patch.setattr(Passwords, "matches", noting_matches)
        patch.setattr(Codec, "encode", noting_encode)

    def note(self, value: str) -> None:
        if len(value) >= CHARACTERS_MIN and not _BY_CHANCE.fullmatch(value):
            self._values.add(value)

    def of_process(self, said: str) -> None:
        """The standard error of another process; what is no JSON there is an answer to whoever called it."""
        lines = [line for line in said.splitlines() if line.startswith("{")]
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def end(self) -> list[str]:
        """What should not have been logged, a sentence each."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
        return found(self._file.read_text(encoding="utf-8"), self._values)

    def _note_all(self, value: Any) -> None:
        for each in texts(msgspec.to_builtins(value)):
            self.note(each)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts(each)]
    return [text for each in value for text in texts(each)] if isinstance(value, list) else []


def found(lines: str, values: set[str]) -> list[str]:
    """A sentence for each line with one of these values, with an address or with a token, and for each that is no JSON."""
    said = []
    for line in lines.splitlines():
        try:
            text = "\n".join(texts(json.loads(line)))
        except ValueError:
            said.append(f"A line of the log is no JSON: {line[:500]}")
            continue
        leaked = {value for value in values if value in text} | {each[0] for each in TOKEN_OR_ADDRESS.finditer(text)}
        said += [f"{value!r} was logged: {line[:1000]}" for value in sorted(leaked)]
    return said


RUN: Run | None = None
"""Set by conftest.py for the whole run."""
