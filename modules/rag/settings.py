"""What rag reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given

STRATEGIES = ("semantic", "fixed", "recursive", "sentence")
EXTENSIONS = (".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class RagSettings:
    """Sizes of chunks are in characters. ``embedding`` is the whole section, for whoever makes the model of it."""

    max_documents_per_user: int = 100_000
    strategy: str = "semantic"
    chunk_size: int = 800
    chunk_overlap: int = 100
    indexes_in_background: bool = True
    max_open_users: int = 64
    top_k: int = 5
    max_context_tokens: int = 2000
    vector_weight: float = 0.3
    rank_constant: float = 30.0
    min_similarity: float = 0.0
    extensions: Sequence[str] = EXTENSIONS
    max_document_bytes: int = 104_857_600
    parsing_timeout_s: float = 300.0
    parsing_memory_mb: int = 1024
    max_text_characters: int = 20_000_000
    processes: int = 2
    local_directories: Sequence[str | Path] | None = None
    embedding: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises ConfigurationError, naming the setting."""
        for name in _ABOVE_ZERO:
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                self._refuse(name, "a number above 0")
        for name in _FRACTIONS:
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                self._refuse(name, "a number from 0 to 1")
        if self.strategy not in STRATEGIES:
            self._refuse("strategy", f"one of {', '.join(STRATEGIES)}")
        if not _is_number(self.chunk_overlap) or not 0 <= self.chunk_overlap < self.chunk_size:
            self._refuse("chunk_overlap", "a number from 0 up that is less than chunk_size")
        if not _is_number(self.rank_constant) or self.rank_constant < 0:
            self._refuse("rank_constant", "a number from 0 up")
        if not isinstance(self.indexes_in_background, bool):
            self._refuse("indexes_in_background", "true or false")
        if isinstance(self.extensions, str) or not set(self.extensions) <= set(EXTENSIONS):
            self._refuse("extensions", f"a list of {', '.join(EXTENSIONS)}")
        if isinstance(self.local_directories, str):
            self._refuse("local_directories", "a list of directories")
        if not isinstance(self.embedding, Mapping):
            self._refuse("embedding", "an object")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.rag``."""
        return cls(**given(settings, _PATHS))

    def _refuse(self, name: str, wanted: str) -> None:
        raise ConfigurationError(f"rag.{_PATHS[name]} must be {wanted}, not {getattr(self, name)!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PATHS = {
    "max_documents_per_user": "max_documents_per_user",
    "strategy": "chunking.strategy",
    "chunk_size": "chunking.chunk_size",
    "chunk_overlap": "chunking.chunk_overlap",
    "indexes_in_background": "indexing.background",
    "max_open_users": "indexing.max_open_users",
    "top_k": "retrieval.top_k",
    "max_context_tokens": "retrieval.max_context_tokens",
    "vector_weight": "retrieval.vector_weight",
    "rank_constant": "retrieval.rank_constant",
    "min_similarity": "retrieval.min_similarity",
    "extensions": "parsing.extensions",
    "max_document_bytes": "parsing.max_document_bytes",
    "parsing_timeout_s": "parsing.timeout_seconds",
    "parsing_memory_mb": "parsing.max_memory_mb",
    "max_text_characters": "parsing.max_text_characters",
    "processes": "parsing.processes",
    "local_directories": "parsing.local_directories",
    "embedding": "embedding",
}

_FRACTIONS = ("vector_weight", "min_similarity")
_ABOVE_ZERO = (
    "max_documents_per_user",
    "chunk_size",
    "max_open_users",
    "top_k",
    "max_context_tokens",
    "max_document_bytes",
    "parsing_timeout_s",
    "parsing_memory_mb",
    "max_text_characters",
    "processes",
)
