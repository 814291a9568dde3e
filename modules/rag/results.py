"""What rag answers, beside documents and passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .documents import Document


@dataclass(frozen=True, slots=True)
class Deletion:
    """``chunks``: how many were in the index."""

    document_id: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed of a user."""

    user_id: str
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Documents in the order of their ids."""

    documents: tuple[Document, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """``waiting``: not in the index yet. ``outdated``: their vectors are of another model. ``model`` None: by words.
    ``unreadable``: why, by document."""

    user_id: str
    model: str | None
    documents: int
    chunks: int
    waiting: int
    outdated: int
    unreadable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class IndexingReport:
    """Documents ``indexed`` now, and ``unchanged`` as they were up to date; ``unreadable`` ones with the reason."""

    indexed: int
    unchanged: int
    unreadable: Mapping[str, str]
    chunks: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
