"""A WebSocket whose client does not read when somebody is erased: it comes back, and is told anew."""

import asyncio
import socket

from websockets.asyncio.client import connect

from api.socket import wire
from api.socket.protocol.connection import Code
from ledger import ids
from tests.api.house import PATIENCE_S, House, Served
from tests.api.socket.talk import Talk, talk, url

BUFFER_BYTES = 4_096
"""Of the system's on both sides, so that little is on the way."""


async def become(line: wire.Wire, *, waiting: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while line.waits != waiting:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_who_does_not_read_is_sent_away_and_who_has_read_stays(served: Served, address: str, a: House) -> None:
    """A minute later the one would read of somebody who was forgotten; the other would be disturbed for nothing."""
    host, port = address.removeprefix("http://").split(":")
    topic = f"tenant:{a.id}"
    async with talk(address, a.admin) as quick:
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            plain.connect((host, int(port)))
            plain.setblocking(False)
            async with connect(url(address, a.user), sock=plain, compression=None, max_queue=1) as opened:
                slow = Talk(opened)
                await slow.join(topic)
                line: wire.Wire = list(served.app.state.sockets._clients)[-1]._line
                line.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                await quick.join(topic)
                assert not line.waits
                opened.transport.pause_reading()
                for n in range(60):
                    await a.lists(f"S{n}")
                assert len(await quick.hears(60)) == 60
                await become(line, waiting=True)
                opened.transport.resume_reading()
                assert len(await slow.hears(60)) == 60
                await become(line, waiting=False)
                served.parts.ledger.keyring.drop([(a.id, ids.new_id())])
                await slow.beat()  # nothing waited: it is let be
                opened.transport.pause_reading()
                for n in range(60, 120):
                    await a.lists(f"S{n}")
                assert len(await quick.hears(60)) == 60
                await become(line, waiting=True)
                served.parts.ledger.keyring.drop([(a.id, ids.new_id())])
                await quick.beat()
                assert line.gone
                opened.transport.resume_reading()
                assert await slow.closed() == Code.BROKEN
