"""Sales and refunds over HTTP."""

from typing import Any

from ledger import ids
from tests.api.house import House, Person, Served


async def record(served: Served, person: Person, body: dict[str, Any]) -> dict[str, Any]:
    created = await served.post(person, "/transactions", {"transaction": body})
    assert created.status_code == 201, created.text
    data: dict[str, Any] = created.json()["data"]
    return data


async def test_a_sale_is_answered_whole_and_reads_the_same_from_the_view(served: Served, a: House) -> None:
    mug = await a.lists("MUG", "9.00")
    created = await served.post(
        a.admin,
        "/transactions",
        {
            "lines": [{"sku": "MUG", "quantity": 3, "unit_price": "0.335"}, {"product_id": str(mug.id), "quantity": 1}],
            "buyer_id": str(a.user.id),
            "buyer_ref": "17850",
            "affiliate_id": str(a.affiliate.id),
            "source": "shop",
            "external_id": "I-1",
            "occurred_at": "2026-01-02T03:04:05+02:00",
            "metadata": {"till": 3},
        },
    )
    assert created.status_code == 201
    sale = created.json()["data"]
    line = {"product_id": str(mug.id), "sku": "MUG", "refunded_quantity": 0}
    assert sale["lines"] == [
        {"id": 1, "quantity": 3, "unit_price": "0.335", "amount": "1.00", **line},
        {"id": 2, "quantity": 1, "unit_price": "9.00", "amount": "9.00", **line},
    ]
    assert (sale["amount"], sale["refunded"], sale["currency"], sale["status"]) == ("10.00", "0.00", "EUR", "recorded")
    assert (sale["buyer_ref"], sale["source"], sale["external_id"]) == ("17850", "shop", "I-1")
    assert (sale["occurred_at"], sale["metadata"]) == ("2026-01-02T01:04:05Z", {"till": 3})
    position = {"X-Position": created.headers["X-Position"]}
    shown = await served.get(a.admin, f"/transactions/{sale['id']}", headers=position)
    assert shown.json()["data"] == sale
    assert shown.headers["ETag"] == created.headers["ETag"] == '"1"'
    assert shown.headers["X-Position"] == created.headers["X-Position"] == str(sale["position"])


async def test_the_short_form_is_one_line_of_quantity_one(served: Served, a: House) -> None:
    mug = await a.lists("MUG", "9.00")
    sale = await record(served, a.user, {"product_id": str(mug.id), "amount": "9", "affiliate_id": str(a.affiliate.id)})
    assert [(line["quantity"], line["unit_price"]) for line in sale["lines"]] == [(1, "9.00")]
    assert (sale["buyer_id"], sale["affiliate_id"]) == (str(a.user.id), str(a.affiliate.id))
    assert isinstance(sale["position"], str)


async def test_a_buyer_pays_the_catalogues_price_for_himself(served: Served, a: House) -> None:
    """A user who may choose the price, the buyer or the source could forge sales."""
    mug = await a.lists("MUG", "9.00")
    cheaper = await served.post(a.user, "/transactions", {"product_id": str(mug.id), "amount": "0.01"})
    assert cheaper.status_code == 422
    line = {"lines": [{"sku": "MUG", "quantity": 1}]}
    for field, value in (
        ("buyer_id", str(a.admin.id)),
        ("buyer_ref", "17850"),
        ("source", "shop"),
        ("external_id", "I-1"),
        ("occurred_at", "2020-01-01T00:00:00Z"),
    ):
        refused = await served.post(a.user, "/transactions", {**line, field: value})
        assert (refused.status_code, list(refused.json()["errors"])) == (403, [field])
    sale = await record(served, a.user, line)
    assert sale["buyer_id"] == str(a.user.id)


