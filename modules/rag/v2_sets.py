"""Vector sets that a migration brought: read, searched by vector, and taken apart when a document is deleted.

Their form is that of docs/target.md, section 3. Vectors, index lines and their order stay as they came: v2's model may
not be at hand, and its vectors are of another space than the configured model's, so they are searched only by a vector
that the caller brings. Which row is whose is what mapping.json says: it was found out when the set was migrated.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.layout import document_id
from modules.core.storage import FlatFiles

from .errors import imported
from .nearness import INDEX, VECTORS, Vectors
from .passages import Card, Chunk, Citation, Passage

log = logging.getLogger(__name__)

HOME = "rag/embeddings"
PREFIX = "v2_"
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class V2Set:
    """``documents``: v2's ids by the platform's. ``loose``: those of them that have no directory of their own."""

    name: str
    user_id: str
    session_id: str
    rows: int | None
    dimension: int | None
    claimed_model: Mapping[str, Any] | None
    documents: Mapping[str, str] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()

    def card(self, document: str) -> Card:
        return Card(document, self.documents[document], self.session_id)

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.name,
            "session_id": self.session_id,
            "vectors": self.rows,
            "dimension": self.dimension,
            "claimed_model": self.claimed_model,
        }


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of chunks.jsonl that is an object. ``row`` None: no vector is known to be its."""

    number: int
    document: str
    position: int
    text: str
    row: int | None


