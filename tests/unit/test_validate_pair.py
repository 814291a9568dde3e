"""A small v2 store and its migration, both written by hand from the two format pages (no tests of its own)."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migration.v2.names import V2Names
from migration.validate import MigrationValidator

T = "2025-01-01T10:00:00.000001"
FIRST = "chat_session_20250101_100000_000001"
RICH = "chat_session_20250101_100000_000002"
DELETED = "chat_session_20250101_100000_000003"
STAMP = "20250202_000000"
SPLIT = "chat_session_20250101_100000_000004"
MERGED = "chat_session_20250101_100000_000005"
FOREIGN = "chat_session_20250101_100000_000006"
PANEL = "panel_20250101_100000_000001"
NAMES = V2Names().with_users_dirs(("people",))


@dataclass(frozen=True)
class Raw:
    """JSON text that is to stand as it is."""

    text: str


@dataclass(frozen=True)
class Pair:
    old: Path
    new: Path

    def validator(self, **options: Any) -> MigrationValidator:
        return MigrationValidator(self.old, self.new, names=NAMES, **options)


def v2_json(value: Any) -> str:
    """JSON as v2 wrote it."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def put(base: Path, path: str, content: str | bytes) -> None:
    file = base / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def new_json(**values: Any) -> str:
    """JSON that embeds texts of v2 as they were."""
    parts = (f"{json.dumps(key)}: {_new_value(value)}" for key, value in values.items())
    return "{" + ", ".join(parts) + "}"


