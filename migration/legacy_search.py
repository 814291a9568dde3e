"""Search as the old application meant it: by words, over messages, documents' descriptions and contexts.

The score of a text: 2 where the whole query stands in it, plus the share of the query's words (three letters or more)
that do. Pure, but for `LegacySearch`, which reads the store; synchronous; called from threads.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from migration.legacy_documents import LegacyContexts, LegacyDocuments
from migration.legacy_people import LegacyPeople
from migration.legacy_sessions import LegacySessions
from migration.legacy_store import Record
from modules.core.clock import moment_of

_WORD = re.compile(r"\w+")
_SHORTEST_WORD = 3
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "urls": re.compile(r"https?://[^\s<>\"')\]]+"),
    "emails": re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    "code_blocks": re.compile(r"```(?:[^`]|`(?!``))*```"),
    "mentions": re.compile(r"(?<!\w)@\w+"),
    "hashtags": re.compile(r"(?<!\w)#\w+"),
    "numbers": re.compile(r"\b\d+(?:\.\d+)?\b"),
    "phone_numbers": re.compile(r"(?<!\w)\+?\d{1,3}[ .-]?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}(?!\w)"),
    "ip_addresses": re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
    "file_paths": re.compile(r"(?<![\w/:])(?:~|\.{1,2})?/(?:[\w.-]+/)*[\w.-]+"),
    "github_repos": re.compile(r"\bgithub\.com/[\w.-]+/[\w.-]*\w"),
    "jira_tickets": re.compile(r"\b[A-Z][A-Z0-9]+-\d+\b"),
    "uuids": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
}
_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "python": ("python", "py"),
    "javascript": ("javascript", "js"),
    "typescript": ("typescript",),
    "java": ("java",),
    "c++": ("c++", "cpp"),
    "c#": ("c#", "csharp"),
    "go": ("golang",),
    "rust": ("rust",),
    "ruby": ("ruby",),
    "php": ("php",),
    "sql": ("sql",),
    "html": ("html",),
    "css": ("css",),
    "bash": ("bash",),
}


def entities_in(text: str) -> dict[str, list[str]]:
    """What of each kind stands in *text*, each thing once, in the order of its first place; kinds with none are left
    out. A language counts where one of its names does, also inside another word."""
    found = {kind: list(dict.fromkeys(pattern.findall(text))) for kind, pattern in _PATTERNS.items()}
    low = text.lower()
    found["languages"] = [name for name, signs in _LANGUAGES.items() if any(sign in low for sign in signs)]
    return {kind: things for kind, things in found.items() if things}


def score_of(query: str, text: str) -> float:
    wanted, low = query.lower().strip(), text.lower()
    if not wanted:
        return 0.0
    words = [word for word in _WORD.findall(wanted) if len(word) >= _SHORTEST_WORD]
    share = sum(word in low for word in words) / len(words) if words else 0.0
    return (2.0 if wanted in low else 0.0) + share


def highlights_of(query: str, text: str) -> list[tuple[int, int]]:
    """Where the query, or else its words, stand in *text*."""
    wanted = query.strip()
    words = [word for word in _WORD.findall(wanted) if len(word) >= _SHORTEST_WORD]
    for signs in ([wanted] if wanted else [], words):
        spans = [match.span() for sign in signs for match in re.finditer(re.escape(sign), text, re.IGNORECASE)]
        if spans:
            return sorted(set(spans))
    return []


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query. *start* and *end* None: unbounded; *entities*: a thing of a kind that must stand in the text; without
    any of the three and without a *text*, nothing is found."""

    text: str = ""
    user_id: str | None = None
    session_ids: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    roles: frozenset[str] | None = None
    entities: Mapping[str, Sequence[str]] | None = None
    documents: bool = False
    contexts: bool = False
    limit: int = 100
    least_score: float = 0.0

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> Wanted:
        """Of a FFSearchQueryDTO's values. Raises ValueError for a time that is none."""
        sessions, roles = query["session_ids"], query["message_roles"]
        return cls(
            text=query["query"] or "",
            user_id=query["user_id"],
            session_ids=None if sessions is None else tuple(sessions),
            start=moment(query["start_date"]),
            end=moment(query["end_date"]),
            roles=frozenset(roles) if roles else None,
            entities=query["entities"] or None,
            documents=bool(query["include_documents"]),
            contexts=bool(query["include_context"]),
            limit=query["max_results"],
            least_score=query["min_relevance_score"],
        )

    def is_in_time(self, timestamp: str) -> bool:
        if self.start is None and self.end is None:
            return True
        when = moment_of(timestamp)
        return when is not None and (
            (self.start is None or when >= self.start) and (self.end is None or when <= self.end)
        )

    def has_entities(self, text: str) -> bool:
        """Whether a wanted thing of a wanted kind stands in *text*; a kind that nobody knows is any text."""
        if not self.entities:
            return True
        found = entities_in(text)
        low = text.lower()
        return any(
            str(thing).lower() in [one.lower() for one in found.get(kind, [])]
            or (kind not in _PATTERNS and kind != "languages" and str(thing).lower() in low)
            for kind, things in self.entities.items()
            for thing in things
        )

    def score(self, text: str) -> float:
        if not self.text:
            is_bounded = self.start is not None or self.end is not None or bool(self.entities)
            return 1.0 if is_bounded else 0.0
        return score_of(self.text, text)


