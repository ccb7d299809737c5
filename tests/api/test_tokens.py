"""Access tokens, and what attackers try with them."""

import base64
import dataclasses
import hashlib
import hmac
import json
import time
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api import tokens
from api.app import create_app
from ledger import ids, token_keys
from ledger.revocations import Revocations
from tests.api import house
from tests.api.house import AUDIENCE, ISSUER, PASSWORD, SEED, House, Served, access_tokens

KEY = Ed25519PrivateKey.from_private_bytes(SEED)
KEY_ID = token_keys.of_seed(SEED).id


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(ids.new_id()),
        "tenant_id": str(ids.new_id()),
        "role": "admin",
        "sid": str(ids.new_id()),
        "iat": now,
        "exp": now + 3600,  # longer than any test run: some are made when tests are collected
        "jti": str(ids.new_id()),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(body: dict[str, Any], key: Ed25519PrivateKey = KEY, **header: str) -> str:
    return jwt.encode(body, key, algorithm="EdDSA", headers={"kid": KEY_ID, **header})


def part(value: dict[str, Any] | bytes) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_what_is_issued_is_believed_and_says_who() -> None:
    made = access_tokens()
    tenant_id, account_id, session_id = ids.new_id(), ids.new_id(), ids.new_id()
    token = made.issue(tenant_id=tenant_id, account_id=account_id, role="user", session_id=session_id)
    for _ in range(2):  # checked, then remembered
        who = made.verify(token)
        assert (who.tenant_id, who.account_id, who.role, who.session_id) == (tenant_id, account_id, "user", session_id)


def test_a_well_made_token_is_believed() -> None:
    """Otherwise the attacks below would be refused for another reason than the one that they try."""
    assert access_tokens().verify(signed(claims())).role == "admin"


def hs256_with_the_public_key() -> str:
    header = part({"alg": "HS256", "typ": "JWT", "kid": KEY_ID})
    signing_input = f"{header}.{part(claims())}"
    public = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"{signing_input}.{part(hmac.digest(public, signing_input.encode(), hashlib.sha256))}"


@pytest.mark.parametrize(
    "token",
    [
        part({"alg": "none", "kid": KEY_ID}) + "." + part(claims()) + ".",
        part({"alg": "none"}) + "." + part(claims()) + ".",
        hs256_with_the_public_key(),
        signed(claims(), Ed25519PrivateKey.from_private_bytes(b"x" * 32)),
        signed(claims(), kid="of-somebody-else"),
        signed(claims(iss="another")),
        signed(claims(aud="another")),
        signed(claims(role="owner")),
        signed(claims(role=["admin"])),
        signed(claims(tenant_id="all")),
        signed(claims(sub="7")),
        *(signed(claims(**{name: None})) for name in claims()),
        signed(claims())[:-4] + "AAAA",
        "a.b.c",
        "..",
        "x" * 5000,
        "é",
    ],
)
def test_a_token_that_was_not_issued_here_is_refused(token: str) -> None:
    with pytest.raises(tokens.TokenInvalid):
        access_tokens().verify(token)


def test_an_expired_token_is_refused_also_when_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    made = access_tokens()
    with pytest.raises(tokens.TokenExpired):
        made.verify(signed(claims(exp=int(time.time()) - 1)))
    token = signed(claims(exp=int(time.time()) + 60))
    made.verify(token)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(tokens.TokenExpired):
        made.verify(token)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 3)
    made = access_tokens()
    many = [signed(claims()) for _ in range(10)]
    for token in many:
        made.verify(token)
    assert len(made._remembered) == 3
    made.verify(many[0])


def test_a_clock_that_is_a_minute_off_is_borne_and_more_is_not() -> None:
    """A node whose clock is ahead must not be locked out; one that is hours ahead would issue tokens that hardly expire."""
    now = int(time.time())
    assert access_tokens().verify(signed(claims(iat=now + 55, exp=now + 955))).role == "admin"
    with pytest.raises(tokens.TokenInvalid):
        access_tokens().verify(signed(claims(iat=now + 70, exp=now + 970)))
    for late_s in (0, 1, 60):  # no leeway: a token that a clock behind ours made lives so much shorter
        with pytest.raises(tokens.TokenExpired):
            access_tokens().verify(signed(claims(iat=now - 960, exp=now - late_s)))


def test_a_token_says_how_it_wants_to_be_checked_in_vain() -> None:
    """`jwk` and `jku` name keys of whoever made the token."""
    mallory = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
    own = token_keys.of_seed(b"m" * 32)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": own.x, "kid": KEY_ID}
    headers: list[dict[str, Any]] = [
        {"jwk": jwk},
        {"jku": "https://mallory.example/jwks.json"},
        {"x5u": "https://mallory.example/"},
    ]
    for header in headers:
        token = jwt.encode(claims(), mallory, algorithm="EdDSA", headers={"kid": KEY_ID, **header})
        with pytest.raises(tokens.TokenInvalid):
            access_tokens().verify(token)
    for kid in (None, 7, ["x"], {"a": 1}, "../../etc/passwd", "' OR 1=1 --"):
        signing_input = f"{part({'alg': 'EdDSA', 'typ': 'JWT', 'kid': kid})}.{part(claims())}"
        with pytest.raises(tokens.TokenInvalid):
            access_tokens().verify(f"{signing_input}.{part(KEY.sign(signing_input.encode()))}")