def _new_value(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return new_json(**value)
    if isinstance(value, list):
        return "[" + ", ".join(_new_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def line(content: str, *, key: str = "message_id", id_: str | None, metadata: str = "{}", role: str = "user") -> str:
    """A message line of v2 (or, with key ``id``, of the target)."""
    own = "" if id_ is None else f'"{key}": "{id_}", '
    text = json.dumps(content, ensure_ascii=False)
    return (
        f'{{"role": "{role}", "content": {text}, {own}"timestamp": "{T}", "attachments": [], "metadata": {metadata}}}'
    )


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


def digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def record(user: str, session: str, **more: Any) -> str:
    values = {"session_id": session, "user_id": user, "title": "New Chat", "created_at": T, "updated_at": T}
    return v2_json({**values, "message_count": 0, "metadata": {}, **more})


def metadata(user: str, session: str, path: str, source: str, count: int, legacy: Any = None, **more: Any) -> str:
    """metadata.json of a session with a record like that of `record`."""
    values = {
        "id": session,
        "user_id": user,
        "title": "New Chat",
        "created_at": T,
        "updated_at": T,
        "metadata": Raw("{}"),
        "session_type": "chat",
        "message_count": count,
        "active": True,
        **more,
    }
    own = {"generation": "G3", "path": path, "record": Raw(source), "messages": count, **(legacy or {})}
    return new_json(**values, legacy=own)


def profile(user: str) -> str:
    values = {"user_id": user, "username": user.title(), "created_at": T, "updated_at": T}
    return v2_json({**values, "preferences": {}, "metadata": {}})


def new_profile(user: str, path: str, source: str, generation: str = "G3") -> str:
    values = {"user_id": user, "username": user.title(), "created_at": T, "updated_at": T}
    legacy = {"generation": generation, "path": path, "record": Raw(source)}
    return new_json(**values, preferences={}, metadata={}, legacy=legacy)


def write_document(
    pair: Pair, home: str, user: str, session: str, folder: str, name: str, data: bytes | None, entry: Any
) -> dict[str, Any]:
    """A document in the target; *entry* is the entry in v2 or None. Gives what the registry says of it."""
    id_ = "doc_" + digest(user, session, name)
    path = f"{folder}/documents/{name}"
    facts = {
        "user_id": user,
        "session_id": session,
        "title": entry["original_name"] if entry else name,
        "content_type": entry["mime_type"] if entry else "text/plain",
        "size_bytes": None if data is None else len(data),
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
    }
    legacy: dict[str, Any] = {"generation": "G3", "path": path, "record": Raw(_in_index(entry)) if entry else None}
    if data is None:
        legacy["missing_original"] = True
    if entry is None:
        legacy["inferred"] = ["created_at"]
        os.utime(pair.old / path, (1_700_000_000, 1_700_000_000))
    about = {
        "id": id_,
        **facts,
        "source": path,
        "created_at": entry["uploaded_at"] if entry else "2023-11-14T22:13:20+00:00",
        "created_by": entry["uploaded_by"] if entry else None,
        "analysis": {},
        "metadata": {},
        "legacy": legacy,
    }
    put(pair.new, f"{home}/{id_}/metadata.json", new_json(**about))
    if data is not None:
        put(pair.new, f"{home}/{id_}/original{os.path.splitext(name)[1]}", data)
    return {id_: facts}


def _in_index(entry: Any) -> str:
    """An entry's text as it stands, indented, inside documents/metadata.json."""
    return v2_json({"x": entry}).split(": ", 1)[1].removesuffix("\n}")


def entry(name: str, user: str, size: int) -> dict[str, Any]:
    return {
        "filename": name,
        "original_name": name.partition("_")[2],
        "path": f"elsewhere/{name}",
        "mime_type": "text/plain",
        "size": size,
        "uploaded_at": T,
        "uploaded_by": user,
        "analysis": {},
        "metadata": {},
    }


def plain_session(pair: Pair, users: str, user: str, session: str, count: int = 3) -> None:
    old = lines(*(line(f"text {n}", id_=f"msg_{session[-2:]}{n}") for n in range(count)))
    path = f"{users}/{user}/{session}".lstrip("/")
    put(pair.old, f"{path}/session.json", record(user, session))
    put(pair.old, f"{path}/messages.jsonl", old)
    home = f"text_chat/sessions/{user}/{session}"
    put(pair.new, f"{home}/messages.jsonl", old.replace('"message_id"', '"id"'))
    put(pair.new, f"{home}/metadata.json", metadata(user, session, path, record(user, session), count))


def make_pair(base: Path) -> Pair:
    """Writes both trees below *base*."""
    pair = Pair(base / "old", base / "new")
    for user, users in (("alice", "users"), ("bob", "users"), ("carol", "people"), ("gina", "")):
        path = f"{users}/{user}/profile.json".lstrip("/")
        put(pair.old, path, profile(user))
        generation = "G3" if users else "G1"
        put(pair.new, f"text_chat/users/{user}/profile.json", new_profile(user, path, profile(user), generation))
    plain_session(pair, "users", "alice", FIRST)
    plain_session(pair, "users", "bob", FIRST.replace("000001", "000009"), 5)
    registry: dict[str, Any] = {}
    registry |= _rich(pair)
    _deleted(pair)
    _without_record(pair)
    registry |= _split(pair)
    _merged(pair)
    _foreign(pair)
    _g1(pair)
    _personas(pair)
    _panel(pair)
    _vectors(pair, "alice", FIRST)
    for path in ("notes.txt", "users/alice/export.json", "users/alice/profile.json.tmp.0a1b", "logs/deep/app.log"):
        put(pair.old, path, f"what stands in {path}\n")
        put(pair.new, f"attic/{path}", f"what stands in {path}\n")
    put(pair.old, "users/alice/profile.json.lock", b"")
    (pair.old / "users/alice/empty").mkdir()
    ordered = dict(sorted(registry.items()))
    put(pair.new, "rag/indices/document_registry.json", json.dumps({"documents": ordered}))
    return pair


def _rich(pair: Pair) -> dict[str, Any]:
    """Messages of generation 2, damaged and blank lines, documents of every kind, context, history, a shard."""
    path, home = f"users/alice/{RICH}", f"text_chat/sessions/alice/{RICH}"
    torn = '{"role": "user", "content": "never fini'
    good = line("one", key="id", id_="msg_one", metadata='{"n": 1.50}')
    stray, both = line("two", id_="msg_two"), line("four", id_="msg_four")[:-1] + ', "id": "old_four"}'
    bare = line("five", id_=None)
    old = [good, "", f".  {stray}", both, bare, torn]
    put(pair.old, f"{path}/messages.jsonl", "\n".join(old))
    derived = uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "modchat:message"), f"alice\0{RICH}\x005")
    new = lines(
        good.replace('"n": 1.50}', '"n": 1.50, "legacy_id": "msg_one"}'),
        line("two", key="id", id_="msg_two", metadata='{"legacy_salvaged": true}'),
        line("four", key="id", id_="msg_four", metadata='{"legacy_id": "old_four"}'),
        bare[:-1] + f', "id": "msg_{derived.hex}"}}',
    )
    put(pair.new, f"{home}/messages.jsonl", new)
    offsets = [sum(len(text.encode()) + 1 for text in old[:n]) for n in range(len(old))]
    rows = [
        {"line": 3, "offset": offsets[2], "raw": old[2], "raw_encoding": "utf-8", "salvaged_id": "msg_two"},
        {"line": 6, "offset": offsets[5], "raw": torn, "raw_encoding": "utf-8", "salvaged_id": None},
    ]
    put(pair.new, f"{home}/quarantine.jsonl", lines(*(json.dumps({**row, "reason": "broken"}) for row in rows)))
    source = v2_json({"id": RICH, "user_id": "alice", "session_name": "Besuch", "created_at": T, "metadata": {"k": 1}})
    put(pair.old, f"{path}/session.json", source + "\n")
    entries = {name: entry(name, "alice", 4) for name in ("aaaaaaaa_one.txt", "cccccccc_gone.txt")}
    put(pair.old, f"{path}/documents/metadata.json", v2_json(entries))
    put(pair.old, f"{path}/documents/aaaaaaaa_one.txt", b"one\n")
    put(pair.old, f"{path}/documents/bbbbbbbb_two.txt", b"two\n")
    exact = {
        "session.json": {"suffix": "\n"},
        "messages.jsonl": {"blank": {"2": ""}, "no_final_newline": True, "lines": 6},
        "documents/metadata.json": {"record": Raw(v2_json(entries))},
    }
    legacy = {"generation": "G2", "inferred": ["updated_at"], "exact": exact}
    about = metadata("alice", RICH, path, source, 4, legacy, title="Besuch")
    put(pair.new, f"{home}/metadata.json", about.replace('"metadata": {}', '"metadata": ' + '{\n    "k": 1\n  }', 1))
    for name in ("situational_context.json", "context_history/context_20250101_100000.json"):
        put(pair.old, f"{path}/{name}", v2_json({"summary": "s", "key_points": []}))
    memory = f"memory/short_term/alice/{RICH}"
    put(pair.new, f"{memory}/context.json", v2_json({"summary": "s", "key_points": []}))
    put(pair.new, f"{memory}/history/context_20250101_100000.json", v2_json({"summary": "s", "key_points": []}))
    put(pair.old, f"{path}/dr_who_messages.jsonl", stray + "\n")
    put(pair.new, f"{home}/shards/dr_who_messages.jsonl", stray + "\n")
    registry: dict[str, Any] = {}
    for name, data in (("aaaaaaaa_one.txt", b"one\n"), ("bbbbbbbb_two.txt", b"two\n"), ("cccccccc_gone.txt", None)):
        registry |= write_document(pair, "rag/documents", "alice", RICH, path, name, data, entries.get(name))
    return registry


