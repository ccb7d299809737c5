from decimal import Decimal
from typing import Any

import pytest

from domain import metadata, money, products, refusals, text
from tests.domain.given import PRODUCT_ID, TENANT_ID, given, mug_at, recorded


def listed(**changes: Any) -> products.Product:
    wanted: dict[str, Any] = {"sku": "MUG-1", "name": "Mug", "price": Decimal("9.5"), "currency": "EUR"}
    return products.list_product(id=PRODUCT_ID, tenant_id=TENANT_ID, **(wanted | changes))


def test_listing_records_what_was_decided() -> None:
    product = listed(sku=" MUG-1 ", description="Holds\ntea", category="  ", metadata={"colour": ["red"]})
    assert recorded(product) == [
        (
            "product.listed",
            {
                "tenant_id": TENANT_ID,
                "sku": "MUG-1",
                "name": "Mug",
                "price": Decimal("9.50"),
                "currency": "EUR",
                "description": "Holds\ntea",
                "category": None,
                "metadata": {"colour": ["red"]},
            },
        )
    ]
    assert str(product.price) == "9.50"
    assert given(product).status == "listed"


@pytest.mark.parametrize(
    ("changes", "refusal", "field"),
    [
        ({"sku": " "}, text.TextBlank, "sku"),
        ({"sku": "x" * 65}, text.TextTooLong, "sku"),
        ({"sku": "👩" * 17}, text.TextTooWide, "sku"),
        ({"sku": "A\x00"}, text.TextForbidden, "sku"),
        ({"name": ""}, text.TextBlank, "name"),
        ({"name": "x" * 201}, text.TextTooLong, "name"),
        ({"price": Decimal("-1")}, money.PriceNegative, "price"),
        ({"price": Decimal("0.0000001")}, money.PriceTooFine, "price"),
        ({"currency": "EURO"}, money.CurrencyUnknown, "currency"),
        ({"description": "x" * 5_001}, text.TextTooLong, "description"),
        ({"category": "x" * 101}, text.TextTooLong, "category"),
        ({"metadata": {"x": "\x00"}}, metadata.MetadataUnkeepable, "metadata"),
    ],
)
def test_a_product_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], refusal: type[refusals.Refusal], field: str
) -> None:
    with pytest.raises(refusal) as refused:
        listed(**changes)
    assert list(refused.value.fields) == [field]


def test_skus_differ_by_case() -> None:
    """The shop's 85123A and 85123a are two articles."""
    assert products.checked_sku("85123a") != products.checked_sku("85123A")


def test_renaming_records_the_new_name() -> None:
    product = mug_at("9.00")
    product.rename(" Large mug ")
    assert recorded(product) == [("product.renamed", {"name": "Large mug"})]
    assert product.name == "Large mug"


def test_repricing_records_the_new_price() -> None:
    product = mug_at("9.00")
    product.reprice(Decimal("9.5"))
    assert recorded(product) == [("product.repriced", {"price": Decimal("9.50")})]
    assert str(product.price) == "9.50"


def test_repricing_to_the_same_price_records_nothing() -> None:
    """A retry must not lengthen the ledger."""
    product = mug_at("9.00")
    product.reprice(Decimal("9"))
    assert recorded(product) == []


def test_renaming_to_the_same_name_records_nothing() -> None:
    """A retry must not lengthen the ledger."""
    product = mug_at("9.00")
    product.rename("Mug ")
    assert recorded(product) == []


def test_a_refused_change_changes_nothing() -> None:
    product = mug_at("9.00")
    with pytest.raises(money.PriceNegative):
        product.reprice(Decimal("-1"))
    with pytest.raises(text.TextBlank):
        product.rename(" ")
    assert (recorded(product), product.price, product.name, product.version) == ([], Decimal("9.00"), "Mug", 1)


def test_a_retired_product_refuses_changes() -> None:
    product = mug_at("9.00")
    product.retire()
    product = given_again(product)
    with pytest.raises(products.ProductRetired) as refused:
        product.reprice(Decimal("1"))
    assert refused.value.fields == {}
    with pytest.raises(products.ProductRetired):
        product.rename("Cup")
    assert (recorded(product), product.status) == ([], "retired")


def test_retiring_twice_records_once() -> None:
    """A retry must not lengthen the ledger."""
    product = mug_at("9.00")
    product.retire()
    product.retire()
    assert recorded(product) == [("product.retired", {})]


def given_again(product: products.Product) -> products.Product:
    """As the next command gets it: the pending events have been appended."""
    product.collect_events()
    return product
