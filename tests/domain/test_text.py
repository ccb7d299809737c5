"""What may be kept of texts, times, external ids and metadata, wherever they stand."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from domain import external, instants, metadata, refusals, text


def name(value: str) -> str:
    return text.line(value, "name", length_max=10, encoded_bytes_max=20)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Mug", "Mug"),
        ("  Mug\u00a0 \n", "Mug"),
        ("10 a\u00a0b", "10 a\u00a0b"),
        ("é", "é"),
        ("👩‍🚀", "👩‍🚀"),
        ('4"', '4"'),
    ],
)
def test_a_text_is_kept_without_the_blanks_around_it(given: str, kept: str) -> None:
    assert name(given) == kept


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ("", text.TextBlank),
        (" \t\u2003", text.TextBlank),
        ("eleven char", text.TextTooLong),
        ("a\x00b", text.TextForbidden),
        ("a\ud800b", text.TextForbidden),
        ("a\x7fb", text.TextForbidden),
        ("a\x9fb", text.TextForbidden),
        ("a\nb", text.TextForbidden),
        ("a\u2028b", text.TextForbidden),
        ("👩" * 6, text.TextTooWide),
        ('"' * 10 + "", None),
        ("\\" * 10, None),
        ("é" * 10, None),
    ],
)
def test_a_text_that_would_break_a_reader_is_refused(value: str, refusal: type[refusals.Refusal] | None) -> None:
    """PostgreSQL refuses NUL, UTF-8 lone surrogates; a log or terminal obeys the other control characters."""
    if refusal is None:
        assert name(value) == value
        return
    with pytest.raises(refusal) as refused:
        name(value)
    assert refused.value.fields == {"name": [str(refused.value)]}


def test_a_description_may_have_lines_but_no_nul() -> None:
    assert text.paragraphs("one\n\ttwo\r\nthree", "description", length_max=100) == "one\n\ttwo\r\nthree"
    with pytest.raises(text.TextForbidden):
        text.paragraphs("one\x00", "description", length_max=100)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_empty_form_field_is_none(value: str | None) -> None:
    assert text.optional_line(value, "category", length_max=10) is None
    assert text.optional_paragraphs(value, "description", length_max=10) is None


def test_a_refusal_shows_the_value_on_one_short_printable_line() -> None:
    """A megabyte of input, or a terminal escape, must not come back out of an error or a log."""
    with pytest.raises(text.TextTooLong) as refused:
        name("\x1b[31m\ud800" + "x" * 1_000_000)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 200
    message.encode()


def test_a_refusal_says_what_happened_the_value_and_what_to_do() -> None:
    assert str(text.TextTooLong("name", "Mugs and cups", 10)) == (
        "The field name is 13 characters long: 'Mugs and cups'. Give at most 10 characters."
    )


def test_the_same_instant_is_kept_in_utc() -> None:
    """A sale at 01:00 in Tokyo belongs to the UTC day before."""
    tokyo = datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    kept = instants.in_utc(tokyo, "occurred_at")
    assert (kept, kept.tzinfo) == (datetime(2026, 2, 28, 16, 0, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (datetime(2026, 3, 1), instants.TimeWithoutZone),  # noqa: DTZ001 - the very thing that is refused
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))), instants.TimeOutOfRange),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=9))), instants.TimeOutOfRange),
        (datetime(1969, 12, 31, tzinfo=UTC), instants.TimeOutOfRange),
    ],
)
def test_a_time_without_zone_or_outside_the_calendar_is_refused(
    value: datetime, refusal: type[refusals.Refusal]
) -> None:
    with pytest.raises(refusal) as refused:
        instants.in_utc(value, "occurred_at")
    assert list(refused.value.fields) == ["occurred_at"]


def test_an_external_id_comes_with_its_source_or_not_at_all() -> None:
    assert external.checked(None, None) == (None, None)
    assert external.checked("retail_2", " 536365#2 ") == ("retail_2", "536365#2")
    assert external.key("retail", "536365") == "retail\x1f536365"


@pytest.mark.parametrize(
    ("source", "external_id", "refusal", "field"),
    [
        (None, "536365", external.ExternalIdIncomplete, "source"),
        ("retail", None, external.ExternalIdIncomplete, "external_id"),
        ("", "536365", external.SourceInvalid, "source"),
        ("Retail", "536365", external.SourceInvalid, "source"),
        ("retail\n", "536365", external.SourceInvalid, "source"),
        ("x" * 33, "536365", external.SourceInvalid, "source"),
        ("retail", " ", text.TextBlank, "external_id"),
        ("retail", "x" * 129, text.TextTooLong, "external_id"),
        ("retail", "👩" * 65, text.TextTooWide, "external_id"),
        ("retail", "a\x1fb", text.TextForbidden, "external_id"),
    ],
)
def test_an_external_id_that_could_be_confused_is_refused(
    source: str | None, external_id: str | None, refusal: type[refusals.Refusal], field: str
) -> None:
    """Two different pairs must never be the same key: an import would take one sale for another."""
    with pytest.raises(refusal) as refused:
        external.checked(source, external_id)
    assert list(refused.value.fields) == [field]


METADATA: dict[str, Any] = {
    "note": "two\nlines", "n": 2**63 - 1, "f": 0.1, "ok": True, "none": None, "a": [{"b": [1, "é"]}],
}  # fmt: skip


def test_metadata_are_kept_as_they_are_and_apart_from_the_callers() -> None:
    given = msgspec.json.decode(msgspec.json.encode(METADATA))
    kept = metadata.checked(given)
    given["a"].append("changed later")
    assert kept == METADATA
    assert metadata.checked({}) == {}


def nested(depth: int) -> dict[str, Any]:
    return {"x": nested(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (nested(5), metadata.MetadataTooDeep),
        ({"a": [[[[]]]]}, metadata.MetadataTooDeep),
        ({"x": "y" * 4_089}, metadata.MetadataTooLarge),
        ({"x": "a\x00"}, metadata.MetadataUnkeepable),
        ({"x": "\ud800"}, metadata.MetadataUnkeepable),
        ({"a\x00": 1}, metadata.MetadataUnkeepable),
        ({"\ud800": 1}, metadata.MetadataUnkeepable),
        ({1: 1}, metadata.MetadataUnkeepable),
        ({"x": float("nan")}, metadata.MetadataUnkeepable),
        ({"x": float("inf")}, metadata.MetadataUnkeepable),
        ({"x": 2**63}, metadata.MetadataUnkeepable),
        ({"x": 10**5000}, metadata.MetadataUnkeepable),
        ({"x": b"bytes"}, metadata.MetadataUnkeepable),
        ({"a": [{"x": "\x07"}]}, metadata.MetadataUnkeepable),
    ],
)
def test_metadata_that_replay_could_not_give_back_are_refused(
    value: dict[str, Any], refusal: type[refusals.Refusal]
) -> None:
    with pytest.raises(refusal) as refused:
        metadata.checked(value)
    assert list(refused.value.fields) == ["metadata"]
    str(refused.value).encode()


def test_metadata_at_their_bounds_are_accepted() -> None:
    assert metadata.checked(nested(4)) == nested(4)
    assert len(msgspec.json.encode(metadata.checked({"x": "y" * 4_088}))) == metadata.ENCODED_BYTES_MAX