async def test_everybody_sees_their_own_sales_only(served: Served, a: House) -> None:
    mug = await a.lists()
    bought = await a.sells(mug, buyer=a.user)
    brought = await a.sells(mug, affiliate=a.affiliate)
    await a.refunds(bought, 1)
    await a.refunds_the_unknown()
    await served.views_reach(a)
    seen = {}
    for person in (a.admin, a.user, a.affiliate):
        listed = (await served.get(person, "/transactions")).json()["data"]
        seen[person.role] = [sale["id"] for sale in listed]
    assert seen == {
        "admin": [str(brought.id), str(bought.id)],
        "user": [str(bought.id)],
        "affiliate": [str(brought.id)],
    }
    assert (await served.get(a.affiliate, f"/transactions/{bought.id}")).status_code == 404
    assert (await served.get(a.user, f"/transactions/{bought.id}")).status_code == 200
    refunds = {person.role: (await served.get(person, "/refunds")).json()["data"] for person in (a.admin, a.user)}
    assert (len(refunds["admin"]), len(refunds["user"])) == (2, 1)
    assert (await served.get(a.affiliate, f"/refunds/{refunds['user'][0]['id']}")).status_code == 404


async def test_a_refund_gives_back_units_and_then_what_is_left(served: Served, a: House) -> None:
    mug = await a.lists("MUG", "9.00")
    sale = await a.sells(mug, quantity=3, buyer=a.user)
    made = await served.post(
        a.admin, f"/transactions/{sale.id}/refunds", {"lines": [{"line_id": 1, "quantity": 1}], "reason": "cracked"}
    )
    assert made.status_code == 201
    refund = made.json()["data"]
    assert refund["lines"] == [{"line_id": 1, "sku": "MUG", "quantity": 1, "amount": "9.00"}]
    assert (refund["transaction_id"], refund["amount"], refund["reason"]) == (str(sale.id), "9.00", "cracked")
    position = {"X-Position": made.headers["X-Position"]}
    assert (await served.client.get(made.headers["Location"], headers={**a.admin.headers, **position})).json() == {
        "data": refund
    }
    shown = (await served.get(a.admin, f"/transactions/{sale.id}", headers=position)).json()["data"]
    assert (shown["status"], shown["refunded"], shown["lines"][0]["refunded_quantity"]) == (
        "partly_refunded",
        "9.00",
        1,
    )
    too_much = await served.post(
        a.admin, f"/transactions/{sale.id}/refunds", {"lines": [{"line_id": 1, "quantity": 3}]}
    )
    assert too_much.status_code == 422
    rest = await served.post(a.admin, f"/transactions/{sale.id}/refunds", {})
    assert (rest.status_code, rest.json()["data"]["amount"]) == (201, "18.00")
    again = await served.ask(a.admin, "DELETE", f"/transactions/{sale.id}")
    assert again.status_code == 409


async def test_deleting_a_sale_refunds_all_that_is_left(served: Served, a: House) -> None:
    sale = await a.sells(await a.lists(), quantity=2)
    assert (await served.ask(a.user, "DELETE", f"/transactions/{sale.id}")).status_code == 403
    stale = await served.ask(a.admin, "DELETE", f"/transactions/{sale.id}", headers={"If-Match": '"2"'})
    assert stale.status_code == 412
    gone = await served.ask(a.admin, "DELETE", f"/transactions/{sale.id}", headers={"If-Match": '"1"'})
    assert (gone.status_code, gone.content) == (204, b"")
    shown = await served.get(a.admin, f"/transactions/{sale.id}", headers={"X-Position": gone.headers["X-Position"]})
    assert shown.json()["data"]["status"] == "refunded"


async def test_the_summary_counts_days_that_are_asked_for(served: Served, a: House) -> None:
    mug = await a.lists("MUG", "9.00")
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        body = {"lines": [{"sku": mug.sku, "quantity": 1}], "occurred_at": f"{day}T12:00:00Z"}
        await record(served, a.admin, body)
    await served.views_reach(a)
    summary = await served.get(a.admin, "/transactions/summary", params={"from": "2026-01-02", "to": "2026-01-03"})
    row = {"currency": "EUR", "count": 1, "gross": "9.00", "refunded": "0.00", "net": "9.00"}
    assert summary.json() == {
        "data": [{"day": "2026-01-02", **row}, {"day": "2026-01-03", **row}],
        "meta": {"totals": [{**row, "count": 2, "gross": "18.00", "net": "18.00"}]},
    }
    assert (await served.get(a.user, "/transactions/summary")).status_code == 403
    for wrong in ({"from": "2026-01-03", "to": "2026-01-02"}, {"from": "yesterday"}, {"from": "2026-02-30"}):
        refused = await served.get(a.admin, "/transactions/summary", params=wrong)
        assert (refused.status_code, list(refused.json()["errors"])) == (422, ["from"])


