"""Lines of messages.jsonl that are not what v2 meant to write."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tests.hostile_case import HOME, ONE, SESSION, Case, Expectation, Notice, Tree, derived_id, good, session_record

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line, what becomes of it, and the id it ends with when it becomes a message (None: the derived one)."""

    data: bytes
    becomes: Literal["message", "salvaged", "quarantined", "blank"]
    id: str | None = None


def kept(data: bytes | str, id_: str | None) -> Line:
    return Line(data if isinstance(data, bytes) else data.encode(), "message", id_)


def bad(data: bytes | str) -> Line:
    return Line(data if isinstance(data, bytes) else data.encode(), "quarantined")


def saved(data: bytes, id_: str) -> Line:
    return Line(data, "salvaged", id_)


def blank(data: bytes = b"") -> Line:
    return Line(data, "blank")


def nested(depth: int) -> str:
    return f'{{"role": "user", "message_id": "msg_1", "metadata": {{"a": {"[" * depth}{"]" * depth}}}}}'


G1_RECORD = '"role": "user", "content": "hi", "timestamp": "2025-07-22T10:00:00", "attachments": []'
METADATA_WITHOUT_ROOM = (
    "",
    ', "metadata": null',
    ', "metadata": [1]',
    ', "metadata": "x"',
    ', "metadata": {"legacy_id": "mine"}',
)

