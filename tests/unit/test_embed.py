"""JSON files of v2 as objects whose bytes can be had again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.embed import (
    SourceObject,
    display_name,
    object_json,
    source_bytes,
    source_object,
    text_json,
    value_json,
)

OBJECTS = st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=8), st.integers(), st.none()), max_size=4)
AROUND = st.text(" \t\r\n", max_size=3)


def read(data: bytes) -> SourceObject:
    found = source_object(data)
    assert isinstance(found, SourceObject), found
    return found


@given(OBJECTS, AROUND, AROUND, st.booleans(), st.booleans())
@settings(deadline=None)
def test_the_object_and_what_stood_around_it_make_the_file_again(
    value: dict[str, object], before: str, after: str, mark: bool, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    data = ("\ufeff" * mark + before + text + after).encode("utf-8", "surrogatepass")
    found = source_object(data)
    if isinstance(found, str):
        assert not ascii_only, found
        return
    exact = json.loads(json.dumps(found.exact()))
    assert source_bytes(found.raw, exact) == data


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_file_is_read_exactly_or_refused_with_a_reason(data: bytes) -> None:
    found = source_object(data)
    if isinstance(found, str):
        assert found
    else:
        assert source_bytes(found.raw, found.exact()) == data


def test_cp1252_becomes_utf8_and_leads_back() -> None:
    data = '{"title": "Où – déjà €"}\r\n'.encode("cp1252")
    found = read(data)
    assert found.text("title") == "Où – déjà €"
    assert found.exact() == {"encoding": "cp1252", "suffix": "\r\n"}
    assert source_bytes(found.raw, found.exact()) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object but a list"),
        (b"{} {}", "not JSON"),
        (b'{"a": "\x81\xff"}', "neither UTF-8 (byte 7) nor cp1252"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "nested deeper"),
    ],
)
def test_why_a_file_holds_no_object(data: bytes, reason: str) -> None:
    found = source_object(data)
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_members_come_as_their_bytes_the_last_of_duplicates() -> None:
    found = read(b'{"a": 1.50, "b": {"x":NaN},"a" : [ 1E+2 ] , "c": ""}')
    assert found.raw_of("a") == b"[ 1E+2 ]"
    assert found.raw_object("b") == b'{"x":NaN}'
    assert found.raw_object("a") == b"{}"
    assert found.raw_if("a", list, b"[]") == b"[ 1E+2 ]"
    assert found.raw_of("nothing") is None


@pytest.mark.parametrize("value", ["7", "1.5", "NaN", "null", "true", '""', "[]", "{}"])
def test_only_a_string_with_something_in_it_counts_as_text(value: str) -> None:
    assert read(f'{{"a": {value}}}'.encode()).text("a") is None


def test_numbers_of_any_length_are_read() -> None:
    digits = "7" * 6000
    found = read(f'{{"a": {digits}, "b": 1}}'.encode())
    assert found.raw_of("a") == digits.encode()
    assert found.plain() == {"a": digits, "b": "1"}
    assert read(b'{"b": 1}').plain() == {"b": 1}


@given(st.text(st.characters()))
def test_a_string_of_any_characters_becomes_json_of_it(text: str) -> None:
    for made in (text_json(text), value_json(text)):
        assert json.loads(made.decode("utf-8")) == text


def test_objects_are_put_together_from_json() -> None:
    pairs = [("a", b"1.0"), ("b", b'{"x": NaN}')]
    assert object_json(pairs) == b'{\n  "a": 1.0,\n  "b": {"x": NaN}\n}\n'
    assert object_json(pairs, indent=False) == b'{"a": 1.0, "b": {"x": NaN}}'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("é 日", "é 日"),
        (b"b\xffb", "b%FFb"),
        ("b\udcffb", "b%FFb"),
        (b"100%", "100%"),
        ("\ud800", "\ud800"),  # from an escape in JSON: no byte of a name
    ],
)
def test_a_name_is_shown_with_its_undecodable_bytes_spelled_out(name: str | bytes, shown: str) -> None:
    assert display_name(name) == shown
