"""The validator's own readers: names, JSON texts, times, message rules, and the proof for plain sessions."""

import json
import sys
import uuid
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.verify.jsontext import NotAnObject, list_items, members, object_file
from migration.verify.messages import MessageRules, found_lines, transcript
from migration.verify.names import Name, component, derived_message_id, document_id, is_usual
from migration.verify.plain import PlainProver
from migration.verify.timestamps import carries_offset, is_moment
from tests.examples import examples
from tests.unit.test_validate_pair import FIRST, line, lines, metadata, new_profile, profile, record

NEW_YORK = ZoneInfo("America/New_York")
RULES = MessageRules(Name.of_text("u"), Name.of_text("s"), None)

# -- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat_session_20240115_100000_123456", "chat_session_20240115_100000_123456"),
        ("user@example.com", "user@example.com"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("my custom/ session", "my%20custom%2F%20session"),
        ("zoë", "zo%C3%AB"),
        ("a~b%", "a%7Eb%25"),
    ],
)
def test_a_component_is_the_percent_encoding_of_the_page(name: str, expected: str) -> None:
    assert component(name.encode()) == expected


@given(st.text(alphabet="aZ9_.@-~%/ ü\n\0", max_size=3) | st.integers(198, 203).map(lambda n: "x" * n))
def test_a_usual_name_is_one_that_is_its_own_component(name: str) -> None:
    assert is_usual(name) == (component(name.encode()) == name and name != "%")


def test_a_long_component_is_cut_and_carries_its_digest() -> None:
    assert component(b"x" * 200) == "x" * 200
    cut = component(b"x" * 201)
    assert cut[:161] == "x" * 160 + "~"
    assert len(cut) == 193
    assert cut != component(b"x" * 202)


def test_a_name_that_is_not_utf8_keeps_its_bytes_in_the_path_and_shows_them_in_text() -> None:
    name = Name.of_path(b"a\xffb".decode("utf-8", "surrogateescape"))
    assert (name.text, name.component) == ("a%FFb", "a%FFb")


def test_derived_ids_are_those_of_the_page() -> None:
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, "modchat:message")
    user, session = Name.of_text("ü"), Name.of_text("s")
    assert derived_message_id(user, session, 7) == "msg_" + uuid.uuid5(namespace, "ü\0s\x007").hex
    assert document_id(user, session, Name.of_text("d")).startswith("doc_")
    assert document_id(user, session, Name.of_text("d")) != document_id(user, Name.of_text("sd"), Name.of_text(""))


# -- JSON texts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 1, "\t"]), st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_members_are_those_of_a_decoder_and_their_spans_those_of_the_text(
    value: dict[str, object], indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = members(text)

    assert [member.key for member in found] == list(value)
    for member, expected in zip(found, value.values(), strict=True):
        assert repr(json.loads(member.value)) == repr(expected)
        assert json.loads(text[member.key_start : member.key_end]) == member.key


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.data())
@settings(max_examples=examples(150), deadline=None)
def test_a_text_with_a_byte_changed_is_an_object_exactly_when_a_decoder_says_so(
    value: dict[str, object], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(value).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.sampled_from(b'{}[]",:\\0eE+-. \n\x01u'))
    try:
        members(bytes(text))
        ours = True
    except NotAnObject:
        ours = False
    try:
        theirs = isinstance(json.loads(bytes(text), parse_int=str), dict)
    except ValueError:
        theirs = False

    assert ours == theirs


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"x"',
        b"1",
        b'{"a": 1} x',
        b'{"a": 1}{}',
        b'{"a": "\xff"}',
        b'{"a": 1,}',
        b'{"a": "\n"}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_not_one_object_is_none(text: bytes) -> None:
    with pytest.raises(NotAnObject):
        members(text)


def test_depth_is_limited_by_the_page_and_not_by_the_stack() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    assert len(members(nested(1000))) == 1
    for depth in (1001, 200_000):
        with pytest.raises(NotAnObject, match="deep"):
            members(nested(depth))


