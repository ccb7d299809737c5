"""Opening a socket: who is taken in, and how the others are refused."""

import base64
import dataclasses

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from api import tokens
from api.app import create_app
from api.socket import sockets
from tests.api import house
from tests.api.house import House, Served, listening
from tests.api.socket.talk import Talk, refused, talk, url


async def test_who_is_not_taken_gets_403_before_the_upgrade(address: str, a: House) -> None:
    """An upgrade would reset the client's backoff: it would come back every 10 ms."""
    other = tokens.AccessTokens(house.keys(bytes(32)), house.everybody_counts(), house.ISSUER, house.AUDIENCE)
    forged = other.issue(tenant_id=a.id, account_id=a.user.id, role="admin", session_id=a.user.id)
    for wrong in (
        url(address),
        url(address, token=""),
        url(address, token="x"),
        url(address, token=forged),
        url(address, a.user, vsn="3.0.0"),
        url(address, a.user) + "&vsn=2.1.0",
        url(address, a.user) + "&token=x",
        url(address, a.user) + "&vsn[a]=2.0.0",
        url(address, a.user) + "&a=" * 200,
    ):
        assert await refused(wrong) == (403, b""), wrong


async def test_the_last_value_of_a_parameter_counts_and_others_are_ignored(address: str, a: House) -> None:
    query = f"?&a[b]=1&undefined&token=x&vsn=9&token={a.user.token}&vsn=2.0.0"
    async with connect(f"{address.replace('http', 'ws')}/socket/websocket{query}") as opened:
        await Talk(opened).beat()


async def test_without_a_version_it_is_1_0_0(address: str, a: House) -> None:
    async with connect(f"{address.replace('http', 'ws')}/socket/websocket?token={a.user.token}") as opened:
        await opened.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')
        assert (await Talk(opened).hear())["ref"] == "1"


def offer(token: str, *others: str) -> list[Subprotocol]:
    bearer = base64.b64encode(token.encode()).decode().rstrip("=")
    return [Subprotocol(each) for each in (*others, f"base64url.bearer.phx.{bearer}")]


async def test_the_token_may_come_among_the_subprotocols(address: str, a: House) -> None:
    async with connect(url(address), subprotocols=offer(a.user.token, "phoenix")) as opened:
        assert opened.subprotocol == "phoenix"
        await Talk(opened).beat()
    assert (await refused(url(address), subprotocols=offer(a.user.token, "graphql")))[0] == 403
    assert (await refused(url(address), subprotocols=offer("x", "phoenix")))[0] == 403
    undecodable = [Subprotocol("phoenix"), Subprotocol("base64url.bearer.phx.!")]
    assert (await refused(url(address), subprotocols=undecodable))[0] == 403
    async with connect(url(address, a.user), subprotocols=[Subprotocol("phoenix")]) as opened:
        assert opened.subprotocol == "phoenix"


async def test_pages_of_other_hosts_are_refused(served: Served, a: House) -> None:
    parts = dataclasses.replace(
        served.parts, socket_origins=("shop.example", "//*.beta.example", "https://gamma.example:8443")
    )
    async with listening(create_app(parts), parts) as address:
        port = address.rpartition(":")[2]
        for good in (
            f"http://127.0.0.1:{port}",
            "http://127.0.0.1",
            "https://shop.example",
            "http://shop.example:3000",
            "https://beta.example",
            "https://www.beta.example",
            "https://gamma.example:8443",
        ):
            async with connect(url(address, a.user), origin=good):  # type: ignore[arg-type]  # a string
                pass
        for bad in (
            "null",
            "https://evil.example",
            "https://shop.example.evil",
            "https://evilbeta.example",
            "http://gamma.example:8443",
            "https://gamma.example",
            "file://",
            "http://[",
        ):
            assert (await refused(url(address, a.user), origin=bad))[0] == 403, bad


async def test_what_is_no_websocket_gets_400(address: str) -> None:
    async with httpx.AsyncClient(base_url=address) as asked:
        for method in ("GET", "POST", "PUT"):
            assert (await asked.request(method, "/socket/websocket")).status_code == 400


async def test_a_full_process_refuses(address: str, a: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLIENTS_MAX", 1)
    async with talk(address, a.user):
        assert (await refused(url(address, a.user)))[0] == 403


# API keys


async def test_a_program_joins_what_its_scopes_allow(served: Served, address: str, a: House) -> None:
    """By its key in place of an access token, among the subprotocols or as a parameter; its sales are nobody's but its own."""
    program = await a.program("feed:read", "products:read", "transactions:read_all", "transactions:read")
    async with talk(address, program) as heard:
        assert (await heard.join(f"tenant:{a.id}"))["status"] == "ok"
        assert (await heard.join("admin:transactions", "t"))["status"] == "ok"
        assert (await heard.join("admin:projections", "p"))["response"] == {"reason": "unauthorized"}
        mug = await a.lists("MUG")
        await a.sells(mug, buyer=a.user)
        assert [each[3] for each in await heard.hears(2)] == ["product_listed", "new_transaction"]
    deaf = await a.program("products:read", "transactions:read")
    async with talk(address, deaf) as without:
        for topic in (f"tenant:{a.id}", f"transaction:{deaf.id}", f"notification:{deaf.id}"):
            assert (await without.join(topic))["response"] == {"reason": "unauthorized"}, topic


async def test_a_revoked_key_closes_its_sockets(served: Served, address: str, a: House) -> None:
    program = await a.program("feed:read", "products:read")
    async with talk(address, program) as heard:
        assert (await heard.join(f"tenant:{a.id}"))["status"] == "ok"
        path = f"/service-accounts/{program.id}/keys/{program.key_id}"
        assert (await served.ask(a.admin, "DELETE", path)).status_code == 204
        assert await heard.closed() == 1001
    assert (await refused(url(address, program)))[0] == 403
    unknown = dataclasses.replace(program, token=program.token[:-1] + ("0" if program.token[-1] != "0" else "1"))
    assert (await refused(url(address, unknown)))[0] == 403
