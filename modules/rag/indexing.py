"""Brings the index of a user up to what there is: what a migration brought, what a damaged part has lost, what was
embedded with another model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from modules.core.entered import entered
from modules.core.errors import NotFound

from .documents import Document
from .embedding import Embedding
from .errors import UnreadableDocument, UnsupportedDocument
from .knowledge import Indexed, Knowledge
from .library import Library
from .nearness import Vectors
from .parsing import Parser, located
from .passages import Chunk
from .results import IndexingReport
from .settings import RagSettings
from .shelves import Shelves

log = logging.getLogger(__name__)

_SLICE_S = 10.0  # how long work that nobody has asked for goes on before it makes a pause


@dataclass(slots=True, eq=False)
class _Prepared:
    """A document on its way into the index. ``to_keep``: its chunks are to be written beside it."""

    document: Document
    chunks: Sequence[Chunk]
    to_keep: bool
    vectors: Vectors | None = None


class Indexer:
    """For each user one update at a time."""

    def __init__(
        self, library: Library, shelves: Shelves, parser: Parser, embedding: Embedding, settings: RagSettings
    ) -> None:
        self._library = library
        self._shelves = shelves
        self._parser = parser
        self._embedding = embedding
        self._settings = settings
        self._running: dict[str, asyncio.Task[IndexingReport]] = {}
        # Users of whom nothing waits: it begins to wait only by a crash, and then this is begun anew as well.
        self._settled: set[str] = set()

    def described(self, user_id: str, id_: str, indexed: Collection[str]) -> Document:
        """The document with what is true of its place in the index, in which *indexed* are. Raises NotFound."""
        document = self._library.document(user_id, id_)
        reason = self._library.notes.of(user_id).unreadable.get(id_)
        if reason is not None:
            return replace(document, state="unreadable", reason=reason)
        return document if id_ in indexed else replace(document, state="waiting")

    async def catch_up(self, user_id: str, *, patience_s: float) -> None:
        """Have what waits indexed; come back when that is done, or after so long, while it goes on."""
        if user_id in self._settled:
            return
        todo = await self._shelves.read(user_id, partial(self._waiting, user_id))
        if not todo:
            self._settled.add(user_id)
            return
        await asyncio.wait({self._started(user_id, None, force=False)}, timeout=patience_s)

    async def update(self, user_id: str, ids: Collection[str] | None, *, force: bool) -> IndexingReport:
        """See `RagModule.update_embeddings`."""
        if ids is not None:
            for id_ in ids:
                await asyncio.to_thread(self._library.document, user_id, id_)
        while (running := self._running.get(user_id)) is not None:
            await asyncio.wait({running})
        return await asyncio.shield(self._started(user_id, ids, force=force))

    async def index_waiting(self) -> int:
        """Index what waits, of one user after the other, for a while. Returns how many documents were indexed."""
        end, indexed = time.monotonic() + _SLICE_S, 0
        for user_id in self._library.users():
            if user_id in self._settled or user_id in self._running:
                continue
            todo = await self._shelves.read(user_id, partial(self._waiting, user_id))
            if todo:
                indexed += (await asyncio.shield(self._started(user_id, sorted(todo), force=False))).indexed
            self._settled.add(user_id)
            if time.monotonic() > end:
                break
        return indexed

    def forget(self, user_id: str) -> None:
        self._settled.discard(user_id)

    async def close(self) -> None:
        """End what runs. What is done stays done."""
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values())

    def _started(self, user_id: str, ids: Collection[str] | None, *, force: bool) -> asyncio.Task[IndexingReport]:
        task = self._running.get(user_id)
        if task is None:
            task = self._running[user_id] = asyncio.create_task(self._update(user_id, ids, force=force))
            task.add_done_callback(lambda done: self._ended(user_id, done))
        return task

    def _ended(self, user_id: str, task: asyncio.Task[IndexingReport]) -> None:
        self._running.pop(user_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("documents of user %r were not indexed", user_id, exc_info=error)

    async def _update(self, user_id: str, ids: Collection[str] | None, *, force: bool) -> IndexingReport:
        model = self._embedding.name
        live, todo = await self._shelves.read(
            user_id, lambda knowledge: self._todo(user_id, knowledge, ids, force=force)
        )
        indexed, chunks = 0, 0
        unreadable: dict[str, str] = {}
        for batch in _in_slices(todo):
            prepared = await self._prepared(user_id, batch, unreadable)
            if prepared:
                vectors = await self._embedding.of_many([chunk.text for one in prepared for chunk in one.chunks])
                at = 0
                for one in prepared:
                    one.vectors = None if vectors is None else vectors[at : at + len(one.chunks)]
                    at += len(one.chunks)
                indexed += await self._shelves.change(user_id, partial(self._kept, user_id, prepared, model))
                chunks += at
        return IndexingReport(indexed, len(live) - len(todo), unreadable, chunks)

    def _todo(
        self, user_id: str, knowledge: Knowledge, ids: Collection[str] | None, *, force: bool
    ) -> tuple[set[str], list[str]]:
        live = self._library.live(user_id)
        wanted = live if ids is None else live & set(ids)
        if force:
            return wanted, sorted(wanted)
        behind = self._waiting(user_id, knowledge) | knowledge.outdated(self._embedding.name)
        return wanted, sorted(wanted & behind)

    def _waiting(self, user_id: str, knowledge: Knowledge) -> set[str]:
        unreadable = self._library.notes.of(user_id).unreadable.keys()
        return self._library.live(user_id) - knowledge.documents.keys() - unreadable

    async def _prepared(self, user_id: str, ids: Sequence[str], unreadable: dict[str, str]) -> list[_Prepared]:
        """Documents with their chunks; those that cannot be read are noted, so that nobody tries again unasked."""
        prepared = []
        for id_ in ids:
            try:
                document = await asyncio.to_thread(self._library.document, user_id, id_)
            except NotFound:
                continue  # deleted meanwhile
            try:
                chunks, to_keep = await self._chunks(document)
            except (UnreadableDocument, UnsupportedDocument, NotFound) as error:
                unreadable[id_] = error.message
                await self._note(user_id, id_, error.message)
            else:
                prepared.append(_Prepared(document, chunks, to_keep))
        return prepared

    async def _chunks(self, document: Document) -> tuple[list[Chunk], bool]:
        """As they were cut before, here or by v2; else cut now. And whether they are to be kept with the document.

        Raises UnreadableDocument, UnsupportedDocument, NotFound where there is no file.
        """
        user_id, id_ = document.user_id, document.id
        cut = await asyncio.to_thread(self._library.stored_chunks, user_id, id_)
        if cut is not None:
            return cut, False
        v2 = await asyncio.to_thread(self._library.v2_chunks, user_id, id_)
        try:
            async with entered(self._library.documents.opened(document)) as fd:
                text = await self._parser.text_of(fd, name=document.title, content_type=document.content_type)
        except (UnreadableDocument, UnsupportedDocument, NotFound):
            if v2 is None:
                raise
            return v2, self._library.registry.has(user_id, id_)
        chunks = [] if v2 is None else await asyncio.to_thread(located, v2, text)
        if not chunks or any(chunk.start is None for chunk in chunks):
            # What v2 had cut is not what the file says, or not all of it.
            cut_now, _ = await self._parser.chunks_of(id_, text, self._settings.strategy)
            chunks += [replace(chunk, position=len(chunks) + number) for number, chunk in enumerate(cut_now)]
        return chunks, True

    async def _note(self, user_id: str, id_: str, reason: str) -> None:
        await self._shelves.change(
            user_id,
            lambda _: self._library.notes.change(user_id, lambda notes: notes.unreadable.update({id_: reason})),
        )

    def _kept(self, user_id: str, prepared: Sequence[_Prepared], model: str | None, knowledge: Knowledge) -> int:
        # Nothing of a document may be written once it is deleted, so all is written here, where no deletion goes on.
        live = self._library.live(user_id)
        still = [one for one in prepared if one.document.id in live]
        for one in still:
            if one.to_keep:
                self._library.documents.write_chunks(one.document.id, one.chunks)
        knowledge.replace([Indexed(one.document.card, one.chunks, one.vectors) for one in still], model)
        notes = self._library.notes
        known = notes.of(user_id).unreadable.keys() & {one.document.id for one in still}
        if known:
            notes.change(user_id, lambda notes: [notes.unreadable.pop(id_) for id_ in known])
        return len(still)


def _in_slices(ids: Sequence[str], size: int = 32) -> Iterator[Sequence[str]]:
    """So many documents at a time: what is done of them stays done when the rest is cut short."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