def _deleted(pair: Pair) -> None:
    path, home = f"users/alice/{DELETED}.backup_{STAMP}", f"text_chat/archive/alice/{DELETED}/{STAMP}"
    put(pair.old, f"{path}/session.json", record("alice", DELETED))
    put(pair.old, f"{path}/messages.jsonl", lines(line("gone", id_="msg_gone")))
    put(pair.old, f"{path}/documents/dddddddd_old.txt", b"old\n")
    put(pair.new, f"{home}/messages.jsonl", lines(line("gone", key="id", id_="msg_gone")))
    more = {"active": False, "archived_at": "2025-02-02T00:00:00"}
    put(pair.new, f"{home}/metadata.json", metadata("alice", DELETED, path, record("alice", DELETED), 1, **more))
    write_document(pair, f"{home}/documents", "alice", DELETED, path, "dddddddd_old.txt", b"old\n", None)


def _without_record(pair: Pair) -> None:
    user, session = "persona_bob", "persona_bob_talk"
    path, home = f"users/{user}/{session}", f"text_chat/sessions/{user}/{session}"
    put(pair.old, f"{path}/messages.jsonl", lines(line("hi", id_="msg_hi")))
    put(pair.new, f"{home}/messages.jsonl", lines(line("hi", key="id", id_="msg_hi")))
    legacy = {
        "generation": "external",
        "record": None,
        "inferred": ["created_at", "updated_at"],
        "shared_conversation": "talk",
    }
    put(pair.new, f"{home}/metadata.json", metadata(user, session, path, "", 1, legacy, title="Untitled"))


