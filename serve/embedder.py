"""The embedding model of this process: made when first needed, shared, closed with the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from modules.core.errors import ModuleNotFound
from modules.models.choose import embedding_model
from modules.models.protocols import EmbeddingModel

MakeEmbedding = Callable[[Mapping[str, Any]], EmbeddingModel | None]


class Embedder:
    """*settings* are those under ``modules.rag.embedding``, so that answers are of one kind with what is stored."""

    def __init__(self, settings: Mapping[str, Any], make: MakeEmbedding = embedding_model) -> None:
        self._settings = settings
        self._make = make
        self._model: EmbeddingModel | None = None
        self._making = asyncio.Lock()

    async def get(self) -> EmbeddingModel:
        """Raises ModuleNotFound where no model is installed, and what making it raises."""
        async with self._making:
            if self._model is None:
                self._model = await asyncio.to_thread(self._make, self._settings)
            if self._model is None:
                raise ModuleNotFound("no embedding model is installed")
            return self._model

    async def close(self) -> None:
        async with self._making:
            model, self._model = self._model, None
            if model is not None:
                await model.close()
