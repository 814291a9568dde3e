"""Where to cut a text: into spans, of which the chunks are the text.

The strategies are chonkie's, counting characters: ``fixed`` cuts at any place, ``sentence`` between sentences,
``recursive`` between paragraphs where it can, else lines, sentences, words; ``semantic`` where the sentences after a
place are least like those before it. What a strategy leaves longer than a chunk may be is cut further at blanks.
Overlap is added after cutting, by the same rule for all: a chunk begins up to so many characters earlier, at a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modules.core.errors import ValidationError

from .errors import imported
from .settings import STRATEGIES

# Texts -> one row each, of unit norm or zero; called in the thread that cuts.
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

_AT_ONCE = 500_000  # characters; what chonkie makes of a text takes many times its size
_BOUNDARY = re.compile(r"\n\s*\n|\n|(?<=[.!?])\s|\s")
_BLANKS_WITHIN = 0.3  # of a chunk's end, where a blank is looked for to cut at
_SENTENCES_AT_LEAST = 3
_MINIMA_KEPT = 0.3  # share of the lowest minima of similarity that become cuts


@dataclass(frozen=True, slots=True)
class Span:
    """Characters *start* to *end* of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cutting:
    """How to cut. Raises ValidationError for a strategy that there is not."""

    strategy: str
    chunk_size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValidationError(
                f"chunking_strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}",
                param="chunking_strategy",
            )

    def without_vectors(self) -> Cutting:
        """The same where there is no model to compare sentences with."""
        return Cutting("sentence", self.chunk_size, self.overlap) if self.strategy == "semantic" else self


def spans_of(text: str, cutting: Cutting, embed: Embed | None = None) -> list[Span]:
    """Spans of at most ``chunk_size`` characters, in order; together they hold all of the text that is not blank.

    *embed* is needed for ``semantic``. Raises RagNotInstalled, and what *embed* raises.
    """
    if len(text) <= cutting.chunk_size:
        whole = _trimmed(text, Span(0, len(text)))
        return [] if whole is None else [whole]
    most = cutting.chunk_size - cutting.overlap
    cut = _CUTTERS[cutting.strategy](most, embed)
    spans = [
        trimmed
        for offset, piece in _pieces(text)
        for span in cut(piece)
        for part in _no_longer_than(most, piece, span)
        if (trimmed := _trimmed(text, Span(offset + part.start, offset + part.end))) is not None
    ]
    return list(_overlapping(text, spans, cutting.overlap))


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    while start < len(text):
        end = min(start + _AT_ONCE, len(text))
        if end < len(text):
            end = max(text.rfind("\n", start, end) + 1, start) or end
            end = end if end > start else start + _AT_ONCE
        yield start, text[start:end]
        start = end


def _no_longer_than(most: int, text: str, span: Span) -> Iterator[Span]:
    start = span.start
    while span.end - start > most:
        end = start + most
        blank = max(text.rfind(" ", start + int(most * (1 - _BLANKS_WITHIN)), end), text.rfind("\n", start + 1, end))
        end = blank + 1 if blank > start + int(most * (1 - _BLANKS_WITHIN)) else end
        yield Span(start, end)
        start = end
    yield Span(start, span.end)


def _trimmed(text: str, span: Span) -> Span | None:
    start, end = span.start, span.end
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return Span(start, end) if start < end else None


def _overlapping(text: str, spans: Sequence[Span], overlap: int) -> Iterator[Span]:
    before: Span | None = None
    for span in spans:
        start = span.start
        if before is not None and overlap:
            earliest = max(before.start + 1, span.start - overlap)
            word = _BOUNDARY.search(text, earliest - 1, span.start)
            start = min(word.end() if word else earliest, span.start)
        yield Span(start, span.end)
        before = span


Cut = Callable[[str], list[Span]]


def _by(chunker: Any) -> Cut:
    return lambda text: [Span(chunk.start_index, chunk.end_index) for chunk in chunker.chunk(text)]


def _fixed(most: int, embed: Embed | None) -> Cut:
    return _by(imported("chonkie").TokenChunker(tokenizer="character", chunk_size=most, chunk_overlap=0))


def _sentence(most: int, embed: Embed | None) -> Cut:
    return _by(imported("chonkie").SentenceChunker(tokenizer="character", chunk_size=most, chunk_overlap=0))


def _recursive(most: int, embed: Embed | None) -> Cut:
    return _by(imported("chonkie").RecursiveChunker(tokenizer="character", chunk_size=most))


def _semantic(most: int, embed: Embed | None) -> Cut:
    if embed is None:
        raise ValueError("cutting by meaning needs vectors")
    vectors_of = embed
    chonkie = imported("chonkie")
    base: Any = chonkie.BaseEmbeddings

    class Embeddings(base):  # type: ignore[misc]
        dimension = 0  # chonkie asks for it and does not use it here

        def embed(self, text: str) -> Any:
            return vectors_of([text])[0]

        def embed_batch(self, texts: list[str]) -> list[Any]:
            return list(vectors_of(texts))

        def similarity(self, u: Any, v: Any) -> Any:
            return np.dot(u, v)  # rows of unit norm; zero rows are like nothing, where chonkie would divide by zero

        def get_tokenizer(self) -> str:
            return "character"

    return _by(
        chonkie.SemanticChunker(
            embedding_model=Embeddings(),
            chunk_size=most,
            threshold=_MINIMA_KEPT,
            min_sentences_per_chunk=_SENTENCES_AT_LEAST,
        )
    )


_CUTTERS: dict[str, Callable[[int, Embed | None], Cut]] = {
    "semantic": _semantic,
    "fixed": _fixed,
    "recursive": _recursive,
    "sentence": _sentence,
}
