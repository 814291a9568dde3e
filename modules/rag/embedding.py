"""Vectors of texts, here or on other machines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modules.core.workers import Workers
from modules.models import EmbeddingModel, embedding_model

from .chunking import Embed
from .nearness import Vectors

_TEXTS_A_CALL = 2048
_CALLS_AT_A_TIME = 8


class Embedding:
    """The model of the settings *section*, none where it names none; or *model*, which other processes do not have."""

    def __init__(
        self, section: Mapping[str, Any], workers: Workers | None = None, *, model: EmbeddingModel | None = None
    ) -> None:
        self._section = section
        self._workers = workers if model is None else None
        self._model = embedding_model(section) if model is None else model

    @property
    def name(self) -> str | None:
        """What vectors of this model are told from others by; None where there are none."""
        return None if self._model is None else self._model.name

    async def of(self, texts: Sequence[str]) -> Vectors | None:
        """A row of unit norm for each text (zeros for one without words); None without a model. Raises ModelError."""
        if self._model is None:
            return None
        return await self._model.embed(texts)

    async def of_many(self, texts: Sequence[str]) -> Vectors | None:
        """The same for what nobody waits for: on other processes where there are some."""
        if self._model is None or self._workers is None or not texts:
            return await self.of(texts)
        workers, slots = self._workers, asyncio.Semaphore(_CALLS_AT_A_TIME)

        async def rows(start: int) -> Vectors:
            async with slots:
                found: Vectors = await workers.run(
                    vectors_of, dict(self._section), list(texts[start : start + _TEXTS_A_CALL])
                )
                return found

        return np.concatenate(await asyncio.gather(*(rows(at) for at in range(0, len(texts), _TEXTS_A_CALL))))

    def in_thread(self) -> Embed | None:
        """The same as a function for a thread of this loop; None without a model."""
        model, loop = self._model, asyncio.get_running_loop()
        if model is None:
            return None
        return lambda texts: asyncio.run_coroutine_threadsafe(model.embed(texts), loop).result()

    async def close(self) -> None:
        if self._model is not None:
            await self._model.close()


def vectors_of(section: Mapping[str, Any], texts: Sequence[str]) -> Vectors:
    """What a worker is asked for. Raises ModelError, and ConfigurationError where it has no such model."""

    async def embedded() -> Vectors:
        model = embedding_model(section)
        if model is None:
            return np.zeros((len(texts), 0), np.float32)
        try:
            return await model.embed(texts)
        finally:
            await model.close()

    return asyncio.run(embedded())
