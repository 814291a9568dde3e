"""JSON files of a user or session that are cut off, in another encoding, or of another shape."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.hostile_case import (
    HOME,
    ONE,
    SESSION,
    Case,
    Expectation,
    Notice,
    Tree,
    document_entry,
    good,
    profile_record,
    session_record,
    v2_json,
)

SOUND = v2_json(session_record())
FRENCH = v2_json(session_record(title="Où est le Nil – déjà ?"))
TITLED = SOUND.replace('"user_id"', '"title": "Rivers again",\n  "user_id"')

READABLE_SESSION_FILES: dict[str, bytes] = {
    "session_json_with_duplicate_keys": TITLED.encode(),
    "session_json_by_hand_with_tabs": json.dumps(session_record(), indent="\t").encode(),
    "session_json_on_one_line": json.dumps(session_record()).encode(),
    "session_json_with_final_newline": SOUND.encode() + b"\n",
    "session_json_with_white_space_around": b"\r\n  " + SOUND.encode() + b"\n\n\t",
    "session_json_with_byte_order_mark": b"\xef\xbb\xbf" + SOUND.encode(),
    "session_json_with_crlf": SOUND.replace("\n", "\r\n").encode(),
    "session_json_with_nan": SOUND.replace('"metadata": {}', '"metadata": {"a": NaN, "b": -Infinity}').encode(),
    "session_json_with_6000_digits": SOUND.replace('"metadata": {}', f'"metadata": {{"a": {"7" * 6000}}}').encode(),
    "session_json_with_lone_surrogate": SOUND.replace("Rivers", r"\ud800").encode(),
    "session_json_with_wrong_types": v2_json(
        session_record(title=7, created_at=None, updated_at=[], message_count="many", metadata=[1], session_type={})
    ).encode(),
    "session_json_empty_object": b"{}",
    "session_json_of_another_session": v2_json(session_record(session="chat_session_20240101_000000")).encode(),
    "session_json_with_both_id_keys": v2_json(session_record(id="other")).encode(),
}

CP1252_SESSION_FILES: dict[str, bytes] = {
    "session_json_in_cp1252": FRENCH.encode("cp1252"),
    "session_json_from_windows": FRENCH.replace("\n", "\r\n").encode("cp1252"),
}

UNREADABLE_SESSION_FILES: dict[str, bytes] = {
    "session_json_cut_off": SOUND[:80].encode(),
    "session_json_a_list": f"[{SOUND}]".encode(),
    "session_json_a_string": json.dumps(SOUND).encode(),
    "session_json_null": b"null",
    "session_json_empty": b"",
    "session_json_two_objects": (SOUND + SOUND).encode(),
    "session_json_in_no_encoding": FRENCH.encode("cp1252").replace(b"Nil", b"\x81\x8d"),
    "session_json_in_utf16": SOUND.encode("utf-16"),
    "session_json_nested_200000_deep": SOUND.replace("{}", f"{'[' * 200_000}{']' * 200_000}").encode(),
}


def build_session_file(to: Path, *, content: bytes, readable: bool, utf8: bool = True) -> Expectation:
    tree = Tree(to)
    name = f"{HOME}/session.json"
    tree.put(name, content)
    tree.put(f"{HOME}/messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=ONE,
        messages=1,
        ids={("ada", SESSION): ("msg_1",)},
        attic=frozenset(() if readable else {name}),
        notices=frozenset(() if utf8 else {Notice(name, "cp1252")}),
    )


def session_json_missing(to: Path) -> Expectation:
    tree = Tree(to)
    for name in (SESSION, "test_session_auto_001"):
        tree.put(f"users/ada/{name}/messages.jsonl", good(1) + b"\n")
    return Expectation(sessions=ONE | {("ada", "test_session_auto_001")}, messages=2)


def session_json_damaged_and_alone(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(f"{HOME}/session.json", b'{\n  "created_at"')
    return Expectation(sessions=ONE, attic=frozenset({f"{HOME}/session.json"}))


def session_of_a_context_only(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("users/ada/one/situational_context.json", {"summary": "s", "key_points": []})
    tree.put("users/ada/two/context_history/context_20250801_100000_000001.json", {"summary": "s"})
    tree.put("users/ada/three/documents/1a2b3c4d_a.txt", b"text")
    tree.put("users/ada/four/x_messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=frozenset(("ada", name) for name in ("one", "two", "three", "four")),
        contexts=1,
        snapshots=1,
        documents=1,
        shards=1,
        notices=frozenset(
            {
                Notice("users/ada/three/documents/1a2b3c4d_a.txt", "document_without_entry"),
                Notice("users/ada/four/x_messages.jsonl", "shard_differs"),
            }
        ),
    )


def contexts_not_utf8_and_not_objects(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    history = f"{HOME}/context_history"
    tree.put(f"{HOME}/situational_context.json", v2_json({"summary": "Le Nil, déjà"}).encode("cp1252"))
    tree.put(f"{history}/context_20250801_100100_000001.json", v2_json({"summary": "été"}).encode("cp1252"))
    tree.put(f"{history}/context_20250801_100200_000001.json", b'["no", "object"]')
    tree.put(f"{history}/context_20250801_100300_000001.json", b'{"summary": "cut')
    tree.put("users/ada/second/messages.jsonl", good(1) + b"\n")
    tree.put("users/ada/second/situational_context.json", b"")
    return Expectation(
        sessions=ONE | {("ada", "second")},
        messages=2,
        contexts=1,
        snapshots=1,
        attic=frozenset(
            {
                f"{history}/context_20250801_100200_000001.json",
                f"{history}/context_20250801_100300_000001.json",
                "users/ada/second/situational_context.json",
            }
        ),
        notices=frozenset(
            {
                Notice(f"{HOME}/situational_context.json", "cp1252"),
                Notice(f"{history}/context_20250801_100100_000001.json", "cp1252"),
            }
        ),
    )


def profile_missing(to: Path) -> Expectation:
    Tree(to).session()
    return Expectation(sessions=ONE, messages=1)


def profile_in_cp1252(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("users/Jose/profile.json", v2_json(profile_record("José", username="Né")).encode("cp1252"))
    tree.put(f"users/Jose/{SESSION}/messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=frozenset({("José", SESSION)}),
        profiles=frozenset({"José"}),
        messages=1,
        notices=frozenset({Notice("users/Jose/profile.json", "cp1252")}),
    )


def profile_unreadable(to: Path, *, content: bytes) -> Expectation:
    tree = Tree(to)
    tree.session()
    tree.put("users/ada/profile.json", content)
    return Expectation(sessions=ONE, messages=1, attic=frozenset({"users/ada/profile.json"}))


def document_metadata_unreadable(to: Path, *, content: bytes) -> Expectation:
    tree = Tree(to)
    tree.session()
    tree.put(f"{HOME}/documents/metadata.json", content)
    tree.put(f"{HOME}/documents/1a2b3c4d_a.txt", b"text")
    return Expectation(
        sessions=ONE,
        messages=1,
        documents=1,
        attic=frozenset({f"{HOME}/documents/metadata.json"}),
        notices=frozenset({Notice(f"{HOME}/documents/1a2b3c4d_a.txt", "document_without_entry")}),
    )


def document_entries_that_are_no_objects(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    entries = {"1a2b3c4d_a.txt": 7, "5e6f7a8b_b.txt": None, "9c0d1e2f_c.txt": document_entry("9c0d1e2f_c.txt")}
    tree.put(f"{HOME}/documents/metadata.json", entries)
    for name in entries:
        tree.put(f"{HOME}/documents/{name}", b"text")
    return Expectation(
        sessions=ONE,
        messages=1,
        documents=3,
        notices=frozenset(
            Notice(f"{HOME}/documents/{name}", "document_without_entry")
            for name in ("1a2b3c4d_a.txt", "5e6f7a8b_b.txt")
        ),
    )


def document_entries_that_lead_outside(to: Path) -> Expectation:
    """Entries whose id is a path: what stands there is no document of theirs and must not be read as one."""
    tree = Tree(to)
    tree.session()
    names = ("../session.json", "../../profile.json", "/etc/hostname", "a\0b", "")
    tree.put("users/ada/profile.json", profile_record())
    entries = {name: document_entry("1a2b3c4d_a.txt", filename=name) for name in names}
    tree.put(f"{HOME}/documents/metadata.json", entries)
    return Expectation(
        sessions=ONE,
        profiles=frozenset({"ada"}),
        messages=1,
        documents=len(names),
        notices=frozenset(Notice(f"{HOME}/documents/{name}", "entry_without_file") for name in names),
    )


def document_metadata_in_cp1252(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    entries = {"1a2b3c4d_resume.txt": document_entry("1a2b3c4d_resume.txt", original_name="résumé.txt")}
    tree.put(f"{HOME}/documents/metadata.json", v2_json(entries).encode("cp1252"))
    tree.put(f"{HOME}/documents/1a2b3c4d_resume.txt", b"text")
    return Expectation(
        sessions=ONE,
        messages=1,
        documents=1,
        notices=frozenset({Notice(f"{HOME}/documents/metadata.json", "cp1252")}),
    )


def shard_with_a_line_of_its_own(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session(messages=2)
    shard = f"{HOME}/marcus_chen_messages.jsonl"
    tree.put(shard, good(2) + b"\n" + good(3) + b"\n" + b'{"torn')
    return Expectation(
        sessions=ONE,
        messages=2,
        shards=1,
        ids={("ada", SESSION): ("msg_1", "msg_2")},
        notices=frozenset({Notice(shard, "shard_differs")}),
    )


CASES: dict[str, Case] = {
    **{
        name: partial(build_session_file, content=content, readable=True)
        for name, content in READABLE_SESSION_FILES.items()
    },
    **{
        name: partial(build_session_file, content=content, readable=True, utf8=False)
        for name, content in CP1252_SESSION_FILES.items()
    },
    **{
        name: partial(build_session_file, content=content, readable=False)
        for name, content in UNREADABLE_SESSION_FILES.items()
    },
    "session_json_missing": session_json_missing,
    "session_json_damaged_and_alone": session_json_damaged_and_alone,
    "session_of_a_context_only": session_of_a_context_only,
    "contexts_not_utf8_and_not_objects": contexts_not_utf8_and_not_objects,
    "profile_missing": profile_missing,
    "profile_in_cp1252": profile_in_cp1252,
    "profile_cut_off": partial(profile_unreadable, content=b'{\n  "created_at": "2025'),
    "profile_a_list": partial(profile_unreadable, content=b'[{"user_id": "eve"}]'),
    "profile_empty": partial(profile_unreadable, content=b""),
    "document_metadata_cut_off": partial(document_metadata_unreadable, content=b'{"1a2b3c4d_a.txt": {"filena'),
    "document_metadata_a_list": partial(document_metadata_unreadable, content=b"[]"),
    "document_metadata_in_cp1252": document_metadata_in_cp1252,
    "document_entries_that_are_no_objects": document_entries_that_are_no_objects,
    "document_entries_that_lead_outside": document_entries_that_lead_outside,
    "shard_with_a_line_of_its_own": shard_with_a_line_of_its_own,
}
