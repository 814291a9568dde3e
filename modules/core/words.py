"""Which texts speak of a query, by their words: an inverted index kept up to date, ranked by Okapi BM25.

Scores follow Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the
customary k1 = 1.2 and b = 0.75 and the idf that is never negative.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

D = TypeVar("D", bound=Hashable)

_K1, _B = 1.2, 0.75
# Scripts without blanks between words are taken letter by letter.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def words_of(text: str) -> list[str]:
    """Words as they are compared: case folded, underscores part their words."""
    return _WORD.findall(text.casefold().replace("_", " "))


class WordIndex(Generic[D]):
    """Documents under any hashable name."""

    def __init__(self) -> None:
        self._postings: defaultdict[str, dict[D, int]] = defaultdict(dict)
        self._words: dict[D, Counter[str]] = {}
        self._total_length = 0

    def add(self, document: D, text: str) -> None:
        """Index *text* under *document*, in place of what was there."""
        self.remove(document)
        counts = Counter(words_of(text))
        self._words[document] = counts
        self._total_length += counts.total()
        for word, count in counts.items():
            self._postings[word][document] = count

    def remove(self, document: D) -> None:
        """Nothing happens when it is not there."""
        counts = self._words.pop(document, None)
        if counts is None:
            return
        self._total_length -= counts.total()
        for word in counts:
            del self._postings[word][document]
            if not self._postings[word]:
                del self._postings[word]

    def search(self, query: str) -> list[tuple[D, float]]:
        """Documents with any of the query's words, best first; equals in the order in which they were added."""
        scores: defaultdict[D, float] = defaultdict(float)
        mean_length = self._total_length / len(self._words) if self._words else 0.0
        for word in dict.fromkeys(words_of(query)):
            postings = self._postings.get(word)
            if postings:
                idf = math.log(1 + (len(self._words) - len(postings) + 0.5) / (len(postings) + 0.5))
                for document, count in postings.items():
                    length = self._words[document].total() / mean_length
                    scores[document] += idf * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length))
        return sorted(scores.items(), key=lambda scored: -scored[1])


def fused(rankings: Iterable[list[D]], *, k: int = 60) -> list[D]:
    """One ranking out of several by reciprocal rank (Cormack, Clarke and Buettcher, 2009): what several put high
    comes first, whatever their scores mean."""
    scores: defaultdict[D, float] = defaultdict(float)
    for ranking in rankings:
        for rank, document in enumerate(ranking, start=1):
            scores[document] += 1 / (k + rank)
    return sorted(scores, key=lambda document: -scores[document])
