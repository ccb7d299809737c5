"""Access tokens, and what attackers try with them."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api import tokens
from ledger import ids, token_keys
from tests.api.house import AUDIENCE, ISSUER, SEED, House, Served, access_tokens

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
