"""Ids and names that are no plain words, and directories that are not where one looks for them."""

from __future__ import annotations

import os
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
)

# What session.json says in users/ada, and the user that the session then has.
USER_IDS: dict[str, tuple[object, str]] = {
    "user_id_two_dots": ("..", ".."),
    "user_id_one_dot": (".", "."),
    "user_id_absolute": ("/etc/passwd", "/etc/passwd"),
    "user_id_with_slash": ("a/b", "a/b"),
    "user_id_with_backslash": ("a\\..\\b", "a\\..\\b"),
    "user_id_with_nul": ("a\0b", "a\0b"),
    "user_id_with_newline": ("a\nb", "a\nb"),
    "user_id_not_ascii": ("zoë 日本 🙂", "zoë 日本 🙂"),
    "user_id_in_two_normal_forms": ("zoe\u0308", "zoe\u0308"),
    "user_id_of_300_characters": ("ü" * 300, "ü" * 300),
    "user_id_of_blanks": ("  ", "  "),
    "user_id_like_an_encoded_one": ("a%2Fb", "a%2Fb"),
    "user_id_empty": ("", "ada"),
    "user_id_a_number": (7, "ada"),
    "user_id_null": (None, "ada"),
    "user_id_a_list": (["ada"], "ada"),
}

LONG_220 = "s" * 220
LONG_255 = "t" * 255
SESSION_NAMES: dict[str, bytes] = {
    "session_name_of_220_bytes": LONG_220.encode(),
    "session_name_of_255_bytes": LONG_255.encode(),
    "session_name_of_255_bytes_not_ascii": ("é" * 127).encode() + b"x",
    "session_name_with_spaces_and_percent": b" 100% %2F ",
    "session_name_with_newline": b"a\nb",
    "session_name_with_leading_dot": b".hidden",
    "session_name_like_an_archive_without_stamp": b"chat_session_x.backup_2025",
    "session_name_called_documents": b"documents",
    "session_name_called_vectors": b"vectors",
    "session_name_like_a_file": b"session.json.d",
}


def build_user_id(to: Path, *, claimed: object, user: str) -> Expectation:
    tree = Tree(to)
    tree.put(f"{HOME}/session.json", session_record(claimed))
    tree.put(f"{HOME}/messages.jsonl", good(1) + b"\n")
    return Expectation(sessions=frozenset({(user, SESSION)}), messages=1)


def build_session_name(to: Path, *, name: bytes) -> Expectation:
    tree = Tree(to)
    tree.put(b"users/ada/" + name + b"/session.json", session_record(session=name.decode()))
    tree.put(b"users/ada/" + name + b"/messages.jsonl", good(1) + b"\n")
    return Expectation(sessions=frozenset({("ada", name.decode())}), messages=1)