class V2Sets:
    """Of the users for whom *owns* is true. Safe for several threads, changes for one at a time for each user."""

    def __init__(self, files: FlatFiles, owns: Callable[[str], bool]) -> None:
        self._files = files
        self._owns = owns
        self._users: defaultdict[str, dict[str, V2Set]] = defaultdict(dict)

    def load(self) -> None:
        """Learn which sets there are. One that cannot be read is logged and left out. Raises StorageError."""
        for name in self._files.directories(HOME):
            if name.startswith(PREFIX):
                try:
                    self._learn(name)
                except NotFound:
                    log.warning("%s/%s has no mapping.json, and is left out", HOME, name)
                except StorageError:
                    log.warning("%s/%s cannot be read, and is left out", HOME, name, exc_info=True)

    def users(self) -> list[str]:
        return [user for user, sets in self._users.items() if sets]

    def of(self, user_id: str) -> list[V2Set]:
        return list(self._users.get(user_id, {}).values())

    def loose(self, user_id: str) -> dict[str, V2Set]:
        """The sets of documents of which nothing else was stored, by document."""
        return {document: found for found in self.of(user_id) for document in found.loose}

    def cards(self, user_id: str) -> dict[str, Card]:
        """What the sets themselves know of their documents."""
        return {document: found.card(document) for found in self.of(user_id) for document in found.documents}

    def chunks(self, user_id: str, document: str) -> list[Chunk]:
        """What v2 had cut a document into; none where no set knows it. Raises StorageError."""
        lines: list[_Line] = []
        for found in self.of(user_id):
            if document in found.documents:
                lines += [line for line in self._lines(found) if line.document == document]
        # A document that v2 had stored twice has every chunk twice.
        texts = {(line.position, line.text): line.text for line in lines if line.text.strip()}
        return [Chunk(document, number, texts[key]) for number, key in enumerate(sorted(texts))]

    def search(
        self,
        user_id: str,
        name: str,
        vector: Vectors,
        limit: int,
        documents: Set[str] | None,
        cards: Mapping[str, Card],
    ) -> list[Passage]:
        """The passages of a set whose vectors are nearest in direction to *vector*, of *documents* alone where given.

        Exact, in the precision of the set. Raises NotFound when the user has no such set, ValidationError for a vector
        of another length or without direction, StorageError. *cards* has one of every document of the user's sets.
        """
        found = self._users.get(user_id, {}).get(name)
        if found is None:
            raise NotFound(f"user {user_id!r} has no index {name!r}")
        if found.dimension != len(vector):
            raise ValidationError(f"vectors of {name} have length {found.dimension}, not {len(vector)}", param="vector")
        by_row = {line.row: line for line in self._lines(found) if line.row is not None}
        rows = np.array(
            sorted(row for row, line in by_row.items() if documents is None or line.document in documents), np.int64
        )
        with self._array(found) as array:
            similarities = _cosines(array, rows, np.asarray(vector, np.float64))
        best = np.argsort(-similarities, kind="stable")[:limit]
        passages = []
        for place in best:
            line, similarity = by_row[int(rows[place])], float(similarities[place])
            card = cards[line.document]
            citation = Citation(card.document_id, f"{card.document_id}_chunk_{line.position}", card.title)
            passages.append(Passage(line.text, similarity, citation, card.session_id, card.metadata, similarity))
        return passages

    def take_out(self, user_id: str, documents: Collection[str]) -> None:
        """Remove all that sets hold of some documents: their lines, vectors and names. Doing it again, or doing the
        rest of it after a crash, comes to the same. Raises StorageError."""
        for found in self.of(user_id):
            doomed = found.documents.keys() & set(documents)
            if doomed == found.documents.keys() and doomed:
                self._files.delete_tree(f"{HOME}/{found.name}")
                del self._users[user_id][found.name]
            elif doomed:
                self._take_out_of(found, doomed)
                self._learn(found.name)

    def erase(self, user_id: str) -> int:
        """Remove all sets of a user. Returns how many there were."""
        sets = self._users.pop(user_id, {})
        for name in sets:
            self._files.delete_tree(f"{HOME}/{name}")
        return len(sets)

    # -- below -----------------------------------------------------------------------------------------------

    def _learn(self, name: str) -> None:
        mapping = self._mapping(name)
        user_id, session_id = str(mapping.get("user_id", "")), str(mapping.get("session_id", ""))
        if not self._owns(user_id):
            return
        known = mapping.get("document_ids")
        new_ids = known if isinstance(known, dict) else {}
        # A document without a directory has the id that it would have with one.
        documents = {new or document_id(user_id, session_id, v2): v2 for v2, new in new_ids.items()}
        loose = frozenset(document_id(user_id, session_id, v2) for v2, new in new_ids.items() if new is None)
        self._users[user_id][name] = V2Set(
            name,
            user_id,
            session_id,
            mapping.get("rows"),
            mapping.get("dimension"),
            mapping.get("claimed_model"),
            documents,
            loose,
        )

    def _mapping(self, name: str) -> dict[str, Any]:
        key = f"{HOME}/{name}/mapping.json"
        try:
            mapping = json.loads(self._files.read(key))
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{key} cannot be read: {error}", key=key) from error
        if not isinstance(mapping, dict):
            raise StorageError(f"{key} holds no object", key=key)
        return mapping

    def _lines(self, found: V2Set) -> Iterator[_Line]:
        try:
            raw = self._files.read(f"{HOME}/{found.name}/chunks.jsonl").split(b"\n")
        except NotFound:
            return
        rows_of = self._mapping(found.name).get("chunk_ids") or {}
        new_ids = {v2: new for new, v2 in found.documents.items()}
        seen: defaultdict[str, int] = defaultdict(int)
        for number, line in enumerate(raw, 1):
            record = _record(line)
            document = record.get("document_id") if record else None
            if record is None or document not in new_ids:
                continue
            chunk_id = str(record.get("chunk_id", ""))
            rows = rows_of.get(chunk_id, [])
            place = seen[chunk_id]
            seen[chunk_id] += 1
            facts = record.get("chunk_metadata")
            position = facts.get("position") if isinstance(facts, dict) else None
            text = record.get("chunk_text")
            yield _Line(
                number,
                new_ids[document],
                position if isinstance(position, int) else place,
                text if isinstance(text, str) else "",
                rows[place] if place < len(rows) else None,
            )

    @contextmanager
    def _array(self, found: V2Set, mode: Any = "r") -> Iterator[npt.NDArray[Any]]:
        path = Path(self._files.base) / HOME / found.name / VECTORS
        try:
            array = np.load(path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(f"{HOME}/{found.name}/{VECTORS} cannot be read: {error}", key=str(path)) from error
        yield array

    def _take_out_of(self, found: V2Set, doomed: Set[str]) -> None:
        home = f"{HOME}/{found.name}"
        lines = {line.number: line for line in self._lines(found) if line.document in doomed}
        rows = sorted({line.row for line in lines.values() if line.row is not None})
        if rows:
            with self._array(found, "r+") as array:
                array[rows] = 0
                array.flush()  # type: ignore[attr-defined]
                self._write_index(found, array)
        raw = self._files.read(f"{home}/chunks.jsonl").split(b"\n")
        # Blank where they were: the numbers of the other lines are what mapping.json speaks of.
        kept = [b"" if number in lines else line for number, line in enumerate(raw, 1)]
        if lines:
            self._files.write(f"{home}/chunks.jsonl", b"\n".join(kept), fsync=True)
        mapping = self._mapping(found.name)
        names = {found.documents[one] for one in doomed}
        left = {str(record.get("chunk_id", "")) for line in kept if (record := _record(line)) is not None}
        chunk_ids = mapping.get("chunk_ids") or {}
        mapping["chunk_ids"] = {chunk: places for chunk, places in chunk_ids.items() if chunk in left}
        gone = {place for chunk, places in chunk_ids.items() if chunk not in left for place in places}
        mapping["orphan_rows"] = sorted({*(mapping.get("orphan_rows") or []), *gone})
        mapping["document_ids"] = {v2: new for v2, new in mapping["document_ids"].items() if v2 not in names}
        told = json.dumps(mapping, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
        self._files.write(f"{home}/mapping.json", told, fsync=True)

    def _write_index(self, found: V2Set, array: npt.NDArray[Any]) -> None:
        path = Path(self._files.base) / HOME / found.name / INDEX
        if not path.exists():
            return
        faiss = imported("faiss")
        index = faiss.IndexFlatIP(int(array.shape[1]))
        index.add(np.ascontiguousarray(array, np.float32))
        temporary = path.with_name(".tmp-" + INDEX)
        faiss.write_index(index, str(temporary))
        temporary.replace(path)


def _cosines(array: npt.NDArray[Any], rows: npt.NDArray[np.int64], vector: npt.NDArray[np.float64]) -> Any:
    """Cosines of some rows to *vector*; that of a row without direction is -1. Raises ValidationError."""
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise ValidationError("a vector must have a direction", param="vector")
    similarities = np.full(len(rows), -1.0)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = np.asarray(array[rows[start : start + _ROWS_AT_ONCE]], np.float64)
        lengths = np.linalg.norm(block, axis=1) * length
        sound = np.isfinite(lengths) & (lengths > 0)
        similarities[start : start + len(block)][sound] = (block @ vector)[sound] / lengths[sound]
    return similarities


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.strip() else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
