"""All that is indexed of one user: parts, searched together.

Every user has parts of their own, so no search of one user can meet a chunk of another, how rare a word is says nothing
of what others wrote, and erasing a user is removing directories.

Changes are for one thread at a time. A search goes on meanwhile: it takes the parts that there are when it begins, and
a part that is replaced stays readable for who holds it.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from .filters import Filter
from .fusion import fused
from .nearness import Ids, Vectors
from .part import Part, PartDamaged, Places, remove
from .passages import Card, Chunk, Citation, Passage
from .words import Terms, rarity

log = logging.getLogger(__name__)

PART_ROWS = 2048
_ALMOST = 0.75
_MEASURED_AGAIN, _LEAST_MEASURED_AGAIN = 4, 40
_ID_BITS = 40  # of an id within its part; those above name the part, while a search goes on
_ID_MASK = (1 << _ID_BITS) - 1
_CANDIDATES = 100  # of each ranking, that fusion looks at; what is beyond has no weight left


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document as it goes into the index. ``vectors`` has a row for each chunk; None without a model."""

    card: Card
    chunks: Sequence[Chunk]
    vectors: Vectors | None

    @property
    def dimension(self) -> int | None:
        """None also for the vectors of texts without any words, where a server was not even asked."""
        return int(self.vectors.shape[1]) or None if self.vectors is not None else None


@dataclass(frozen=True, slots=True)
class Ranking:
    """How passages are ranked: see the settings of the same names."""

    vector_weight: float
    constant: float
    min_similarity: float


class _Found(NamedTuple):
    """A chunk in a part, as a search knows it."""

    part: int
    id: int


