"""Chunks of documents: as they are stored, as they are found, and as they are cited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from modules.core.errors import ValidationError


@dataclass(frozen=True, slots=True)
class Card:
    """What is kept of a document beside each of its places in an index. ``session_id`` None: of no session."""

    document_id: str
    title: str = ""
    session_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document's text. ``position`` counts from 0.

    ``start`` and ``end`` are its characters in the text that was extracted, None where they are not known: of a chunk
    that v2 had cut, and that its document does not hold word for word. ``page`` counts from 1.
    """

    document_id: str
    position: int
    text: str
    start: int | None = None
    end: int | None = None
    page: int | None = None

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ValidationError("a span has both ends or none", param="start")

    @property
    def id(self) -> str:
        return f"{self.document_id}_chunk_{self.position}"


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a passage stands: enough to find it again, and to check that it says what it is quoted for."""

    document_id: str
    chunk_id: str
    title: str
    start: int | None = None
    end: int | None = None
    page: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found. ``score`` orders passages of one search and means nothing beyond it.

    ``similarity`` is the cosine to the query, None where it was not found by meaning; ``word_score`` the BM25 score,
    None where it was not found by words.
    """

    text: str
    score: float
    citation: Citation
    session_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    similarity: float | None = None
    word_score: float | None = None

    @property
    def document_id(self) -> str:
        return self.citation.document_id

    @property
    def chunk_id(self) -> str:
        return self.citation.chunk_id

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "metadata": dict(self.metadata)}
