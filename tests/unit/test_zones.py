"""Offsets for naive local times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.zones import offset_of, zone


@pytest.mark.parametrize(
    ("timestamp", "offset"),
    [
        ("2025-08-01T10:00:00", "+02:00"),
        ("2025-08-01T10:00:00.1", "+02:00"),
        ("2025-08-01T10:00:00.123456", "+02:00"),
        ("2025-01-01 10:00", "+01:00"),
        ("2025-10-26T02:30:00", "+02:00"),  # twice that night; the first
        ("2025-03-30T02:30:00", "+01:00"),  # skipped that night; as if the clock had not been changed
        ("1880-01-01T00:00:00", "+00:53:28"),
    ],
)
def test_a_naive_time_gets_the_offset_of_its_day(timestamp: str, offset: str) -> None:
    assert offset_of(timestamp, "Europe/Berlin") == offset


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "noon",
        "2025-08-01",
        "2025-08-01T10",
        "2025-08-01T10:00:00Z",
        "2025-08-01T10:00:00+02:00",
        "2025-08-01T10:00:00-0200",
        "2025-13-01T10:00:00",
        "2025-02-30T10:00:00",
        "2025-08-01T25:00:00",
        "2025-08-01T10:00:00.1234567",
        " 2025-08-01T10:00:00",
        "2025-08-01T10:00:00\n",
        "٢٠٢٥-٠٨-٠١T١٠:٠٠:٠٠",
    ],
)
def test_any_other_text_gets_none(timestamp: str) -> None:
    assert offset_of(timestamp, "Europe/Berlin") == ""


def test_offsets_west_of_greenwich_and_of_half_hours() -> None:
    assert offset_of("2025-08-01T10:00:00", "America/New_York") == "-04:00"
    assert offset_of("2025-08-01T10:00:00", "Asia/Kolkata") == "+05:30"
    assert offset_of("2025-08-01T10:00:00", "UTC") == "+00:00"


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b"])
def test_an_unknown_zone_is_an_error_and_never_no_offset(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone is called"):
        zone(name)
    with pytest.raises(ValueError, match="no time zone is called"):
        offset_of("2025-08-01T10:00:00", name)


@given(st.text(max_size=30))
def test_no_text_makes_it_fail(timestamp: str) -> None:
    assert offset_of(timestamp, "Europe/Berlin") in {"", "+01:00", "+02:00"}