LINES: dict[str, tuple[Line, ...]] = {
    # cut, glued, damaged
    "two_records_on_one_line": (bad(good(1) + good(2)), kept(good(3), "msg_3")),
    "record_glued_to_a_torn_one": (bad(good(1)[:30] + good(2)), kept(good(3), "msg_3")),
    "record_after_the_end_of_a_torn_one": (saved(b'ow are you?", "attachments": [' + good(1), "msg_1"),),
    "stray_characters_before_a_record": (blank(), saved(b".  " + good(1), "msg_1"), kept(good(2), "msg_2")),
    "stray_characters_after_a_record": (bad(good(1) + b" ;"), bad(good(2) + b",")),
    "record_over_several_lines": (bad("{"), bad('  "role": "user"'), bad("}")),
    "blank_lines": (blank(), blank(b"  "), blank(b"\t"), kept(good(1), "msg_1"), blank()),
    "nothing_but_a_blank_line": (blank(),),
    "crlf_lines": (kept(good(1) + b"\r", "msg_1"), kept(good(2) + b"\r", "msg_2"), blank(b"\r")),
    "carriage_return_between_records": (bad(good(1) + b"\r" + good(2)),),
    "white_space_around_a_record": (kept(b" \t" + good(1) + b"  ", "msg_1"),),
    "white_space_inside_a_record": (kept('{ "role" :"user","message_id":\t"msg_1" }', "msg_1"),),
    # bytes that are no text
    "invalid_utf8_in_a_string": (bad(good(1).replace(b"Nile", b"N\xffle")), kept(good(2), "msg_2")),
    "invalid_utf8_before_a_record": (saved(b"\xff\xfe" + good(1), "msg_1"),),
    "cp1252_in_a_string": (bad(good(1, content="café").decode().encode("cp1252")),),
    "surrogate_as_utf8_bytes": (bad(good(1).replace(b"Nile", b"\xed\xa0\x80")),),
    "utf16_line": (bad(good(1).decode().encode("utf-16-le")),),
    "byte_order_mark": (saved(b"\xef\xbb\xbf" + good(1), "msg_1"), kept(good(2), "msg_2")),
    "control_characters_raw_in_a_string": tuple(bad(good(1).replace(b" the ", raw)) for raw in (b"\t", b"\0", b"\x1f")),
    "separators_raw_in_a_string": (kept(good(1, content="a\u2028b\u2029c\u0085d\x7fe\ufefff"), "msg_1"),),
    # JSON at its edges
    "numbers_that_are_none": (kept('{"message_id": "msg_1", "a": NaN, "b": [Infinity, -Infinity]}', "msg_1"),),
    "numbers_in_odd_spellings": (kept('{"message_id": "msg_1", "a": [1e999, -0, 1E+2, 0.10, 5.0e-06]}', "msg_1"),),
    "integer_of_6000_digits": (kept(f'{{"message_id": "msg_1", "a": {"7" * 6000}}}', "msg_1"),),
    "almost_json": (bad("{'role': 'user'}"), bad('{"a": nan}'), bad('{"a": True}'), bad('{"a": 01}'), bad('{"a": 1,}')),
    "lone_surrogates_escaped": (
        kept(r'{"message_id": "msg_1", "content": "\ud800 \udfff \ud83d"}', "msg_1"),
        kept(r'{"message_id": "msg_\udc80", "\ud800": 1}', "msg_\udc80"),
    ),
    "nested_400_deep": (kept(nested(400), "msg_1"),),
    "nested_200000_deep": (bad(nested(200_000)), bad('{"a": ' + "[" * 200_000), kept(good(2), "msg_2")),
    "line_of_6_megabytes": (kept(good(1, content="Nile " * (6 * MEGABYTE // 5)), "msg_1"), kept(good(2), "msg_2")),
    "records_that_are_no_objects": (
        *(bad(text) for text in ("[1, 2]", '"text"', "42", "null", "true", "[]")),
        bad(b"[" + good(1) + b"]"),
        bad(json.dumps(good(2).decode())),
        saved(b"[] " + good(3), "msg_3"),
    ),
    # ids
    "no_ids": (kept("{}", None), kept('{"role": "user", "content": "hi"}', None), kept(good(3), "msg_3")),
    "ids_that_do_not_count": (
        *(kept(f'{{"role": "user", "message_id": {value}}}', None) for value in ('""', "null", "7", '["x"]', "{}")),
        kept('{"message_id": "", "id": "msg_a"}', "msg_a"),
        kept('{"id": "msg_b", "message_id": null}', "msg_b"),
        kept('{"message_id": 7, "id": ""}', None),
    ),
    "ids_that_look_like_paths": (kept('{"message_id": "../../etc"}', "../../etc"), kept(r'{"id": "a\u0000b"}', "a\0b")),
    "duplicate_ids": (kept(good(1), "msg_1"), kept(good(1, content="again"), "msg_1"), kept(good(1), "msg_1")),
    "both_ids": (
        kept('{"role": "user", "message_id": "msg_a", "id": "msg_b"}', "msg_a"),
        kept('{"id": "msg_c", "message_id": "msg_d", "metadata": {"k": 1}}', "msg_d"),
        kept('{"id": "msg_e", "message_id": "msg_e"}', "msg_e"),
    ),
    "duplicate_keys": (
        kept('{"message_id": "msg_a", "role": "user", "message_id": "msg_b"}', "msg_b"),
        kept('{"id": "msg_c", "role": "user", "id": "msg_d", "metadata": {"a": 1}, "metadata": {"b": 2}}', "msg_d"),
        kept('{"message_id": "msg_e", "content": "x", "content": "y"}', "msg_e"),
    ),
    "keys_in_escaped_spelling": (
        kept(r'{"message\u005fid": "msg_a"}', "msg_a"),
        kept(r'{"\u0069d": "msg_b", "m\u0065tadata": {}}', "msg_b"),
        kept(r'{"message_id": "msg\u005fc"}', "msg_c"),
    ),
    "id_keys_below_the_top": (
        kept('{"metadata": {"message_id": "inner", "id": "inner"}, "message_id": "msg_a"}', "msg_a"),
        kept('{"role": "user", "metadata": {"message_id": "inner", "id": "inner"}}', None),
        kept(r'{"content": "\"message_id\": \"quoted\", {", "id": "msg_b"}', "msg_b"),
    ),
    "metadata_with_no_room_for_the_old_id": tuple(
        kept(f'{{{G1_RECORD}, "id": "msg_{number}"{metadata}}}', f"msg_{number}")
        for number, metadata in enumerate(METADATA_WITHOUT_ROOM, 1)
    ),
    "keys_of_other_writers": (kept(good(1, persona_id="x", extra={"a": [None]}, legacy={"b": 1}), "msg_1"),),
}  # fmt: skip

WITHOUT_FINAL_NEWLINE: dict[str, tuple[Line, ...]] = {
    "torn_last_line": (kept(good(1), "msg_1"), bad(good(2)[:40])),
    "whole_last_line_without_newline": (kept(good(1), "msg_1"), kept(good(2), "msg_2")),
    "last_line_torn_inside_a_character": (kept(good(1), "msg_1"), bad(good(2, content="né").partition(b"\xa9")[0])),
    "empty_file": (),
}


def build_lines(to: Path, *, lines: tuple[Line, ...], final_newline: bool) -> Expectation:
    tree = Tree(to)
    tree.put(f"{HOME}/session.json", session_record())
    tree.put(f"{HOME}/messages.jsonl", b"\n".join(line.data for line in lines) + b"\n" * final_newline)
    outcomes = Counter(line.becomes for line in lines)
    ids = tuple(
        line.id if line.id is not None else derived_id("ada", SESSION, number)
        for number, line in enumerate(lines, 1)
        if line.becomes in {"message", "salvaged"}
    )
    repeated = len(set(ids)) < len(ids)
    return Expectation(
        sessions=ONE,
        messages=outcomes["message"] + outcomes["salvaged"],
        salvaged=outcomes["salvaged"],
        quarantined=outcomes["quarantined"],
        blank=outcomes["blank"],
        ids={("ada", SESSION): ids},
        notices=frozenset({Notice(f"{HOME}/messages.jsonl", "duplicate_ids")} if repeated else ()),
    )


CASES: dict[str, Case] = {
    **{name: partial(build_lines, lines=lines, final_newline=True) for name, lines in LINES.items()},
    **{name: partial(build_lines, lines=lines, final_newline=False) for name, lines in WITHOUT_FINAL_NEWLINE.items()},
}
