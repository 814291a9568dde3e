"""A part of one user's knowledge: at most some thousand chunks, with their vectors and words, in one directory.

Knowledge is kept in parts so that what is done to a chunk costs the size of a part, however much there is: taking a
document out writes its part anew without it, and with the old directory every byte of it goes.

    rag/embeddings/<part>/chunks.jsonl   one chunk a line; the first one of each document carries the document's card
                          vectors.npy    their vectors, in the same order (not where there is no embedding model)
                          mapping.json   whose they are, the model, and how much of the other files counts
                          index.faiss    a search index over the vectors, when nothing is being added
    rag/indices/words/<part>/            the index of their words

What is added counts from the moment at which mapping.json says so. What stands in the files beyond that was cut short
and is taken away when the part is opened. A part that is written anew names the one that it replaces, and whoever
finds both removes the old one: so its renaming into place is the moment at which the change counts.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .nearness import Ids, PartVectors, Vectors, VectorsDamaged
from .passages import Card, Chunk
from .words import PartWords, WeightedTerm, WordsDamaged

CHUNKS, MAPPING = "chunks.jsonl", "mapping.json"
FORMAT = 1


class PartDamaged(Exception):
    """Its files do not agree. What it holds is indexed anew from the documents."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What mapping.json says: how much of the part counts. ``model`` None: no vectors. ``next_id`` is the first id that
    was never used; ``text_bytes`` how much of chunks.jsonl counts; ``replaces`` the part that this one stands for."""

    user_id: str
    model: str | None
    dimension: int | None
    rows: int
    next_id: int
    text_bytes: int
    replaces: str | None = None
    dtype: str = "float32"
    format: int = FORMAT


class _Line(msgspec.Struct, omit_defaults=True):
    id: int
    chunk_id: str
    document_id: str
    position: int
    text: str
    start: int | None = None
    end: int | None = None
    page: int | None = None
    document: dict[str, Any] | None = None


_LINES = msgspec.json.Decoder(_Line)


class _Outline(msgspec.Struct):
    """A line without its text: what is read of every line when a part is opened."""

    id: int
    document_id: str
    document: dict[str, Any] | None = None


_OUTLINES = msgspec.json.Decoder(_Outline)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What is known of the rows, replaced as a whole when rows are added: who searches takes it once.

    ``ids`` and ``owners`` (index into ``names``) have an entry for each row; ``offsets`` into chunks.jsonl one more.
    """

    ids: Ids
    owners: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def row(self, id_: int) -> int | None:
        """None for an id that was added since."""
        row = int(self.ids.searchsorted(id_))
        return row if row < len(self.ids) and self.ids[row] == id_ else None

    def document(self, row: int) -> str:
        return self.names[int(self.owners[row])]

    def and_then(self, outlines: Sequence[_Outline], offsets: Sequence[int]) -> _Rows:
        """With further rows; *offsets* has the end of the last one besides."""
        ordinals = {name: ordinal for ordinal, name in enumerate(self.names)}
        owners = [ordinals.setdefault(one.document_id, len(ordinals)) for one in outlines]
        return _Rows(
            ids=np.concatenate([self.ids, np.array([one.id for one in outlines], np.int64)]),
            owners=np.concatenate([self.owners, np.array(owners, np.int32)]),
            offsets=np.concatenate([self.offsets[:-1], np.array(offsets, np.int64)]),
            names=tuple(ordinals),
        )


_NO_ROWS = _Rows(np.empty(0, np.int64), np.empty(0, np.int32), np.zeros(1, np.int64), ())


@dataclass(frozen=True, slots=True)
class Places:
    """Where parts lie, and the directory of one of them."""

    base: Path

    def directory(self, part: str) -> Path:
        return self.base / "rag/embeddings" / part

    def words(self, part: str) -> Path:
        return self.base / "rag/indices/words" / part


