"""Message lines back to v2: what the migration did to any line is undone."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.lines import Conversation, LineRules
from migration.reverse_messages import kept_metadata, line_notes, new_line, old_lines, split_at
from migration.reverse_raw import NotJson
from tests.hostile_lines import LINES

RULES = LineRules("ada", "s")
POOL = [line.data for lines in LINES.values() for line in lines if len(line.data) < 100_000]


def back(text: bytes, conversation: Conversation) -> bytes:
    migrated = conversation.add(text)
    kept = conversation.exact()
    notes = None
    if kept is not None:
        exact = {key: json.dumps(value).encode() for key, value in kept.items()}
        notes = line_notes(exact, b"".join(conversation.quarantine))
    old = old_lines(migrated, conversation.written, conversation.rules, notes)
    assert (old.missing, old.changed) == (0, 0)
    return old.text[:-1] if old.open_ends else old.text


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(POOL) | st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" ")), max_size=6
    ),
    newline=st.booleans(),
    zone=st.sampled_from([None, "America/New_York"]),
)
def test_any_file_comes_back_to_its_bytes(lines: list[bytes], newline: bool, zone: str | None) -> None:
    text = b"\n".join(lines) + b"\n" * (newline and bool(lines))
    assert back(text, Conversation(LineRules("ada", "s", zone))) == text


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "m", "attachments": [{"id": "a"}]}',
        b'{"id": "m", "role": "id"}',
        rb'{"\u0069d": "m"}',
        b'{"id": "m", "n": NaN}',
        b'{"id": "m", "id": "m"}',
    ],
)
def test_only_the_key_of_the_message_is_renamed(line: bytes) -> None:
    other = b'{"id": "x"}'
    (first, second) = old_lines(line + b"\n" + other + b"\n", 2, RULES, None).text.splitlines()
    assert second == b'{"message_id": "x"}'
    assert b"message_id" in first
    record, was = (dict(json.loads(text)) for text in (first, line))
    assert record == {"message_id": was.pop("id"), **was} or "n" in was


def test_a_line_that_was_changed_since_becomes_a_new_message_in_its_place() -> None:
    notes = line_notes({"lines": b"2", "own_id": b'"all"'}, b"")
    text = b'{"id": "a", "metadata": {"legacy_id": "a"}}\n{"id": "b", "content": "x"}\n'
    old = old_lines(text, 2, RULES, notes)
    first, second = old.text.splitlines()
    assert first == b'{"id": "a", "metadata": {}}'
    assert json.loads(second)["message_id"] == "b"
    assert old.changed == 1


@pytest.mark.parametrize(
    "exact",
    [
        {"lines": b'"x"'},
        {"blank": b"[]"},
        {"verbatim": b'{"1": ["x", "rot13"]}'},
        {"own_id": b'"some"'},
        {"lines": b"{"},
    ],
)
def test_damaged_notes_are_no_notes(exact: dict[str, bytes]) -> None:
    with pytest.raises(NotJson):
        line_notes(exact, b"")


def test_damaged_quarantine_rows_are_said_to_be_damaged() -> None:
    with pytest.raises(NotJson):
        line_notes({"lines": b"1"}, b'{"line": 1}\n')


def test_a_text_is_split_after_as_many_lines_as_were_migrated() -> None:
    assert split_at(b"a\nb\nc\n", 2) == (b"a\nb\n", b"c\n")
    assert split_at(b"a\nb\n", 2) == (b"a\nb\n", b"")
    assert split_at(b"a\n", 2) == (b"a\n", b"")
    assert split_at(b"a\nb", 1) == (b"a\n", b"b")
    assert split_at(b"", 0) == (b"", b"")


def test_a_new_line_has_the_keys_of_v2_in_its_order_and_keeps_everything_else() -> None:
    line = b'{"tokens": 3, "metadata": {"modchat_tokens": 1}, "content": {"a": 1}, "id": "", "attachments": "x"}'
    record = json.loads(new_line(line, RULES, 7, timestamp="now").text)
    assert [*record] == ["role", "content", "message_id", "timestamp", "attachments", "metadata"]
    assert (record["role"], record["timestamp"], record["attachments"]) == ("user", "now", [])
    assert json.loads(record["content"]) == {"a": 1}
    assert record["message_id"].startswith("msg_")
    assert record["metadata"] == {"modchat_tokens": 1, "modchat_attachments": "x", "modchat_tokens_": 3}


def test_metadata_that_is_no_object_is_kept_inside_one() -> None:
    assert kept_metadata({"metadata": [1]}, ()) == {"modchat_metadata": [1]}
    assert kept_metadata({"metadata": None, "known": 1}, {"known"}) == {}
