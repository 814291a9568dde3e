"""What crashes, deletions and operators left in a v2 store: damaged lines, locks, temporary files, backups, exports."""

from __future__ import annotations

import json
from random import Random
from uuid import UUID

from migration.sample_documents import Upload, write_context, write_documents
from migration.sample_sessions import G3, WrittenSession, dialogue, session_record, write_profile
from migration.sample_text import Prose
from migration.sample_tree import DAY, HOUR, MINUTE, SECOND, SampleTree, encode_line, moment, stamp

_DELETED = moment(2025, 7, 29, 9, 15)


def write_damaged_messages(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """Six lines: blank, a record behind stray characters, a good one, a torn one, a good one, torn at the end."""
    started = moment(2025, 8, 3, 20)
    home = f"users/dora/{UUID(int=rng.getrandbits(128), version=4)}"
    records, last = dialogue(G3, rng, prose, started=started, messages=5, digits=32)
    salvageable, good, torn, also_good, cut = (encode_line(record) for record in records)
    lines = (b"", b".  " + salvageable, good, torn[:57], also_good, cut[: len(cut) // 2])
    tree.raw(f"{home}/messages.jsonl", b"\n".join(lines), last)
    tree.count(user_directories=1, sessions=1, messages=3, salvaged=1, quarantined=2, blank_lines=1)


def write_deleted_sessions(tree: SampleTree, rng: Random, prose: Prose, live: WrittenSession) -> None:
    """``otto`` deleted a session with all that it held; *live* has a deleted namesake beside it."""
    write_profile(tree, "users/otto", "otto", _DELETED - DAY)
    tree.count(user_directories=1)

    started = _DELETED - HOUR
    name = f"chat_session_{stamp(started)}"
    home = f"users/otto/{name}.backup_{stamp(_DELETED, fraction=False)}"
    records, last = dialogue(G3, rng, prose, started=started, messages=4)
    record = session_record(G3, name, "otto", started=started, ended=last, count=4, title="Deleted by mistake")
    tree.json(f"{home}/session.json", record, last)
    tree.jsonl(f"{home}/messages.jsonl", records, last)
    write_context(tree, home, rng, prose, last, snapshots=1)
    attached = Upload(original_name="attached.txt", data=prose.message(rng).encode())
    write_documents(tree, home, "otto", rng, [attached], last)
    tree.count(archived_sessions=1, archived_messages=4, archived_documents=1)

    namesake = f"{live.path}.backup_{stamp(_DELETED + MINUTE, fraction=False)}"
    records, last = dialogue(G3, rng, prose, started=started, messages=2)
    tree.jsonl(f"{namesake}/messages.jsonl", records, last)
    tree.count(archived_sessions=1, archived_messages=2)


def write_crash_traces(tree: SampleTree, session: WrittenSession, rng: Random, prose: Prose) -> None:
    """Locks that were never released, temporary files with and without their target, one file's backup."""
    at = session.ended + MINUTE
    for locked in ("messages.jsonl", "session.json"):
        tree.raw(f"{session.path}/{locked}.lock", b"", at)
    older = session_record(G3, session.session_id, "nora", started=at - HOUR, ended=at - HOUR, count=1)
    as_json = json.dumps(older, ensure_ascii=False, sort_keys=True, indent=2).encode()
    tree.raw(f"{session.path}/session.json.tmp.{rng.getrandbits(32):08x}", as_json, at)
    only_copy = json.dumps({"summary": prose.message(rng), "key_points": []}, indent=2, sort_keys=True).encode()
    tree.raw(f"{session.path}/situational_context.json.tmp.{rng.getrandbits(32):08x}", only_copy, at)
    tree.raw("mira/profile.json.tmp", b'{\n  "created_at": "2025-07-22T18:3', at)
    tree.jsonl(f"{session.path}/messages.jsonl.backup_{stamp(at, fraction=False)}", session.records[:2], at)
    tree.count(ignored_files=2, attic_files=4)


def write_operators_files(tree: SampleTree, session: WrittenSession) -> None:
    """An export of one session in the base directory, and a log."""
    at = session.ended + DAY
    export = {
        "session_id": session.session_id,
        "title": "export",
        "exported_at": stamp(at),
        "messages": list(session.records),
    }
    tree.raw("export_20250801_120000.json", json.dumps(export, indent=2, ensure_ascii=False).encode(), at)
    tree.raw("logs/ff_traces.log", b"2025-08-01 12:00:00 INFO storage initialised\n", at + SECOND)
    tree.count(attic_files=2)


def write_empty_directories(tree: SampleTree) -> None:
    """What initialising v2, and looking up a session that never was, leave behind."""
    tree.empty("system")
    tree.empty("users/ines/chat_session_20250808_120000_000001/documents")
    tree.empty("users/ines/chat_session_20250808_120000_000001/context_history")
