import pytest

from domain import money, refusals, tenants, text
from tests.domain.given import TENANT_ID, given, recorded


def test_a_new_tenant_begins_its_own_stream() -> None:
    tenant = tenants.create(id=TENANT_ID, slug="shop-1", name=" The Shop ", currency="GBP")
    assert recorded(tenant) == [("tenant.created", {"slug": "shop-1", "name": "The Shop", "currency": "GBP"})]
    replayed = given(tenant)
    assert (replayed.id, replayed.slug, replayed.name, replayed.currency) == (TENANT_ID, "shop-1", "The Shop", "GBP")


def test_the_platform_knows_a_tenant_under_its_own_id() -> None:
    registration = tenants.register(id=TENANT_ID, slug="shop-1", name="The Shop")
    assert recorded(registration) == [("tenant.registered", {"slug": "shop-1", "name": "The Shop"})]
    assert given(registration).id == TENANT_ID


@pytest.mark.parametrize("slug", ["a", "7", "a-b", "a--b", "x" * 63])
def test_a_slug_that_fits_in_a_host_name_is_accepted(slug: str) -> None:
    assert tenants.checked_slug(slug, TENANT_ID) == slug


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a.b", "x" * 64, "ä", "a\n", " a"])
def test_a_slug_that_does_not_fit_in_a_host_name_is_refused(slug: str) -> None:
    """A tenant with such a slug could never be reached by its address."""
    with pytest.raises(tenants.SlugInvalid) as refused:
        tenants.create(id=TENANT_ID, slug=slug, name="Shop", currency="EUR")
    assert list(refused.value.fields) == ["slug"]


def test_the_platforms_slug_is_the_platforms_alone() -> None:
    """Whoever logs in to `platform` must not land in somebody else's tenant."""
    assert tenants.create(
        id=tenants.PLATFORM_ID, slug="platform", name="Platform", currency="EUR"
    ).slug == tenants.PLATFORM_SLUG  # fmt: skip
    for make in (
        lambda: tenants.create(id=TENANT_ID, slug="platform", name="Evil", currency="EUR"),
        lambda: tenants.register(id=TENANT_ID, slug="platform", name="Evil"),
    ):
        with pytest.raises(tenants.SlugReserved):
            make()


@pytest.mark.parametrize(
    ("name", "currency", "refusal"), [("", "EUR", text.TextBlank), ("x" * 201, "EUR", text.TextTooLong),
                                     ("Shop", "eur", money.CurrencyUnknown)],
)  # fmt: skip
def test_a_tenant_without_name_or_currency_is_refused(
    name: str, currency: str, refusal: type[refusals.Refusal]
) -> None:
    with pytest.raises(refusal):
        tenants.create(id=TENANT_ID, slug="shop", name=name, currency=currency)