def _split(pair: Pair) -> dict[str, Any]:
    """v2 gave record and messages to the login name, and left the documents with the user."""
    plain_session(pair, "users", "root", SPLIT)
    home = pair.new / f"text_chat/sessions/root/{SPLIT}/metadata.json"
    home.write_text(home.read_text().replace('"messages": 3}', '"messages": 3, "split_with": ["ai_lab"]}'))
    path = f"users/ai_lab/{SPLIT}"
    put(pair.old, f"{path}/documents/eeeeeeee_lab.txt", b"lab\n")
    legacy = {"record": None, "inferred": ["created_at", "updated_at"], "split_with": ["root"]}
    registry = write_document(pair, "rag/documents", "ai_lab", SPLIT, path, "eeeeeeee_lab.txt", b"lab\n", None)
    when = {"created_at": "2023-11-14T22:13:20+00:00", "updated_at": "2023-11-14T22:13:20+00:00"}
    about = metadata("ai_lab", SPLIT, path, "", 0, legacy, title="Untitled", **when)
    put(pair.new, f"text_chat/sessions/ai_lab/{SPLIT}/metadata.json", about)
    return registry


def _merged(pair: Pair) -> None:
    """One session in two directories of users: both records, the newest speaks."""
    older, newer = record("carol", MERGED), record("carol", MERGED, updated_at=T.replace("10:", "11:"))
    put(pair.old, f"people/carol/{MERGED}/session.json", older)
    put(pair.old, f"people/carol/{MERGED}/messages.jsonl", lines(line("a", id_="msg_a")))
    put(pair.old, f"users/carol/{MERGED}/session.json", newer)
    put(pair.old, f"users/carol/{MERGED}/dr_who_messages.jsonl", lines(line("b", id_="msg_b")))
    parts = [
        {"path": f"users/carol/{MERGED}", "record": Raw(newer), "files": [], "lines": 0},
        {"path": f"people/carol/{MERGED}", "record": Raw(older), "files": [], "lines": 1},
    ]
    home = f"text_chat/sessions/carol/{MERGED}"
    about = metadata("carol", MERGED, f"users/carol/{MERGED}", newer, 1, {"parts": parts})
    put(
        pair.new,
        f"{home}/metadata.json",
        about.replace(f'"updated_at": "{T}"', '"updated_at": "2025-01-01T11:00:00.000001"', 1),
    )
    put(pair.new, f"{home}/messages.jsonl", lines(line("a", key="id", id_="msg_a")))
    put(pair.new, f"{home}/shards/dr_who_messages.jsonl", lines(line("b", id_="msg_b")))


def _foreign(pair: Pair) -> None:
    """A user whose name v2 could not use as a directory."""
    user, path = "zoë/../x", "users/zoe_.._x"
    put(pair.old, f"{path}/profile.json", profile(user))
    put(
        pair.new,
        "text_chat/users/zo%C3%AB%2F..%2Fx/profile.json",
        new_profile(user, f"{path}/profile.json", profile(user)),
    )
    put(pair.old, f"{path}/{FOREIGN}/session.json", record(user, FOREIGN))
    about = metadata(user, FOREIGN, f"{path}/{FOREIGN}", record(user, FOREIGN), 0)
    put(pair.new, f"text_chat/sessions/zo%C3%AB%2F..%2Fx/{FOREIGN}/metadata.json", about)


def _g1(pair: Pair) -> None:
    session = "chat_session_20250101_100000"
    source = v2_json(
        {"id": session, "user_id": "gina", "title": "New Chat", "created_at": T, "updated_at": T, "metadata": {}}
    )
    put(pair.old, f"gina/{session}/session.json", source)
    put(pair.old, f"gina/{session}/messages.jsonl", lines(line("g", key="id", id_="msg_g")))
    home = f"text_chat/sessions/gina/{session}"
    put(pair.new, f"{home}/messages.jsonl", lines(line("g", key="id", id_="msg_g", metadata='{"legacy_id": "msg_g"}')))
    about = metadata("gina", session, f"gina/{session}", source, 1, {"generation": "G1"})
    put(pair.new, f"{home}/metadata.json", about)


def _personas(pair: Pair) -> None:
    real = {
        "persona_id": "dr._who",
        "name": "Dr. Who",
        "description": "A doctor",
        "system_prompt": "You are the doctor.",
        "behavioral_traits": {"communication_style": "fast", "values": ["time"]},
        "expertise_areas": ["time travel"],
    }
    own = {"id": "w", "name": "W", "traits": ["calm"], "expertise": ["maps"], "communication_style": {"tone": "dry"}}
    for home, path, source, owner, generation in (
        ("persona/definitions/dr._who", "personas_global/dr._who.json", real, None, "external"),
        ("persona/users/alice/mine", "users/alice/personas/mine.json", own, "alice", "G3"),
    ):
        put(pair.old, path, json.dumps(source))
        put(pair.new, f"{home}/original.json", json.dumps(source))
        about = {
            "id": home.rpartition("/")[2],
            "name": source["name"],
            "description": source.get("description", ""),
            "traits": source.get("traits", ["time"]),
            "voice": source.get("communication_style", {"style": "fast"} if owner else "fast"),
            "knowledge_areas": source.get("expertise", source.get("expertise_areas")),
            "behavioral_rules": [],
            "example_interactions": [],
            "system_prompt": source.get("system_prompt"),
            "owner_id": owner,
            "metadata": {} if owner is None else {"declared_id": "w"},
            "legacy": {"path": path, "generation": generation},
        }
        put(pair.new, f"{home}/profile.json", json.dumps(about))