def test_keys_overlap_and_one_that_is_gone_verifies_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not what it verified before, which is remembered."""
    new_seed = b"n" * 32
    known = house.keys()
    made = tokens.AccessTokens(known, house.everybody_counts(), ISSUER, AUDIENCE)
    account_id = ids.new_id()
    issue = partial(made.issue, tenant_id=ids.new_id(), account_id=account_id, role="user", session_id=ids.new_id())
    old = issue()
    made.verify(old)
    known.all = house.keys(SEED, new_seed).all
    new = issue()
    assert [jwt.get_unverified_header(token)["kid"] for token in (old, new)] == [key.id for key in known.all]
    assert [made.verify(token).account_id for token in (old, new)] == [account_id] * 2
    assert [key["kid"] for key in made.key_set()["keys"]] == [key.id for key in known.all]
    with pytest.raises(tokens.TokenInvalid):  # the old key's signature under the new key's name
        made.verify(signed(claims(), kid=known.all[1].id))
    known.all = house.keys(new_seed).all
    made.verify(new)
    with pytest.raises(tokens.TokenInvalid):
        made.verify(old)


def test_a_key_whose_time_is_over_verifies_nothing_although_nobody_told() -> None:
    """The database may be away when its time comes."""
    known = house.keys()
    known.all = (token_keys.of_seed(SEED, verifies_until=time.time() - 1),)
    made = tokens.AccessTokens(known, house.everybody_counts(), ISSUER, AUDIENCE)
    with pytest.raises(tokens.TokenInvalid):
        made.verify(signed(claims()))
    assert made.key_set() == {"keys": []}


def test_what_counts_no_more_is_refused_also_when_it_is_remembered() -> None:
    """The cache skips the check of the signature only."""
    known = house.everybody_counts()
    made = access_tokens(known)
    token = signed(claims())
    who = made.verify(token)
    known.learn(who.tenant_id, who.session_id, True)
    with pytest.raises(tokens.SessionEnded):
        made.verify(token)
    known.learn(who.tenant_id, who.session_id, False)
    made.verify(token)
    known.learn(who.tenant_id, who.tenant_id, True)
    with pytest.raises(tokens.TenantSuspended):
        made.verify(token)
    known._known_at = time.monotonic() - 2
    with pytest.raises(tokens.RevocationsUnknown):
        made.verify(token)


async def test_who_cannot_know_whether_a_session_counts_answers_503(
    served: Served, a: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Revocations, "is_known", lambda _: False)
    refused = await served.get(a.user, "/products")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json()["type"] == "urn:bitnexus:problem:unavailable"
    assert (await served.client.get("/.well-known/jwks.json")).status_code == 200
    assert (await served.client.get("/api/v1/products")).status_code == 401


async def test_issuer_and_audience_are_the_installations(served: Served, a: House) -> None:
    """A token of the test system must not open the real one, although somebody copied the database with its keys."""
    app = create_app(dataclasses.replace(served.parts, token_issuer="https://real.example", token_audience="real"))
    async with Served(app, served.parts).client as client:
        body = {"email": a.user.email, "password": PASSWORD, "tenant": a.slug}
        data = (await client.post("/api/v1/auth/login", json=body)).json()["data"]
        told = jwt.decode(data["access_token"], options={"verify_signature": False})
        assert (told["iss"], told["aud"]) == ("https://real.example", "real")
        mine = {"Authorization": f"Bearer {data['access_token']}"}
        assert (await client.get("/api/v1/users/me", headers=mine)).status_code == 200
        assert (await client.get("/api/v1/users/me", headers=a.user.headers)).status_code == 401
    assert (await served.client.get("/api/v1/users/me", headers=mine)).status_code == 401


async def test_a_token_opens_nothing_of_another_tenant(served: Served, a: House, b: House) -> None:
    product = await b.lists()
    await served.views_reach(b)
    for path in (f"/products/{product.id}", f"/tenants/{b.id}", f"/users/{b.user.id}/export"):
        assert (await served.get(a.admin, path)).status_code == 404, path


async def test_others_can_check_tokens_with_the_published_key(served: Served, a: House) -> None:
    published = await served.client.get("/.well-known/jwks.json")
    assert published.headers["Cache-Control"] == "public, max-age=300"
    (key,) = published.json()["keys"]
    assert jwt.get_unverified_header(a.user.token)["kid"] == key["kid"]
    told = jwt.decode(a.user.token, jwt.PyJWK(key), algorithms=["EdDSA"], audience="bitnexus", issuer="bitnexus")
    assert (told["sub"], told["tenant_id"], told["role"]) == (str(a.user.id), str(a.id), "user")
    assert "d" not in key


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "é"])
async def test_without_a_good_token_the_answer_says_which_kind_is_wanted(served: Served, header: str | None) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode())]
    refused = await served.client.get("/api/v1/users/me", headers=headers)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
