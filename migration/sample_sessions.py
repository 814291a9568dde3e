"""Profiles, sessions and messages as each generation of v2 wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from migration.sample_text import Prose
from migration.sample_tree import HOUR, MINUTE, SECOND, SampleTree, iso, moment, stamp

Record = dict[str, Any]

BULK_START = moment(2025, 7, 23, 8)


@dataclass(frozen=True, slots=True)
class RecordKind:
    """How one writer of v2 named a session and keyed its records."""

    session_key: str
    message_key: str
    session_type: str | None
    prefix: str = "chat_session"
    title: str = "New Chat"
    fraction: bool = True  # microseconds in the session id
    counts: bool = True  # keeps message_count


G1 = RecordKind("id", "id", None, fraction=False, counts=False)
G2 = RecordKind("id", "id", None)
G3 = RecordKind("session_id", "message_id", None)  # G3, G4 and G5 write the same records
G6_CHAT = RecordKind("session_id", "message_id", "chat")
G6_PANEL = RecordKind("session_id", "message_id", "panel", "panel_session", "Panel Session")
G6_DEBATE = RecordKind("session_id", "message_id", "debate", "debate_session", "Debate Session")
G6_PROBLEM = RecordKind(
    "session_id", "message_id", "problem_solving", "problem_solving_session", "Problem Solving Session"
)

PLAIN_KINDS = (G3, G6_CHAT)
"""Chats as the last v2 reads them itself."""

MIXED_KINDS = (G3, G6_CHAT, G2, G6_PANEL, G6_DEBATE, G6_PROBLEM)

_FIRST_NAMES = (
    "amara", "bruno", "chiara", "dmitri", "elif", "farah", "goran", "hana", "ivo", "jana", "kofi", "lena",
    "mateo", "nadia", "otto", "priya", "quentin", "rosa", "sven", "tara",
)  # fmt: skip

_PERSONAS = ("dr._sarah_wilson", "marcus_chen")
_THEMES = ("dark", "light", "auto", "default")


@dataclass(frozen=True, slots=True)
class WrittenSession:
    """A session as it now stands in the store."""

    session_id: str
    path: str
    records: Sequence[Record]
    ended: int


def session_id(kind: RecordKind, started: int) -> str:
    return f"{kind.prefix}_{stamp(started, fraction=kind.fraction)}"


def message(
    kind: RecordKind, rng: Random, *, role: str, content: str, at: int, metadata: Mapping[str, Any], digits: int = 12
) -> Record:
    """One message, keys in v2's order; *digits* of its id are 12, or 32 in the external application's."""
    return {
        "role": role,
        "content": content,
        kind.message_key: f"msg_{rng.getrandbits(4 * digits):0{digits}x}",
        "timestamp": iso(at),
        "attachments": [],
        "metadata": dict(metadata),
    }


def dialogue(
    kind: RecordKind, rng: Random, prose: Prose, *, started: int, messages: int, digits: int = 12
) -> tuple[list[Record], int]:
    """Questions and answers in turn, and the moment of the last one."""
    records = []
    at = started
    for number in range(messages):
        at += int(rng.random() * 90 * SECOND) + SECOND
        is_answer = number % 2 == 1
        records.append(
            message(
                kind,
                rng,
                role="assistant" if is_answer else "user",
                content=prose.message(rng),
                at=at,
                metadata=_metadata(kind, rng, is_answer=is_answer),
                digits=digits,
            )
        )
    return records, at


def _metadata(kind: RecordKind, rng: Random, *, is_answer: bool) -> Record:
    if kind.session_type == "panel":
        return {
            "conversation_entry": True,
            "multimodal": False,
            "persona": _PERSONAS[int(rng.random() * len(_PERSONAS))],
        }
    if kind.session_type == "chat":
        return {"chat_optimized": True, "stored_via_bridge": True, "processing_time": rng.random() / 1e5}
    if is_answer and kind.message_key == "message_id":
        return {
            "processor": "ff_chat_phase2_components",
            "components_used": ["fallback"],
            "use_case": "basic_chat",
        }
    return {}


def session_record(
    kind: RecordKind,
    session: str,
    user_id: str,
    *,
    started: int,
    ended: int,
    count: int,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Record:
    """The object of session.json; *count* is what it claims."""
    record: Record = {
        kind.session_key: session,
        "user_id": user_id,
        "title": title or kind.title,
        "created_at": iso(started),
        "updated_at": iso(ended),
        "message_count": count if kind.counts else 0,
        "metadata": dict(metadata or {}),
    }
    if kind.session_type is not None:
        record["session_type"] = kind.session_type
    return record


def write_session(
    tree: SampleTree,
    home: str,
    user_id: str,
    kind: RecordKind,
    rng: Random,
    prose: Prose,
    *,
    started: int,
    messages: int,
) -> WrittenSession:
    """A live session in the user directory *home*; without messages it has no messages.jsonl, as in v2."""
    name = session_id(kind, started)
    path = f"{home}/{name}"
    records, last = dialogue(kind, rng, prose, started=started, messages=messages)
    ended = last + 1500
    title = prose.title(rng) if kind.title == "New Chat" else None
    tree.json(
        f"{path}/session.json",
        session_record(kind, name, user_id, started=started, ended=ended, count=messages, title=title),
        ended,
    )
    if records:
        tree.jsonl(f"{path}/messages.jsonl", records, last)
    tree.count(sessions=1, messages=messages)
    return WrittenSession(name, path, records, ended)


def write_profile(
    tree: SampleTree,
    home: str,
    user_id: str,
    at: int,
    *,
    username: str = "",
    preferences: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    tree.json(
        f"{home}/profile.json",
        {
            "user_id": user_id,
            "username": username,
            "created_at": iso(at),
            "updated_at": iso(at + 15),
            "preferences": dict(preferences or {}),
            "metadata": dict(metadata or {}),
        },
        at,
    )
    tree.count(profiles=1)


def write_users(
    tree: SampleTree,
    prose: Prose,
    kinds: Sequence[RecordKind],
    *,
    users: int,
    sessions: int,
    messages: int,
    seed: int,
) -> None:
    """*users* with a profile and *sessions* each, of the *kinds* in turn; no user's files depend on another's."""
    for number in range(users):
        rng = Random(f"{seed}/user/{number}")
        user_id = f"{_FIRST_NAMES[number % len(_FIRST_NAMES)]}_{number:04d}"
        home = f"users/{user_id}"
        joined = BULK_START + number % 17 * HOUR + int(rng.random() * HOUR)
        write_profile(
            tree,
            home,
            user_id,
            joined,
            username=user_id.partition("_")[0].capitalize(),
            preferences={"theme": rng.choice(_THEMES), "language": "en", "notifications": rng.random() < 0.5},
        )
        tree.count(user_directories=1)
        for session in range(sessions):
            started = joined + session * 40 * MINUTE + int(rng.random() * 30 * MINUTE)
            kind = kinds[(number + session) % len(kinds)]
            write_session(tree, home, user_id, kind, rng, prose, started=started, messages=messages)
