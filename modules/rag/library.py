"""What there is of every user, on disk: documents, what v2 left, what has begun. All but the index.

A document is one of two: it has a directory of its own, or it is known from a vector set of v2 alone, which then holds
all that is left of its text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from modules.core.errors import NotFound, StorageError
from modules.core.storage import FlatFiles

from .documents import Document, DocumentFiles
from .notes import Notes
from .passages import Chunk
from .registry import Registry
from .v2_sets import V2Sets

log = logging.getLogger(__name__)


class Library:
    """Of the users for whom *owns* is true. Safe for several threads, changes for one at a time for each user."""

    def __init__(self, files: FlatFiles, owns: Callable[[str], bool]) -> None:
        self.files = files
        self.documents = DocumentFiles(files)
        self.registry = Registry(files, owns)
        self.notes = Notes(files)
        self.sets = V2Sets(files, owns)
        self._owns = owns

    def load(self) -> list[str]:
        """Learn what there is, and finish what was cut short. Returns the users whose index must be made to agree.

        Raises StorageError.
        """
        self.files.empty_trash()
        self.registry.load()
        self.sets.load()
        begun = [user_id for user_id in self.notes.begun() if self._owns(user_id)]
        for user_id in begun:
            self._finish(user_id)
        self.registry.save()
        return begun

    def users(self) -> list[str]:
        return sorted({*self.registry.users(), *self.sets.users()})

    def live(self, user_id: str) -> set[str]:
        """All documents of a user."""
        return self.registry.ids_of(user_id) | self.sets.loose(user_id).keys()

    def document(self, user_id: str, id_: str) -> Document:
        """Raises NotFound for what is not this user's, whether or not it is another's; StorageError."""
        if self.registry.has(user_id, id_):
            found = self.documents.read(id_)
            if found.user_id == user_id:
                return found
        loose = self.sets.loose(user_id).get(id_)
        if loose is not None:
            card = loose.card(id_)
            return Document(id_, user_id, card.title, card.session_id)
        raise NotFound(f"user {user_id!r} has no document {id_!r}")

    def stored_chunks(self, user_id: str, id_: str) -> list[Chunk] | None:
        """Chunks that somebody has cut already; None where nobody has."""
        if self.registry.has(user_id, id_):
            cut = self.documents.read_chunks(id_)
            if cut is not None:
                return cut
        return None

    def v2_chunks(self, user_id: str, id_: str) -> list[Chunk] | None:
        """What v2 had cut the document into; None where that is not known."""
        return self.sets.chunks(user_id, id_) or None

    def remove(self, user_id: str, ids: Collection[str], take_out: Callable[[], int]) -> int:
        """Remove documents, with all that *take_out* removes of the index. Returns what that returns.

        Once this has begun they are gone: what a crash leaves is removed when the module starts again.
        """
        doomed = set(ids)
        self.notes.change(user_id, lambda notes: notes.removing.update(doomed), fsync=True)
        gone = take_out()
        self._remove_files(user_id, doomed)
        self.registry.save()
        self.notes.change(user_id, lambda notes: _strike(notes.removing, notes.unreadable, doomed))
        return gone

    def erase(self, user_id: str, take_out: Callable[[], int]) -> int:
        """Remove all that there is of a user. Returns what *take_out* returns."""
        self.notes.change(user_id, lambda notes: setattr(notes, "erasing", True), fsync=True)
        gone = take_out()
        self._erase_files(user_id)
        return gone

    def _finish(self, user_id: str) -> None:
        notes = self.notes.of(user_id)
        log.warning("finishing what was cut short of user %r", user_id)
        if notes.erasing:
            self._erase_files(user_id)
            return
        for id_ in notes.adding:
            if not self.documents.exists(id_):
                self.documents.delete(id_)
        doomed = set(notes.removing)
        self._remove_files(user_id, doomed)
        self.registry.save()
        self.notes.change(user_id, lambda notes: _strike(notes.removing, notes.unreadable, doomed))
        self.notes.change(user_id, lambda notes: notes.adding.clear())

    def _remove_files(self, user_id: str, ids: Collection[str]) -> None:
        for id_ in ids:
            self.documents.delete(id_)
            self.registry.remove(user_id, id_)
        self.sets.take_out(user_id, ids)

    def _erase_files(self, user_id: str) -> None:
        # What was being added has no entry in the registry yet.
        for id_ in self.registry.ids_of(user_id) | self.notes.of(user_id).adding:
            self.documents.delete(id_)
            self.registry.remove(user_id, id_)
        self.sets.erase(user_id)
        self.documents.spool.erase(user_id)
        try:
            self.registry.save()
        except StorageError:
            log.exception("the registry of documents still names what was erased of user %r", user_id)
            raise
        self.notes.forget(user_id)


def _strike(removing: set[str], unreadable: dict[str, str], ids: Collection[str]) -> None:
    removing.difference_update(ids)
    for id_ in ids:
        unreadable.pop(id_, None)