def test_numbers_keep_their_spelling_however_long() -> None:
    number = b"1" + b"0" * 6000
    assert members(b'{"a": %b, "b": 1.50, "c": NaN}' % number)[0].value == number


def test_items_of_a_list_are_as_they_were_written() -> None:
    assert list_items(b'[ 1.0 , {"a": [1, 2]}, "x,y" ]') == [b"1.0", b'{"a": [1, 2]}', b'"x,y"']
    assert list_items(b"[]") == []
    assert list_items(b"{}") is None


def test_a_file_in_cp1252_is_read_and_one_of_other_bytes_is_not() -> None:
    file = object_file('{"title": "Café"}'.encode("cp1252"))
    assert file is not None
    assert (file.encoding, file.record) == ("cp1252", '{"title": "Café"}'.encode())
    assert object_file(b'{"a": "\x81\xff"}') is None


def test_text_around_the_object_is_told_apart() -> None:
    file = object_file(b'\xef\xbb\xbf {"a": 1}\r\n')
    assert file is not None
    assert (file.prefix, file.record, file.suffix) == (b"\xef\xbb\xbf ", b'{"a": 1}', b"\r\n")


# -- times


@pytest.mark.parametrize(
    ("found", "stamp", "expected"),
    [
        ("2025-01-01T10:00:00-05:00", "2025-01-01T10:00:00", True),
        ("2025-07-01T10:00:00.123456-04:00", "2025-07-01T10:00:00.123456", True),
        ("2025-07-01T10:00:00-05:00", "2025-07-01T10:00:00", False),
        ("2025-07-01T10:00:00", "2025-07-01T10:00:00", False),
        ("2024-01-01T12:00:00Z-05:00", "2024-01-01T12:00:00Z", False),
        ("yesterday-05:00", "yesterday", False),
    ],
)
def test_only_a_naive_time_with_the_offset_of_its_day_counts(found: str, stamp: str, expected: bool) -> None:
    assert carries_offset(found, stamp, NEW_YORK) is expected


def test_a_moment_is_within_a_second_and_has_an_offset() -> None:
    assert is_moment("1970-01-01T01:00:10+01:00", [10_500_000_000])
    assert not is_moment("1970-01-01T00:00:10", [10_000_000_000])
    assert not is_moment("1970-01-01T00:00:20+00:00", [10_000_000_000])


# -- lines


def test_every_line_ends_in_exactly_one_way() -> None:
    text = lines(line("a", id_="m"), " ", "{}", "[1]", '..{"message_id": "x"}', '{"a": {"b": 1}') + '{"torn": '
    read = transcript([text.encode()])

    assert dict(read.count()) == {"message": 2, "blank": 1, "quarantined": 3, "salvaged": 1}
    assert sum(read.count().values()) == read.physical == 7


def test_only_line_feeds_end_lines() -> None:
    text = lines(line("a\u2028b\u0085c", id_="m") + "\r")
    assert dict(transcript([text.encode()]).count()) == {"message": 1}


