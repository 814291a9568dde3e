"""What is remembered: items, whom they belong to, and the rules that need no storage. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from modules.core.errors import ValidationError

SHORT_TERM, LONG_TERM = "short_term", "long_term"
MEMORY_TYPES = (SHORT_TERM, LONG_TERM)
USUAL_IMPORTANCE = 0.5
_OFTEN = 2

# Within a user's memories: the key, and the session and agent that it is bound to.
Identity = tuple[str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memories. What names a session or an agent is for these alone; what names none is for all of the user."""

    user_id: str = ""
    session_id: str | None = None
    agent_id: str | None = None

    def identities(self, key: str) -> tuple[Identity, ...]:
        """Where to look a key up, the most particular place first."""
        places = [(self.session_id, self.agent_id), (self.session_id, None), (None, self.agent_id), (None, None)]
        return tuple(dict.fromkeys((key, session, agent) for session, agent in places))

    def covers(self, item: MemoryItem) -> bool:
        """Whether a search in this scope finds *item*. A search that names no session looks into all of them."""
        return _meets(self.session_id, item.session_id) and _meets(self.agent_id, item.agent_id)


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """``content`` is any JSON value. Times are seconds since the epoch; ``expires_at`` None is never.

    ``importance`` is from 0 to 1.
    """

    key: str
    content: Any
    memory_type: str = SHORT_TERM
    user_id: str = ""
    session_id: str | None = None
    agent_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    importance: float = USUAL_IMPORTANCE
    created_at: float = 0.0
    expires_at: float | None = None
    access_count: int = 0
    accessed_at: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise ValidationError("key must be text and not empty", param="key")
        check_memory_type(self.memory_type)
        if not isinstance(self.importance, int | float) or not 0 <= self.importance <= 1:
            raise ValidationError(f"importance must be from 0 to 1, not {self.importance!r}", param="importance")
        for name in ("session_id", "agent_id"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValidationError(f"{name} must be text and not empty where it is given", param=name)
        if not isinstance(self.metadata, Mapping):
            raise ValidationError("metadata must be a mapping", param="metadata")

    @property
    def identity(self) -> Identity:
        return self.key, self.session_id, self.agent_id

    @property
    def text(self) -> str:
        """What is searched and shown."""
        return self.content if isinstance(self.content, str) else _canonical(self.content)

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def accessed(self, now: float) -> MemoryItem:
        return replace(self, access_count=self.access_count + 1, accessed_at=now)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Raises ValidationError or TypeError when *stored* is no item."""
        return cls(**stored)


def _meets(asked: str | None, bound_to: str | None) -> bool:
    return asked is None or bound_to is None or asked == bound_to


def check_memory_type(memory_type: object) -> None:
    if memory_type not in MEMORY_TYPES:
        raise ValidationError(
            f"memory_type must be {SHORT_TERM} or {LONG_TERM}, not {memory_type!r}", param="memory_type"
        )


def value_of(item: MemoryItem) -> tuple[float, int, float]:
    """By which long-term memories are kept: the least of these goes first."""
    return item.importance, item.access_count, item.accessed_at


# Whether a short-term item is worth keeping: strategy -> (item, now, how long one is recent) -> bool.
WORTH_KEEPING: dict[str, Callable[[MemoryItem, float, float], bool]] = {
    "importance": lambda item, now, recent_s: item.importance > USUAL_IMPORTANCE,
    "frequency": lambda item, now, recent_s: item.access_count >= _OFTEN,
    "recency": lambda item, now, recent_s: item.accessed_at > now - recent_s,
}


def _canonical(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, default=repr)
