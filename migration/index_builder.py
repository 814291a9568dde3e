"""The indices over the platform's tree: made from the tree alone, and at any time again.

    text_chat/indices/user_sessions.json    user id -> session ids
    text_chat/indices/messages/             the full-text index over all messages
    rag/indices/document_registry.json      document id -> whose it is, and what
    indices/master_index.json               all three; of the second, where it is

Each is built beside its place and put there in one step, so a build that ends early leaves the ones of before. Workers
read slices of the tree; the full-text index has one writer, here, which takes their answers one at a time. The ids of
users, sessions and documents are held in memory; messages are not.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from migration.durable import exchange, held, replace_file, sync_directory, sync_filesystem
from migration.fanout import FanOut, LocalFanOut
from migration.index_reader import (
    DOCUMENTS,
    SESSIONS,
    DocumentContent,
    DocumentSlice,
    UserContent,
    UserSlice,
    directories_in,
    read_documents,
    read_users,
)
from migration.message_index import IndexMissing, MessageHit, MessageIndex, MessageIndexWriter
from migration.tree_copy import remove_tree

log = logging.getLogger(__name__)

MESSAGES = "text_chat/indices/messages"
_USERS_PER_SLICE = 64
_DOCUMENTS_PER_SLICE = 256
_SLICE_BYTES = 8 << 20
_KEPT_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a build found."""

    users: int
    sessions: int
    messages: int
    documents: int
    skipped_lines: int
    """Message lines that are no JSON object; they are in no index."""
    problems: tuple[str, ...]
    """What could not be given a place in an index, by path; the first thousand."""


async def build_indices(storage_path: Path | str, fan_out: FanOut | None = None) -> IndexReport:
    """Builds all indices of the tree at *storage_path*, in a thread of its own; see `build`."""
    return await asyncio.to_thread(build, Path(storage_path), fan_out or LocalFanOut())


def build(
    base: Path,
    fan_out: FanOut,
    *,
    slice_bytes: int = _SLICE_BYTES,
    swap: Callable[[Path, Path], bool] = exchange,
) -> IndexReport:
    """Builds all indices of the tree at *base*, and replaces those that are there.

    *slice_bytes* bounds what one call of *fan_out* answers. Only sessions that have their `metadata.json` are taken.
    Raises OSError for what cannot be read (the indices are then those of before), Busy while another process builds.
    """
    if not base.is_dir():
        raise FileNotFoundError(f"{base} is no directory")
    for place in (MESSAGES, "rag/indices/any", "indices/any"):
        (base / place).parent.mkdir(parents=True, exist_ok=True)
    live = base / MESSAGES
    with held(live.with_name(".build.lock")):
        heal(live)
        fresh = _fresh(live)
        fresh.mkdir()
        try:
            found = _Found()
            with MessageIndexWriter(fresh) as writer:
                for content in _read_all(base, fan_out, slice_bytes):
                    found.take(content)
                    for row in content.rows:
                        writer.add(row)
                writer.finish()
            registry = {"documents": _read_documents(base, fan_out, found)}
            sync_filesystem(fresh)
            publish(live, swap)
        finally:
            if fresh.exists():
                remove_tree(fresh)
        sessions = {user: sorted(ids) for user, ids in found.sessions.items()}
        search = {"engine": "tantivy", "path": MESSAGES, "messages": writer.messages}
        master = {"user_sessions": sessions, "message_search": search, "document_registry": registry}
        _write(base / "text_chat/indices/user_sessions.json", sessions)
        _write(base / "rag/indices/document_registry.json", registry)
        _write(base / "indices/master_index.json", master)
    report = IndexReport(
        users=len(sessions),
        sessions=sum(map(len, sessions.values())),
        messages=writer.messages,
        documents=len(registry["documents"]),
        skipped_lines=found.skipped_lines,
        problems=tuple(found.problems),
    )
    log.info("indexed %s: %s", base, report)
    return report


def search_messages(base: Path | str, query: str, user_id: str | None = None, limit: int = 20) -> list[MessageHit]:
    """The messages that hold every word of *query*, best first; those of *user_id* alone when it is given.

    Opens the index anew; keep a `MessageIndex` for many searches. Raises IndexMissing before the first build.
    """
    return open_message_index(Path(base)).search(query, user_id, limit)


def open_message_index(base: Path) -> MessageIndex:
    """The index of the last build. Raises IndexMissing."""
    live = base / MESSAGES
    try:
        return MessageIndex(live)
    except IndexMissing:
        # Where names cannot be exchanged there is a moment, or after a crash a while, in which it has its other name.
        return MessageIndex(_former(live)) if _former(live).exists() else MessageIndex(live)


def heal(live: Path) -> None:
    """Ends what an earlier build was cut short in: the index of before keeps or gets back its place."""
    if _former(live).exists():
        if live.exists():
            remove_tree(_former(live))
        else:
            _former(live).rename(live)
    if _fresh(live).exists():
        remove_tree(_fresh(live))


def publish(live: Path, swap: Callable[[Path, Path], bool]) -> None:
    """Puts the fresh index in the place of the live one. Where *swap* cannot do it in one step, a crash in between is
    what `heal` and `open_message_index` are for."""
    fresh = _fresh(live)
    if live.exists() and not swap(fresh, live):
        live.rename(_former(live))
    if not live.exists():
        fresh.rename(live)
    sync_directory(live.parent)
    for left in (fresh, _former(live)):
        if left.exists():
            remove_tree(left)


class _Found:
    """What the slices say beside messages, gathered."""

    def __init__(self) -> None:
        self.sessions: defaultdict[str, set[str]] = defaultdict(set)
        self.skipped_lines = 0
        self.problems: list[str] = []

    def take(self, content: UserContent) -> None:
        for user in content.users:
            self.sessions[user].update(())
        for user, session in content.sessions:
            self.sessions[user].add(session)
        self.skipped_lines += content.skipped_lines
        self.note(content.problems)

    def note(self, problems: Iterable[str]) -> None:
        self.problems = [*self.problems, *problems][:_KEPT_PROBLEMS]


def _read_all(base: Path, fan_out: FanOut, slice_bytes: int) -> Iterator[UserContent]:
    """The content of every slice, and then of what slices that were full had left."""
    users = directories_in(str(base / SESSIONS))
    slices: Iterable[UserSlice] = (UserSlice(str(base), part, slice_bytes) for part in _parts(users, _USERS_PER_SLICE))
    while True:
        left: list[UserSlice] = []
        for packed in fan_out.map(read_users, slices):
            content = msgspec.msgpack.decode(packed, type=UserContent)
            if content.rest is not None:
                left.append(content.rest)
            yield content
        if not left:
            return
        slices = left


def _read_documents(base: Path, fan_out: FanOut, found: _Found) -> dict[str, dict[str, Any]]:
    names = directories_in(str(base / DOCUMENTS))
    slices = (DocumentSlice(str(base), part) for part in _parts(names, _DOCUMENTS_PER_SLICE))
    documents: dict[str, dict[str, Any]] = {}
    for packed in fan_out.map(read_documents, slices):
        content = msgspec.msgpack.decode(packed, type=DocumentContent)
        documents.update(content.documents)
        found.note(content.problems)
    return documents


def _parts(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(names[at : at + size]) for at in range(0, len(names), size))


def _write(path: Path, value: object) -> None:
    replace_file(path, json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n")


def _fresh(live: Path) -> Path:
    return live.with_name(live.name + ".tmp")


def _former(live: Path) -> Path:
    return live.with_name(live.name + ".old")
