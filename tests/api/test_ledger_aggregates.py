"""What an aggregate was, and what made it so, as auditors ask for it over HTTP."""

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import ledger as api_ledger
from commands import privacy
from ledger import chain, codec, ids
from ledger.positions import Tokens
from tests.api.house import House, Served
from tests.world import MASTER, caller


async def ask(served: Served, house: House, id: UUID, **parameters: object) -> httpx.Response:
    return await served.get(house.admin, f"/ledger/aggregates/{id}", params=parameters)


async def shown(served: Served, house: House, id: UUID, **parameters: object) -> dict[str, Any]:
    answer = await ask(served, house, id, **parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def renamed(served: Served, house: House, times: int) -> UUID:
    """A product with so many events after its listing, each in a flush of its own."""
    product = await house.lists()
    for n in range(times):
        answer = await served.ask(house.admin, "PATCH", f"/products/{product.id}", json={"name": f"Mug {n}"})
        assert answer.status_code == 200, answer.text
    return product.id


async def test_a_sale_is_shown_before_and_after_its_refund(served: Served, a: House) -> None:
    """Whoever disputes a refund is shown what was recorded, at any position, and which event said so."""
    sale = await a.sells(await a.lists(), quantity=2, buyer=a.user)
    before = (await a.ledger.head(a.id)).position
    await a.refunds(sale, 1)
    now = await shown(served, a, sale.id)
    assert (now["data"]["kind"], now["data"]["version"], now["data"]["position"]) == ("transaction", 2, before + 1)
    assert now["data"]["state"]["status"] == "partly_refunded"
    assert [each["topic"] for each in now["data"]["events"]] == ["transaction.recorded", "transaction.refunded"]
    assert now["data"]["events"][0]["fields"]["buyer_id"] == str(a.user.id)
    assert now["meta"] == {"next_cursor": None}
    token = Tokens(MASTER).token(a.id, before)  # what a service without the right was given, and handed on
    for at in (before, token, now["data"]["events"][0]["recorded_at"]):
        then = await shown(served, a, sale.id, at=at)
        assert (then["data"]["position"], then["data"]["version"]) == (before, 1)
        assert then["data"]["state"]["status"] == "recorded"
        assert then["data"]["events"] == now["data"]["events"][:1]


async def test_each_event_comes_as_it_is_stored_with_what_it_is_linked_to(served: Served, a: House) -> None:
    """An auditor checks an event by itself, and finds the same bytes in the stream."""
    product = await renamed(served, a, 2)
    stream = (await served.get(a.admin, "/ledger/entries")).json()["data"]
    for event in (await shown(served, a, product))["data"]["events"]:
        fields = event.pop("fields")
        assert event in stream
        assert "name" in fields
        leaf = chain.leaf_hash(
            bytes.fromhex(event["previous_hash"]),
            a.id,
            event["position"],
            UUID(event["originator_id"]),
            event["originator_version"],
            datetime.fromisoformat(event["recorded_at"]),
            event["topic"],
            event["state"].encode(),
            event["metadata"].encode(),
        )
        assert leaf.hex() == event["hash"]
    first = (await shown(served, a, a.id))["data"]["events"][0]
    assert (first["position"], first["previous_hash"]) == (1, chain.genesis(a.id).hex())


async def test_an_instant_means_the_last_position_recorded_by_then(served: Served, a: House) -> None:
    """Each of them, to the microsecond: an off-by-one would show a state that was not yet, or no more."""
    product = await renamed(served, a, 6)
    events = (await shown(served, a, product))["data"]["events"]
    assert len(events) == 7
    for n, event in enumerate(events):
        recorded = datetime.fromisoformat(event["recorded_at"])
        for late_us, version in ((-1, n), (0, n + 1), (1, n + 1)):
            at = (recorded + timedelta(microseconds=late_us)).isoformat()
            answer = await ask(served, a, product, at=at)
            if version == 0:
                assert answer.status_code == 404
            else:
                assert answer.json()["data"]["version"] == version, (at, answer.text)
    assert (await shown(served, a, product, at="2199-01-01T00:00:00Z"))["data"]["version"] == 7
    assert (await ask(served, a, product, at="1970-01-01T00:00:00Z")).status_code == 404


async def test_pages_of_events_are_all_of_one_position(served: Served, a: House) -> None:
    """What is recorded while an auditor turns pages must not slip in."""
    product = await renamed(served, a, 4)
    page = await shown(served, a, product, limit=2)
    seen = page["data"]["events"]
    await served.ask(a.admin, "PATCH", f"/products/{product}", json={"name": "Cup"})
    while (cursor := page["meta"]["next_cursor"]) is not None:
        page = await shown(served, a, product, limit=2, cursor=cursor)
        assert (page["data"]["version"], page["data"]["state"]["name"]) == (5, "Mug 3")
        seen += page["data"]["events"]
    assert [event["originator_version"] for event in seen] == [1, 2, 3, 4, 5]


async def test_what_cannot_be_asked_for_is_told_in_three_parts(served: Served, a: House, b: House) -> None:
    product = await renamed(served, a, 1)
    head = (await a.ledger.head(a.id)).position
    for parameters in (
        {"at": "yesterday"},
        {"at": ""},
        {"at": "-1"},
        {"at": head + 1},
        {"at": "9" * 400},
        {"at": Tokens(MASTER).token(b.id, 1)},
        {"at": "2026-13-01T00:00:00Z"},
        {"at": "2026-01-31T09:30:00"},
        {"at": "2026-01-31T09:30:00 02:00"},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"cursor": "next"},
        {"cursor": f"{head + 1}.1"},
        {"limit": 0},
        {"limit": 1001},
    ):
        refused = await ask(served, a, product, **parameters)
        assert refused.status_code == 422, (parameters, refused.text)
        assert list(refused.json()["errors"]) == list(parameters), refused.text
        assert re.fullmatch(r".+\. .+\.", refused.json()["detail"]), refused.text
    unknown = await ask(served, a, ids.new_id())
    assert (unknown.status_code, f"up to position {head}" in unknown.json()["detail"]) == (404, True)
    assert (await ask(served, a, product, at=1)).status_code == 404  # it was listed later
    assert (await ask(served, b, product)).status_code == 404
    assert (await served.get(a.admin, "/ledger/aggregates/17")).status_code == 404