def moment(value: datetime | str | None) -> datetime | None:
    """The moment meant; a time without an offset is taken as UTC, as stored ones are."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    found = moment_of(value)
    if found is None:
        raise ValueError(f"not a time: {value!r}")
    return found


class LegacySearch:
    def __init__(
        self, people: LegacyPeople, sessions: LegacySessions, documents: LegacyDocuments, contexts: LegacyContexts
    ) -> None:
        self._people = people
        self._sessions = sessions
        self._documents = documents
        self._contexts = contexts

    def find(self, wanted: Wanted) -> list[Record]:
        """Values of FFSearchResultDTO, the best first; of equals the first found."""
        users = [wanted.user_id] if wanted.user_id is not None else self._people.listed()
        found = [
            result
            for user_id in users
            for session_id in self._session_ids(user_id, wanted)
            for result in self._in_session(user_id, session_id, wanted)
        ]
        kept = [one for one in found if one["relevance_score"] > 0 and one["relevance_score"] >= wanted.least_score]
        return sorted(kept, key=lambda one: -float(one["relevance_score"]))[: max(0, wanted.limit)]

    def index(self, user_id: str, now: str) -> Record:
        """What a user's sessions hold: how many messages, which entities in which sessions, how often which words."""
        sessions: Record = {}
        entities: dict[str, dict[str, list[str]]] = {}
        words: Counter[str] = Counter()
        for session_id in self._sessions.ids(user_id):
            count = 0
            for message in self._sessions.messages(user_id, session_id):
                count += 1
                words.update(w for w in _WORD.findall(message["content"].lower()) if len(w) >= _SHORTEST_WORD)
                for kind, things in entities_in(message["content"]).items():
                    for thing in things:
                        places = entities.setdefault(kind, {}).setdefault(thing, [])
                        if session_id not in places:
                            places.append(session_id)
            sessions[session_id] = {"message_count": count}
        return {
            "user_id": user_id,
            "created_at": now,
            "sessions": sessions,
            "entities": entities,
            "word_frequencies": dict(words.most_common()),
        }

    def _session_ids(self, user_id: str, wanted: Wanted) -> Sequence[str]:
        return self._sessions.ids(user_id) if wanted.session_ids is None else wanted.session_ids

    def _in_session(self, user_id: str, session_id: str, wanted: Wanted) -> Iterator[Record]:
        for message in self._sessions.messages(user_id, session_id):
            if wanted.roles is not None and message["role"] not in wanted.roles:
                continue
            more = {"role": message["role"], **message["metadata"]}
            found = ("message", message["message_id"], message["content"], message["timestamp"], more)
            yield from self._judged(user_id, session_id, wanted, *found)
        if wanted.documents:
            for entry in self._documents.listed(user_id, session_id):
                about = [entry["original_name"], str(entry["metadata"].get("description") or "")]
                about.append(json.dumps(entry["analysis"], ensure_ascii=False) if entry["analysis"] else "")
                text = "\n".join(filter(None, about))
                found = ("document", entry["filename"], text, entry["uploaded_at"], entry["metadata"])
                yield from self._judged(user_id, session_id, wanted, *found)
        if wanted.contexts and (context := self._contexts.read(user_id, session_id)) is not None:
            yield from self._in_context(user_id, session_id, context, wanted)

    def _in_context(
        self, user_id: str, session_id: str, context: Mapping[str, Any], wanted: Wanted
    ) -> Iterator[Record]:
        points, named = context.get("key_points"), context.get("entities")
        lines = [str(context.get("summary") or ""), *(map(str, points) if isinstance(points, list) else ())]
        for things in named.values() if isinstance(named, dict) else ():
            lines += map(str, things if isinstance(things, list) else [things])
        confidence = context.get("confidence")
        weight = float(confidence) if isinstance(confidence, int | float) else 1.0
        timestamp = str(context.get("timestamp") or "")
        for result in self._judged(user_id, session_id, wanted, "context", session_id, "\n".join(lines), timestamp, {}):
            yield {**result, "relevance_score": result["relevance_score"] * weight}

    def _judged(
        self,
        user_id: str,
        session_id: str,
        wanted: Wanted,
        kind: str,
        id_: str,
        text: str,
        timestamp: str,
        metadata: Mapping[str, Any],
    ) -> Iterator[Record]:
        if not (wanted.is_in_time(timestamp) and wanted.has_entities(text)):
            return
        yield {
            "id": id_,
            "type": kind,
            "content": text,
            "session_id": session_id,
            "user_id": user_id,
            "timestamp": timestamp,
            "relevance_score": wanted.score(text),
            "highlights": highlights_of(wanted.text, text),
            "metadata": dict(metadata),
        }
