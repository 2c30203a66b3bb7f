"""Durations, timestamps, bounded text and label selectors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tenure.api.base import (
    ApiModel,
    Duration,
    LabelSelector,
    LineText,
    PositiveDuration,
    Timestamp,
    format_duration,
    format_timestamp,
    parse_duration,
    parse_timestamp,
)


class Sample(ApiModel):
    grace: Duration = timedelta(0)
    within: PositiveDuration | None = None
    at: Timestamp | None = None
    note: LineText = ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90d", 7_776_000), ("36h", 129_600), ("15m", 900), ("30s", 30), ("0s", 0), ("0d", 0), ("99999d", 8_639_913_600)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "90",
        "-1d",
        "+1d",
        "1.5h",
        "1h30m",
        "90 d",
        "d",
        "01d",
        "00s",
        "100000d",
        "1w",
        "PT1H",
        "٣d",
        "1d\n",
        5,
        None,
    ],
)
def test_what_is_no_duration_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(bad)


@pytest.mark.parametrize("bad", [timedelta(seconds=-1), timedelta(microseconds=1)])
def test_a_timedelta_that_cannot_be_written_is_refused(bad: timedelta) -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        parse_duration(bad)


@pytest.mark.parametrize(
    ("given_", "written"),
    [("72h", "72h"), ("3d", "72h"), ("7d", "7d"), ("168h", "7d"), ("400d", "400d"), ("24h", "24h"), ("90m", "90m"),
     ("3600s", "1h"), ("61s", "61s"), ("0d", "0s")],
)  # fmt: skip
def test_durations_are_written_as_the_documents_write_them(given_: str, written: str) -> None:
    assert format_duration(parse_duration(given_)) == written


@given(st.integers(min_value=0, max_value=99_999 * 86_400))
def test_a_written_duration_reads_back(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_zero_is_refused_where_a_deadline_would_be_zero() -> None:
    assert Sample(grace="0s").grace == timedelta(0)
    with pytest.raises(ValidationError, match="longer than 0s"):
        Sample(within="0s")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z"),
        ("2027-01-31T01:00:00+01:00", "2027-01-31T00:00:00Z"),
        ("2027-01-31T00:00:00.5Z", "2027-01-31T00:00:00.500000Z"),
        ("2027-01-31T00:00:00.123456789Z", "2027-01-31T00:00:00.123456Z"),
        ("2027-01-31T00:00:00.1234567890123Z", "2027-01-31T00:00:00.123456Z"),
        ("1999-12-31T23:59:59Z", "1999-12-31T23:59:59Z"),
    ],
)
def test_timestamps_are_read_and_written_in_utc(text: str, written: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == written
    assert Sample(at=text).wire()["at"] == written


@pytest.mark.parametrize(
    "bad",
    ["", "0001-01-01T00:00:00+02:00", "tomorrow", "2027-13-01T00:00:00Z", "2027-01-31", "2027-01-31T00:00:00", 0, None],
)
def test_what_is_no_timestamp_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|time zone|outside the years"):
        parse_timestamp(bad)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 12, 31), timezones=st.just(UTC)))
def test_a_written_timestamp_reads_back(instant: datetime) -> None:
    assert parse_timestamp(format_timestamp(instant)) == instant


def test_a_timestamp_of_another_zone_becomes_utc() -> None:
    there = datetime(2027, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert Sample(at=there).at == datetime(2027, 1, 1, 6, 30, tzinfo=UTC)


def test_what_the_operator_writes_is_clipped_and_never_refused() -> None:
    note = Sample(note="x" * 1000).note
    assert len(note) == 200
    assert note.endswith("…")


def test_models_are_frozen_and_closed() -> None:
    sample = Sample()
    with pytest.raises(ValidationError, match="frozen"):
        sample.note = "y"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Sample.read({"notte": "y"})


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]}, {"a": "c"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}, {"a": "b"}, False),
    ],
)
def test_label_selectors_match_as_the_api_server_does(
    selector: dict[str, object], labels: dict[str, str], matches: bool
) -> None:
    assert LabelSelector.read(selector).matches(labels) is matches
