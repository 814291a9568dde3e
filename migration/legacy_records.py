"""The old application's records: the same names, fields, defaults and checks.

`RecordClasses` decides of which classes the adapter's answers are. Where the old application has loaded its own record
module, answers are of its classes, so that its ``isinstance`` checks hold; else they are of those here. Records that
come in may be of any class with these attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar, Self
from uuid import uuid4

OLD_MODULE = "ff_class_configs.ff_chat_entities_config"


def naive_now() -> str:
    """Local time without an offset, as the old application spells its times."""
    return datetime.now().isoformat()  # noqa: DTZ005 - the old application's times are naive and local


def _message_id() -> str:
    return f"msg_{uuid4().hex[:12]}"


def _insight_id() -> str:
    return f"insight_{uuid4().hex[:12]}"


def _check(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


class _Record:
    """``to_dict`` gives what is stored; ``from_dict`` raises TypeError for an unknown key."""

    _NOT_STORED: ClassVar[frozenset[str]] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in self._NOT_STORED}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass
class FFMessageDTO(_Record):
    role: str
    content: str
    message_id: str = field(default_factory=_message_id)
    timestamp: str = field(default_factory=naive_now)
    attachments: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.role), "role must not be empty")
        _check(bool(self.content), "content must not be empty")


@dataclass
class FFPanelMessageDTO(FFMessageDTO):
    persona_id: str = ""
    response_to: str | None = None
    consensus_level: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.persona_id = self.persona_id or self.role
        _check(self.consensus_level is None or 0 <= self.consensus_level <= 1, "consensus_level must be from 0 to 1")


@dataclass
class FFSessionDTO(_Record):
    session_id: str
    user_id: str
    title: str = "New Chat"
    session_type: str = "chat"
    created_at: str = field(default_factory=naive_now)
    updated_at: str = field(default_factory=naive_now)
    message_count: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.session_id), "session_id must not be empty")
        _check(bool(self.user_id), "user_id must not be empty")

    @property
    def session_name(self) -> str:
        return self.title


@dataclass
class FFUserProfileDTO(_Record):
    user_id: str
    username: str = ""
    created_at: str = field(default_factory=naive_now)
    updated_at: str = field(default_factory=naive_now)
    preferences: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.user_id), "user_id must not be empty")


@dataclass
class FFDocumentDTO(_Record):
    """``filename`` is the document's id; ``path`` its place relative to the old store's base, for information."""

    filename: str
    original_name: str
    path: str
    mime_type: str
    size: int
    uploaded_at: str = field(default_factory=naive_now)
    uploaded_by: str = ""
    analysis: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.filename), "filename must not be empty")
        _check(bool(self.path), "path must not be empty")
        _check(self.size >= 0, "size must not be negative")


@dataclass
class FFSituationalContextDTO(_Record):
    _NOT_STORED = frozenset({"max_key_points"})

    summary: str
    key_points: list[str]
    entities: dict[str, list[str]]
    timestamp: str = field(default_factory=naive_now)
    confidence: float = 0.0
    message_range: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    max_key_points: int = 10

    def __post_init__(self) -> None:
        _check(bool(self.summary), "summary must not be empty")
        _check(len(self.key_points) <= self.max_key_points, f"more than {self.max_key_points} key points")
        _check(0 <= self.confidence <= 1, "confidence must be from 0 to 1")


@dataclass
class FFPanelDTO(_Record):
    _NOT_STORED = frozenset({"max_personas"})

    id: str
    type: str
    personas: list[str]
    created_at: str = field(default_factory=naive_now)
    updated_at: str = field(default_factory=naive_now)
    message_count: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    max_personas: int = 10

    def __post_init__(self) -> None:
        _check(bool(self.id), "id must not be empty")
        _check(1 <= len(self.personas) <= self.max_personas, f"a panel has 1 to {self.max_personas} personas")


@dataclass
class FFPanelInsightDTO(_Record):
    id: str = field(default_factory=_insight_id)
    panel_id: str = ""
    type: str = "conclusion"
    content: str = ""
    supporting_messages: list[str] = field(default_factory=list)
    consensus_level: float = 0.0
    created_at: str = field(default_factory=naive_now)
    created_by: str = "system"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.content), "content must not be empty")
        _check(0 <= self.consensus_level <= 1, "consensus_level must be from 0 to 1")


@dataclass
class FFPersonaDTO(_Record):
    id: str
    name: str
    description: str = ""
    traits: list[str] = field(default_factory=list)
    expertise: list[str] = field(default_factory=list)
    communication_style: dict[str, Any] = field(default_factory=dict)
    created_at: str = field(default_factory=naive_now)
    updated_at: str = field(default_factory=naive_now)
    is_global: bool = True
    owner_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.id), "id must not be empty")
        _check(bool(self.name), "name must not be empty")


@dataclass
class FFVectorSearchResultDTO(_Record):
    """``similarity_score`` is (cosine + 1) / 2."""

    chunk_id: str
    chunk_text: str
    similarity_score: float
    document_id: str
    session_id: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(0 <= self.similarity_score <= 1, "similarity_score must be from 0 to 1")

    @property
    def text(self) -> str:
        return self.chunk_text


@dataclass
class FFSearchQueryDTO(_Record):
    query: str
    user_id: str | None = None
    session_ids: list[str] | None = None
    start_date: datetime | str | None = None
    end_date: datetime | str | None = None
    message_roles: list[str] | None = None
    entities: dict[str, list[str]] | None = None
    include_documents: bool = False
    include_context: bool = False
    max_results: int = 100
    min_relevance_score: float = 0.0
    use_vector_search: bool = False
    similarity_threshold: float = 0.7
    embedding_provider: str | None = None
    chunking_strategy: str | None = None
    hybrid_search: bool = False
    vector_weight: float = 0.5


@dataclass
class FFSearchResultDTO(_Record):
    """``type``: message, document, context, or vector_chunk. ``highlights``: (start, end) in ``content``."""

    id: str
    type: str
    content: str
    session_id: str
    user_id: str
    timestamp: str
    relevance_score: float
    highlights: list[tuple[int, int]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


RECORDS: Mapping[str, type[Any]] = {
    one.__name__: one
    for one in (
        *(FFMessageDTO, FFPanelMessageDTO, FFSessionDTO, FFUserProfileDTO, FFDocumentDTO, FFSituationalContextDTO),
        *(FFPanelDTO, FFPanelInsightDTO, FFPersonaDTO, FFVectorSearchResultDTO, FFSearchQueryDTO, FFSearchResultDTO),
    )
}

FFMessage, FFPanelMessage, FFSession, FFUserProfile = FFMessageDTO, FFPanelMessageDTO, FFSessionDTO, FFUserProfileDTO
FFDocument, FFSituationalContext, FFPanel = FFDocumentDTO, FFSituationalContextDTO, FFPanelDTO
FFPanelInsight, FFPersona, FFVectorSearchResult = FFPanelInsightDTO, FFPersonaDTO, FFVectorSearchResultDTO
FFSearchQuery, FFSearchResult = FFSearchQueryDTO, FFSearchResultDTO


class RecordClasses:
    """*module* has classes under the names of `RECORDS`; what it lacks is taken from there."""

    def __init__(self, module: ModuleType | object | None = None) -> None:
        self._classes: dict[str, type[Any]] = {}
        for name, own in RECORDS.items():
            found = getattr(module, name, None) if module is not None else None
            self._classes[name] = found if isinstance(found, type) else own

    def make(self, name: str, values: Mapping[str, Any]) -> Any:
        """A record of that name. Raises ValueError where the values do not fit."""
        return self._classes[name](**values)


def values_of(record: object, name: str) -> dict[str, Any]:
    """What *record*, of any class, says for the stored fields of the record called *name*.

    A field that the class does not have is left at its default. Raises AttributeError where a needed one is missing,
    as for a dictionary in a record's place.
    """
    own = RECORDS[name]
    values: dict[str, Any] = {}
    missing = [one for one in fields(own) if one.name not in own._NOT_STORED and not hasattr(record, one.name)]
    for one in fields(own):
        if one.name in own._NOT_STORED:
            continue
        if one not in missing:
            values[one.name] = getattr(record, one.name)
    needed = _needed(own)
    for one in missing:
        if one.name in needed:
            raise AttributeError(f"{type(record).__name__!r} object has no attribute {one.name!r}")
    made: dict[str, Any] = own(**values).to_dict() if missing else values
    return made


def _needed(own: type[Any]) -> frozenset[str]:
    return frozenset(one.name for one in fields(own) if one.default is MISSING and one.default_factory is MISSING)
