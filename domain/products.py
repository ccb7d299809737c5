"""What a tenant sells."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, money, refusals, tenants, text
from domain import metadata as free_metadata
from domain.meaning import meaning

SKU_LENGTH_MAX = 64
# The SKU stands in each of the 250 lines of a transaction, whose event has to fit in a leaf (docs/money.md).
SKU_ENCODED_BYTES_MAX = 64
NAME_LENGTH_MAX = 200
DESCRIPTION_LENGTH_MAX = 5_000  # a page of text; at most 20,000 bytes of the 65,535 of a leaf
CATEGORY_LENGTH_MAX = 100

# The types of an event's fields.
ProductId: TypeAlias = Annotated[UUID, meaning("The product")]
Sku: TypeAlias = Annotated[str, meaning("The tenant's own number of the product; upper and lower case are different")]
Name: TypeAlias = Annotated[str, meaning("What the product is called from now on")]


class Status(StrEnum):
    LISTED = "listed"
    RETIRED = "retired"


class ProductRetired(refusals.Conflict):
    def __init__(self, product_id: UUID) -> None:
        super().__init__("The product has been retired", product_id, "List a new product under a new SKU")


class Product(aggregates.Aggregate):
    """Something a tenant sells. `price` is an exact decimal for one unit, in `currency`."""

    TOPIC = "product"

    class Listed(aggregates.Aggregate.Created):
        """The product is on sale from now on."""

        TOPIC = "product.listed"
        tenant_id: tenants.TenantId
        sku: Sku
        name: Name
        price: money.UnitPrice
        currency: Annotated[money.Currency, meaning("What the price is in, also after it changes")]
        description: Annotated[str, meaning("What it is, in one or more lines; null if nothing was said")] | None
        category: Annotated[str, meaning("The shelf it belongs on, in the tenant's own words; null for none")] | None
        metadata: free_metadata.Metadata

    class Renamed(aggregates.Aggregate.Event):
        """The product goes by another name."""

        TOPIC = "product.renamed"
        name: Name

    class Repriced(aggregates.Aggregate.Event):
        """The product has another price from now on. Sales that were recorded keep theirs."""

        TOPIC = "product.repriced"
        price: Annotated[
            money.UnitPrice, meaning("The new price of one unit, exact, in the currency of product.listed")
        ]

    class Retired(aggregates.Aggregate.Event):
        """The product is not on sale any more. For good; its SKU stays taken."""

        TOPIC = "product.retired"

    @event(Listed)
    def __init__(
        self,
        id: UUID,
        tenant_id: UUID,
        sku: str,
        name: str,
        price: Decimal,
        currency: str,
        description: str | None,
        category: str | None,
        metadata: dict[str, Any],
    ) -> None:
        self.tenant_id = tenant_id
        self.sku = sku
        self.name = name
        self.price = price
        self.currency = currency
        self.description = description
        self.category = category
        self.metadata = metadata
        self.status = Status.LISTED

    def rename(self, name: str) -> None:
        """The name it already has records nothing: a retry must not lengthen the ledger.

        Raises ProductRetired, TextBlank, TextTooLong, TextForbidden.
        """
        self._check_listed()
        checked = checked_name(name)
        if checked != self.name:
            self._renamed(checked)

    def reprice(self, price: Decimal) -> None:
        """The price it already has records nothing, however it is written (9 is 9.00).

        Raises ProductRetired, PriceNotANumber, PriceNegative, PriceTooHigh, PriceTooFine.
        """
        self._check_listed()
        checked = money.unit_price(price, self.currency)
        if checked != self.price:
            self._repriced(checked)

    def retire(self) -> None:
        """For good. Retiring again records nothing."""
        if self.status is not Status.RETIRED:
            self._retired()

    @event(Renamed)
    def _renamed(self, name: str) -> None:
        self.name = name

    @event(Repriced)
    def _repriced(self, price: Decimal) -> None:
        self.price = price

    @event(Retired)
    def _retired(self) -> None:
        self.status = Status.RETIRED

    def _check_listed(self) -> None:
        if self.status is Status.RETIRED:
            raise ProductRetired(self.id)


def list_product(
    *,
    id: UUID,
    tenant_id: UUID,
    sku: str,
    name: str,
    price: Decimal,
    currency: str,
    description: str | None = None,
    category: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Product:
    """A blank description or category counts as none.

    Raises TextBlank, TextTooLong, TextTooWide, TextForbidden, PriceNotANumber, PriceNegative, PriceTooHigh,
    PriceTooFine, CurrencyUnknown, MetadataTooLarge, MetadataTooDeep, MetadataUnkeepable.
    """
    return Product(
        id=id,
        tenant_id=tenant_id,
        sku=checked_sku(sku),
        name=checked_name(name),
        price=money.unit_price(price, currency),
        currency=currency,
        description=text.optional_paragraphs(description, "description", length_max=DESCRIPTION_LENGTH_MAX),
        category=text.optional_line(category, "category", length_max=CATEGORY_LENGTH_MAX),
        metadata=free_metadata.checked(metadata or {}),
    )


def checked_sku(sku: str, field: str = "sku") -> str:
    """Without blanks around it; upper and lower case are different. Raises TextBlank, TextTooLong, TextTooWide,
    TextForbidden."""
    return text.line(sku, field, length_max=SKU_LENGTH_MAX, encoded_bytes_max=SKU_ENCODED_BYTES_MAX)


def checked_name(name: str) -> str:
    """Without blanks around it. Raises TextBlank, TextTooLong, TextForbidden."""
    return text.line(name, "name", length_max=NAME_LENGTH_MAX)