class Knowledge:
    """Made by `open`. *new_id* gives names of parts, hex digits that nobody has had before."""

    def __init__(self, places: Places, user_id: str, parts: Iterable[Part], new_id: Callable[[], str]) -> None:
        self.user_id = user_id
        self._places = places
        self._new_id = new_id
        self._parts = tuple(parts)
        self._terms = Terms()

    @classmethod
    def open(
        cls, places: Places, user_id: str, names: Iterable[str], live: Set[str], new_id: Callable[[], str]
    ) -> Knowledge:
        """The user's knowledge out of the parts *names*, made to agree with *live*, the documents that there are.

        A change that was cut short is finished. What cannot be read is taken away: its documents are not indexed then,
        and whoever keeps them finds them missing here. Raises OSError.
        """
        parts: dict[str, Part] = {}
        for name in sorted(names):
            try:
                parts[name] = Part.open(places, name)
            except PartDamaged as error:
                log.error("a part of the index of user %r is damaged and given up: %s", user_id, error)
                remove(places, name)
        for part in list(parts.values()):
            replaced = part.commit.replaces
            if replaced in parts:
                del parts[replaced]
                remove(places, replaced)
        knowledge = cls(places, user_id, parts.values(), new_id)
        knowledge._agree_with(live)
        return knowledge

    @property
    def part_names(self) -> list[str]:
        return [part.name for part in self._parts]

    @property
    def documents(self) -> Mapping[str, Card]:
        return {name: card for part in self._parts for name, card in part.cards.items()}

    def has(self, document: str) -> bool:
        return any(document in part.cards for part in self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def outdated(self, model: str | None) -> set[str]:
        """Documents whose vectors are not of *model*."""
        return {name for part in self._parts if part.model != model for name in part.cards}

    def chunks_of(self, documents: Collection[str]) -> Iterator[Chunk]:
        for part in self._parts:
            yield from part.chunks_of(documents)

    # -- changing --------------------------------------------------------------------------------------------

    def add(self, documents: Sequence[Indexed], model: str | None) -> None:
        """Index documents that are not; all of them are found, and on the disk, when this returns."""
        for batch in _batches([one for one in documents if one.chunks]):
            cards = [one.card for one in batch]
            chunks = [chunk for one in batch for chunk in one.chunks]
            dimension = batch[0].dimension
            vectors = None if dimension is None else np.concatenate([_rows(one) for one in batch])
            part = self._with_room(model, dimension, len(chunks))
            if part is None:
                self._seal_full()
                part = Part.write(self._places, self._fresh_name(), self.user_id, model, cards, chunks, vectors)
                self._parts = (*self._parts, part)
            else:
                part.add(cards, chunks, vectors)

    def remove(self, documents: Collection[str]) -> int:
        """Take documents out, with every byte of them. Returns how many chunks went."""
        gone = 0
        for part in self._parts:
            doomed = part.cards.keys() & set(documents)
            if doomed:
                gone += self._take_out(part, doomed)
        return gone

    def replace(self, documents: Sequence[Indexed], model: str | None) -> None:
        """Index documents anew. They are found all the while, in the end as they are given here."""
        before = self._parts
        holding = {one.card.document_id for one in documents}
        kept = [(part, part.cards.keys() & holding) for part in before]
        # Never into a part that still has them: it could not be told what to take out.
        self._parts = tuple(part for part, old in kept if not old)
        try:
            self.add(documents, model)
        finally:
            self._parts = (*(part for part, old in kept if old), *self._parts)
        for part, old in kept:
            if old:
                self._take_out(part, old)

    def close(self) -> None:
        """Write what makes the next opening fast."""
        for part in self._parts:
            part.seal(is_full=_is_full(part))

    # -- searching -------------------------------------------------------------------------------------------

    def nearest(self, vector: Vectors, limit: int, model: str | None, wanted: Filter) -> list[Passage]:
        """The passages nearest to *vector*, shape (dimension,), among those whose vectors are of *model*."""
        parts = self._parts
        allowed = self._allowed(parts, wanted)
        found = self._by_vector(parts, vector, limit, model, allowed)
        return [
            passage
            for place, similarity in found
            if (passage := _passage(parts[place.part], place.id, similarity, similarity, None)) is not None
        ]

    def search(
        self,
        query: str,
        vector: Vectors | None,
        limit: int,
        model: str | None,
        wanted: Filter,
        ranking: Ranking,
    ) -> list[Passage]:
        """The passages that answer *query* best, by its words and, where there is a *vector*, by its meaning."""
        parts = self._parts
        allowed = self._allowed(parts, wanted)
        depth = max(limit, _CANDIDATES)
        near: dict[_Found, float] = {}
        if vector is not None and ranking.vector_weight > 0:
            found = self._by_vector(parts, vector, depth, model, allowed)
            near = {place: similarity for place, similarity in found if similarity > ranking.min_similarity}
        spoken: dict[_Found, float] = {}
        if ranking.vector_weight < 1 or not near:
            spoken = dict(self._by_words(parts, query, depth, allowed))
        weight = ranking.vector_weight if spoken else 1.0
        both = fused([(near, weight), (spoken, 1 - weight if near else 1.0)], constant=ranking.constant)
        passages: dict[str, Passage] = {}
        for place, score in both:
            if len(passages) == limit:
                break
            passage = _passage(parts[place.part], place.id, score, near.get(place), spoken.get(place))
            if passage is not None:
                passages.setdefault(passage.chunk_id, passage)  # twice while it is being indexed anew
        return list(passages.values())

    def _allowed(self, parts: Sequence[Part], wanted: Filter) -> Set[str] | None:
        if wanted.is_open:
            return None
        return {name for part in parts for name, card in part.cards.items() if wanted.passes(card)}

    def _by_vector(
        self, parts: Sequence[Part], vector: Vectors, limit: int, model: str | None, allowed: Set[str] | None
    ) -> list[tuple[_Found, float]]:
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        # More than is wanted: where an index is a near one, what is wanted is among that.
        depth = max(_MEASURED_AGAIN * limit, _LEAST_MEASURED_AGAIN)
        near: list[Vectors] = []
        places: list[Ids] = []
        to_measure = set()
        for number, part in enumerate(parts):
            if part.model == model and part.dimension == query.shape[1]:
                some, ids, are_true = part.nearest(query, depth, allowed)
                near.append(some)
                places.append(ids + (number << _ID_BITS))
                if not are_true:
                    to_measure.add(number)
        if not near:
            return []
        similarities, found = np.concatenate(near), np.concatenate(places)
        best = similarities.argsort()[: -depth - 1 : -1]
        similarities, found = similarities[best], found[best]
        owners = found >> _ID_BITS
        for number in to_measure.intersection(owners.tolist()):
            (own,) = (owners == number).nonzero()
            similarities[own] = parts[number].similarities(query, found[own] & _ID_MASK)
        # Equals in the order of their places, which is that in which they were put in.
        order = np.lexsort((found, -similarities))[:limit]
        return [
            (_Found(place >> _ID_BITS, place & _ID_MASK), similarity)
            for place, similarity in zip(found[order].tolist(), similarities[order].tolist(), strict=True)
        ]

    def _by_words(
        self, parts: Sequence[Part], query: str, limit: int, allowed: Set[str] | None
    ) -> list[tuple[_Found, float]]:
        total = sum(map(len, parts))
        counts = {term: [part.count_of(term) for part in parts] for term in self._terms.of(query)}
        overall = {term: rarity(sum(in_parts), total) for term, in_parts in counts.items()}
        scored: list[tuple[float, int, int]] = []
        for number, part in enumerate(parts):
            weighted = [
                (term, overall[term] / rarity(in_parts[number], len(part)))
                for term, in_parts in counts.items()
                if in_parts[number]
            ]
            scored += ((score, number, id_) for id_, score in part.with_words(weighted, limit, allowed))
        best = heapq.nsmallest(limit, scored, key=lambda one: (-one[0], one[1], one[2]))
        return [(_Found(part, id_), score) for score, part, id_ in best]

    # -- below -----------------------------------------------------------------------------------------------

    def _seal_full(self) -> None:
        for part in self._parts:
            if _is_full(part):
                part.seal(is_full=True)

    def _with_room(self, model: str | None, dimension: int | None, rows: int) -> Part | None:
        """A part that takes so many rows more. One larger than any part has one of its own."""
        for part in self._parts:
            if (part.model, part.dimension) == (model, dimension) and len(part) + rows <= PART_ROWS:
                return part
        return None

    def _take_out(self, part: Part, documents: Set[str]) -> int:
        rest = part.without(documents, self._fresh_name())
        self._parts = tuple(one for one in self._parts if one is not part) + ((rest,) if rest is not None else ())
        remove(self._places, part.name)
        return len(part) - (len(rest) if rest is not None else 0)

    def _agree_with(self, live: Set[str]) -> None:
        # One that stands in two parts was being indexed anew; which of the two is whole cannot be told.
        places = Counter(name for part in self._parts for name in part.cards)
        for part in self._parts:
            doomed = {name for name in part.cards if name not in live or places[name] > 1}
            if doomed:
                self._take_out(part, doomed)

    def _fresh_name(self) -> str:
        return f"{prefix_of(self.user_id)}{self._new_id()[:12]}"


def _is_full(part: Part) -> bool:
    """Whether it is worth while to search it by a near index: it is added to seldom, if at all."""
    return len(part) >= PART_ROWS * _ALMOST


def prefix_of(user_id: str) -> str:
    """What the names of a user's parts begin with."""
    digest = blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"kb_{digest}_"


def _batches(documents: Sequence[Indexed]) -> Iterator[list[Indexed]]:
    """Runs of documents that fit into a part together, with vectors of one length; a larger one alone."""
    batch: list[Indexed] = []
    rows = 0
    for document in sorted(documents, key=lambda one: one.dimension or 0):
        if batch and (rows + len(document.chunks) > PART_ROWS or document.dimension != batch[0].dimension):
            yield batch
            batch, rows = [], 0
        batch.append(document)
        rows += len(document.chunks)
    if batch:
        yield batch


def _rows(document: Indexed) -> Vectors:
    if document.vectors is None or len(document.vectors) != len(document.chunks):
        raise ValueError(f"{document.card.document_id} needs a vector for each of its chunks")
    return document.vectors


def _passage(part: Part, id_: int, score: float, similarity: float | None, word_score: float | None) -> Passage | None:
    chunk = part.chunk(id_)
    if chunk is None:
        return None
    card = part.cards[chunk.document_id]
    citation = Citation(card.document_id, chunk.id, card.title, chunk.start, chunk.end, chunk.page)
    return Passage(chunk.text, score, citation, card.session_id, card.metadata, similarity, word_score)