def _panel(pair: Pair) -> None:
    path, home = f"panel_sessions/{PANEL}", f"multi_agent/conversations/{PANEL}"
    values = {"id": PANEL, "type": "brainstorm", "personas": ["dr. who", "b"], "created_at": T, "updated_at": T}
    source = v2_json({**values, "message_count": 0, "config": {"c": 1}, "metadata": {}})
    put(pair.old, f"{path}/panel.json", source)
    said = [line(f"p{n}", id_=f"msg_p{n}", role="b") for n in range(2)]
    put(pair.old, f"{path}/messages.jsonl", lines(*said))
    put(pair.new, f"{home}/transcript.jsonl", lines(*said).replace('"message_id"', '"id"'))
    put(pair.old, f"{path}/personas/dr. who.json", '{"id": "w"}')
    put(pair.new, f"{home}/participants/dr.%20who.json", '{"id": "w"}')
    insights = [v2_json({"id": f"insight_{n}", "panel_id": "x", "content": f"c{n}"}) for n in range(2)]
    for n, text in enumerate(insights):
        put(pair.old, f"{path}/insights/insight_{n}.json", text)
    put(pair.new, f"{home}/decisions.json", "[" + ", ".join(insights) + "]")
    put(pair.new, f"{home}/participants.json", '["dr. who", "b"]')
    names = [f"insight_{n}.json" for n in range(2)]
    about = new_json(
        id=PANEL,
        title="Brainstorm",
        type="brainstorm",
        created_at=T,
        updated_at=T,
        config=Raw('{\n    "c": 1\n  }'),
        metadata=Raw("{}"),
        message_count=2,
        participants=2,
        decisions=2,
        legacy={"generation": "G3", "path": path, "record": Raw(source), "messages": 2, "insights": names},
    )
    put(pair.new, f"{home}/metadata.json", about)


def _vectors(pair: Pair, owner: str, session: str) -> None:
    """Three rows, two lines: as a crash of v2 leaves them. Filed under ``default``, as v2 always did."""
    path, home = f"users/default/sessions/{session}/vectors", f"rag/embeddings/v2_{digest(owner, session)}"
    array = np.array([[1.0, 0.1], [0.0, 2.0], [0.3, 0.4]])
    buffer = io.BytesIO()
    np.save(buffer, array)
    rows = lines(*(json.dumps(chunk(n, document)) for n, document in ((0, "doc123"), (2, "other"))))
    for name, target, data in (
        ("embeddings.npy", "vectors.npy", buffer.getvalue()),
        ("vector_index.jsonl", "chunks.jsonl", rows.encode()),
    ):
        put(pair.old, f"{path}/{name}", data)
        put(pair.new, f"{home}/{target}", data)
    norms = np.linalg.norm(array, axis=1)
    mapping = {
        "user_id": owner,
        "session_id": session,
        "rows": 3,
        "dimension": 2,
        "dtype": "float64",
        "claimed_model": "nomic",
        "measured_norm": [norms.min(), norms.max()],
        "chunk_ids": {"doc123_chunk_0": [0], "other_chunk_2": [2]},
        "orphan_rows": [1],
        "orphan_lines": [],
        "document_ids": {"doc123": None, "other": None},
        "legacy": {"path": path, "owner": "found"},
    }
    put(pair.new, f"{home}/mapping.json", json.dumps(mapping))
    put(pair.new, f"{home}/index.faiss", faiss_index(array))


def chunk(row: int, document: str) -> dict[str, Any]:
    return {
        "chunk_id": f"{document}_chunk_{row}",
        "vector_index": row,
        "document_id": document,
        "embedding_metadata": {"provider": "p", "model": "nomic"},
    }


def faiss_index(array: Any) -> bytes:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(array.shape[1])
    index.add(array.astype(np.float32))
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def findings(pair: Pair, **options: Any) -> list[str]:
    return [str(finding) for finding in pair.validator(**options).report().findings]


def words(found: Iterable[str]) -> str:
    return "\n".join(found)
