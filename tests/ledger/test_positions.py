"""A position token tells nothing, fits its tenant alone, and is the same on every node."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import errors, ids
from ledger.keys import MasterKey
from ledger.positions import TOKEN_CHARACTERS, Tokens

TENANT = UUID("01900000-0000-7000-8000-00000000000a")
TOKENS = Tokens(MasterKey(bytes(range(32))))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.integers(0, 2**63 - 1), st.uuids())
def test_a_token_leads_back_to_its_position(position: int, tenant: UUID) -> None:
    token = TOKENS.token(tenant, position)
    assert TOKENS.position(tenant, token) == position
    assert len(token) == TOKEN_CHARACTERS
    assert set(token) <= set(ALPHABET)  # goes into a header, a URL and an SSE id as it is


def test_another_node_makes_and_reads_the_same_tokens() -> None:
    """A listener that reconnects to another node resumes there; an ETag is equal on both."""
    other = Tokens(MasterKey(bytes(range(32))))
    assert other.token(TENANT, 5) == TOKENS.token(TENANT, 5)
    assert other.position(TENANT, TOKENS.token(TENANT, 5)) == 5


def test_another_installation_does_not_read_them() -> None:
    with pytest.raises(errors.PositionTokenInvalid):
        Tokens(MasterKey(bytes(32))).position(TENANT, TOKENS.token(TENANT, 5))


def test_a_token_fits_no_other_tenant() -> None:
    with pytest.raises(errors.PositionTokenInvalid):
        TOKENS.position(ids.new_id(), TOKENS.token(TENANT, 5))


def test_neighbours_have_nothing_in_common() -> None:
    """Else a seller could read a competitor's traffic from two tokens."""
    tokens = [TOKENS.token(TENANT, position) for position in range(200)]
    assert len({token[:8] for token in tokens}) == len({token[-8:] for token in tokens}) == 200
    assert not set(tokens) & {TOKENS.token(ids.new_id(), position) for position in range(200)}


def test_every_changed_character_is_noticed() -> None:
    token = TOKENS.token(TENANT, 123_456)
    for place in range(TOKEN_CHARACTERS):
        for other in ALPHABET:
            if other != token[place]:
                with pytest.raises(errors.PositionTokenInvalid):
                    TOKENS.position(TENANT, token[:place] + other + token[place + 1 :])


def test_a_position_has_one_token_only() -> None:
    """Else two ids of one event would not compare equal."""
    token = next(found for n in range(1_000) if "-" in (found := TOKENS.token(TENANT, n)) and "_" in found)
    for other in (token.replace("-", "+"), token.replace("_", "/"), token + "=", token + "\n"):
        with pytest.raises(errors.PositionTokenInvalid):
            TOKENS.position(TENANT, other)


@pytest.mark.parametrize(
    "nonsense", ["", "5", "a" * 31, "a" * 32, "a" * 33, "ä" * 32, "\0" * 32, "=" * 32, "a" * 99_999]
)
def test_nonsense_is_refused_with_a_message_that_shows_it(nonsense: str) -> None:
    with pytest.raises(errors.PositionTokenInvalid) as refused:
        TOKENS.position(TENANT, nonsense)
    assert repr(nonsense[:64]) in str(refused.value)
    assert len(str(refused.value)) < 600
