"""The stream as auditors read it over HTTP."""

import base64
from datetime import datetime
from uuid import UUID

from ledger import chain, ids, packing
from tests.api.house import House, Served
from tests.world import World


async def test_the_entries_chain_from_genesis_to_the_head(served: Served, a: House) -> None:
    """An auditor recomputes every hash from what the answers say, across pages."""
    await a.sells(await a.lists())
    head = (await served.get(a.admin, "/ledger/head")).json()["data"]
    previous, positions = chain.genesis(a.id), list[int]()
    cursor: str | None = "1"
    while cursor is not None:
        page = (await served.get(a.admin, "/ledger/entries", params={"from": cursor, "limit": 3})).json()
        for entry in page["data"]:
            assert entry["previous_hash"] == previous.hex()
            previous = chain.leaf_hash(
                previous,
                a.id,
                entry["position"],
                UUID(entry["originator_id"]),
                entry["originator_version"],
                datetime.fromisoformat(entry["recorded_at"]),
                entry["topic"],
                entry["state"].encode(),
                entry["metadata"].encode(),
            )
            assert entry["hash"] == previous.hex()
            positions.append(entry["position"])
        cursor = page["meta"]["next_cursor"]
    assert positions == list(range(1, head["position"] + 1))
    assert (head["tenant_id"], head["hash"]) == (str(a.id), previous.hex())


async def test_bytes_that_are_no_text_come_in_base64(served: Served, a: House, world: World) -> None:
    event = packing.Event(ids.new_id().bytes, 1, b"product.listed", b'{"a":"\xff"}', b"{}")
    await world.appender.submit(packing.Command(a.id, ids.new_id(), b"", b"", [event]))
    head = (await a.ledger.head(a.id)).position
    page = (await served.get(a.admin, "/ledger/entries", params={"from": head})).json()
    (entry,) = page["data"]
    assert entry["encoding"] == "base64"
    assert (base64.b64decode(entry["state"]), base64.b64decode(entry["metadata"])) == (b'{"a":"\xff"}', b"{}")
    beyond = (await served.get(a.admin, "/ledger/entries", params={"from": head + 10})).json()
    assert beyond == {"data": [], "meta": {"next_cursor": None, "head": head}}


async def test_a_range_that_there_cannot_be_is_refused(served: Served, a: House) -> None:
    for parameters in ({"from": 0}, {"from": -1}, {"from": 2**63}, {"limit": 0}, {"limit": 1001}):
        refused = await served.get(a.admin, "/ledger/entries", params=parameters)
        assert refused.status_code == 422, refused.text
        assert list(refused.json()["errors"]) == list(parameters)


async def test_only_who_may_audit_reads_the_ledger(served: Served, a: House) -> None:
    for path in ("/ledger/head", "/ledger/entries"):
        for person in (a.user, a.affiliate):
            assert (await served.get(person, path)).status_code == 403
