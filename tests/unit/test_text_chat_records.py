"""Any line is read as some message, nothing of it is lost, and what is read can be encoded."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.types import Attachment, Message
from modules.text_chat.json_values import Unreadable, read_value
from modules.text_chat.paging import window
from modules.text_chat.raw_object import RawObject
from modules.text_chat.records import Line, line_of, message_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "role", "content", "timestamp", "metadata", "attachments", "status", "tokens", "x"])


def read(data):
    return message_of(Line(7, data), "ann", "s")


@given(st.dictionaries(FIELDS, JSON))
def test_any_record_is_read_and_can_be_encoded(record):
    message = read(json.dumps(record).encode())

    assert json.loads(msgspec.json.encode(message.to_dict()))["session_id"] == "s"
    for name, value in record.items():
        if name not in message.to_dict():
            assert name in message.extra
        elif isinstance(value, str) and name == "content" and value.isascii():
            assert message.content == value


@given(st.binary())
def test_any_bytes_are_read(data):
    message = read(data)
    assert message.id
    msgspec.json.encode(message.to_dict())


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "m", "content": "x"}, {"id": "m", "role": "user", "timestamp": "", "extra": {}}),
        ({"id": "m", "role": "Assistant"}, {"role": "assistant", "extra": {"role": "Assistant"}}),
        ({"id": "m", "role": "human"}, {"role": "user", "extra": {"role": "human"}}),
        ({"id": "m", "role": "dr_who"}, {"role": "user", "extra": {"role": "dr_who"}}),
        ({"id": "m", "role": 3}, {"role": "user", "extra": {"role": 3}}),
        ({"id": "m", "content": [{"t": 1}]}, {"content": '[{"t": 1}]', "extra": {"content": [{"t": 1}]}}),
        ({"id": "m", "content": None}, {"content": "", "extra": {"content": None}}),
        ({"id": "m", "timestamp": 17}, {"timestamp": "17", "extra": {"timestamp": 17}}),
        ({"id": "m", "metadata": None}, {"metadata": {}, "extra": {"metadata": None}}),
        ({"id": "m", "attachments": ["a.png"]}, {"attachments": (Attachment("a.png", url="a.png"),), "extra": {}}),
        ({"id": "m", "attachments": [7]}, {"attachments": (), "extra": {"attachments": [7]}}),
        ({"id": "m", "attachments": None}, {"attachments": (), "extra": {"attachments": None}}),
        ({"id": "m", "persona_id": "p"}, {"extra": {"persona_id": "p"}}),
        ({"id": "m", "tokens": True}, {"tokens": None, "extra": {"tokens": True}}),
    ],
)
def test_what_does_not_fit_is_brought_near_and_kept(record, expected):
    message = read(json.dumps(record).encode())
    assert {name: getattr(message, name) for name in expected} == expected


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b"3", b"\xff\xfe", b"{" * 5000])
def test_a_line_that_is_no_object_is_shown_as_it_stands(line):
    message = read(line)
    assert message.status == "unreadable"
    assert message.content == line.decode("utf-8", "replace")


def test_a_message_without_id_has_the_same_one_at_every_reading():
    first, again = read(b'{"content": "x"}'), read(b'{"content": "x"}')
    elsewhere = message_of(Line(8, b'{"content": "x"}'), "ann", "s")
    assert first.id == again.id != elsewhere.id


def test_numbers_and_characters_that_no_encoder_takes_are_made_plain_and_kept_raw():
    line = b'{"id": "m", "content": "a\\ud800", "score": NaN, "big": -Infinity}'
    message = read(line)
    assert message.content == "a\ufffd"
    assert message.extra == {"score": "nan", "big": "-inf", "raw": line.decode()}


def test_a_written_message_is_read_back_as_it_was():
    message = Message(
        "m", "s", "assistant", "é\n\u2028", "2024-01-15T12:00:00+00:00", {"a": {"b": [1, 2.5, None]}},
        (Attachment("a", "audio", "u", 3, {"x": 1}),), "partial", 7, "parent",
    )  # fmt: skip
    line = line_of(message)
    assert line.count(b"\n") == 1
    assert read(line[:-1]) == message


# -- raw objects ---------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.sampled_from([None, 2]))
def test_a_raw_object_gives_its_members_back_byte_for_byte(record, indent):
    data = json.dumps(record, indent=indent).encode()
    raw = RawObject.parse(data)

    again = RawObject.parse(raw.replaced(title="new").to_bytes())

    for name in record:
        if name != "title":
            assert again._members[name] == raw._members[name]
            assert json.dumps(json.loads(raw._members[name])) == json.dumps(record[name])
    assert again.get("title") == "new"
    assert list(again._members)[: len(record)] == list(record)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"a"}',
        b'{"a": }',
        b'{"a": 1,}',
        b'{"a": 1} x',
        b'{"a": NaN',
        b'{"a": [NaN}',
        b"{1: NaN}",
        b"{NaN",
    ],
)
def test_what_is_no_object_is_unreadable(data):
    with pytest.raises(Unreadable):
        RawObject.parse(data)


def test_a_value_that_only_python_reads_is_read():
    assert read_value(b"[NaN, 1]") == (["nan", 1], True)
    assert read_value(b"9" * 5000)[0]
    with pytest.raises(Unreadable):
        read_value(b"\xff")


# -- pages ---------------------------------------------------------------------------------------------------

PLACE = st.none() | st.integers(0, 12)


@given(st.integers(0, 12), st.integers(1, 5), PLACE, PLACE)
def test_a_page_lies_between_its_cursors_and_is_no_longer_than_asked(total, limit, after, before):
    after = after if after is None or after < total else None
    before = before if before is None or before < total else None
    start, stop = window(total, limit, after=after, before=before)

    assert 0 <= start <= stop <= total or start >= stop
    page = range(start, stop)
    assert len(page) <= limit
    assert all((after is None or place > after) and (before is None or place < before) for place in page)
    between = range(0 if after is None else after + 1, total if before is None else before)
    assert len(page) == min(limit, len(between))
