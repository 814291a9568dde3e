"""Knowledge from documents: taken in, found again by meaning and words, cited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.context import ModuleContext
from modules.core.entered import entered
from modules.core.errors import ConfigurationError, NotFound, StorageError, Unavailable
from modules.core.finishing import Finishing
from modules.core.memory_file import memory_file
from modules.core.spool import Spooled
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.core.stored_file import StoredFile
from modules.core.types import ModuleInfo
from modules.models import EmbeddingModel

from .arguments import checked_count, checked_query, checked_user
from .documents import Document, checked_metadata, digest_of, new_document_id
from .embedding import Embedding
from .export import exported
from .incoming import Arrivals, Source
from .indexing import Indexer
from .intake import Arrival, Intake
from .kinds import CONTENT_TYPES, extension_of
from .knowledge import Knowledge
from .library import Library
from .parsing import Parser, Text, opened_local
from .part import Places
from .passages import Passage
from .rag_events import RagEvents
from .relevant_context import RelevantContext
from .results import Deletion, DocumentPage, Erasure, IndexingReport, IndexStatus
from .searching import CURRENT, Searcher
from .settings import RagSettings
from .shelves import Shelves
from .sources import SourceCheck, checked_source

log = logging.getLogger(__name__)


class RagModule:
    """*config* is the mapping under ``modules.rag``. With *base_path* it can be used without a platform; *model* embeds
    in place of the one that the settings name.

    The user ``""`` is whoever is meant where nobody is named; no user ever sees what belongs to another.
    """

    info = ModuleInfo(
        name="rag",
        version="1.0",
        capabilities=("documents", "search", "citations", "context"),
        optional=("memory", "multimodal"),
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        base_path: Path | str | None = None,
        model: EmbeddingModel | None = None,
        clock: Clock | None = None,
        new_id: IdMaker = new_hex,
    ) -> None:
        self.config: Mapping[str, Any] = config or {}
        self._settings = RagSettings.read(self.config)
        self._files = None if base_path is None else FlatFiles(base_path)
        self._model = model
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._context: ModuleContext | None = None
        self._events: RagEvents | None = None
        self._adding: dict[str, tuple[str, asyncio.Task[Document]]] = {}
        self._finishing = Finishing("adding a document")

    async def initialize(self, context: ModuleContext | None = None) -> None:
        """Take settings (where none were given) and storage (likewise) from *context*; learn what there is, and finish
        what a crash cut short. Raises ConfigurationError, StorageError."""
        if context is not None:
            if not self.config:
                self.config = context.get_config("rag", {})
                self._settings = RagSettings.read(self.config)
            if self._files is None:
                storage = context.get_storage()
                if not isinstance(storage, FlatFileStorage):
                    raise ConfigurationError("rag keeps its indices in flat files; set storage.backend to 'flatfile'")
                self._files = storage.files
            self._clock = context.clock
        if self._files is None:
            raise ConfigurationError("rag needs a base path: RagModule(config, base_path=...) or storage.base_path")
        owns = (lambda user_id: True) if context is None else context.owns
        places = Places(Path(self._files.base))
        self._library = Library(self._files, owns)
        self._arrivals = Arrivals(self._library.documents.spool, self._settings, self._new_id)
        workers = None if context is None else context.workers
        self._embedding = Embedding(self._settings.embedding, workers, model=self._model)
        self._parser = Parser(self._settings, self._embedding)
        self._shelves = Shelves(self._library, places, max_open=self._settings.max_open_users, new_id=self._new_id)
        self._intake = Intake(self._library, self._shelves, most_documents=self._settings.max_documents_per_user)
        self._indexer = Indexer(self._library, self._shelves, self._parser, self._embedding, self._settings)
        self._searcher = Searcher(self._library, self._shelves, self._indexer, self._embedding, self._settings)
        try:
            await self.tidy_spool()
        except StorageError:  # it is tried again; health_check says whether it can be used
            log.warning("what a crash left of documents could not be removed", exc_info=True)
        begun = await asyncio.to_thread(self._library.load)
        await asyncio.to_thread(self._shelves.survey)
        for user_id in begun:
            await self._shelves.read(user_id, len)  # opening it takes out what is not there any more
        self._context = context
        if context is not None:
            self._events = RagEvents(self, self._searcher, context)
            self._events.listen()

    async def health_check(self) -> bool:
        """Whether a document could be taken in now."""
        if self._files is None:
            return False
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("rag cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Finish what has begun, end the processes that parse, write down what makes the next start fast."""
        if self._events is not None:
            self._events.stop()
        await self._stop_adding()
        await self._finishing.wait()
        await self._indexer.close()
        await self._shelves.close()
        await asyncio.to_thread(self._parser.close)
        await self._embedding.close()
        await asyncio.to_thread(self._library.registry.save)

    # -- documents -------------------------------------------------------------------------------------------

    async def add_document(
        self,
        source: Source,
        metadata: Mapping[str, Any] | None = None,
        chunking_strategy: str | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
        name: str | None = None,
        content_type: str = "",
    ) -> Document:
        """Take in a document, from its bytes, the path of its file, or what arrived for this user in the module's
        spool (which stays its sender's to remove), and index it; found by searches from then on.

        The kind is told by *name* (a path's own where none is given) and *content_type*, and checked against the
        bytes. Adding the same again, name and metadata included, changes nothing and gives the document that there is.

        Raises ValidationError, UnsupportedDocument and UnreadableDocument (ParsingStopped among them) for what cannot
        be taken in, Conflict beyond ``max_documents_per_user``, ModelError, StorageError; then nothing is kept. Raises
        Unavailable where what was handed over is not in the spool.
        """
        checked_user(user_id)
        facts = checked_metadata(metadata)
        if isinstance(source, str | Path):
            name = name or Path(source).name
        whose = Document("", user_id, name or "Untitled", session_id, content_type, metadata=facts)
        whose = replace(whose, chunking_strategy=chunking_strategy or self._settings.strategy)
        return await self._finishing.finish(self._taken_in(whose, source))

    async def _taken_in(self, document: Document, source: Source) -> Document:
        """*document*: what is known of it before its file is."""
        async with self._arrivals.taken(document.user_id, source) as incoming:
            document = replace(
                document,
                size_bytes=incoming.size_bytes,
                sha256=incoming.sha256,
                created_at=self._clock.now().isoformat(),
            )
            return await self._added_once(replace(document, id=new_document_id(document)), incoming.file)

    async def _added_once(self, document: Document, file: Spooled) -> Document:
        """Whoever brings the same while it is being added waits for that, and brings his own where that goes away."""
        while True:
            adding = self._adding.get(document.id)
            is_own = adding is None
            if adding is None:
                adding = document.user_id, asyncio.create_task(self._added(document, file))
                adding[1].add_done_callback(partial(self._forget_adding, document.id))
                self._adding[document.id] = adding
            try:
                return await asyncio.shield(adding[1])
            except Unavailable:
                if is_own:
                    raise

    async def _added(self, document: Document, file: Spooled) -> Document:
        user_id = document.user_id
        if self._library.registry.has(user_id, document.id):
            return await self.get_document(document.id, user_id=user_id)
        async with entered(self._library.documents.spool.opened(user_id, file)) as fd:
            text = await self._parser.text_of(fd, name=document.title, content_type=document.content_type)
        chunks, cutting = await self._parser.chunks_of(document.id, text, str(document.chunking_strategy))
        vectors = await self._embedding.of([chunk.text for chunk in chunks])
        model = self._embedding.name
        document = replace(
            document, content_type=text.content_type, chunking_strategy=cutting.strategy, chunks=len(chunks)
        )
        indexing = {
            "strategy": cutting.strategy,
            "chunk_size": cutting.chunk_size,
            "chunk_overlap": cutting.overlap,
            "chunks": len(chunks),
            "characters": len(text.text),
            "text_sha256": digest_of([text.text.encode()]),
            "pages": len(text.pages) or None,
        }
        extension = extension_of(document.title)
        if extension not in CONTENT_TYPES:
            extension = next(kind for kind, type_ in CONTENT_TYPES.items() if type_ == text.content_type)
        arrival = Arrival(document, extension, file, chunks, vectors, model, indexing)
        await self._intake.keep(arrival)
        await self._emit(
            "rag.document.indexed",
            {"user_id": user_id, "document_id": document.id, "session_id": document.session_id, "chunks": len(chunks)},
        )
        return document

    async def get_document(self, document_id: str, *, user_id: str = "") -> Document:
        """Raises NotFound for what is not this user's, whether or not it is another's."""
        checked_user(user_id)

        def described(knowledge: Knowledge) -> Document:
            indexed = [document_id] if knowledge.has(document_id) else []
            return self._indexer.described(user_id, document_id, indexed)

        return await self._shelves.read(user_id, described)

    async def list_documents(
        self, user_id: str = "", *, session_id: str | None = None, limit: int = 100, after: str | None = None
    ) -> DocumentPage:
        """Documents in the order of their ids, those after *after*."""
        checked_user(user_id)
        checked_count("limit", limit, 1000)

        def page(knowledge: Knowledge) -> DocumentPage:
            found: list[Document] = []
            indexed = knowledge.documents.keys()
            for id_ in sorted(self._library.live(user_id)):
                if after is not None and id_ <= after:
                    continue
                try:
                    document = self._indexer.described(user_id, id_, indexed)
                except NotFound:
                    continue  # deleted meanwhile
                if session_id is None or document.session_id == session_id:
                    found.append(document)
                if len(found) > limit:
                    break
            return DocumentPage(tuple(found[:limit]), len(found) > limit)

        return await self._shelves.read(user_id, page)

    async def read_original(self, document_id: str, *, user_id: str = "") -> bytes:
        """The bytes that came. Raises NotFound, also where v2 had lost the file."""
        document = await self.get_document(document_id, user_id=user_id)
        _, data = await asyncio.to_thread(self._library.documents.read_original, document)
        return data

    async def locate_original(self, document_id: str, *, user_id: str = "") -> StoredFile:
        """Where the file that came stands, for who gives it out. Raises as `read_original`."""
        document = await self.get_document(document_id, user_id=user_id)
        return await asyncio.to_thread(self._library.documents.located, document)

    async def delete_document(self, document_id: str, *, user_id: str = "") -> Deletion:
        """Remove a document: its file, its chunks, their vectors and words; of migrated ones also what v2's vector
        sets hold of them. No byte of it is left below ``rag/`` when this returns. Raises NotFound."""
        checked_user(user_id)

        def delete(knowledge: Knowledge) -> int:
            if document_id not in self._library.live(user_id):
                raise NotFound(f"user {user_id!r} has no document {document_id!r}")
            return self._library.remove(user_id, [document_id], lambda: knowledge.remove([document_id]))

        return Deletion(document_id, await self._shelves.change(user_id, delete))

    async def extract_text(
        self, source: bytes | str | Path, *, name: str | None = None, content_type: str = ""
    ) -> Text:
        """The text of a document that is not kept. Raises as `add_document`."""
        if isinstance(source, bytes):
            opened, own_name = memory_file(source), ""
        else:
            opened, own_name = opened_local(source, self._settings), Path(source).name
        async with entered(opened) as fd:
            return await self._parser.text_of(fd, name=name or own_name, content_type=content_type)

    # -- searching -------------------------------------------------------------------------------------------

    async def search_knowledge(
        self,
        query: str,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
    ) -> list[Passage]:
        """The passages that answer *query* best, by meaning and by words; by words alone without an embedding model,
        or while it is away.

        *filters*: ``session_id``, ``document_id``, ``document_ids``, ``metadata`` (a member may be a list: any of it).
        *session_id* asks for the documents of that session and of none. Documents that a migration brought and nobody
        has indexed are indexed first, for as long as is bearable; the rest of them are found later.
        """
        passages = await self._searcher.by_query(query, top_k, filters, user_id=user_id, session_id=session_id)
        await self._emit(
            "rag.results.ready",
            {"user_id": user_id, "results": [passage.citation.to_dict() for passage in passages]},
        )
        return passages

    async def search_by_vector(
        self,
        vector: Sequence[float],
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
        index: str = CURRENT,
    ) -> list[Passage]:
        """The passages nearest to *vector*: among those embedded with the configured model, or in the *index* of v2
        that is named (see `list_indexes`), whose vectors are as v2 left them.

        Raises NotFound for an index that the user has not, ValidationError for a vector that does not fit it.
        """
        return await self._searcher.by_vector(
            vector, top_k, filters, user_id=user_id, session_id=session_id, index=index
        )

    async def list_indexes(self, user_id: str = "") -> list[dict[str, Any]]:
        """What can be searched by vector: the index of the configured model, and the vector sets of v2."""
        checked_user(user_id)
        chunks = await self._shelves.read(user_id, len)
        current = {"index": CURRENT, "model": self._embedding.name, "vectors": chunks}
        return [current, *(found.to_dict() for found in self._library.sets.of(user_id))]

    async def get_relevant_context(
        self, query: str, max_tokens: int | None = None, *, user_id: str = "", session_id: str | None = None
    ) -> RelevantContext:
        """The passages that bear on *query*, within *max_tokens*, each under a mark that its citation explains."""
        return await self._searcher.context(query, max_tokens, user_id=user_id, session_id=session_id)

    async def verify_source(
        self,
        document_id: str,
        quote: str,
        *,
        user_id: str = "",
        start: int | None = None,
        end: int | None = None,
    ) -> SourceCheck:
        """Whether a document says *quote*, word for word but for blanks: within a span of its text where one is given.
        Raises NotFound."""
        checked_query(quote, param="quote")
        document = await self.get_document(document_id, user_id=user_id)
        check = await self._shelves.read(
            user_id, lambda knowledge: checked_source(knowledge, document.card, quote, start, end)
        )
        await self._emit("rag.source.citation", {"user_id": user_id, **check.to_dict()})
        return check

    # -- the index -------------------------------------------------------------------------------------------

    async def update_embeddings(
        self, document_ids: Collection[str] | None = None, force: bool = False, *, user_id: str = ""
    ) -> IndexingReport:
        """Index what is not, and embed anew what was embedded with another model; with *force* all of it.

        Migrated chunks are taken as v2 had cut them, and v2's own vectors stay as they are. What was done when this is
        cut short stays done. Raises NotFound for documents that are not this user's, ModelError.
        """
        checked_user(user_id)
        report = await self._indexer.update(user_id, document_ids, force=force)
        await self._emit("rag.indexing.complete", {"user_id": user_id, **report.to_dict()})
        return report

    async def index_status(self, user_id: str = "") -> IndexStatus:
        checked_user(user_id)

        def status(knowledge: Knowledge) -> IndexStatus:
            indexed, live = knowledge.documents.keys(), self._library.live(user_id)
            unreadable = dict(self._library.notes.of(user_id).unreadable)
            model = self._embedding.name
            return IndexStatus(
                user_id=user_id,
                model=model,
                documents=len(live),
                chunks=len(knowledge),
                waiting=len(live - indexed - unreadable.keys()),
                outdated=len(knowledge.outdated(model)),
                unreadable=unreadable,
            )

        return await self._shelves.read(user_id, status)

    async def index_waiting(self) -> int:
        """For whoever keeps the platform tidy: index what a migration brought, for a while. Returns how many."""
        return await self._indexer.index_waiting() if self._settings.indexes_in_background else 0

    async def save_registry(self) -> bool:
        """For whoever keeps the platform tidy: write down which documents there are. False when nothing has changed."""
        return await asyncio.to_thread(self._library.registry.save)

    async def tidy_spool(self) -> int:
        """The same: remove what a crash left of files on their way in. Returns how many."""
        return await asyncio.to_thread(self._library.documents.spool.remove_stale, self._clock.now())

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: documents with their chunks and files, and what is known of v2's vector sets."""
        checked_user(user_id)
        return await self._shelves.read(user_id, lambda knowledge: exported(self._library, user_id, knowledge))

    async def erase_user(self, user_id: str) -> Erasure:
        """Remove all documents of a user, and all that was made of them. Cannot be undone."""
        checked_user(user_id)

        def erase(knowledge: Knowledge) -> Erasure:
            documents = len(self._library.live(user_id))
            chunks = self._library.erase(user_id, lambda: knowledge.remove(knowledge.documents.keys()))
            return Erasure(user_id, documents, chunks)

        # What is being read would else be put in afterwards.
        await self._stop_adding(user_id)
        erasure = await self._shelves.change(user_id, erase)
        self._indexer.forget(user_id)
        return erasure

    # -- below -----------------------------------------------------------------------------------------------

    async def _stop_adding(self, user_id: str | None = None) -> None:
        """End what is being added, of one user or of all; what is being put in already is put in."""
        tasks = [task for owner, task in self._adding.values() if user_id in (None, owner)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget_adding(self, id_: str, task: asyncio.Task[Document]) -> None:
        del self._adding[id_]
        if not task.cancelled():
            task.exception()  # retrieved for a caller that went away; one that waits gets it as well

    async def _emit(self, event: str, data: dict[str, Any]) -> None:
        if self._context is not None:
            await self._context.emit(event, data)