def differences(old: str, new: str) -> list[str]:
    source = transcript([old.encode()]).messages[0]
    return [what for what, _, _ in RULES.differences(source, found_lines(new.encode())[0])]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{"message_id": "m", "a": 1.0}', '{"id": "m", "a": 1.0}'),
        ('{"id": "m", "metadata": {"x": 1}}', '{"id": "m", "metadata": {"x": 1, "legacy_id": "m"}}'),
        ('{"id": "m"}', '{"id": "m", "metadata": {"legacy_id": "m"}}'),
        ('{"id": "m", "metadata": null}', '{"id": "m", "metadata": {"legacy_id": "m"}}'),
        ('{"id": "m", "metadata": [1]}', '{"id": "m", "metadata": {"legacy_metadata": [1], "legacy_id": "m"}}'),
        ('{"id": "o", "message_id": "m"}', '{"id": "m", "metadata": {"legacy_id": "o"}}'),
        ('{"message\\u005fid": "m", "a": 1}', '{"id": "m", "a": 1}'),
        ('x{"message_id": "m"}', '{"id": "m", "metadata": {"legacy_salvaged": true}}'),
        ('{"metadata": {"message_id": "n"}, "message_id": "m"}', '{"metadata": {"message_id": "n"}, "id": "m"}'),
    ],
)
def test_the_documented_changes_of_a_line_are_no_differences(old: str, new: str) -> None:
    assert differences(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('{"message_id": "m", "a": 1.0}', '{"id": "m", "a": 1.00}', "a"),
        ('{"message_id": "m", "a": 1}', '{"id": "m",  "a": 1}', "bytes"),
        ('{"message_id": "m", "a": 1}', '{"a": 1, "id": "m"}', "keys"),
        ('{"message_id": "m"}', '{"id": "m", "b": 2}', "keys"),
        ('{"message_id": "m", "a": 1}', '{"message_id": "m", "id": "m", "a": 1}', "bytes"),
        ('{"id": "m", "metadata": {"x": 1}}', '{"id": "m", "metadata": {"legacy_id": "m"}}', "metadata.x"),
        ('{"id": "m"}', '{"id": "m"}', "metadata"),
        ('{"id": "m", "metadata": {}}', '{"id": "m", "metadata": {"legacy_id": "n"}}', "metadata.legacy_id"),
        ('x{"message_id": "m"}', '{"id": "m"}', "metadata"),
        ('{"a": 1}', '{"a": 1, "id": "msg_invented"}', "id"),
    ],
)
def test_any_other_change_of_a_line_is_named(old: str, new: str, what: str) -> None:
    assert what in differences(old, new)


# -- the proof for plain sessions


def proved(old: str, new: str | None = None) -> int | None:
    source = old.encode("utf-8", "surrogateescape")
    target = source.replace(b'"message_id":', b'"id":') if new is None else new.encode()
    return PlainProver().messages(source, target)


def test_plain_messages_are_proved_equal() -> None:
    assert proved(lines(*(line(f"ü {n}", id_=f"m{n}") for n in range(5)))) == 5


@pytest.mark.parametrize(
    "old",
    [
        '{"id": "x", "metadata": {"message_id": "m"}}\n',  # the wrong one of two ids would be renamed
        '{"metadata": {"message_id": "m"}}\n',
        '{"message_id": ""}\n',
        '{"message_id": null}\n',
        '{"message_id": 7}\n',
        '{"message_id": "m", "a": "\udcff"}\n',
        '{"message_id": "m", "a": NaN}\n',
        '{"message_id": "m", "a": "\x01"}\n',
        '{"message_id": "m"}',
        '{"message_id": "m"}\n\n',
        '{"message_id": "m"}{"message_id": "n"}\n{}\n',
        '{"message_id": "m", "message_id": "n"}\n{"a": 1}\n',
        '{"message\\u005fid": "m", "a": {"message_id": "n"}}\n',
        '{"a\\"message_id": "m"}\n',
        '{"message_id": "m", "a": "x}\n{y"}\n',
        '[{"message_id": "m"}]\n',
        "",
    ],
)
def test_what_is_not_plain_is_not_proved(old: str) -> None:
    assert proved(old) is None


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_messages_nested_too_deep_are_not_proved_whatever_the_decoder_takes(limit: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        deep = [
            proved('{"message_id": "m", "deep": ' + "[" * depth + "]" * depth + "}\n") for depth in (100, 1000, 5000)
        ]
    finally:
        sys.setrecursionlimit(before)
    assert deep == [1, None, None]


def test_many_brackets_in_short_lines_are_not_deep() -> None:
    assert proved(lines(*(line("[{" * 20, id_=f"m{n}") for n in range(100)))) == 100


def test_nested_ids_and_escapes_do_not_hinder_the_proof() -> None:
    assert proved('{"message_id": "m", "metadata": {"id": 1}, "content": "say \\"message_id\\""}\n') == 1


def test_plain_messages_that_differ_in_a_byte_are_not_proved() -> None:
    old = lines(line("a", id_="m"))
    assert proved(old, old.replace('"message_id"', '"id"').replace('"a"', '"b"')) is None


PATH = f"users/alice/{FIRST}"


def session_proved(old: str, new: str, messages: int = 3) -> bool:
    return PlainProver().session("alice", FIRST, PATH, old.encode(), new.encode(), messages)


def test_a_plain_record_is_proved_equal() -> None:
    old = record("alice", FIRST, title="Café")
    assert session_proved(old, metadata("alice", FIRST, PATH, old, 3, title="Café"))
    typed = record("alice", FIRST, session_type="panel")
    assert session_proved(typed, metadata("alice", FIRST, PATH, typed, 3, {"generation": "G6"}, session_type="panel"))


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({}, {"title": "Another"}),
        ({}, {"title": ""}),
        ({}, {"created_at": "2025-01-01T10:00:00.000002"}),
        ({}, {"updated_at": None}),
        ({}, {"metadata": {"x": 1}}),
        ({}, {"session_type": "panel"}),
        ({}, {"message_count": 2}),
        ({}, {"message_count": 3.0}),
        ({}, {"active": False}),
        ({}, {"id": FIRST + "x"}),
        ({}, {"user_id": "bob"}),
        ({}, {"more": 1}),
        ({}, {"legacy": {"generation": "G1"}}),
        ({}, {"legacy": {"generation": "G6"}}),
        ({}, {"legacy": {"path": "users/bob/x"}}),
        ({}, {"legacy": {"messages": 4}}),
        ({}, {"legacy": {"record": {}}}),
        ({}, {"legacy": {"inferred": ["updated_at"]}}),
        ({"session_type": None}, {}),  # a key that generation 6 alone has, whatever its value
        ({"id": FIRST}, {}),
        ({"user_id": "bob"}, {}),
        ({"title": ""}, {"title": ""}),
        ({"metadata": []}, {"metadata": []}),
    ],
)
def test_a_record_whose_metadata_is_not_what_it_demands_is_not_proved(
    more: dict[str, object], changes: dict[str, object]
) -> None:
    old = record("alice", FIRST, **more)
    changes = dict(changes)
    legacy = changes.pop("legacy", None)
    assert not session_proved(old, metadata("alice", FIRST, PATH, old, 3, legacy, **changes))


