"""Search by meaning for the old API: documents are cut and embedded, and found by the vectors of what is asked.

The old names of ways to cut are kept; where they stand for something that is not here, the nearest is taken, as the
table says. Vectors of another model than the one that is asked with are not compared with its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from migration.legacy_search import score_of
from migration.legacy_sessions import LegacySessions
from migration.legacy_settings import LegacySettings
from migration.legacy_store import Record
from migration.legacy_vectors import LegacyVectors
from modules.core.errors import ConfigurationError
from modules.models.choose import embedding_model
from modules.models.protocols import EmbeddingModel
from modules.rag.chunking import Cutting, spans_of

log = logging.getLogger(__name__)

# Old name -> strategy of the platform, characters a chunk, characters of overlap.
CUTTINGS: Mapping[str, Cutting] = {
    "optimized_summary": Cutting("sentence", 800, 100),
    "default_fixed": Cutting("fixed", 512, 64),
    "fixed_size": Cutting("fixed", 512, 64),
    "fixed": Cutting("fixed", 512, 64),
    "sentence_short": Cutting("sentence", 400, 0),
    "sentence_based": Cutting("sentence", 1000, 100),
    "sentence": Cutting("sentence", 1000, 100),
    "recursive": Cutting("recursive", 800, 100),
    "semantic": Cutting("semantic", 1000, 0),
}
_DEFAULT_CUTTING = "optimized_summary"


@dataclass(frozen=True, slots=True)
class Asked:
    """A query by meaning. Raises ValueError for a weight outside 0 to 1."""

    user_id: str
    query: str
    session_ids: Sequence[str] | None
    top_k: int
    threshold: float
    vector_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.vector_weight <= 1:
            raise ValueError("vector_weight must be from 0 to 1")


class LegacyMeaning:
    """*model* None: the platform's own choice, or what a call names."""

    def __init__(
        self, settings: LegacySettings, sessions: LegacySessions, vectors: LegacyVectors, model: EmbeddingModel | None
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._vectors = vectors
        self._given = model
        self._models: dict[tuple[str | None, str | None], EmbeddingModel] = {}

    async def store(
        self,
        user_id: str,
        session_id: str,
        old_id: str,
        text: str,
        metadata: Mapping[str, Any] | None,
        strategy: str | None,
        provider: str | None,
        api_key: str | None,
    ) -> int:
        """Cut and embed; how many chunks there are. Raises ValueError for a way to cut that nobody knows, and the
        platform's errors."""
        cutting = CUTTINGS.get(strategy or _DEFAULT_CUTTING)
        if cutting is None:
            raise ValueError(f"chunking_strategy must be one of {', '.join(CUTTINGS)}, not {strategy!r}")
        model = self._model(provider, api_key)
        loop = asyncio.get_running_loop()

        def embed(texts: Sequence[str]) -> Any:
            return asyncio.run_coroutine_threadsafe(model.embed(texts), loop).result()

        spans = await asyncio.to_thread(spans_of, text, cutting, embed)
        chunks = [text[span.start : span.end] for span in spans]
        if chunks:
            rows = await model.embed(chunks)
            about = {**(metadata or {}), "provider": provider or model.name, "model": model.name, "normalized": True}
            await asyncio.to_thread(self._vectors.delete, session_id, old_id, user_id)
            await asyncio.to_thread(self._vectors.store, session_id, old_id, chunks, rows, about, user_id)
        return len(chunks)

    async def find(self, asked: Asked, provider: str | None, api_key: str | None) -> list[Record]:
        """Values of FFSearchResultDTO: chunks, the nearest first. With a vector's weight below 1, the rest of the score
        is by words, as a share of the best that words can score."""
        model = self._model(provider, api_key)
        (row,) = await model.embed([asked.query])
        if not np.any(row):
            return []
        return await asyncio.to_thread(self._find, asked, row, model.name)

    def _find(self, asked: Asked, row: Any, model_name: str) -> list[Record]:
        ids = self._sessions.ids(asked.user_id) if asked.session_ids is None else asked.session_ids
        is_hybrid = asked.vector_weight < 1
        threshold, at_most = (-1.0, 1_000_000) if is_hybrid else (asked.threshold, asked.top_k)
        found: list[Record] = []
        for session_id in ids:
            stored = self._vectors.stats(session_id, asked.user_id)
            if stored["total_vectors"] and stored["vector_dimensions"] != len(row):
                log.info("session %r: its vectors are of another model than %s", session_id, model_name)
                continue
            for chunk in self._vectors.nearest(session_id, row, at_most, threshold, asked.user_id):
                found.append(_result(asked, chunk, "hybrid" if is_hybrid else "vector"))
        kept = [one for one in found if one["relevance_score"] > 0]
        return sorted(kept, key=lambda one: -float(one["relevance_score"]))[: max(0, asked.top_k)]

    async def close(self) -> None:
        for model in self._models.values():
            await model.close()
        self._models.clear()

    def _model(self, provider: str | None, api_key: str | None) -> EmbeddingModel:
        if self._given is not None and provider is None:
            return self._given
        key = (provider, api_key)
        if key not in self._models:
            settings = {"provider": provider, "api_key": api_key}
            model = embedding_model({name: value for name, value in settings.items() if value is not None})
            if model is None:
                raise ConfigurationError("no embedding model is installed: install modchat[local-models]")
            self._models[key] = model
        return self._models[key]


def _result(asked: Asked, chunk: Mapping[str, Any], search_type: str) -> Record:
    words = min(1.0, score_of(asked.query, chunk["chunk_text"]) / 3.0)
    cosine = 2 * chunk["similarity_score"] - 1
    is_near = search_type == "vector" or cosine >= asked.threshold
    by_vector = chunk["similarity_score"] if is_near else 0.0
    score = asked.vector_weight * by_vector + (1 - asked.vector_weight) * words
    return {
        "id": chunk["chunk_id"],
        "type": "vector_chunk",
        "content": chunk["chunk_text"],
        "session_id": chunk["session_id"],
        "user_id": asked.user_id,
        "timestamp": "",
        "relevance_score": score,
        "highlights": [],
        "metadata": {"document_id": chunk["document_id"], "search_type": search_type, **chunk["metadata"]},
    }
