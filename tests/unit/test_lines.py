"""Message lines: each keeps its bytes, is counted once, and leads back to what it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.lines import (
    MAX_DEPTH,
    Conversation,
    LineRules,
    decoded,
    encoded,
    parse_object,
    plain_messages,
    restore_line,
    timestamp_of,
)
from tests.examples import examples
from tests.hostile_case import derived_id, good

RULES = LineRules("ada", "s")
BERLIN = LineRules("ada", "s", "Europe/Berlin")

# ---- random lines -------------------------------------------------------------------------------------------------

SPACE = st.text(" \t", max_size=2)
CHARACTERS = st.one_of(
    st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc", "Cs"]),
    st.sampled_from(
        [r"\"", r"\\", r"\/", r"\n", r"\u0041", r"\u00e9", r"\ud83d\ude00", r"\ud800", "{", "}", '\\"id\\":']
    ),
)
STRING = st.lists(CHARACTERS, max_size=6).map(lambda parts: '"' + "".join(parts) + '"')
NUMBER = st.sampled_from(["0", "-0", "1.50", "1E+2", "5.0e-06", "1e999", "NaN", "Infinity", "-Infinity", "7" * 30])
SCALAR = st.one_of(STRING, NUMBER, st.sampled_from(["null", "true", "false"]))
ID = st.one_of(st.sampled_from(['"msg_1"', '"msg_2"', '""', "null", "7", r'"m\u0073g"', '"message_id"']), STRING)
STAMP = st.sampled_from(
    [
        '"2025-08-01T10:00:00.000001"',
        '"2025-08-01T10:00:00+02:00"',
        r'"2025-08-01T10:00:00\u002e5"',
        '"2025-08-01 10:00"',
        '"yesterday"',
        '"1880-01-01T00:00:00"',
        "null",
    ]
)
KEYS = {
    "message_id": ID,
    "id": ID,
    r"message\u005fid": ID,
    r"\u0069d": ID,
    "timestamp": STAMP,
    "role": SCALAR,
    "content": SCALAR,
    "legacy": SCALAR,
}


@st.composite
def objects(draw: st.DrawFn, depth: int = 0) -> str:
    pieces = []
    for key in draw(st.lists(st.sampled_from([*KEYS, "metadata"]), max_size=5)):
        value = draw(nested(depth + 1) if key == "metadata" or depth else KEYS[key])
        space = [draw(SPACE) for _ in range(4)]
        pieces.append(f'{space[0]}"{key}"{space[1]}:{space[2]}{value}{space[3]}')
    return "{" + (",".join(pieces) if pieces else draw(SPACE)) + "}"


@st.composite
def nested(draw: st.DrawFn, depth: int) -> str:
    kind = draw(st.integers(0, 3 if depth < 3 else 0))
    if kind == 1:
        return draw(objects(depth))
    if kind == 2:
        return "[" + ",".join(draw(st.lists(nested(depth + 1), max_size=3))) + "]"
    return draw(SCALAR)


ODD = st.sampled_from([b"", b" ", b"\t", b"\r", b"\x0c", b"[1]", b'"text"', b"42", b"{", b'{"a": 1', b"\xff\xfe{}"])
TORN = st.tuples(st.binary(max_size=6), objects().map(str.encode)).map(lambda parts: parts[0] + parts[1])
LINE = st.one_of(
    st.tuples(SPACE, objects(), SPACE, st.sampled_from(["", "\r"])).map(lambda parts: "".join(parts).encode()),
    st.integers(1, 9).map(good),
    ODD,
    TORN,
    st.binary(max_size=30),
).filter(lambda line: b"\n" not in line)
LINES = st.lists(LINE, max_size=6)


def joined(lines: list[bytes], final_newline: bool) -> bytes:
    return b"\n".join(lines) + b"\n" * (final_newline and bool(lines))


def added(block: bytes, rules: LineRules) -> tuple[Conversation, bytes]:
    conversation = Conversation(rules)
    return conversation, conversation.add(block)


def restored(conversation: Conversation, migrated: bytes) -> bytes:
    """The v2 file that *migrated* came from, by what stands in it and in `Conversation.exact` alone."""
    exact = conversation.exact() or {}
    rows = {row["line"]: row for row in map(json.loads, conversation.quarantine)}
    lines = iter(migrated.split(b"\n")[:-1])
    total = exact.get("lines", conversation.lines)

    def has(key: str, number: int) -> bool:
        return exact.get(key) == "all" or number in exact.get(key, ())

    def original(number: int) -> bytes:
        if str(number) in exact.get("blank", {}):
            return str(exact["blank"][str(number)]).encode()
        if number in rows:
            if rows[number]["salvaged_id"] is not None:
                next(lines)
            return decoded(rows[number]["raw"], rows[number]["raw_encoding"])
        line = next(lines)
        if str(number) in exact.get("verbatim", {}):
            return decoded(*exact["verbatim"][str(number)])
        own, without = has("own_id", number), has("without_id", number)
        return restore_line(line, conversation.rules, own_id=own, without_id=without)

    found = [original(number) for number in range(1, total + 1)]
    assert next(lines, None) is None, "a migrated line has no place in the source"
    return joined(found, not exact.get("no_final_newline", False))


@given(lines=LINES, final_newline=st.booleans(), rules=st.sampled_from([RULES, BERLIN]))
@settings(max_examples=examples(400), deadline=None)
def test_whatever_the_lines_hold_they_lead_back_to_their_bytes(
    lines: list[bytes], final_newline: bool, rules: LineRules
) -> None:
    block = joined(lines, final_newline)
    conversation, migrated = added(block, rules)
    assert restored(conversation, migrated) == block
    ends = conversation.messages + conversation.salvaged + conversation.quarantined + len(conversation.blank)
    physical = block.count(b"\n") + (block != b"" and not block.endswith(b"\n"))
    assert ends == conversation.lines == physical
    assert conversation.offset == len(block)
    assert migrated.count(b"\n") == conversation.written


@given(lines=LINES, rules=st.sampled_from([RULES, BERLIN]))
@settings(max_examples=examples(300), deadline=None)
def test_every_migrated_line_is_an_object_with_a_string_id(lines: list[bytes], rules: LineRules) -> None:
    _, migrated = added(joined(lines, True), rules)
    for line in migrated.split(b"\n")[:-1]:
        record = json.loads(line)
        assert isinstance(record["id"], str)
        assert record["id"]


@given(lines=st.lists(st.one_of(LINE, st.integers(1, 99).map(good)), max_size=6))
@settings(max_examples=examples(400), deadline=None)
def test_a_block_gives_what_each_of_its_lines_alone_gives(lines: list[bytes]) -> None:
    block = joined(lines, True)
    together, migrated = added(block, RULES)
    singly = Conversation(RULES)
    assert b"".join(singly.add(line + b"\n") for line in lines) == migrated
    for name in ("lines", "messages", "salvaged", "quarantined", "quarantine", "blank", "verbatim", "offset"):
        assert getattr(together, name) == getattr(singly, name)
    assert together.exact() == singly.exact()
    assert together.duplicate_ids == singly.duplicate_ids


PUT = [
    b'"',
    b"\\",
    b"}",
    b"{",
    b"]",
    b",",
    b"0",
    b"-",
    b".",
    b"\0",
    b"\t",
    b"\n",
    b"}\n{",
    b" ",
    b"\r",
    b"\xff",
    b"",
    b"NaN",
]
PUT += [b"\\ud800", b"\\x", b'"id":1,', b'"message_id":"q",']
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 3),
        st.sampled_from(PUT),
    ),
    max_size=3,
)  # fmt: skip


@given(mutations=MUTATIONS)
@settings(max_examples=examples(600), deadline=None)
def test_the_short_way_accepts_only_what_line_by_line_is_the_renaming_alone(
    mutations: list[tuple[int, int, bytes]],
) -> None:
    block = b"".join(good(number, content="\u00e9 \\ \n", n=[1, -2.5, True]) + b"\n" for number in (1, 2))
    for position, cut, put in mutations:
        position %= len(block)
        block = block[:position] + put + block[position + cut :]
    plain = plain_messages(block)
    if plain is None:
        return
    slow = Conversation(RULES)
    text = b"".join(slow._add_lines(block))
    assert (text, slow._ids, slow.exact()) == (plain.text, plain.ids, None)


def test_the_short_way_is_taken_for_what_v2_writes() -> None:
    block = b"".join(good(number, content="Où? {[") + b"\n" for number in range(1, 50))
    plain = plain_messages(block)
    assert plain is not None
    assert plain.text == block.replace(b'"message_id"', b'"id"')
    assert plain.ids == {f"msg_{number}" for number in range(1, 50)}


@pytest.mark.parametrize(
    "line",
    [
        good(1) + good(2),
        good(1) + b" " + good(2),
        b"\xef\xbb\xbf" + good(1),
        good(1) + b"\x0c",
        b'{"message_id": "a", "id": "b"}',
        b'{"message_id": "a", "id": null}',
        b'{"message_id": "a", "content": "message_id"}',
        b'{"message_id": "a", "metadata": {"message_id": "b"}}',
        b'{"message_id": "a", "message_id": "b"}',
        rb'{"message_id": "a", "\u0069d": "b"}',
        b'{"message_id": ""}',
        b'{"message_id": 1}',
        b'{"content": "x"}',
        b'{"message_id": "a", "content": "\xff"}',
        b"[]",
        b"",
    ],
)
def test_the_short_way_leaves_everything_else_alone(line: bytes) -> None:
    assert plain_messages(line + b"\n") is None
    assert plain_messages(good(8) + b"\n" + line + b"\n") is None


@pytest.mark.parametrize("line", [good(1) + b" ", b" \t" + good(1), good(1) + b"\r"])
def test_space_around_an_object_stays_as_it_is(line: bytes) -> None:
    plain = plain_messages(line + b"\n")
    assert plain is not None
    slow = Conversation(RULES)
    assert b"".join(slow._add_lines(line + b"\n")) == plain.text == (line + b"\n").replace(b'"message_id"', b'"id"')
    assert slow.exact() is None


def test_the_short_way_needs_a_final_newline_and_distinct_ids() -> None:
    assert plain_messages(good(1)) is None
    assert plain_messages(good(1) + b"\n" + good(1) + b"\n") is None


@contextmanager
def recursion_limit(levels: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(levels)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def deep(levels: int) -> bytes:
    """A message nested *levels* deep in all, its own object included."""
    return b'{"message_id": "a", "m": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}\n"


@pytest.mark.parametrize("limit", [1000, 1001, 1100, 20_000])
@pytest.mark.parametrize(("levels", "messages"), [(MAX_DEPTH, 1), (MAX_DEPTH + 1, 0)])
def test_how_deep_a_line_may_nest_does_not_depend_on_the_interpreter(limit: int, levels: int, messages: int) -> None:
    with recursion_limit(limit):
        conversation, _ = added(deep(levels), RULES)
    assert (conversation.messages, conversation.quarantined) == (messages, 1 - messages)


# ---- the rules, case by case -----------------------------------------------------------------------------------------


def migrated_line(line: str | bytes, rules: LineRules = RULES) -> str:
    raw = line if isinstance(line, bytes) else line.encode()
    _, migrated = added(raw + b"\n", rules)
    return migrated.decode().removesuffix("\n")


DERIVED = derived_id("ada", "s", 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"message_id": "m"}', '{"id": "m"}'),
        ('{ "role":"user" ,"message_id":\t"m" }', '{ "role":"user" ,"id":\t"m" }'),
        ('{"id": "m"}', '{"id": "m", "metadata": {"legacy_id": "m"}}'),
        ('{"id": "m", "metadata": {}}', '{"id": "m", "metadata": {"legacy_id": "m"}}'),
        ('{"id": "m", "metadata": {"a": 1.0}}', '{"id": "m", "metadata": {"a": 1.0, "legacy_id": "m"}}'),
        ('{"id": "m", "metadata": null}', '{"id": "m", "metadata": {"legacy_id": "m"}}'),
        ('{"id": "m", "metadata": [1]}', '{"id": "m", "metadata": {"legacy_metadata": [1], "legacy_id": "m"}}'),
        ('{"message_id": "m", "id": "o"}', '{"id": "m", "metadata": {"legacy_id": "o"}}'),
        ('{"id": "o", "message_id": "m"}', '{"id": "m", "metadata": {"legacy_id": "o"}}'),
        ('{"id": 7, "role": "user"}', f'{{"role": "user", "metadata": {{"legacy_id": 7}}, "id": "{DERIVED}"}}'),
        ('{"message_id": "", "id": "o"}', '{"message_id": "", "id": "o", "metadata": {"legacy_id": "o"}}'),
        ("{}", f'{{"id": "{DERIVED}"}}'),
        ('{"role": "user"}', f'{{"role": "user", "id": "{DERIVED}"}}'),
        ('{"message_id": 123}', f'{{"message_id": 123, "id": "{DERIVED}"}}'),
    ],
)
def test_what_becomes_of_the_ids(line: str, expected: str) -> None:
    assert migrated_line(line) == expected


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2025-08-01T10:00:00", "2025-08-01T10:00:00+02:00"),
        ("2025-12-01T10:00:00.5", "2025-12-01T10:00:00.5+01:00"),
        ("2025-08-01T10:00:00+09:00", "2025-08-01T10:00:00+09:00"),
        ("2025-08-01T10:00:00Z", "2025-08-01T10:00:00Z"),
        ("noon", "noon"),
    ],
)
@pytest.mark.parametrize(
    "form", ['{{"message_id": "m", "timestamp": "{}"}}', '{{"timestamp" : "{}","message_id":"m"}}']
)
def test_a_naive_timestamp_gets_the_offset_of_the_zone(stamp: str, expected: str, form: str) -> None:
    assert migrated_line(form.format(stamp), BERLIN) == form.format(expected).replace("message_id", "id")


def test_a_timestamp_that_only_text_mentions_is_left_alone() -> None:
    line = r'{"message_id": "m", "content": "\"timestamp\": \"2025-08-01T10:00:00\""}'
    assert migrated_line(line, BERLIN) == line.replace('"message_id"', '"id"')


def test_a_salvaged_record_becomes_a_message_and_its_line_stays_in_quarantine() -> None:
    conversation, migrated = added(b"\xff. " + good(1) + b"\n", RULES)
    record = json.loads(migrated)
    assert (record["id"], record["metadata"]) == ("msg_1", {"legacy_salvaged": True})
    (row,) = map(json.loads, conversation.quarantine)
    assert decoded(row["raw"], row["raw_encoding"]) == b"\xff. " + good(1)
    assert (row["line"], row["offset"], row["raw_encoding"], row["salvaged_id"]) == (1, 0, "base64", "msg_1")
    assert row["reason"] == "not UTF-8 at byte 0"


def test_quarantine_names_line_and_offset_over_several_blocks() -> None:
    conversation = Conversation(RULES)
    conversation.add(good(1) + b"\n\n")
    conversation.add(b"[1]\n" + good(2) + b"\n")
    conversation.add(b"torn")
    rows = [json.loads(row) for row in conversation.quarantine]
    assert [(row["line"], row["offset"]) for row in rows] == [
        (3, len(good(1)) + 2),
        (5, len(good(1)) + 2 + 4 + len(good(2)) + 1),
    ]
    assert [row["reason"].split(":")[0] for row in rows] == ["not an object but a list", "not JSON"]


def test_ids_that_come_again_are_counted_within_and_across_blocks() -> None:
    conversation = Conversation(RULES)
    conversation.add(good(1) + b"\n" + good(2) + b"\n")
    conversation.add(good(3) + b"\n" + good(2) + b"\n")
    conversation.add(good(4) + b"\n" + good(4) + b"\n")
    assert (conversation.messages, conversation.duplicate_ids) == (6, 2)


def test_nothing_more_is_needed_for_the_way_back_of_a_plain_file() -> None:
    conversation, _ = added(good(1) + b"\n" + good(2) + b"\n", RULES)
    assert conversation.exact() is None


def test_ids_under_the_other_key_are_noted_as_all_or_by_number() -> None:
    own = b'{"id": "a"}\n'
    assert (added(own + own, RULES)[0].exact() or {})["own_id"] == "all"
    assert (added(own + b"\n" + good(1) + b"\n", RULES)[0].exact() or {})["own_id"] == [1]
    assert (added(b"{}\n{}\n", RULES)[0].exact() or {})["without_id"] == "all"


def test_an_empty_block_is_nothing() -> None:
    conversation, migrated = added(b"", RULES)
    assert (migrated, conversation.lines, conversation.exact()) == (b"", 0, None)


@given(st.binary(max_size=40))
def test_any_bytes_go_into_json_and_come_out_again(raw: bytes) -> None:
    text, encoding = json.loads(json.dumps(encoded(raw)))
    assert decoded(text, encoding) == raw


def test_the_first_and_last_timestamps_are_those_of_messages() -> None:
    conversation, _ = added(b"\n[]\n" + good(1) + b"\n" + good(2) + b"\ntorn\n", RULES)
    assert timestamp_of(conversation.first) == "2025-08-01T10:00:01.000001"
    assert timestamp_of(conversation.last) == "2025-08-01T10:00:02.000001"


@pytest.mark.parametrize(
    "line", [None, b"{}", b'{"timestamp": ""}', b'{"timestamp": 5}', b'{"timestamp": null}', b"no"]
)
def test_a_line_without_a_usable_timestamp_has_none(line: bytes | None) -> None:
    assert timestamp_of(line) is None


def test_numbers_keep_their_text() -> None:
    record = parse_object(b'{"a": 1.50, "b": ' + b"7" * 5000 + b"}")
    assert record == {"a": "1.50", "b": "7" * 5000}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[]", "not an object but a list"),
        (b'"x"', "not an object but a string"),
        (b"null", "not an object but null"),
        (b"true", "not an object but a truth value"),
        (b"1.5", "not an object but a number"),
        (b"NaN", "not an object but a number"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"{", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_why_there_is_no_object(raw: bytes, reason: str) -> None:
    found: dict[str, Any] | str = parse_object(raw)
    assert isinstance(found, str)
    assert found.startswith(reason)
