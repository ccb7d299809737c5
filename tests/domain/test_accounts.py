import unicodedata
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain import accounts, refusals, tenants, text
from tests.domain.given import ACCOUNT_ID, TENANT_ID, given, recorded

ANN = {"email": "ann.archer@example.com", "name": "Ann Archer"}


def registered(
    email: str = "ann@example.com", name: str = "Ann", role: str = "user", tenant_id: UUID = TENANT_ID
) -> accounts.Account:
    return accounts.register(id=ACCOUNT_ID, tenant_id=tenant_id, email=email, name=name, role=role)


def test_registering_records_the_address_as_it_was_written() -> None:
    """Mail goes there, and some hosts tell capitals from small letters."""
    account = registered(email=" Ann@EXAMPLE.com ")
    assert recorded(account) == [
        ("account.registered", {"tenant_id": TENANT_ID, "email": "Ann@EXAMPLE.com", "name": "Ann", "role": "user"})
    ]
    assert given(account).role == "user"


@pytest.mark.parametrize(
    ("email", "normal"),
    [
        ("ANN@Example.COM", "ann@example.com"),
        ("ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example.com"),
        ("\u00a0ann+tag@example.com\n", "ann+tag@example.com"),
        ("Jo\u0308rg@example.com", "jörg@example.com"),
        ("JÖRG@example.com", "jörg@example.com"),
        ("ﬁ@example.com", "fi@example.com"),
        ("ann@localhost", "ann@localhost"),
    ],
)
def test_every_way_to_write_an_address_finds_the_same_account(email: str, normal: str) -> None:
    assert accounts.normalise_email(email) == normal


@pytest.mark.parametrize(
    "email",
    [
        "", "ann", "@", "@example.com", "ann@", "a@b@c", "ann@.com", "ann@example..com", "ann@example.com.",
        "an n@example.com", "ann@exam\u200bple.com", "ann\x00@example.com", "a\ud800@example.com", "a\u202eb@example.com",
        "x" * 243 + "@example.com", "x" * 100_000 + "@example.com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(accounts.EmailInvalid) as refused:
        registered(email=email)
    assert refused.value.fields == {"email": [str(refused.value)]}


def test_an_address_at_its_bound_is_accepted() -> None:
    assert len(accounts.normalise_email("x" * 242 + "@example.com")) == accounts.EMAIL_LENGTH_MAX


def check_normal_is_stable(local: str) -> None:
    try:
        normal = accounts.normalise_email(f"{local}@example.com")
    except accounts.EmailInvalid:
        return
    assert accounts.normalise_email(normal) == normal
    assert accounts.normalise_email(unicodedata.normalize("NFD", normal)) == normal


def test_normalising_what_is_normal_changes_nothing() -> None:
    """Else an account could not log in with the address that it was shown. Every character, by itself."""
    for code in range(0x20000):  # no letter beyond has a case
        check_normal_is_stable(chr(code))


@for_all(st.text(max_size=10))
def test_normalising_what_is_normal_changes_nothing_in_any_combination(local: str) -> None:
    check_normal_is_stable(local)


@pytest.mark.parametrize("password", ["8letterz", "x" * 256, "пароль😀😀", "with\x00nul"])
def test_a_password_within_the_bounds_is_accepted(password: str) -> None:
    accounts.check_password(password, **ANN)


@pytest.mark.parametrize("password", ["", "seven77", "x" * 257, "x" * 5_000, "ﷺ" * 15])
def test_a_password_of_the_wrong_length_is_refused_and_never_repeated(password: str) -> None:
    with pytest.raises(accounts.PasswordLengthWrong) as refused:
        accounts.check_password(password, **ANN)
    length = len(unicodedata.normalize("NFKC", password))
    assert refused.value.fields == {
        "password": [f"The password's length is wrong: '{length} characters'. Give 8 to 256 characters."]
    }


def test_a_password_is_counted_and_hashed_as_unicode_normalises_it() -> None:
    """Another keyboard sends the same characters otherwise, and must open the same account."""
    assert accounts.normalise_password("Jo\u0308rg ﬁnds") == accounts.normalise_password("Jörg finds")
    accounts.check_password("ﷺ", **ANN)  # one character that stands for eighteen


@pytest.mark.parametrize("password", ["password1", "PassWord1", "12345678", "ｐａｓｓｗｏｒｄ１"])
def test_what_is_tried_first_is_no_password(password: str) -> None:
    with pytest.raises(accounts.PasswordCommon) as refused:
        accounts.check_password(password, **ANN)
    assert password not in str(refused.value)
    assert list(refused.value.fields) == ["password"]


@pytest.mark.parametrize(
    "password", ["Ann.Archer@Example.com", "ann.archer", "ANN ARCHER", "annarcher", "ａｎｎ.archer"]
)
def test_nobodys_name_or_address_is_their_password(password: str) -> None:
    """It is the first thing that somebody tries who knows them."""
    with pytest.raises(accounts.PasswordIsTheirs) as refused:
        accounts.check_password(password, **ANN)
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", ["ann archer the first", "lowercase only", "87105 62394"])
def test_what_a_password_is_made_of_is_not_asked(password: str) -> None:
    accounts.check_password(password, **ANN)


def test_a_password_that_cannot_be_hashed_is_refused() -> None:
    """Half a surrogate pair has no UTF-8: hashing it would fail with a 500."""
    with pytest.raises(accounts.PasswordUnreadable) as refused:
        accounts.check_password("secret-\ud800", **ANN)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("role", ["admin", "user", "affiliate"])
def test_the_roles_of_a_tenant(role: str) -> None:
    assert registered(role=role).role == role


def test_super_admins_live_in_the_platform_alone() -> None:
    """A tenant's admin must not be able to make an account that may act across tenants."""
    with pytest.raises(accounts.RoleNotHere) as refused:
        registered(role="super_admin")
    assert list(refused.value.fields) == ["role"]
    assert registered(role="super_admin", tenant_id=tenants.PLATFORM_ID).role == "super_admin"


def test_the_platform_has_no_admins() -> None:
    """One could give itself the role of a super admin."""
    with pytest.raises(accounts.RoleNotHere):
        registered(role="admin", tenant_id=tenants.PLATFORM_ID)
    assert registered(role="user", tenant_id=tenants.PLATFORM_ID).role == "user"


@pytest.mark.parametrize("role", ["", "root", "Admin"])
def test_an_unknown_role_is_refused(role: str) -> None:
    with pytest.raises(accounts.RoleUnknown):
        registered(role=role)


@pytest.mark.parametrize(
    ("name", "refusal"), [(" ", text.TextBlank), ("x" * 201, text.TextTooLong), ("a\x1b[2J", text.TextForbidden)]
)
def test_a_name_that_cannot_be_shown_is_refused(name: str, refusal: type[refusals.Refusal]) -> None:
    with pytest.raises(refusal) as refused:
        registered(name=name)
    assert list(refused.value.fields) == ["name"]