class Part:
    """Made by `open` or `write`. Adding is for one thread at a time; searching and reading go on meanwhile."""

    def __init__(
        self, places: Places, name: str, commit: Commit, outlines: Sequence[_Outline], offsets: Sequence[int]
    ) -> None:
        self.name = name
        self.commit = commit
        self.cards: dict[str, Card] = _cards(outlines)
        self._places = places
        self._directory = places.directory(name)
        self._rows = _NO_ROWS.and_then(outlines, offsets)
        # Stays readable when the part is replaced, until the last search that holds this part is done with it.
        self._text = os.open(self._directory / CHUNKS, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._text)
        self._vectors: PartVectors | None = None
        if commit.dimension is not None:
            try:
                self._vectors = PartVectors(self._directory, commit.dimension, self._rows.ids)
            except VectorsDamaged as error:
                raise PartDamaged(str(error)) from error
        self._words = self._opened_words()

    # -- making ----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, places: Places, name: str) -> Part:
        """The part as it was committed. Raises PartDamaged; StorageError's causes as OSError."""
        directory = places.directory(name)
        commit = read_commit(directory)
        path = directory / CHUNKS
        try:
            with path.open("r+b") as file:
                text = file.read(commit.text_bytes)
                if len(text) == commit.text_bytes:
                    file.truncate(commit.text_bytes)
        except FileNotFoundError as error:
            raise PartDamaged(f"{path} is not there") from error
        lines = text.splitlines(keepends=True)
        if len(text) != commit.text_bytes or len(lines) != commit.rows:
            raise PartDamaged(f"{path} does not hold what was committed")
        try:
            outlines = [_OUTLINES.decode(line) for line in lines]
        except msgspec.MsgspecError as error:
            raise PartDamaged(f"{path}: {error}") from error
        return cls(places, name, commit, outlines, _offsets(lines, 0))

    @classmethod
    def write(
        cls,
        places: Places,
        name: str,
        user_id: str,
        model: str | None,
        cards: Iterable[Card],
        chunks: Sequence[Chunk],
        vectors: Vectors | None,
    ) -> Part:
        """A new part with its first chunks."""
        by_id = {card.document_id: card for card in cards}
        lines = _encoded(chunks, by_id, known=(), first_id=0)
        commit = Commit(
            user_id=user_id,
            model=model,
            dimension=None if vectors is None else int(vectors.shape[1]),
            rows=len(lines),
            next_id=len(lines),
            text_bytes=sum(map(len, lines)),
        )
        return cls._published(places, name, commit, lines, vectors)

    def without(self, documents: Collection[str], name: str) -> Part | None:
        """This part written anew, as *name*, without some of its documents; None when nothing is left of it.

        Both are there until the caller removes this one with `remove`.
        """
        rows = self._rows
        kept = [row for row in range(len(rows.ids)) if rows.document(row) not in documents]
        if not kept:
            return None
        lines = [self._line(rows, row) for row in kept]
        vectors = None if self._vectors is None else np.ascontiguousarray(self._vectors.rows()[kept])
        commit = replace(self.commit, rows=len(lines), text_bytes=sum(map(len, lines)), replaces=self.name)
        return self._published(self._places, name, commit, lines, vectors)

    @classmethod
    def _published(
        cls, places: Places, name: str, commit: Commit, lines: Sequence[bytes], vectors: Vectors | None
    ) -> Part:
        final = places.directory(name)
        draft = final.with_name(f".tmp-{name}")
        draft.mkdir(parents=True)
        _write_durably(draft / CHUNKS, b"".join(lines))
        if vectors is not None:
            PartVectors.write(draft, vectors)
        _write_durably(draft / MAPPING, _dumped(commit))
        words = PartWords(places.words(name))
        decoded = (_LINES.decode(line) for line in lines)
        words.add((line.id, line.document_id, line.text) for line in decoded)
        draft.rename(final)
        _sync_directory(final.parent)
        return cls.open(places, name)

    # -- adding ----------------------------------------------------------------------------------------------

    def add(self, cards: Iterable[Card], chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Chunks of documents of which this part had none; they count, and are on the disk, when this returns.

        *vectors* has a row for each, of this part's dimension; None for a part without vectors.
        """
        by_id = {card.document_id: card for card in cards}
        first, start = self.commit.next_id, self.commit.text_bytes
        lines = _encoded(chunks, by_id, known=self.cards, first_id=first)
        ids = np.arange(first, first + len(lines), dtype=np.int64)
        with (self._directory / CHUNKS).open("r+b") as file:
            file.seek(start)
            file.truncate()
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if self._vectors is not None and vectors is not None:
            self._vectors.append(vectors, ids)
        self._add_words(zip(ids.tolist(), chunks, strict=True))
        offsets = _offsets(lines, start)
        commit = replace(
            self.commit, rows=self.commit.rows + len(lines), next_id=first + len(lines), text_bytes=offsets[-1]
        )
        _replace_durably(self._directory / MAPPING, _dumped(commit))
        outlines = [_OUTLINES.decode(line) for line in lines]
        self.cards = {**self.cards, **_cards(outlines)}
        self._rows = self._rows.and_then(outlines, offsets)
        self.commit = commit

    def seal(self, *, is_full: bool) -> None:
        """Write the search index of the vectors beside them, and use it from there. Nothing is added to one that
        *is_full*."""
        if self._vectors is not None:
            self._vectors.seal(is_full=is_full)

    # -- searching and reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows.ids)

    @property
    def model(self) -> str | None:
        return self.commit.model

    @property
    def dimension(self) -> int | None:
        return self.commit.dimension

    def nearest(self, query: Vectors, limit: int, documents: Set[str] | None) -> tuple[Vectors, Ids, bool]:
        """Similarities and ids of the chunks nearest to *query*, of *documents* alone where given. And whether the
        similarities are the true ones, which else `similarities` has."""
        if self._vectors is None:
            return np.empty(0, np.float32), np.empty(0, np.int64), True
        among = None
        if documents is not None and not self.cards.keys() <= documents:
            rows = self._rows
            wanted = [ordinal for ordinal, name in enumerate(rows.names) if name in documents]
            among = rows.ids[np.isin(rows.owners, wanted)]
        return self._vectors.search(query, limit, among)

    def similarities(self, query: Vectors, ids: Ids) -> Vectors:
        """The true similarities of chunks that `nearest` has found."""
        assert self._vectors is not None
        return self._vectors.products(query, ids)

    def with_words(
        self, terms: Sequence[WeightedTerm], limit: int, documents: Set[str] | None
    ) -> list[tuple[int, float]]:
        """Ids and scores of the chunks that hold any of the words, best first; of *documents* alone where given."""
        among = None
        if documents is not None and not self.cards.keys() <= documents:
            among = self.cards.keys() & documents
        return self._words.search(terms, limit, among)

    def count_of(self, term: str) -> int:
        return self._words.count(term)

    def chunk(self, id_: int) -> Chunk | None:
        """None for an id that was added since the search began."""
        rows = self._rows
        row = rows.row(id_)
        return None if row is None else self._chunk(rows, row)

    def chunks_of(self, documents: Collection[str]) -> Iterator[Chunk]:
        """Chunks of some documents, in their order."""
        rows = self._rows
        for row in range(len(rows.ids)):
            if rows.document(row) in documents:
                yield self._chunk(rows, row)

    # -- below -----------------------------------------------------------------------------------------------

    def _chunk(self, rows: _Rows, row: int) -> Chunk:
        line = _LINES.decode(self._line(rows, row))
        return Chunk(line.document_id, line.position, line.text, line.start, line.end, line.page)

    def _line(self, rows: _Rows, row: int) -> bytes:
        start, end = int(rows.offsets[row]), int(rows.offsets[row + 1])
        return os.pread(self._text, end - start, start)

    def _opened_words(self) -> PartWords:
        """The words; made again from the chunks where they do not agree with them."""
        path = self._places.words(self.name)
        try:
            words = PartWords(path)
            if len(words) == len(self):
                return words
        except WordsDamaged:
            pass  # the same remedy
        return self._rebuilt_words(path)

    def _rebuilt_words(self, path: Path) -> PartWords:
        remove_directory(path)
        words = PartWords(path)
        rows = self._rows
        chunks = (self._chunk(rows, row) for row in range(len(rows.ids)))
        words.add((id_, chunk.document_id, chunk.text) for id_, chunk in zip(rows.ids.tolist(), chunks, strict=True))
        return words

    def _add_words(self, chunks: Iterable[tuple[int, Chunk]]) -> None:
        try:
            self._words.add((id_, chunk.document_id, chunk.text) for id_, chunk in chunks)
        except WordsDamaged as error:
            raise PartDamaged(str(error)) from error


def read_commit(directory: Path) -> Commit:
    """Raises PartDamaged."""
    try:
        return msgspec.json.decode((directory / MAPPING).read_bytes(), type=Commit)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise PartDamaged(f"{directory / MAPPING}: {error}") from error


def remove(places: Places, name: str) -> None:
    """Remove a part's files."""
    remove_directory(places.directory(name))
    remove_directory(places.words(name))


def remove_directory(path: Path) -> None:
    """Remove a directory of files and all in it; nothing happens when it is not there.

    It is renamed first: nobody takes half of it for the whole, and whoever still knows it by its name (tantivy watches
    what it has opened, and takes a lock there when it sees a change) adds nothing to it while it is emptied.
    """
    doomed = path.with_name(f".tmp-{path.name.removeprefix('.tmp-')}")
    _remove_files(doomed)
    if path != doomed and path.is_dir():
        path.rename(doomed)
        _remove_files(doomed)


def _remove_files(directory: Path) -> None:
    if directory.is_dir():
        for entry in list(directory.iterdir()):
            entry.unlink(missing_ok=True)
        directory.rmdir()


def _cards(outlines: Iterable[_Outline]) -> dict[str, Card]:
    """The cards among some lines, by document."""
    return {
        outline.document_id: Card(document_id=outline.document_id, **outline.document)
        for outline in outlines
        if outline.document is not None
    }


def _encoded(
    chunks: Sequence[Chunk], cards: Mapping[str, Card], *, known: Collection[str], first_id: int
) -> list[bytes]:
    """Lines for chunks; the first of each document that is not *known* carries its card."""
    seen = set(known)
    lines = []
    for id_, chunk in enumerate(chunks, first_id):
        card = cards[chunk.document_id]
        facts = {"title": card.title, "session_id": card.session_id, "metadata": dict(card.metadata)}
        line = _Line(
            id=id_,
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            position=chunk.position,
            text=chunk.text,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            document=None if chunk.document_id in seen else facts,
        )
        seen.add(chunk.document_id)
        lines.append(msgspec.json.encode(line) + b"\n")
    return lines


def _offsets(lines: Sequence[bytes], start: int) -> list[int]:
    """Where each line begins, and where the last one ends."""
    return list(accumulate(map(len, lines), initial=start))


def _dumped(commit: Commit) -> bytes:
    return json.dumps(asdict(commit), ensure_ascii=True, indent=1).encode() + b"\n"


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    _write_durably(temporary, data)
    temporary.replace(path)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
