"""Embeddings inside this process: `wordllama`, 256 dimensions, its weights in its own package.

A text's vector is the mean of its tokens' vectors (static embeddings: Tissera's WordLlama, after Model2Vec's idea),
so a long text costs no more than its length. The mean is taken here, text by text: the package's own way pads all
texts of a batch to the longest, and one long document among short ones would cost gigabytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np

from modules.core.errors import ConfigurationError

from .errors import ModelMisconfigured
from .installed import directory_of, imported
from .protocols import Vectors, check_texts
from .vectors import unit_rows

log = logging.getLogger(__name__)

PACKAGE = "wordllama"
DIMENSION = 256
_TOKENS_AT_ONCE = 4096  # 4 MB of vectors


class EmbeddedEmbedding:
    """*batch_size* texts are tokenized at a time; between batches other work of the process gets its turn."""

    name = PACKAGE
    dimension = DIMENSION

    def __init__(self, *, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be above 0, not {batch_size!r}")
        self._directory = directory_of(PACKAGE)
        self._batch_size = batch_size
        self._loading = Lock()
        self._model: Any = None

    async def load(self) -> None:
        """Load the weights; without this the first call does. Raises ModelError."""
        await asyncio.to_thread(self._loaded)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `EmbeddingModel.embed`; the dimension is always 256."""
        checked = check_texts(texts)
        rows = np.zeros((len(checked), DIMENSION), np.float32)
        for start in range(0, len(checked), self._batch_size):
            batch = checked[start : start + self._batch_size]
            rows[start : start + len(batch)] = await asyncio.to_thread(self._means, batch)
        return unit_rows(rows)

    async def close(self) -> None:
        with self._loading:
            self._model = None

    def _means(self, texts: list[str]) -> Vectors:
        model = self._loaded()
        encoded = model.tokenizer.encode_batch(texts, add_special_tokens=False)
        means = [_mean(model.embedding, np.array(one.ids, np.intp)) for one in encoded]
        # Blanks are tokens too, and would be alike to each other.
        return np.stack(
            [mean if text.strip() else np.zeros_like(mean) for mean, text in zip(means, texts, strict=True)]
        )

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                with _root_logger_left_alone():
                    package = imported(PACKAGE)
                try:
                    # The package looks for its own tokenizer in the wrong folder, and would then download one.
                    model = package.WordLlama.load(dim=DIMENSION, cache_dir=self._directory, disable_download=True)
                except (FileNotFoundError, ValueError) as error:
                    raise ModelMisconfigured(f"cannot load {PACKAGE}: {error}") from error
                model.tokenizer.no_padding()
                self._model = model
            return self._model


def _mean(table: Vectors, ids: np.ndarray[Any, np.dtype[np.intp]]) -> Vectors:
    """The mean of the rows *ids* of *table*; zeros for none."""
    total = np.zeros(table.shape[1], np.float64)
    for start in range(0, len(ids), _TOKENS_AT_ONCE):
        total += table[ids[start : start + _TOKENS_AT_ONCE]].sum(axis=0, dtype=np.float64)
    return (total / max(1, len(ids))).astype(np.float32)


@contextmanager
def _root_logger_left_alone() -> Iterator[None]:
    # The package sets the root logger up when it is imported; with a handler there, that does nothing.
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        yield
    finally:
        root.removeHandler(guard)
