"""The scanner finds the members that a JSON parser finds, and editing by its ranges changes nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.spans import Member, depth_of, members, with_member, without_last_member

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.text(max_size=4), JSON, max_size=5)
SEPARATORS = st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " :\r")])
INDENT = st.sampled_from([None, 0, 2, "\t"])


def text_of(value: Any, indent: int | str | None, separators: tuple[str, str], ascii_only: bool) -> bytes:
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


def value_of(text: bytes, member: Member) -> Any:
    return json.loads(text[member.value_start : member.value_end])


@given(OBJECT, INDENT, SEPARATORS, st.booleans())
def test_members_are_those_of_a_json_parser(
    value: dict[str, Any], indent: int | str | None, separators: tuple[str, str], ascii_only: bool
) -> None:
    text = text_of(value, indent, separators, ascii_only)
    found = members(text)
    assert [(m.key, value_of(text, m)) for m in found] == list(value.items())
    for member in found:
        assert json.loads(text[member.key_start : member.key_end]) == member.key
        assert text[member.value_start : member.value_end].strip() == text[member.value_start : member.value_end]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "é"]), JSON), max_size=6), INDENT)
def test_duplicate_keys_are_all_found_in_order(pairs: list[tuple[str, Any]], indent: int | str | None) -> None:
    text = ("{" + ",".join(f"{json.dumps(k)}:{json.dumps(v, indent=indent)}" for k, v in pairs) + "}").encode()
    assert [(m.key, value_of(text, m)) for m in members(text)] == pairs


def test_a_key_in_escaped_spelling_is_found_by_its_meaning() -> None:
    assert [m.key for m in members(rb'{"\u0069d": 1, "a\"b": 2, "\ud800": 3}')] == ["id", 'a"b', "\ud800"]


@pytest.mark.parametrize("text", [b"{}", b" { } ", b"\t{\n}\r"])
def test_an_empty_object_has_no_members(text: bytes) -> None:
    assert members(text) == []


def test_braces_and_quotes_inside_strings_are_no_structure() -> None:
    (member,) = members(rb'{"a": "}{][,:\"\\"}')
    assert member.key == "a"
    assert member.value_end == len(rb'{"a": "}{][,:\"\\"')


def test_a_string_of_megabytes_is_passed_over() -> None:
    text = b'{"a": "' + b"x\\n" * 2_000_000 + b'", "b": 1}'
    assert [m.key for m in members(text)] == ["a", "b"]


def test_any_depth_is_walked_without_recursion() -> None:
    text = b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b', "b": 1}'
    assert [m.key for m in members(text)] == ["a", "b"]
    assert depth_of(text) == 200_001


def depth_by_parsing(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_by_parsing, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_by_parsing, value), default=0)
    return 0


@given(JSON)
def test_depth_counts_arrays_and_objects_one_inside_the_other(value: Any) -> None:
    assert depth_of(json.dumps(value).encode()) == depth_by_parsing(value)


@given(OBJECT, INDENT, SEPARATORS)
def test_an_added_member_comes_last_and_can_be_taken_away_again(
    value: dict[str, Any], indent: int | str | None, separators: tuple[str, str]
) -> None:
    text = text_of(value, indent, separators, True)
    longer = with_member(text, b"added", b'{"x": 1}')
    assert list(json.loads(longer).items())[-1] == ("added", {"x": 1})
    assert members(longer)[-1].key == "added"
    assert without_last_member(longer, members(longer)[-1]) == text