async def test_an_aggregate_of_too_many_events_is_not_replayed_here(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request must not hold up everybody else's."""
    product = await renamed(served, a, 3)
    monkeypatch.setattr(api_ledger, "EVENTS_REPLAYED_MAX", 3)
    refused = await ask(served, a, product)
    assert (refused.status_code, "audit replay" in refused.json()["detail"]) == (422, True)
    earlier = (await a.ledger.head(a.id)).position - 1
    assert (await shown(served, a, product, at=earlier))["data"]["version"] == 3


async def test_an_erased_person_is_the_marker_at_every_position(served: Served, a: House) -> None:
    """The past must not bring back who was forgotten."""
    before = (await a.ledger.head(a.id)).position
    was = await shown(served, a, a.user.id)
    assert was["data"]["state"]["email"] == was["data"]["events"][0]["fields"]["email"] == a.user.email
    await privacy.erase(privacy.Erase(account_id=a.user.id), caller(a.id), a.ledger, privacy.noted_nowhere)
    for parameters in ({}, {"at": before}):
        answer = await ask(served, a, a.user.id, **parameters)
        assert a.user.email not in answer.text
        found = answer.json()["data"]
        assert found["state"]["email"] == found["events"][0]["fields"]["email"] == codec.ERASED
        assert found["events"][0]["hash"] == was["data"]["events"][0]["hash"]


async def test_only_who_may_audit_asks(served: Served, a: House) -> None:
    for person in (a.user, a.affiliate):
        assert (await served.get(person, f"/ledger/aggregates/{a.user.id}")).status_code == 403
