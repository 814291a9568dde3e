"""What modules hand to each other: frozen, and checked when built, so that a value that exists is a right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ValidationError
from .quick_pickle import quickly_pickled

ROLES = frozenset({"user", "assistant", "system", "tool"})
ATTACHMENT_TYPES = frozenset({"text", "image", "audio", "video", "document"})
MESSAGE_STATUSES = frozenset({"complete", "partial", "unreadable"})


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Attachment:
    id: str
    type: str = "document"
    url: str = ""
    size_bytes: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _named("attachment id", self.id)
        _one_of("attachment type", self.type, ATTACHMENT_TYPES)
        _text("attachment url", self.url)
        _count("attachment size_bytes", self.size_bytes)
        _mapping("attachment metadata", self.metadata)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "url": self.url,
            "size_bytes": self.size_bytes,
            "metadata": dict(self.metadata),
        }


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session.

    ``timestamp`` is the string that was stored: ISO 8601 in what this platform writes, anything (also ``""``) in
    what came from elsewhere. ``status`` is ``partial`` for an answer that was cut off and ``unreadable`` for a
    stored line that is no message; its ``content`` is then the line itself. ``tokens`` is None where nobody
    counted. ``extra`` holds the members of the stored record that have no field here, and the original of each
    field whose value could not be taken as it stood.
    """

    id: str
    session_id: str
    role: str
    content: str
    timestamp: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    status: str = "complete"
    tokens: int | None = None
    parent_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _named("message id", self.id)
        _text("session_id", self.session_id)
        _one_of("role", self.role, ROLES)
        _text("content", self.content)
        _text("timestamp", self.timestamp)
        _mapping("metadata", self.metadata)
        _tuple_of("attachments", self.attachments, Attachment)
        _one_of("status", self.status, MESSAGE_STATUSES)
        if self.tokens is not None:
            _count("tokens", self.tokens)
        if self.parent_id is not None:
            _named("parent_id", self.parent_id)
        _mapping("extra", self.extra)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as interfaces show a message."""
        return {
            "id": self.id,
            "session_id": self.session_id,
            "role": self.role,
            "content": self.content,
            "timestamp": self.timestamp,
            "metadata": dict(self.metadata),
            "attachments": [attachment.to_dict() for attachment in self.attachments],
            "status": self.status,
            "tokens": self.tokens,
            "parent_id": self.parent_id,
            "extra": dict(self.extra),
        }


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Session:
    """A chat of one user. ``id`` is unique for that user only. ``updated_at`` is the last activity."""

    id: str
    user_id: str
    title: str
    created_at: str = ""
    updated_at: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    session_type: str = "chat"
    active: bool = True
    message_count: int = 0

    def __post_init__(self) -> None:
        _named("session id", self.id)
        _text("user_id", self.user_id)
        _text("title", self.title)
        _text("created_at", self.created_at)
        _text("updated_at", self.updated_at)
        _mapping("metadata", self.metadata)
        _named("session_type", self.session_type)
        if not isinstance(self.active, bool):
            raise ValidationError(f"active must be true or false, not {self.active!r}", param="active")
        _count("message_count", self.message_count)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "user_id": self.user_id,
            "title": self.title,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "metadata": dict(self.metadata),
            "session_type": self.session_type,
            "active": self.active,
            "message_count": self.message_count,
        }


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module says of itself. ``dependencies`` must be there; ``optional`` ones are used when they are."""

    name: str
    version: str
    capabilities: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _named("module name", self.name)
        _named("module version", self.version)
        _tuple_of("capabilities", self.capabilities, str)
        _tuple_of("dependencies", self.dependencies, str)
        _tuple_of("optional", self.optional, str)
        if self.name in self.dependencies + self.optional:
            raise ValidationError(f"module {self.name!r} cannot depend on itself", param="dependencies")


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model makes of *text*: four bytes of UTF-8 each, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValidationError(f"{name} must be text, not {type(value).__name__}", param=name)


def _named(name: str, value: object) -> None:
    _text(name, value)
    if not value:
        raise ValidationError(f"{name} must not be empty", param=name)


def _count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValidationError(f"{name} must be a whole number from 0 up, not {value!r}", param=name)


def _one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValidationError(f"{name} must be one of {', '.join(sorted(allowed))}; not {value!r}", param=name)


def _mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValidationError(f"{name} must be a mapping, not {type(value).__name__}", param=name)


def _tuple_of(name: str, value: object, kind: type) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise ValidationError(f"{name} must be a tuple of {kind.__name__}", param=name)
