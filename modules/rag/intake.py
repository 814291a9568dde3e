"""Puts new documents where they belong: on the disk, into the index, into the registry.

Documents of one user that are ready at the same time are put in together: the index is written once for all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules.core.errors import Conflict, PlatformError, Unavailable
from modules.core.spool import Spooled

from .documents import Document
from .knowledge import Indexed, Knowledge
from .library import Library
from .nearness import Vectors
from .passages import Chunk
from .shelves import Shelves


@dataclass(slots=True, eq=False)
class Arrival:
    """A document that is read, cut and embedded. ``indexing`` is what its metadata.json says of that.

    ``is_kept`` once it is in; ``error`` where it cannot be.
    """

    document: Document
    extension: str
    file: Spooled
    chunks: Sequence[Chunk]
    vectors: Vectors | None
    model: str | None
    indexing: Mapping[str, Any]
    is_kept: bool = False
    error: Exception | None = None

    @property
    def indexed(self) -> Indexed:
        return Indexed(self.document.card, self.chunks, self.vectors)


class Intake:
    def __init__(self, library: Library, shelves: Shelves, *, most_documents: int) -> None:
        self._library = library
        self._shelves = shelves
        self._most = most_documents
        self._ready: defaultdict[str, list[Arrival]] = defaultdict(list)

    async def keep(self, arrival: Arrival) -> None:
        """Return when the document is found by searches, and on the disk.

        Raises Conflict where the user may have no more, StorageError; then nothing is kept.
        """
        user_id = arrival.document.user_id
        self._ready[user_id].append(arrival)
        # Whoever comes first takes in all that are ready; the others find their own done.
        await self._shelves.change(user_id, lambda knowledge: self._take_in(user_id, knowledge))
        if arrival.error is not None:
            raise arrival.error
        if not arrival.is_kept:
            raise Unavailable(f"document {arrival.document.id} was not put in")

    def _take_in(self, user_id: str, knowledge: Knowledge) -> None:
        ready = self._ready.pop(user_id, [])
        left = self._most - len(self._library.registry.ids_of(user_id))
        for refused in ready[max(left, 0) :]:
            refused.error = Conflict(f"user {user_id!r} has {self._most} documents, and may have no more")
        ready = ready[: max(left, 0)]
        try:
            self._put_in(user_id, ready, knowledge)
        except Exception as error:  # the work of several callers: each of them is told
            for arrival in ready:
                if not arrival.is_kept:
                    arrival.error = arrival.error or error
            if not isinstance(error, PlatformError):
                raise

    def _put_in(self, user_id: str, ready: Sequence[Arrival], knowledge: Knowledge) -> None:
        if not ready:
            return
        library, ids = self._library, [arrival.document.id for arrival in ready]
        library.notes.change(user_id, lambda notes: notes.adding.update(ids))
        try:
            for arrival in ready:
                library.documents.keep_content(arrival.document, arrival.extension, arrival.file, arrival.chunks)
            for model in {arrival.model for arrival in ready}:
                knowledge.add([arrival.indexed for arrival in ready if arrival.model == model], model)
            for arrival in ready:
                library.documents.write_metadata(arrival.document, arrival.indexing)
                library.registry.add(arrival.document)
                arrival.is_kept = True
        except BaseException:
            lost = [arrival.document.id for arrival in ready if not arrival.is_kept]
            knowledge.remove(lost)
            for id_ in lost:
                library.documents.delete(id_)
            raise
        library.notes.change(user_id, lambda notes: notes.adding.difference_update(ids))
