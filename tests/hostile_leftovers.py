"""Links, pipes, sockets, locks, temporary files, backups, exports and stray files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.hostile_case import HOME, ONE, SESSION, Case, Expectation, Notice, Tree, good, session_record

STAMP = "20250802_101112"
OUTSIDE = Path(__file__).resolve()  # a file outside every tree, which no migration may carry over


def links_of_every_sort(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    links = {
        "users/alias": "ada",
        "users/ada/same_session": SESSION,
        "users/ada/upwards": "..",
        f"{HOME}/itself": "itself",
        f"{HOME}/there": "back",
        f"{HOME}/back": "there",
        f"{HOME}/documents": os.fspath(OUTSIDE.parent),
        f"{HOME}/situational_context.json": os.fspath(OUTSIDE),
        f"{HOME}/context_history/context_20250801_100100_000001.json": "../session.json",
        "users/ada/profile.json": "missing.json",
        "personas_global": os.fspath(OUTSIDE.parent),
        "stray": os.fspath(OUTSIDE),
    }
    for name, target in links.items():
        os.symlink(target, tree.path(name))
    return Expectation(sessions=ONE, messages=1, links=frozenset(links))


def linked_session_files(to: Path) -> Expectation:
    """A linked messages.jsonl is not read, and alone makes no session."""
    tree = Tree(to)
    tree.session()
    for name in ("second/messages.jsonl", "third/session.json"):
        os.symlink(f"../{SESSION}/{name.partition('/')[2]}", tree.path(f"users/ada/{name}"))
    tree.put("users/ada/third/messages.jsonl", good(5) + b"\n")
    return Expectation(
        sessions=ONE | {("ada", "third")},
        messages=2,
        links=frozenset({"users/ada/second/messages.jsonl", "users/ada/third/session.json"}),
    )


def pipes_and_sockets(to: Path) -> Expectation:
    """Opening one of these would wait for ever."""
    tree = Tree(to)
    tree.put(f"{HOME}/session.json", session_record())
    pipes = (f"{HOME}/messages.jsonl", f"{HOME}/documents/1a2b3c4d_a.txt", "users/ada/profile.json", "pipe")
    sockets = (f"{HOME}/situational_context.json", "users/ada/socket")
    for name in pipes:
        os.mkfifo(tree.path(name))
    for name in sockets:
        os.mknod(tree.path(name), stat.S_IFSOCK | 0o600)
    return Expectation(sessions=ONE, special=frozenset(pipes + sockets))


def locks_empty_and_not(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    empty = (f"{HOME}/messages.jsonl.lock", "users/ada/profile.json.lock", "base.lock")
    full = (f"{HOME}/session.json.lock", "other.lock")
    for name in empty:
        tree.put(name)
    for name in full:
        tree.put(name, b"pid 4711")
    return Expectation(sessions=ONE, messages=1, ignored=frozenset(empty), attic=frozenset(full))


def temporary_files(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    names = (
        f"{HOME}/session.json.tmp.0a1b2c3d",
        f"{HOME}/session.json.tmp",
        f"{HOME}/messages.tmp",
        f"{HOME}/situational_context.json.tmp.12ab",
        f"{HOME}/documents/metadata.json.tmp.0a1b2c3d",
        "users/ada/profile.json.tmp.0a1b2c3d",
        "personas_global/x.json.tmp.0a1b2c3d",
        "panel_sessions/p/panel.json.tmp.0a1b2c3d",
        "users/ada/only_temporary/session.json.tmp.0a1b2c3d",
    )
    for name in names:
        tree.put(name, b'{"older": "attempt"')
    tree.put("panel_sessions/p/panel.json", {"id": "p", "personas": ["x"]})
    return Expectation(sessions=ONE, messages=1, panels=1, attic=frozenset(names))


def backups_of_files(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    names = (
        f"{HOME}/messages.jsonl.backup_{STAMP}",
        f"{HOME}/session.json.backup_{STAMP}",
        f"users/ada/profile.json.backup_{STAMP}",
        f"personas_global/x.json.backup_{STAMP}",
    )
    for name in names:
        tree.put(name, good(9))
    return Expectation(sessions=ONE, messages=1, attic=frozenset(names))


def backups_of_sessions(to: Path) -> Expectation:
    """One deleted twice while it lives again, one deleted for good, one damaged before it was deleted."""
    tree = Tree(to)
    tree.session()
    tree.session(f"{HOME}.backup_{STAMP}", messages=2)
    tree.session(f"{HOME}.backup_20250803_000000", messages=3)
    tree.session(f"users/ada/gone.backup_{STAMP}", messages=1)
    damaged = f"users/ada/torn.backup_{STAMP}"
    tree.put(f"{damaged}/session.json", b"{")
    tree.put(f"{damaged}/messages.jsonl", good(1) + b"\n" + good(2)[:20])
    return Expectation(
        sessions=ONE,
        messages=1,
        archived=frozenset(
            {
                ("ada", SESSION, STAMP),
                ("ada", SESSION, "20250803_000000"),
                ("ada", "gone", STAMP),
                ("ada", "torn", STAMP),
            }
        ),
        archived_messages=2 + 3 + 1 + 1,
        quarantined=1,
        attic=frozenset({f"{damaged}/session.json"}),
    )


def exports_and_logs(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    files = {
        "n_20250722_175405.json": b'{"session_id": "x", "messages": [{"role": "user", "content": "hi", "id": "m"}]}',
        "export.json.gz": b"\x1f\x8b\x08\x00 not really",
        "plain.json.gz": b'{"export_version": "1.0"}',
        "export.db": b"SQLite format 3\0",
        "logs/ff_traces.log": b"line\n",
        "system/settings.json": b"{}",
        "users/export.json": b"{}",
        "traces/0.json": b"{}",
    }
    for name, content in files.items():
        tree.put(name, content)
    return Expectation(sessions=ONE, messages=1, attic=frozenset(files))


def stray_files_at_every_level(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    tree.put("panel_sessions/p/panel.json", {"id": "p", "personas": ["x"]})
    strays = (
        "stray.txt",
        "users/stray.txt",
        "users/ada/stray.txt",
        "users/ada/notes/stray.txt",
        "users/ada/personas/stray.txt",
        "users/ada/sessions/stray.txt",
        f"users/ada/sessions/{SESSION}/stray.txt",
        f"users/ada/sessions/{SESSION}/vectors/stray.txt",
        f"{HOME}/stray.txt",
        f"{HOME}/metadata.json",
        f"{HOME}/folder/stray.txt",
        f"{HOME}/documents/folder/stray.txt",
        f"{HOME}/context_history/stray.txt",
        "personas_global/stray.txt",
        "personas_global/folder/stray.json",
        "panel_sessions/stray.txt",
        "panel_sessions/p/stray.txt",
        "panel_sessions/p/insights/stray.txt",
        "panel_sessions/p/folder/stray.json",
        "users/ghost/stray.txt",
    )
    for name in strays:
        tree.put(name, b"nobody claims this")
    document = f"{HOME}/documents/stray.txt"  # whatever lies there is a document
    tree.put(document, b"text")
    return Expectation(
        sessions=ONE,
        messages=1,
        documents=1,
        panels=1,
        attic=frozenset(strays),
        notices=frozenset({Notice(document, "document_without_entry")}),
    )


def nothing_but_empty_directories(to: Path) -> Expectation:
    tree = Tree(to)
    for name in ("system", f"{HOME}/documents", f"{HOME}/context_history", "users/default/sessions/x/vectors"):
        os.makedirs(tree.path(name))
    return Expectation()


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        links_of_every_sort,
        linked_session_files,
        pipes_and_sockets,
        locks_empty_and_not,
        temporary_files,
        backups_of_files,
        backups_of_sessions,
        exports_and_logs,
        stray_files_at_every_level,
        nothing_but_empty_directories,
    )
}
