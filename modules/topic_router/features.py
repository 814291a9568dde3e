"""From texts to rows of numbers: what they mean, and which words they have. Pure.

A row has three parts, each of unit length: the vector of the text, the vector of its content words alone (little words
say nothing about a topic, and a mean over few words feels each of them), and its words and character runs, hashed
(Weinberger et al., "Feature hashing", 2009) and weighed by how rare they are among the examples. The last part is what
knows names that no embedding model has met; it is all there is where there is no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from modules.core.words import words_of

Matrix = npt.NDArray[np.float32]

HASHED = 2048
_HASHED_WEIGHT = 0.5
_RUNS = (3, 4, 5)
_LONGEST_WORD = 40
_MOST_WORDS = 2_000
_LITTLE_WORDS = frozenset(
    """a about after all also am an and any are as at be because been before being but by can could did do does doing
    for from get give go going got had has have he her him his how i if in into is it its just know let like long many
    may me mean more much must my need no not now of off on one only or other our out over please really say she should
    so some still tell than that the their them then there these they thing things this those to too two up us use very
    want was we well were what when where which while who why will with would you your""".split()  # noqa: SIM905
)


def content_of(text: str) -> str:
    """The text's words without those that say nothing about its subject; the text itself where none are left."""
    return " ".join(content_words(text)) or text


def content_words(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _LITTLE_WORDS and len(word) > 1]


def hashed(texts: Sequence[str]) -> Matrix:
    """Square roots of counts, shape (len(texts), HASHED), float32: how often each hashed word or run occurs."""
    rows = np.zeros((len(texts), HASHED), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for piece in _pieces(text):
            row[xxhash.xxh3_64_intdigest(piece.encode("utf-8", "surrogatepass")) % HASHED] += 1
    return np.sqrt(rows)


def rarity(counts: Matrix) -> Matrix:
    """Weights of the columns of `hashed`, shape (HASHED,): smoothed inverse document frequency."""
    frequencies = (1 + (counts > 0).sum(axis=0)) / (1 + len(counts))
    found: Matrix = np.asarray(1 - np.log(frequencies), np.float32)
    return found


def rows_of(vectors: Matrix | None, counts: Matrix, weights: Matrix) -> Matrix:
    """The rows. *vectors*: those of texts and of their content words side by side; None where there is no model."""
    words = unit(counts * weights)
    if vectors is None:
        return words
    return np.hstack([vectors, np.float32(_HASHED_WEIGHT) * words])


def unit(rows: Matrix) -> Matrix:
    """Rows of unit length; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)


def _pieces(text: str) -> Iterator[str]:
    for word in words_of(text)[:_MOST_WORDS]:
        yield word
        padded = f"#{word[:_LONGEST_WORD]}#"
        for length in _RUNS:
            yield from (padded[at : at + length] for at in range(len(padded) - length + 1))
