"""Keeps a model of the topics that follows their examples.

Training takes from a part of a second (hundreds of examples) to a minute (thousands), in a thread. Whoever classifies
meanwhile uses the model before; only the first one waits. Vectors of examples are kept, so only new ones are embedded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modules.models.errors import ModelError
from modules.models.protocols import EmbeddingModel

from .classification import Said
from .examples import Examples
from .features import Matrix, content_of, content_words, unit
from .topic_model import TopicModel, trained

log = logging.getLogger(__name__)

MakeEmbedder = Callable[[Mapping[str, Any]], EmbeddingModel | None]

_TEXTS_A_CALL = 256


class Learner:
    """*make* gives the embedding model of *settings*, or None: then words alone decide."""

    def __init__(self, examples: Examples, settings: Mapping[str, Any], make: MakeEmbedder) -> None:
        self._examples = examples
        self._settings = settings
        self._make = make
        self._embedder: EmbeddingModel | None = None
        self._is_made = False
        self._making = asyncio.Lock()
        self._model: TopicModel | None = None
        self._learned: int | None = None  # the revision of the examples
        self._vectors: dict[str, Matrix] = {}
        self._training: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the model has learned all examples."""
        return self._learned == self._examples.revision

    async def model(self) -> TopicModel | None:
        """The newest one that is ready; None where there is nothing to tell apart. Raises ModelError when there is no
        model yet and the embedding model fails."""
        await asyncio.to_thread(self._examples.known)
        if not self.is_current:
            training = self.follow()
            if self._learned is None:
                await asyncio.shield(training)
        return self._model

    def follow(self) -> asyncio.Task[None]:
        """The training under way, which ends when the model has learned all examples; one is begun where none is."""
        if self._training is None or self._training.done():
            self._training = asyncio.create_task(self._train())
            self._training.add_done_callback(_log_failure)
        return self._training

    async def heard(self, model: TopicModel, texts: Sequence[str]) -> tuple[list[Said], Matrix]:
        """The texts scored, and how alike each is to each, shape (texts, texts). Raises ModelError."""
        vectors = await self._embedded(texts)

        def scored() -> tuple[list[Said], Matrix]:
            rows = model.rows(texts, vectors)
            said = [
                Said(dict(zip(model.topics, map(float, row), strict=True)), len(content_words(text)))
                for row, text in zip(model.scores(rows), texts, strict=True)
            ]
            alike: Matrix = unit(rows) @ unit(rows).T
            return said, alike

        return await asyncio.to_thread(scored)

    async def close(self) -> None:
        if self._training is not None and not self._training.done():
            self._training.cancel()
            await asyncio.wait([self._training])
        if self._embedder is not None:
            await self._embedder.close()

    async def _train(self) -> None:
        while not self.is_current:
            revision, examples = await asyncio.to_thread(self._examples.known)
            texts = [one.content for one in examples]
            vectors = await self._remembered(texts)
            model = await asyncio.to_thread(trained, texts, [one.topics for one in examples], vectors)
            self._model, self._learned = model, revision

    async def _remembered(self, texts: Sequence[str]) -> Matrix | None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for start in range(0, len(new), _TEXTS_A_CALL):
            some = new[start : start + _TEXTS_A_CALL]
            vectors = await self._embedded(some)
            if vectors is None:
                return None
            self._vectors |= dict(zip(some, vectors, strict=True))
        self._vectors = {text: self._vectors[text] for text in texts if text in self._vectors}
        if not texts or len(self._vectors) < len(set(texts)):
            return None
        return np.stack([self._vectors[text] for text in texts])

    async def _embedded(self, texts: Sequence[str]) -> Matrix | None:
        """Vectors of texts and of their content words, side by side; None without a model."""
        embedder = await self._embedding()
        if embedder is None:
            return None
        found = await embedder.embed([*texts, *map(content_of, texts)])
        return np.hstack([found[: len(texts)], found[len(texts) :]])

    async def _embedding(self) -> EmbeddingModel | None:
        async with self._making:
            if not self._is_made:
                self._embedder = await asyncio.to_thread(self._make, self._settings)
                self._is_made = True
            return self._embedder


def _log_failure(training: asyncio.Task[None]) -> None:
    if training.cancelled() or (error := training.exception()) is None:
        return
    if isinstance(error, ModelError):
        log.warning("topics could not be learned now: %s", error)
    else:
        log.error("learning topics failed", exc_info=error)
