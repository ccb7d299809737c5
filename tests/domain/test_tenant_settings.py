"""What a tenant can be told about itself."""

import pytest

from domain import refusals, tenants
from domain.tenants import Branding, Limits, SettingInvalid, Status
from ledger import ids


@pytest.fixture
def tenant() -> tenants.Tenant:
    made = tenants.create(id=ids.new_id(), slug="shop", name="Shop", currency="EUR")
    made.pending_events.clear()
    return made


FULL = Branding("Shop & Co", "https://cdn.example.com/logo.svg?v=2", "#0a7f42", "#ffffff", "shop@example.com")


def test_what_is_so_already_records_nothing(tenant: tenants.Tenant) -> None:
    """A retry must not lengthen the ledger."""
    for _ in range(2):
        tenant.brand(FULL)
        tenant.configure("GBP", ["wishes", "gifts", "wishes"])
        tenant.limit(Limits(users=5, events_per_day=100))
        tenant.suspend("unpaid")
    assert len(tenant.pending_events) == 4
    assert (tenant.name, tenant.branding, tenant.currency, tenant.flags) == (
        FULL.name,
        FULL,
        "GBP",
        ["gifts", "wishes"],
    )
    assert (tenant.limits, tenant.status) == (Limits(5, None, 100), Status.SUSPENDED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logo_url", "http://cdn.example.com/logo.svg"),
        ("logo_url", "javascript:alert(1)"),
        ("logo_url", "https://user:secret@cdn.example.com/x"),
        ("logo_url", 'https://cdn.example.com/"onload="x'),
        ("logo_url", "https:///x"),
        ("logo_url", "https://[x"),
        ("logo_url", "https://cdn.example.com/" + "x" * 2_000),
        ("primary_colour", "red"),
        ("primary_colour", "#FFFFFF"),
        ("accent_colour", "#fff; background: url(x)"),
        ("sender_address", "shop"),
        ("sender_address", "shop@example.com\nBcc: everybody@example.com"),
        ("sender_address", "Shop <shop@example.com>"),
    ],
)
def test_a_sign_in_page_shows_nothing_that_a_browser_would_run(tenant: tenants.Tenant, field: str, value: str) -> None:
    """Or one tenant's admin could attack whoever looks at the page, or send mail to anybody."""
    with pytest.raises(SettingInvalid) as refused:
        tenant.brand(FULL._replace(**{field: value}))
    assert list(refused.value.fields) == [field]
    assert not tenant.pending_events


def test_configuration_is_checked(tenant: tenants.Tenant) -> None:
    for currency, flags in (("XXQ", []), ("EUR", ["Wishes"]), ("EUR", [""]), ("EUR", [f"f{n}" for n in range(51)])):
        with pytest.raises(refusals.Invalid):
            tenant.configure(currency, flags)
    for limits in (Limits(users=-1), Limits(events_per_day=10**9 + 1)):
        with pytest.raises(SettingInvalid):
            tenant.limit(limits)


def test_a_tenant_is_closed_after_it_was_suspended_and_stays_so(tenant: tenants.Tenant) -> None:
    with pytest.raises(tenants.TenantNotSuspended):
        tenant.close()
    tenant.check_open()
    tenant.suspend("unpaid")
    with pytest.raises(tenants.TenantSuspended):
        tenant.check_open()
    tenant.resume()
    tenant.check_open()
    tenant.suspend("unpaid")
    tenant.close()
    for refused in (tenant.check_open, tenant.resume, lambda: tenant.suspend("again")):
        with pytest.raises(tenants.TenantClosed):
            refused()
    tenant.close()
    assert tenant.status is Status.CLOSED


@pytest.mark.parametrize(
    "host", ["localhost", "shop.example.com:80", "-a.example.com", "a..b", "a" * 250 + ".com", "é.com"]
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(SettingInvalid):
        tenants.checked_host(host)
    assert tenants.checked_host("Shop.Example.COM.") == "shop.example.com"
