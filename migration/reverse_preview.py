"""What a v2 store cannot hold of a migrated tree: read from the tree, before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from migration.embed import display_name
from migration.reverse_raw import NotJson, members
from migration.reverse_work import files_below
from migration.state import STATE_DIR

_EXAMPLES = 5

MEANINGS = {
    "agents": "agents and their states",
    "contexts_without_session": "contexts of sessions that are not there",
    "derived": "indices and other files that are derived and can be built again",
    "long_term_memory": "long-term memory",
    "media": "uploads, and what was found in them",
    "new_conversations": "conversations of agents that began on the platform",
    "new_documents": "documents that were added on the platform",
    "new_personas": "personas that were made on the platform",
    "new_vectors": "vectors that were made on the platform",
    "other": "files that no rule of the way back knows",
    "platform": "what a running platform keeps of itself",
    "quarantine": "rows of quarantine.jsonl: the lines go back to their places, what was said of them does not",
    "routing": "topics and what the router has learnt",
    "short_term_memory": "short-term memory besides the contexts",
    "states": "what is known of a session's log; derived from it",
    "temporary": "left-overs of interrupted writes",
    "tools": "registrations and results of tools",
    "traces": "traces and audit entries",
    "unfinished_sessions": "files of sessions without a metadata.json, which do not exist yet",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """One kind of what would not come along: how many, their bytes, and where a few of them are."""

    kind: str
    count: int
    bytes: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} ({self.count}): {MEANINGS[self.kind]}; e.g. {self.examples[0]}"


def preview(source: str) -> list[Loss]:
    """Everything below the migrated tree at *source* that a v2 store has no place for, by kind.

    Raises `OSError` when the tree cannot be read: an error is not the end of a list.
    """
    tally = _Tally()
    for path in _files(source):
        kind = kind_of(path)
        if kind in _ASKS:
            kind = _ASKS[kind](source, path)
        if kind == "quarantine":
            tally.add(kind, path, _size(source, path), by=_lines(source, path))
        elif kind is not None:
            tally.add(kind, path, _size(source, path))
    return tally.losses()


def kind_of(path: str) -> str | None:
    """The kind of what is lost with the file at *path*; None for one that comes along. The first rule counts.

    Kinds that begin with ``?`` depend on what stands beside the file.
    """
    return next((kind for rule, kind in _RULES if rule.fullmatch(path)), "other")


def _rules(*rules: tuple[str, str | None]) -> tuple[tuple[re.Pattern[str], str | None], ...]:
    return tuple((re.compile(rule, re.DOTALL), kind) for rule, kind in rules)


_NAME = r"[^/]+"
_RULES = _rules(
    (r"attic/.*", None),
    (r"\.platform/.*", "platform"),
    (r"(.*/)?\.tmp-[^/]*", "temporary"),
    (rf"text_chat/users/{_NAME}/profile\.json", None),
    (rf"text_chat/sessions/{_NAME}/{_NAME}/state\.json", "states"),
    (rf"text_chat/(sessions/{_NAME}|archive/{_NAME}/{_NAME})/{_NAME}/quarantine\.jsonl", "quarantine"),
    (rf"text_chat/sessions/{_NAME}/{_NAME}/(metadata\.json|messages\.jsonl|shards/{_NAME})", "?session"),
    (rf"text_chat/archive/{_NAME}/{_NAME}/{_NAME}/(metadata\.json|messages\.jsonl|shards/{_NAME})", None),
    (rf"text_chat/archive/{_NAME}/{_NAME}/{_NAME}/(context\.json|history/{_NAME})", None),
    (rf"text_chat/archive/{_NAME}/{_NAME}/{_NAME}/documents/{_NAME}/(metadata\.json|original[^/]*)", None),
    (r"text_chat/indices/.*", "derived"),
    (rf"memory/short_term/{_NAME}/{_NAME}/(context\.json|history/{_NAME})", "?context"),
    (r"memory/short_term/.*", "short_term_memory"),
    (r"memory/long_term/.*", "long_term_memory"),
    (rf"rag/documents/{_NAME}/(metadata\.json|original[^/]*)", "?document"),
    (rf"rag/documents/{_NAME}/chunks\.jsonl", "derived"),
    (rf"rag/embeddings/{_NAME}/index\.faiss", "derived"),
    (rf"rag/embeddings/{_NAME}/(mapping\.json|vectors\.npy|chunks\.jsonl)", "?vectors"),
    (r"(rag/indices|indices)/.*", "derived"),
    (rf"persona/(definitions|users/{_NAME})/{_NAME}/(profile|original)\.json", "?persona"),
    (rf"multi_agent/conversations/{_NAME}/quarantine\.jsonl", "quarantine"),
    (rf"multi_agent/conversations/{_NAME}/(metadata|participants|decisions)\.json", "?conversation"),
    (rf"multi_agent/conversations/{_NAME}/(transcript\.jsonl|participants/{_NAME})", "?conversation"),
    (r"multi_agent/.*", "agents"),
    (r"tool_use/.*", "tools"),
    (r"trace_logger/.*", "traces"),
    (r"multimodal/.*", "media"),
    (r"topic_router/.*", "routing"),
)


def _session(source: str, path: str) -> str | None:
    home = "/".join(path.split("/")[:4])
    return None if os.path.exists(f"{source}/{home}/metadata.json") else "unfinished_sessions"


def _context(source: str, path: str) -> str | None:
    user, session = path.split("/")[2:4]
    there = os.path.exists(f"{source}/text_chat/sessions/{user}/{session}/metadata.json")
    return None if there else "contexts_without_session"


def _document(source: str, path: str) -> str | None:
    return None if _has_legacy(source, path, 3, "metadata.json") else "new_documents"


def _vectors(source: str, path: str) -> str | None:
    return None if _has_legacy(source, path, 3, "mapping.json") else "new_vectors"


def _persona(source: str, path: str) -> str | None:
    return None if _has_legacy(source, path, path.count("/"), "profile.json") else "new_personas"


def _conversation(source: str, path: str) -> str | None:
    return None if _has_legacy(source, path, 3, "metadata.json") else "new_conversations"


_ASKS = {
    "?session": _session,
    "?context": _context,
    "?document": _document,
    "?vectors": _vectors,
    "?persona": _persona,
    "?conversation": _conversation,
}


def _has_legacy(source: str, path: str, depth: int, file: str) -> bool:
    """Whether the thing at the first *depth* names of *path* came from v2."""
    home = "/".join(path.split("/")[:depth])
    try:
        with open(f"{source}/{home}/{file}", "rb") as found:
            return members(found.read()).get("legacy", b"null") != b"null"
    except (FileNotFoundError, NotJson):
        return False


def _files(source: str) -> Iterator[str]:
    for name in sorted(os.listdir(source)):
        if name == STATE_DIR:
            continue  # what the migration remembers of itself
        if os.path.isdir(f"{source}/{name}"):
            yield from files_below(source, name)
        else:
            yield name


def _size(source: str, path: str) -> int:
    return os.stat(f"{source}/{path}", follow_symlinks=False).st_size


def _lines(source: str, path: str) -> int:
    with open(f"{source}/{path}", "rb") as file:
        return sum(1 for _ in file)


@dataclass(slots=True)
class _Tally:
    counts: dict[str, list[int]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str, size: int, by: int = 1) -> None:
        sums = self.counts.setdefault(kind, [0, 0])
        sums[0] += by
        sums[1] += size
        known = self.examples.setdefault(kind, [])
        if len(known) < _EXAMPLES:
            known.append(display_name(path))

    def losses(self) -> list[Loss]:
        return [
            Loss(kind, n, size, tuple(sorted(self.examples[kind]))) for kind, (n, size) in sorted(self.counts.items())
        ]
