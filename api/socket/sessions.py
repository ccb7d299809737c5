"""The sessions of this process, and finding those of others.

A session's token names its process by a port of the loopback interface, on which processes forward to each other. It is sealed,
so that nobody makes a process connect elsewhere; a process that is gone answers no more, and its sessions are dead.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import secrets
import struct
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from api.parts import Parts
from api.socket.session import DEAD, HANDLE_S, POLL_S, Session, Told

AGE_S_MAX = 14 * 24 * 3600
FORWARD_S = max(POLL_S, HANDLE_S) + 2.0
LINE_BYTES_MAX = 4 * 1024 * 1024
"""Above what a session may have waiting, and a request's body, as JSON."""

_NAME = struct.Struct(">H8s16sI")  # port, process, session, seconds since 1970
_SEAL_BYTES = 16

_log = logging.getLogger(__name__)


class Name(NamedTuple):
    """Which session: of which process, at which port."""

    port: int
    process: bytes
    session: bytes
    issued_at: int


class Asked(msgspec.Struct, frozen=True):
    """What one process asks another for a session: a poll, or to take frames (texts, and binary ones as base64)."""

    token: str
    what: Literal["poll", "take"]
    texts: list[str] = []
    binaries: dict[int, bytes] = {}  # by their place among all frames


class Answered(msgspec.Struct, frozen=True):
    status: int
    messages: list[str]


_ASKED, _ANSWERED = msgspec.json.Decoder(Asked), msgspec.json.Decoder(Answered)
_encode = msgspec.json.Encoder().encode


class Sessions:
    """One an application. Touched by the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._key = parts.session_key
        self._process = secrets.token_bytes(8)
        self._sessions: dict[bytes, Session] = {}
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._port = 0

    def __len__(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Once there is a session, others may forward to here."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LINE_BYTES_MAX)
                self._port = self._server.sockets[0].getsockname()[1]

    def add(self, session: Session) -> str:
        """Its token, good on every process of this machine."""
        self._sessions[session.id] = session
        return self._sealed(Name(self._port, self._process, session.id, int(time.time())))

    def remove(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    def name(self, token: str) -> Name | None:
        """None if it is no token of a session."""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != _NAME.size + _SEAL_BYTES or not hmac.compare_digest(
            self._seal(raw[: _NAME.size]), raw[_NAME.size :]
        ):
            return None
        name = Name(*_NAME.unpack(raw[: _NAME.size]))
        return name if time.time() - name.issued_at <= AGE_S_MAX else None

    async def poll(self, token: str, name: Name) -> Told:
        """410 if the session is dead."""
        session = self._sessions.get(name.session)
        if session is not None:
            return await session.poll()
        return await self._forward(name, Asked(token, "poll"))

    async def take(self, token: str, name: Name, received: Sequence[str | bytes]) -> Told:
        """410 if the session is dead."""
        session = self._sessions.get(name.session)
        if session is not None:
            return await session.take(received)
        texts = [each for each in received if isinstance(each, str)]
        binaries = {n: each for n, each in enumerate(received) if isinstance(each, bytes)}
        return await self._forward(name, Asked(token, "take", texts, binaries))

    async def close(self) -> None:
        for session in tuple(self._sessions.values()):
            session.end()
        if self._server is not None:
            self._server.close()

    # Between processes

    async def _forward(self, name: Name, asked: Asked) -> Told:
        if name.process == self._process:
            return DEAD  # it was ours
        try:
            async with asyncio.timeout(FORWARD_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", name.port, limit=LINE_BYTES_MAX)
                try:
                    writer.write(_encode(asked) + b"\n")
                    await writer.drain()
                    answered = _ANSWERED.decode(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):  # no such process, or another one's port by now
            return DEAD
        return Told(answered.status, answered.messages)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            told = await self._answer(_ASKED.decode(await reader.readline()))
            writer.write(_encode(Answered(told.status, list(told.messages))) + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:
            _log.warning("What another process forwarded could not be done: %s", error)
        finally:
            writer.close()

    async def _answer(self, asked: Asked) -> Told:
        name = self.name(asked.token)
        session = None if name is None or name.process != self._process else self._sessions.get(name.session)
        if session is None:
            return DEAD
        if asked.what == "poll":
            return await session.poll()
        texts = iter(asked.texts)
        count = len(asked.texts) + len(asked.binaries)
        return await session.take([asked.binaries[n] if n in asked.binaries else next(texts) for n in range(count)])

    # Tokens

    def _sealed(self, name: Name) -> str:
        packed = _NAME.pack(*name)
        return base64.urlsafe_b64encode(packed + self._seal(packed)).decode()

    def _seal(self, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed, "sha256")[:_SEAL_BYTES]