LINE = {"sku": "MUG", "quantity": 1}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "lines"),
    ({"lines": []}, "lines"),
    ({"lines": [LINE] * 251}, "lines"),
    ({"lines": [{"sku": "MUG", "quantity": 0}]}, "lines.0.quantity"),
    ({"lines": [{"sku": "MUG", "quantity": 10**30}]}, "lines.0.quantity"),
    ({"lines": [{"sku": "MUG", "quantity": "1"}]}, "lines.0.quantity"),
    ({"lines": [{"sku": "MUG", "quantity": 1.5}]}, "lines.0.quantity"),
    ({"lines": [{"sku": "NONE", "quantity": 1}]}, "lines.0"),
    ({"lines": [{"quantity": 1}]}, "lines.0"),
    ({"lines": [{"product_id": str(ids.new_id()), "quantity": 1}]}, "lines.0"),
    ({"lines": [LINE, {**LINE, "color": "red"}]}, "lines.1.color"),
    ({"lines": [{**LINE, "unit_price": "-1"}]}, "lines.0.unit_price"),
    ({"lines": [{**LINE, "unit_price": "sNaN"}]}, "lines.0.unit_price"),
    ({"lines": [{**LINE, "unit_price": "1e999999999"}]}, "lines.0.unit_price"),
    ({"lines": [{**LINE, "unit_price": "0.0000001"}]}, "lines.0.unit_price"),
    ({"lines": [LINE], "amount": 1}, "amount"),
    ({"product_id": str(ids.new_id())}, "amount"),
    ({"lines": [{**LINE, "unit_price": "1"}], "currency": "eur"}, "currency"),
    ({"lines": [LINE], "currency": "USD"}, "lines.0.unit_price"),
    ({"lines": [LINE], "tenant_id": str(ids.new_id())}, "tenant_id"),
    ({"lines": [LINE], "status": "refunded"}, "status"),
    ({"lines": [LINE], "occurred_at": "2026-01-01T00:00:00"}, "occurred_at"),
    ({"lines": [LINE], "source": "shop"}, "external_id"),
    ({"lines": [LINE], "buyer_ref": "a\0b"}, "buyer_ref"),
    ({"lines": [LINE], "metadata": {"a": {"b": {"c": {"d": {}}}}}}, "metadata"),
    ({"lines": [LINE], "metadata": {"n": 10**30}}, "metadata"),
]


async def test_a_sale_that_breaks_a_rule_names_the_field(served: Served, a: House) -> None:
    await a.lists("MUG")
    head = (await a.ledger.head(a.id)).position
    for body, field in WRONG:
        refused = await served.post(a.admin, "/transactions", body)
        assert refused.status_code == 422, (body, refused.text)
        assert list(refused.json()["errors"]) == [field], body
    assert (await a.ledger.head(a.id)).position == head


async def test_prices_that_no_number_is_are_refused_for_buyers_too(served: Served, a: House) -> None:
    """A signalling NaN cannot be compared with the catalogue's price: it must not get that far."""
    mug = await a.lists("MUG")
    for price in ("sNaN", "NaN", "Infinity"):
        short = await served.post(a.user, "/transactions", {"product_id": str(mug.id), "amount": price})
        assert (short.status_code, list(short.json()["errors"])) == (422, ["amount"])
        line = {"lines": [{**LINE, "unit_price": price}]}
        assert (await served.post(a.user, "/transactions", line)).status_code == 422


async def test_what_was_imported_before_is_a_conflict(served: Served, a: House) -> None:
    await a.lists("MUG")
    body = {"lines": [LINE], "source": "shop", "external_id": "I-1"}
    await record(served, a.admin, body)
    refused = await served.post(a.admin, "/transactions", body)
    assert (refused.status_code, list(refused.json()["errors"])) == (409, ["external_id"])
