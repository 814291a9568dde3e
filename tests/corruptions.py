"""Ways in which a migrated tree can be wrong, each by name as a function that makes it so: `CORRUPTIONS`.

Every corruption takes the root of a migrated tree, finds something that it suits, and damages it. Where the tree has
nothing of the kind it raises `NothingSuitable`. Whoever checks migrations must find every one of them.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec
import numpy as np

Corruption = Callable[[Path], None]

SESSIONS = "text_chat/sessions/*/*"
ARCHIVES = "text_chat/archive/*/*/*"
DOCUMENTS = "rag/documents/*"
EMBEDDINGS = "rag/embeddings/v2_*"
PANELS = "multi_agent/conversations/*"
PERSONAS = "persona/*/*"


class NothingSuitable(LookupError):
    """The tree holds nothing that this corruption could damage."""


# -- finding and changing


def _files(target: Path, pattern: str) -> Iterator[Path]:
    return (path for path in sorted(target.glob(pattern)) if path.is_file())


def _one(target: Path, pattern: str, suits: Callable[[Path], bool] = lambda path: path.stat().st_size > 0) -> Path:
    found = next((path for path in _files(target, pattern) if suits(path)), None)
    if found is None:
        raise NothingSuitable(pattern)
    return found


def _flip(path: Path) -> None:
    """One bit of the byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Changes the lines of a file, keeping its last line feed."""
    path.write_bytes(b"".join(line + b"\n" for line in edit(path.read_bytes().splitlines())))


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def _values(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _change(path: Path, /, **changes: Any) -> None:
    """Sets members of the object in a file; every other member keeps its bytes."""
    values = _raw(path.read_bytes())
    path.write_bytes(_json(values | changes))


def _change_legacy(path: Path, /, **changes: Any) -> None:
    values = _raw(path.read_bytes())
    path.write_bytes(_json(values | {"legacy": msgspec.Raw(_json(_raw(bytes(values["legacy"])) | changes))}))


def _raw(data: bytes) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return values


def _json(values: dict[str, Any]) -> bytes:
    return msgspec.json.encode(values)


def _migrated(path: Path) -> bool:
    return b'"legacy"' in path.read_bytes()


def _session(target: Path, suits: Callable[[dict[str, Any]], bool] = lambda values: True) -> Path:
    """metadata.json of a live session for which *suits* says yes."""
    return _one(target, f"{SESSIONS}/metadata.json", lambda path: _migrated(path) and suits(_values(path)))


def _messages(target: Path, least: int = 1) -> Path:
    """messages.jsonl of a live session with at least so many different lines."""
    return _one(target, f"{SESSIONS}/messages.jsonl", lambda path: len(set(_lines(path))) >= least)


def _respell(target: Path, change: Callable[[dict[str, Any]], dict[str, Any]], key: str) -> None:
    """Changes the first message that has *key*."""
    for path in _files(target, f"{SESSIONS}/messages.jsonl"):
        lines = _lines(path)
        for number, line in enumerate(lines):
            values = json.loads(line)
            if key in values:
                lines[number] = json.dumps(change(values), ensure_ascii=False).encode("utf-8", "surrogatepass")
                path.write_bytes(b"".join(line + b"\n" for line in lines))
                return
    raise NothingSuitable(key)


# -- messages


def swapped_messages(target: Path) -> None:
    _edit(_messages(target, 2), lambda lines: [*lines[1:2], *lines[:1], *lines[2:]])


def dropped_message(target: Path) -> None:
    _edit(_messages(target, 2), lambda lines: lines[1:])


def dropped_last_message(target: Path) -> None:
    _edit(_messages(target, 2), lambda lines: lines[:-1])


def emptied_messages(target: Path) -> None:
    _messages(target).write_bytes(b"")


def missing_messages_file(target: Path) -> None:
    _messages(target).unlink()


def duplicated_message(target: Path) -> None:
    _edit(_messages(target, 2), lambda lines: [lines[0], *lines])


def last_message_twice(target: Path) -> None:
    _edit(_messages(target), lambda lines: [*lines, lines[-1]])


def message_cut_off(target: Path) -> None:
    path = _messages(target)
    path.write_bytes(path.read_bytes()[:-9])


def flipped_bit_in_message(target: Path) -> None:
    _flip(_messages(target))


def message_spaced_otherwise(target: Path) -> None:
    _edit(_messages(target), lambda lines: [lines[0].replace(b"{", b"{ ", 1), *lines[1:]])


def changed_content(target: Path) -> None:
    _respell(target, lambda values: values | {"content": f"{values['content']}!"}, "content")


def changed_role(target: Path) -> None:
    _respell(target, lambda values: values | {"role": "nobody"}, "role")


def changed_timestamp(target: Path) -> None:
    _respell(target, lambda values: values | {"timestamp": "2001-01-01T00:00:00"}, "timestamp")


def changed_message_id(target: Path) -> None:
    _respell(target, lambda values: values | {"id": "msg_another"}, "id")


def lost_attachments(target: Path) -> None:
    _respell(target, lambda values: {k: v for k, v in values.items() if k != "attachments"}, "attachments")


def changed_message_metadata(target: Path) -> None:
    _respell(target, lambda values: values | {"metadata": {"another": True}}, "metadata")


def members_in_another_order(target: Path) -> None:
    _respell(target, lambda values: dict(reversed(values.items())), "role")


def missing_quarantine_row(target: Path) -> None:
    _edit(_one(target, "**/quarantine.jsonl"), lambda lines: lines[1:])


def changed_raw_in_quarantine(target: Path) -> None:
    path = _one(target, "**/quarantine.jsonl")
    row = json.loads(_lines(path)[0])
    changed = json.dumps(row | {"raw": row["raw"] + " "}).encode()
    _edit(path, lambda lines: [changed, *lines[1:]])


def wrong_offset_in_quarantine(target: Path) -> None:
    path = _one(target, "**/quarantine.jsonl")
    row = json.loads(_lines(path)[0])
    changed = json.dumps(row | {"offset": row["offset"] + 1}).encode()
    _edit(path, lambda lines: [changed, *lines[1:]])


# -- sessions and users


def missing_metadata(target: Path) -> None:
    _session(target).unlink()


def metadata_cut_off(target: Path) -> None:
    path = _session(target)
    path.write_bytes(path.read_bytes().rstrip()[:-1])


def missing_session(target: Path) -> None:
    shutil.rmtree(_session(target).parent)


def wrong_message_count(target: Path) -> None:
    path = _session(target)
    _change(path, message_count=_values(path)["message_count"] + 1)


def wrong_count_of_migrated_lines(target: Path) -> None:
    path = _session(target, lambda values: bool(values["message_count"]))
    _change_legacy(path, messages=_values(path)["legacy"]["messages"] - 1)


def changed_record(target: Path) -> None:
    path = _session(target, lambda values: bool(values["legacy"]["record"]))
    _change_legacy(path, record=_values(path)["legacy"]["record"] | {"another": 1})


def record_respelled(target: Path) -> None:
    """The same values with other white space: the way back would not be exact."""
    path = _session(target, lambda values: bool(values["legacy"]["record"]))
    _change_legacy(path, record=msgspec.Raw(json.dumps(_values(path)["legacy"]["record"], indent=7).encode()))


def wrong_path_in_legacy(target: Path) -> None:
    _change_legacy(_session(target), path="users/elsewhere/session")


def lost_legacy(target: Path) -> None:
    path = _session(target)
    values = _raw(path.read_bytes())
    del values["legacy"]
    path.write_bytes(_json(values))


def wrong_inferred(target: Path) -> None:
    _change_legacy(_session(target), inferred=["title"])


def lost_shared_conversation(target: Path) -> None:
    path = _session(target, lambda values: "shared_conversation" in values["legacy"])
    _change_legacy(path, shared_conversation="another")


def lost_other_half(target: Path) -> None:
    path = _session(target, lambda values: "split_with" in values["legacy"])
    legacy = _raw(bytes(_raw(path.read_bytes())["legacy"]))
    del legacy["split_with"]
    _change(path, legacy=msgspec.Raw(_json(legacy)))


def lost_part(target: Path) -> None:
    path = _session(target, lambda values: len(values["legacy"].get("parts", [])) > 1)
    parts = msgspec.json.decode(_raw(bytes(_raw(path.read_bytes())["legacy"]))["parts"], type=list[msgspec.Raw])
    _change_legacy(path, parts=parts[:-1])


def session_of_another_user(target: Path) -> None:
    session = _session(target).parent
    other = session.parent.with_name("someone_else")
    other.mkdir()
    session.rename(other / session.name)


def extra_session(target: Path) -> None:
    session = _session(target).parent
    shutil.copytree(session, session.with_name(session.name + "_copy"))


def extra_file_in_session(target: Path) -> None:
    (_session(target).parent / "metadata.json.part").write_text("{}")


def extra_profile(target: Path) -> None:
    profile = _one(target, "text_chat/users/*/profile.json").parent
    shutil.copytree(profile, profile.with_name("someone_else"))


def changed_context(target: Path) -> None:
    path = _one(target, "memory/short_term/*/*/context.json")
    path.write_bytes(path.read_bytes().replace(b"{", b'{"another": 1, ', 1))


def extra_history(target: Path) -> None:
    path = _one(target, "memory/short_term/*/*/history/*")
    shutil.copy(path, path.with_name("context_another.json"))


def archive_made_live(target: Path) -> None:
    archive = _one(target, f"{ARCHIVES}/metadata.json").parent
    user, session = archive.parent.parent.name, archive.parent.name
    home = target / "text_chat/sessions" / user
    home.mkdir(parents=True, exist_ok=True)
    archive.rename(home / f"{session}_again")


# -- documents and vectors


def extra_document(target: Path) -> None:
    document = _one(target, f"{DOCUMENTS}/metadata.json", _migrated).parent
    shutil.copytree(document, document.with_name("doc_" + "0" * 32))


def lost_document_entry(target: Path) -> None:
    _change_legacy(
        _one(target, f"{DOCUMENTS}/metadata.json", lambda p: bool(_values(p)["legacy"]["record"])), record=None
    )


def lost_registry_entry(target: Path) -> None:
    path = _one(target, "rag/indices/document_registry.json")
    documents = _values(path)["documents"]
    if not documents:
        raise NothingSuitable("documents")
    _change(path, documents=dict(list(documents.items())[1:]))


def wrong_registry_entry(target: Path) -> None:
    path = _one(target, "rag/indices/document_registry.json")
    documents = _values(path)["documents"]
    if not documents:
        raise NothingSuitable("documents")
    first = next(iter(documents))
    _change(path, documents=documents | {first: documents[first] | {"sha256": "0" * 64}})


def float32_vectors(target: Path) -> None:
    for path in _files(target, f"{EMBEDDINGS}/vectors.npy"):
        try:
            array = np.load(path)
        except ValueError:
            continue
        if array.dtype == np.float64:
            buffer = io.BytesIO()
            np.save(buffer, array.astype(np.float32))
            path.write_bytes(buffer.getvalue())
            return
    raise NothingSuitable("float64 vectors")


def dropped_chunk(target: Path) -> None:
    _edit(_one(target, f"{EMBEDDINGS}/chunks.jsonl"), lambda lines: lines[:-1])


def wrong_rows_of_chunks(target: Path) -> None:
    path = _one(target, f"{EMBEDDINGS}/mapping.json", lambda path: bool(_values(path)["chunk_ids"]))
    _change(path, chunk_ids={key: [row + 1 for row in rows] for key, rows in _values(path)["chunk_ids"].items()})


def wrong_norm(target: Path) -> None:
    path = _one(target, f"{EMBEDDINGS}/mapping.json", lambda path: bool(_values(path)["measured_norm"]))
    _change(path, measured_norm=[norm + 1 for norm in _values(path)["measured_norm"]])


def damaged_vector_index(target: Path) -> None:
    path = _one(target, f"{EMBEDDINGS}/index.faiss")
    path.write_bytes(path.read_bytes()[:-4] + b"\x01\x02\x03\x04")


# -- personas, panels, the attic


def wrong_persona_name(target: Path) -> None:
    path = _one(target, f"{PERSONAS}/profile.json")
    _change(path, name="Another")


def lost_decision(target: Path) -> None:
    path = _one(target, f"{PANELS}/decisions.json", lambda path: bool(json.loads(path.read_text())))
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))


def participants_in_another_order(target: Path) -> None:
    path = _one(target, f"{PANELS}/participants.json", lambda path: len(set(json.loads(path.read_text()))) > 1)
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))


def dropped_panel_message(target: Path) -> None:
    _edit(_one(target, f"{PANELS}/transcript.jsonl"), lambda lines: lines[1:])


def extra_attic_file(target: Path) -> None:
    (target / "attic").mkdir(exist_ok=True)
    (target / "attic/from nowhere").write_text("?")


def extra_file_at_the_top(target: Path) -> None:
    (target / "from nowhere").write_text("?")


# -- one thing at one place

# what is not there, by a pattern of where it should be
_MISSING: dict[str, str] = {
    "missing_shard": f"{SESSIONS}/shards/*",
    "missing_profile": "text_chat/users/*/profile.json",
    "missing_context": "memory/short_term/*/*/context.json",
    "missing_history": "memory/short_term/*/*/history/*",
    "missing_original": f"{DOCUMENTS}/original*",
    "missing_mapping": f"{EMBEDDINGS}/mapping.json",
    "missing_participant": f"{PANELS}/participants/*.json",
    "missing_attic_file": "attic/**/*",
}
# what has one bit changed
_FLIPPED: dict[str, str] = {
    "changed_shard": f"{SESSIONS}/shards/*",
    "flipped_bit_in_document": f"{DOCUMENTS}/original*",
    "flipped_bit_in_vectors": f"{EMBEDDINGS}/vectors.npy",
    "changed_persona": f"{PERSONAS}/original.json",
    "changed_user_persona": "persona/users/*/*/original.json",
    "changed_attic_file": "attic/**/*",
}
# what is not there with all its directory
_MISSING_WHOLE: dict[str, str] = {
    "missing_archive": f"{ARCHIVES}/metadata.json",
    "missing_document": f"{DOCUMENTS}/metadata.json",
    "missing_persona": f"{PERSONAS}/profile.json",
    "missing_panel": f"{PANELS}/metadata.json",
}
# what has another value in its JSON
_CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "changed_profile": ("text_chat/users/*/profile.json", {"username": "Another"}),
    "changed_preferences": ("text_chat/users/*/profile.json", {"preferences": {"another": 1}}),
    "archive_marked_live": (f"{ARCHIVES}/metadata.json", {"active": True}),
    "wrong_sha256": (f"{DOCUMENTS}/metadata.json", {"sha256": "0" * 64}),
    "wrong_size": (f"{DOCUMENTS}/metadata.json", {"size_bytes": 123_456}),
    "changed_document_title": (f"{DOCUMENTS}/metadata.json", {"title": "Another title"}),
    "wrong_owner_of_vectors": (f"{EMBEDDINGS}/mapping.json", {"user_id": "another"}),
    "invented_persona_trait": (f"{PERSONAS}/profile.json", {"traits": ["zzz never said of anybody"]}),
    "changed_panel_config": (f"{PANELS}/metadata.json", {"config": {"another": 1}}),
}
# what has another value in a session's metadata.json
_SESSION_CHANGED: dict[str, dict[str, Any]] = {
    "changed_title": {"title": "Another title"},
    "wrong_session_type": {"session_type": "wrong"},
    "changed_updated_at": {"updated_at": "2001-01-01T00:00:00"},
    "inactive_session": {"active": False},
    "another_user_in_metadata": {"user_id": "another"},
    "changed_session_metadata": {"metadata": {"another": 1}},
}


def _remove(pattern: str, target: Path) -> None:
    _one(target, pattern, lambda path: True).unlink()


def _remove_whole(pattern: str, target: Path) -> None:
    shutil.rmtree(_one(target, pattern).parent)


def _flip_in(pattern: str, target: Path) -> None:
    _flip(_one(target, pattern))


def _change_in(pattern: str, changes: dict[str, Any], target: Path) -> None:
    _change(_one(target, pattern), **changes)


def _change_session(changes: dict[str, Any], target: Path) -> None:
    _change(_session(target), **changes)


def _written_out() -> Iterator[tuple[str, Corruption]]:
    """The corruptions that are functions of this file."""
    for name, value in globals().items():
        if isinstance(value, FunctionType) and value.__module__ == __name__ and not name.startswith("_"):
            yield name, value


CORRUPTIONS: dict[str, Corruption] = {
    **dict(_written_out()),
    **{name: partial(_remove, pattern) for name, pattern in _MISSING.items()},
    **{name: partial(_remove_whole, pattern) for name, pattern in _MISSING_WHOLE.items()},
    **{name: partial(_flip_in, pattern) for name, pattern in _FLIPPED.items()},
    **{name: partial(_change_in, pattern, changes) for name, (pattern, changes) in _CHANGED.items()},
    **{name: partial(_change_session, changes) for name, changes in _SESSION_CHANGED.items()},
}
