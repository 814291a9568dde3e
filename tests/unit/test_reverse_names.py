"""Names shown as text, back to the bytes that they were."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.embed import display_name
from migration.reverse_names import (
    BadPathError,
    LedgerNames,
    bytes_of,
    checked,
    is_cut,
    is_doubtful,
    name_by,
    raw_path,
    readings,
)
from migration.reverse_raw import NotJson, elements, members
from modules.core.layout import component

NAMES = st.lists(st.sampled_from([b"%FF", b"\xff", b"%C3%A9", "é".encode(), b"a", b".", b"%"]), min_size=1, max_size=4)


@given(NAMES.map(b"".join))
def test_a_component_proves_the_name_that_it_encodes(name: bytes) -> None:
    assert bytes_of(component(name)) == name
    assert name_by(display_name(name), component(name)) == name


@given(NAMES.map(b"".join))
def test_a_cut_component_proves_it_too(name: bytes) -> None:
    long = b"x" * 220 + name
    assert is_cut(component(long))
    assert name_by(display_name(long), component(long)) == long


def test_a_component_of_another_name_proves_nothing() -> None:
    assert name_by("a", component("b")) is None
    assert name_by("a" * 250, component("b" * 250)) is None


@given(NAMES.map(b"".join))
def test_every_reading_is_shown_alike_and_the_name_is_among_them(name: bytes) -> None:
    found = list(readings(display_name(name)))
    assert name in found
    assert {display_name(one) for one in found} == {display_name(name)}
    assert is_doubtful(display_name(name)) == (len(set(found)) > 1)


def test_text_that_can_be_no_raw_byte_is_not_doubted() -> None:
    assert not is_doubtful("100%41")
    assert is_doubtful("%C3")


def test_a_doubtful_name_is_what_is_known_else_what_the_ledger_says_else_guessed() -> None:
    assert raw_path("u/%FF", {-1: b"%FF"}, None) == (b"u/%FF", [])
    assert raw_path("%FF/x", {}, {"%FF": {b"%FF"}}) == (b"%FF/x", [])
    assert raw_path("%FF/x", {}, None) == (b"\xff/x", ["%FF"])
    assert raw_path("%FF/x", {}, {"%FF": {b"%FF", b"\xff"}}) == (b"\xff/x", ["%FF"])
    assert raw_path("%C3%A9", {}, None) == (b"%C3%A9", ["%C3%A9"])  # both bytes raw would be shown as é


@pytest.mark.parametrize("path", [b"", b"/a", b"a//b", b"a/", b".", b"a/..", b"a\0", b"x" * 256, b"a/" * 2500 + b"a"])
def test_what_is_no_path_inside_a_store_is_refused(path: bytes) -> None:
    with pytest.raises(BadPathError):
        checked(path)


def test_a_lone_surrogate_is_no_path() -> None:
    with pytest.raises(BadPathError):
        raw_path("a\udcff", {}, None)


def test_without_a_ledger_nothing_is_known(tmp_path: os.PathLike[str]) -> None:
    names = LedgerNames.read(f"{tmp_path}/ledger")
    assert (names.doubtful, names.cut) == ({}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a": [1, {"b": 2}], "c": "x"}', {"a": b'[1, {"b": 2}]', "c": b'"x"'}),
        (b' {"a": NaN, "b": "\\ud800", "a": 1}\n', {"a": b"1", "b": b'"\\ud800"'}),
        (b'{"a": ' + b"[" * 999 + b"]" * 999 + b"}", {"a": b"[" * 999 + b"]" * 999}),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", {"a": b"[" * 2000 + b"]" * 2000}),
    ],
)
def test_members_keep_their_bytes(text: bytes, expected: dict[str, bytes]) -> None:
    assert members(text) == expected


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a": 1}}', b'{"a": }', b'{"a": NaN'])
def test_what_is_no_object_has_no_members(text: bytes) -> None:
    with pytest.raises(NotJson):
        members(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[]\n", []),
        (b'[1, "a,b]", {"c": [2]}]', [b"1", b'"a,b]"', b'{"c": [2]}']),
        (b'[\n{"a": NaN, "b": [1, 2]},\n"\\ud800"\n]\n', [b'{"a": NaN, "b": [1, 2]}', b'"\\ud800"']),
        (b"[NaN]", [b"NaN"]),
    ],
)
def test_elements_keep_their_bytes(text: bytes, expected: list[bytes]) -> None:
    assert elements(text) == expected


@pytest.mark.parametrize("text", [b"", b"{}", b"[NaN", b"[[NaN]", b"1"])
def test_what_is_no_array_has_no_elements(text: bytes) -> None:
    with pytest.raises(NotJson):
        elements(text)
