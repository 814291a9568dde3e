"""Searches: from what is asked to the passages that answer it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modules.core.errors import ConfigurationError, PlatformError

from .arguments import checked_count, checked_query, checked_user, checked_vector
from .embedding import Embedding
from .filters import Filter
from .indexing import Indexer
from .knowledge import Knowledge, Ranking
from .library import Library
from .nearness import Vectors
from .passages import Passage
from .relevant_context import RelevantContext, context_of
from .settings import RagSettings
from .shelves import Shelves

log = logging.getLogger(__name__)

CURRENT = "current"
_MOST_PASSAGES = 1000
_FEW_PASSAGES = 50
_MOST_TOKENS = 1_000_000
_PASSAGES_FOR_CONTEXT = 20
_INDEXING_PATIENCE_S = 2.0


class Searcher:
    """The arguments are those of `RagModule`'s functions; so are the errors."""

    def __init__(
        self, library: Library, shelves: Shelves, indexer: Indexer, embedding: Embedding, settings: RagSettings
    ) -> None:
        self._library = library
        self._shelves = shelves
        self._indexer = indexer
        self._embedding = embedding
        self._settings = settings
        self._ranking = Ranking(settings.vector_weight, settings.rank_constant, settings.min_similarity)

    async def by_query(
        self,
        query: str,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
    ) -> list[Passage]:
        checked_user(user_id)
        checked_query(query)
        limit = self._limit(top_k)
        wanted = Filter.read(filters, user_id=user_id, session_id=session_id)
        await self._indexer.catch_up(user_id, patience_s=_INDEXING_PATIENCE_S)
        vector = await self._vector_of(query)
        model, ranking = self._embedding.name, self._ranking

        def found(knowledge: Knowledge) -> list[Passage]:
            return knowledge.search(query, vector, limit, model, wanted, ranking)

        return await self._shelves.read(user_id, found)

    async def by_vector(
        self,
        vector: Sequence[float],
        top_k: int | None,
        filters: Mapping[str, Any] | None,
        *,
        user_id: str,
        session_id: str | None,
        index: str,
    ) -> list[Passage]:
        checked_user(user_id)
        limit, query = self._limit(top_k), checked_vector(vector)
        wanted = Filter.read(filters, user_id=user_id, session_id=session_id)
        model = self._embedding.name

        def in_current(knowledge: Knowledge) -> list[Passage]:
            return knowledge.nearest(query, limit, model, wanted)

        def in_v2_set(knowledge: Knowledge) -> list[Passage]:
            cards = {**self._library.sets.cards(user_id), **knowledge.documents}
            allowed = None if wanted.is_open else {id_ for id_, card in cards.items() if wanted.passes(card)}
            return self._library.sets.search(user_id, index, query, limit, allowed, cards)

        if index != CURRENT:
            return await self._shelves.read(user_id, in_v2_set)
        # What a filter or many passages cost differs from one search to the next.
        is_usual = wanted.is_open and limit <= _FEW_PASSAGES
        return await (self._shelves.glance if is_usual else self._shelves.read)(user_id, in_current)

    async def context(
        self, query: str, max_tokens: int | None, *, user_id: str, session_id: str | None
    ) -> RelevantContext:
        most = self._settings.max_context_tokens if max_tokens is None else max_tokens
        room = checked_count("max_tokens", most, _MOST_TOKENS)
        passages = await self.by_query(query, _PASSAGES_FOR_CONTEXT, user_id=user_id, session_id=session_id)
        return context_of(passages, room)

    def _limit(self, top_k: int | None) -> int:
        return checked_count("top_k", self._settings.top_k if top_k is None else top_k, _MOST_PASSAGES)

    async def _vector_of(self, query: str) -> Vectors | None:
        """None where meaning has no part in this search."""
        if self._ranking.vector_weight == 0:
            return None
        try:
            vectors = await self._embedding.of([query])
        except ConfigurationError:
            raise
        except PlatformError:
            log.warning("the embedding model is away; this search goes by words", exc_info=True)
            return None
        return None if vectors is None or not vectors.any() else np.asarray(vectors[0])