def profile_proved(old: str, new: str) -> bool:
    return PlainProver().profile("alice", "users/alice/profile.json", old.encode(), new.encode())


def test_a_plain_profile_is_proved_equal() -> None:
    assert profile_proved(profile("alice"), new_profile("alice", "users/alice/profile.json", profile("alice")))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('"username": "Alice"', '"username": "alice"'),
        ('"user_id": "alice"', '"user_id": "bob"'),
        ('"preferences": {}', '"preferences": {"x": 1}'),
        ('"metadata": {}', '"metadata": {"x": 1}'),
        ('"created_at": "2025-01-01', '"created_at": "2026-01-01'),
        ('"generation": "G3"', '"generation": "G1"'),
        ('"path": "users/alice', '"path": "users/bob'),
        ('"legacy": {', '"legacy": {"others": [], '),
        ('"record": {', '"record": { '),
        ('"user_id": "alice", ', ""),
    ],
)
def test_a_profile_that_differs_is_not_proved(text: str, other: str) -> None:
    new = new_profile("alice", "users/alice/profile.json", profile("alice"))
    assert text in new
    assert not profile_proved(profile("alice"), new.replace(text, other, 1))


@given(
    st.lists(st.dictionaries(st.sampled_from(["message_id", "id", "metadata", "role"]), JSON, min_size=1), min_size=1)
)
@settings(max_examples=examples(150), deadline=None)
def test_whatever_is_proved_is_also_equal_by_the_close_look(records: list[dict[str, object]]) -> None:
    old = lines(*(json.dumps(record, ensure_ascii=False) for record in records)).encode("utf-8", "surrogatepass")
    target = old.replace(b'"message_id":', b'"id":')
    count = PlainProver().messages(old, target)
    if count is None:
        return
    read = transcript([old]).messages

    assert count == len(records) == len(read)
    for source, found in zip(read, found_lines(target), strict=True):
        assert found.id in RULES.ids(source)
        assert not RULES.differences(source, found)