def user_id_only_in_profile(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("users/zoe_.._x/profile.json", profile_record("zoë/../x"))
    tree.put(f"users/zoe_.._x/{SESSION}/messages.jsonl", good(1) + b"\n")
    return Expectation(sessions=frozenset({("zoë/../x", SESSION)}), profiles=frozenset({"zoë/../x"}), messages=1)


def several_users_in_one_directory(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("users/a_b/profile.json", profile_record("a b"))
    tree.put("users/a_b/one/session.json", session_record("a b", "one"))
    tree.put("users/a_b/two/session.json", session_record("a/b", "two"))
    tree.put("users/a_b/three/messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=frozenset({("a b", "one"), ("a/b", "two"), ("a b", "three")}),
        profiles=frozenset({"a b"}),
        messages=1,
    )


def names_that_are_not_utf8(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(b"users/b\xffb/s\xfe\xfes/messages.jsonl", good(1) + b"\n")
    tree.put(b"users/b\xffb/s\xfe\xfes/documents/1a2b3c4d_\xe9t\xe9.txt", b"text")
    tree.put(b"users/b\xffb/stray\xff.bin", b"bytes")
    return Expectation(
        sessions=frozenset({("b%FFb", "s%FE%FEs")}),
        messages=1,
        documents=1,
        attic=frozenset({os.fsdecode(b"users/b\xffb/stray\xff.bin")}),
        notices=frozenset(
            {
                Notice(
                    "users/b%FFb/s%FE%FEs/documents/1a2b3c4d_%E9t%E9.txt",
                    "document_without_entry",
                )
            }
        ),
    )


def names_that_differ_in_case_or_normal_form(to: Path) -> Expectation:
    tree = Tree(to)
    users = ("ada", "Ada", "ADA", "\u00e9va", "e\u0301va")
    for user in users:
        tree.session(f"users/{user}/{SESSION}", user)
        tree.put(f"users/{user}/{SESSION.upper()}/messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=frozenset((user, name) for user in users for name in (SESSION, SESSION.upper())),
        messages=2 * len(users),
    )


def long_names_everywhere(to: Path) -> Expectation:
    tree = Tree(to)
    home = f"users/{LONG_255}/{LONG_220}"
    document, dotted = "1a2b3c4d_" + "d" * 246, "5e6f7a8b." + "x" * 246
    tree.put(f"{home}/messages.jsonl", good(1) + b"\n")
    tree.put(f"{home}/documents/metadata.json", {name: document_entry(name) for name in (document, dotted)})
    for name in (document, dotted):
        tree.put(f"{home}/documents/{name}", b"text")
    tree.put(f"{home}/context_history/{'c' * 250}.json", {"summary": "s"})
    tree.put(f"users/{LONG_255}/{LONG_255}", b"stray")
    tree.put(f"personas_global/{'p' * 250}.json", {"id": "p", "name": "P"})
    tree.put(f"panel_sessions/{LONG_255}/panel.json", {"id": "q", "personas": ["p"]})
    return Expectation(
        sessions=frozenset({(LONG_255, LONG_220)}),
        messages=1,
        documents=2,
        snapshots=1,
        personas=1,
        panels=1,
        attic=frozenset({f"users/{LONG_255}/{LONG_255}"}),
    )


def document_names_of_every_sort(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    names = ("1_a b.txt", "2_a%2Fb.txt", "3_a\nb.txt", "4_é.tar.gz", "5_noextension", "6_.", "7_x.lock", ".hidden")
    tree.put(f"{HOME}/documents/metadata.json", {name: document_entry(name) for name in names})
    for name in names:
        tree.put(f"{HOME}/documents/{name}", b"text")
    return Expectation(sessions=ONE, messages=1, documents=len(names))


def nested_sessions(to: Path) -> Expectation:
    """Ids with a slash, a session inside a session, and one below the place of the vector sets."""
    tree = Tree(to)
    tree.put("users/ada/my custom/ session/messages.jsonl", good(1) + b"\n")
    tree.session("users/ada/outer", messages=2)
    tree.session("users/ada/outer/inner", messages=3)
    tree.session("users/ada/sessions/x", messages=1)
    # Below the first level only session.json and message files make a session.
    tree.put("users/ada/folder/inner/documents/1a2b3c4d_a.txt", b"text")
    tree.put("users/ada/folder/inner/situational_context.json", {"summary": "s"})
    names = ("my custom/ session", "outer", "outer/inner", "sessions/x")
    return Expectation(
        sessions=frozenset(("ada", name) for name in names),
        messages=1 + 2 + 3 + 1,
        attic=frozenset(
            {
                "users/ada/folder/inner/documents/1a2b3c4d_a.txt",
                "users/ada/folder/inner/situational_context.json",
            }
        ),
    )


def nested_session_deleted(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session("users/ada/my custom/ session.backup_20250802_101112")
    return Expectation(archived=frozenset({("ada", "my custom/ session", "20250802_101112")}), archived_messages=1)


def users_named_like_directories_of_v2(to: Path) -> Expectation:
    tree = Tree(to)
    users = ("default", "personas", "sessions", "documents", "users", "system")
    for user in users:
        tree.session(f"users/{user}/{SESSION}", user)
    return Expectation(sessions=frozenset((user, SESSION) for user in users), messages=len(users))


def directories_named_like_files(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(f"{HOME}/session.json", session_record())
    tree.put(f"{HOME}/messages.jsonl/part.txt", b"a directory has the name of the file")
    tree.put(f"{HOME}/situational_context.json/part.txt", b"and here")
    return Expectation(
        sessions=ONE,
        attic=frozenset({f"{HOME}/messages.jsonl/part.txt", f"{HOME}/situational_context.json/part.txt"}),
    )


def two_directories_claim_one_session(to: Path) -> Expectation:
    """``users/eve`` says that its session is ada's, who has one of that name: one session in two parts."""
    tree = Tree(to)
    tree.session(messages=2)
    tree.put(f"users/eve/{SESSION}/session.json", session_record("ada", updated_at="2025-08-02T00:00:00"))
    tree.put(f"users/eve/{SESSION}/messages.jsonl", good(8) + b"\n" + good(9) + b"\n")
    return Expectation(sessions=ONE, messages=4, notices=frozenset({Notice(f"users/eve/{SESSION}", "merged")}))


def user_in_both_generations(to: Path) -> Expectation:
    """``ada`` stands below ``users/`` and, from the first generation, beside it, with one session id in both."""
    tree = Tree(to)
    tree.session(messages=2)
    tree.put("users/ada/profile.json", profile_record())
    tree.put("ada/profile.json", profile_record(username="A"))
    tree.put(f"ada/{SESSION}/messages.jsonl", good(7) + b"\n")
    tree.put("ada/chat_session_20250722_100000/session.json", {"id": "chat_session_20250722_100000", "user_id": "ada"})
    return Expectation(
        sessions=ONE | {("ada", "chat_session_20250722_100000")},
        profiles=frozenset({"ada"}),
        messages=3,
        notices=frozenset({Notice(f"ada/{SESSION}", "merged")}),
    )


def _split_tree(to: Path) -> Tree:
    tree = Tree(to)
    home, other = f"people/carol/{SESSION}", f"users/carol/{SESSION}"
    tree.put("people/carol/profile.json", profile_record("carol"))
    tree.put(f"{home}/session.json", session_record("carol", message_count=0))
    tree.put(f"{home}/messages.jsonl", good(1) + b"\n" + good(2) + b"\n")
    tree.put(f"{other}/session.json", session_record("carol", updated_at="2025-08-02T00:00:00"))
    tree.put(f"{other}/documents/metadata.json", {"1a2b3c4d_x.txt": document_entry("1a2b3c4d_x.txt")})
    tree.put(f"{other}/documents/1a2b3c4d_x.txt", b"text")
    return tree


def session_split_over_users_and_people(to: Path) -> Expectation:
    _split_tree(to)
    return Expectation(
        sessions=frozenset({("carol", SESSION)}),
        profiles=frozenset({"carol"}),
        messages=2,
        documents=1,
        v2_config={"storage": {"user_data_directory": "people"}},
        notices=frozenset({Notice(f"people/carol/{SESSION}", "merged")}),
    )


def session_split_and_configuration_lost(to: Path) -> Expectation:
    """Without the configuration nothing says what ``people/`` is: its files must not be lost for that."""
    _split_tree(to)
    home = f"people/carol/{SESSION}"
    return Expectation(
        sessions=frozenset({("carol", SESSION)}),
        documents=1,
        attic=frozenset({"people/carol/profile.json", f"{home}/session.json", f"{home}/messages.jsonl"}),
    )


def first_generation_users(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("ada/profile.json", profile_record())
    tree.session(f"eve/{SESSION}", "eve")
    tree.put("bob/folder/readme.txt", b"no user: neither a profile nor a session")
    tree.put("panel_sessions/p/messages.jsonl", good(1) + b"\n")
    return Expectation(
        sessions=frozenset({("eve", SESSION)}),
        profiles=frozenset({"ada"}),
        messages=1,
        panels=1,
        panel_messages=1,
        attic=frozenset({"bob/folder/readme.txt"}),
    )


CASES: dict[str, Case] = {
    **{name: partial(build_user_id, claimed=claimed, user=user) for name, (claimed, user) in USER_IDS.items()},
    **{name: partial(build_session_name, name=value) for name, value in SESSION_NAMES.items()},
    **{
        case.__name__: case
        for case in (
            user_id_only_in_profile,
            several_users_in_one_directory,
            names_that_are_not_utf8,
            names_that_differ_in_case_or_normal_form,
            long_names_everywhere,
            document_names_of_every_sort,
            nested_sessions,
            nested_session_deleted,
            users_named_like_directories_of_v2,
            directories_named_like_files,
            two_directories_claim_one_session,
            user_in_both_generations,
            session_split_over_users_and_people,
            session_split_and_configuration_lost,
            first_generation_users,
        )
    },
}
