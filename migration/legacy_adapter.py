"""The old application's storage manager on the platform's store: its calls, arguments, defaults and answers.

An old application runs on the new store by changing one import. Any number of processes may use it at once, and beside
a running platform: it needs nobody but the files (docs/adapter.md says what it locks, and what differs from v2).

What a disk refuses is False where the old manager answered so for a write; a read that fails raises StorageError,
for an error is never "there is nothing".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from sys import modules as loaded
from typing import Any, TypeVar

from migration.legacy_documents import LegacyContexts, LegacyDocuments
from migration.legacy_meaning import Asked, LegacyMeaning
from migration.legacy_panels import LegacyPanels
from migration.legacy_people import LegacyPeople
from migration.legacy_records import OLD_MODULE, RecordClasses, values_of
from migration.legacy_search import LegacySearch, Wanted, entities_in
from migration.legacy_sessions import LegacySessions, writer_of
from migration.legacy_settings import LegacySettings
from migration.legacy_store import LegacyStore
from migration.legacy_vectors import LegacyVectors
from modules.core.errors import ConfigurationError, PlatformError, StorageError, Unavailable
from modules.core.layout import session_dir
from modules.core.storage import FlatFileStorage
from modules.models.protocols import EmbeddingModel

log = logging.getLogger(__name__)
T = TypeVar("T")


class LegacyStorageAdapter:
    """In the old manager's form, ``config.storage.base_path`` is the base of the platform's data; without a *config*,
    the platform's own settings say it. *backend* is kept for those who ask for it; nothing is written through it.

    In the guide's form the one argument is a module context: the base is that of its storage, and `create_session` goes
    through its text_chat and answers with a dictionary.

    *records* has the record classes to answer with; without it the old application's own are taken where it has loaded
    them, else those of `migration.legacy_records`. *embedding* is the model of searches by meaning.
    """

    prismmind_available = False

    def __init__(
        self,
        config: Any = None,
        backend: Any = None,
        enable_prismmind: bool = True,
        *,
        module_context: Any = None,
        records: object | None = None,
        embedding: EmbeddingModel | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        if module_context is None and hasattr(config, "get_module"):
            module_context, config = config, None
        self.context = module_context
        self.config = config
        self.backend = backend
        self.enable_prismmind = enable_prismmind
        self.records = RecordClasses(records if records is not None else loaded.get(OLD_MODULE))
        settings = LegacySettings.of(config) if module_context is None else _settings_of(module_context)
        if settings is None:
            refusing: Any = _NoStorage()
            self.base_path: Path | None = None
            self.settings = self.store = self.people = self.sessions = self.documents = self.contexts = refusing
            self.panels = self.vectors = self._search = self._meaning = refusing
        else:
            self._open(settings, now, embedding)
        self._initialized = False

    def _open(self, settings: LegacySettings, now: Callable[[], datetime], embedding: EmbeddingModel | None) -> None:
        self.base_path = settings.base_path
        self.settings = settings
        self.store = LegacyStore(settings, now)
        self.people = LegacyPeople(self.store)
        self.sessions = LegacySessions(self.store)
        self.documents = LegacyDocuments(self.store)
        self.contexts = LegacyContexts(self.store)
        self.panels = LegacyPanels(self.store, self.people)
        self.vectors = LegacyVectors(self.store)
        self._search = LegacySearch(self.people, self.sessions, self.documents, self.contexts)
        self._meaning = LegacyMeaning(settings, self.sessions, self.vectors, embedding)

    async def initialize(self) -> bool:
        """False if the base cannot be made or written to."""
        if not self._initialized:
            self._initialized = await asyncio.to_thread(self._make_base)
        return self._initialized

    async def close(self) -> None:
        """Let the models go that searches by meaning have loaded."""
        await self._meaning.close()

    # -- users -----------------------------------------------------------------------------------------------

    async def create_user(self, user_id: str, profile: dict[str, Any] | None = None) -> bool:
        return await _written(self.people.create, user_id, profile)

    async def get_user_profile(self, user_id: str) -> dict[str, Any] | None:
        return await asyncio.to_thread(self.people.profile, user_id)

    async def update_user_profile(self, user_id: str, updates: dict[str, Any]) -> bool:
        return await _written(self.people.update, user_id, updates)

    async def store_user_profile(self, profile: Any) -> bool:
        return await _written(self.people.store, values_of(profile, "FFUserProfileDTO"))

    async def user_exists(self, user_id: str) -> bool:
        return await asyncio.to_thread(self.people.exists, user_id)

    async def list_users(self) -> list[str]:
        return await asyncio.to_thread(self.people.listed)

    # -- sessions --------------------------------------------------------------------------------------------

    async def create_session(
        self,
        user_id: str,
        title: str | None = None,
        session_type: str = "chat",
        *,
        session_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """The new session's id; in the guide's form ``{"session_id", "session_name", "created_at"}``.

        *session_name* is the guide's name for the title; *metadata* is for the new session's.
        """
        wanted = session_name if title is None else title
        if self.context is not None:
            return await self._created_by_module(user_id, wanted, session_type, metadata)

        def create() -> str:
            owner = writer_of(user_id)
            self.people.ensure(owner)
            new_id: str = self.sessions.create(owner, wanted, session_type)
            if metadata:
                self.sessions.update(owner, new_id, {"metadata": metadata})
            return new_id

        return await asyncio.to_thread(create)

    async def get_session(self, user_id: str, session_id: str) -> Any | None:
        found = await asyncio.to_thread(self.sessions.record, user_id, session_id)
        return None if found is None else self.records.make("FFSessionDTO", found)

    async def update_session(self, user_id: str, session_id: str, updates: dict[str, Any]) -> bool:
        return await _written(self.sessions.update, user_id, session_id, updates)

    async def update_session_metadata(self, user_id: str, session_id: str, metadata: dict[str, Any]) -> bool:
        return await self.update_session(user_id, session_id, {"metadata": metadata})

    async def list_sessions(self, user_id: str, limit: int | None = None, offset: int = 0) -> list[Any]:
        """All where *limit* is None, a page of the usual size where it is 0."""
        count = limit if limit is None else max(0, limit or self.settings.page_size)
        found = await asyncio.to_thread(self.sessions.listed, user_id, max(0, offset), count)
        return [self.records.make("FFSessionDTO", values) for values in found]

    async def delete_session(self, user_id: str, session_id: str) -> bool:
        """True also where there is none. The session goes to the archive with its documents and contexts; with
        ``storage.backup_before_delete`` false it is gone."""

        def delete() -> bool:
            archive = self.sessions.delete(user_id, session_id)
            self.documents.put_away(user_id, session_id, archive)
            self.contexts.put_away(user_id, session_id, archive)
            self.vectors.put_away(user_id, session_id)
            return True

        return await _written(delete)

    # -- messages --------------------------------------------------------------------------------------------

    async def add_message(self, user_id: str, session_id: str, message: Any) -> bool:
        """True when the message is on the disk, also for a session that nobody made."""
        values = values_of(message, "FFMessageDTO")
        return await _written(lambda: self.sessions.add(writer_of(user_id), session_id, values))

    async def get_messages(self, user_id: str, session_id: str, limit: int | None = None, offset: int = 0) -> list[Any]:
        found = await asyncio.to_thread(self.sessions.page, user_id, session_id, limit, offset)
        return [self.records.make("FFMessageDTO", values) for values in found]

    async def get_all_messages(self, user_id: str, session_id: str) -> list[Any]:
        found = await asyncio.to_thread(lambda: list(self.sessions.messages(user_id, session_id)))
        return [self.records.make("FFMessageDTO", values) for values in found]

    async def search_messages(
        self, user_id: str, query: str, session_id: str | None = None, session_ids: Sequence[str] | None = None
    ) -> list[Any]:
        wanted = [session_id] if session_id is not None else session_ids
        found = await asyncio.to_thread(self.sessions.search, user_id, query, wanted)
        return [self.records.make("FFMessageDTO", values) for values in found]

    async def get_session_stats(self, user_id: str, session_id: str) -> dict[str, Any]:
        """Raises ValueError where there is no such session."""
        return await asyncio.to_thread(self._stats, user_id, session_id)

    # -- search ----------------------------------------------------------------------------------------------

    async def advanced_search(self, query: Any) -> list[Any]:
        """By words; by meaning with ``use_vector_search``, by both with ``hybrid_search``."""
        values = values_of(query, "FFSearchQueryDTO")
        found = await self._found(Wanted.of(values))
        if (values["use_vector_search"] or values["hybrid_search"]) and values["user_id"] and values["query"]:
            weight = values["vector_weight"] if values["hybrid_search"] else 1.0
            asked = Asked(
                *(values["user_id"], values["query"], values["session_ids"]),
                *(values["max_results"], values["similarity_threshold"], weight),
            )
            found += await self._by_meaning(asked, values["embedding_provider"], None)
            found.sort(key=lambda one: -float(one.relevance_score))
        return found[: values["max_results"]]

    async def search_by_entities(
        self, entities: dict[str, list[str]], user_id: str | None = None, limit: int | None = None
    ) -> list[Any]:
        most = limit or self.settings.search_limit
        return await self._found(Wanted(user_id=user_id, entities=entities, contexts=True, limit=most))

    async def search_by_time_range(
        self,
        start: datetime | str,
        end: datetime | str,
        user_id: str | None = None,
        query_text: str | None = None,
        limit: int | None = None,
    ) -> list[Any]:
        span = {"start_date": start, "end_date": end, "query": query_text or "", "user_id": user_id}
        more = {"session_ids": None, "message_roles": None, "entities": None, "include_documents": False}
        most = {"max_results": limit or self.settings.search_limit, "min_relevance_score": 0.0}
        return await self._found(Wanted.of({**span, **more, **most, "include_context": False}))

    async def extract_entities(self, text: str) -> dict[str, list[str]]:
        return await asyncio.to_thread(entities_in, text)

    async def build_search_index(self, user_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._search.index, user_id, self.store.now().isoformat())

    # -- documents -------------------------------------------------------------------------------------------

    async def save_document(
        self,
        user_id: str,
        session_id: str,
        filename: str,
        content: bytes | str,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        try:
            return await asyncio.to_thread(self.documents.save, user_id, session_id, filename, content, metadata)
        except StorageError as error:
            log.error("a document was not stored: %s", error)
            return ""

    async def get_document(self, user_id: str, session_id: str, document_id: str) -> bytes | None:
        return await asyncio.to_thread(self.documents.content, user_id, session_id, document_id)

    async def list_documents(self, user_id: str, session_id: str) -> list[Any]:
        found = await asyncio.to_thread(self.documents.listed, user_id, session_id)
        return [self.records.make("FFDocumentDTO", values) for values in found]

    async def update_document_analysis(
        self, user_id: str, session_id: str, document_id: str, analysis: dict[str, Any]
    ) -> bool:
        return await _written(self.documents.analyse, user_id, session_id, document_id, analysis)

    async def store_document_with_vectors(
        self,
        user_id: str,
        session_id: str,
        document_id: str,
        content: str,
        metadata: dict[str, Any] | None = None,
        chunking_strategy: str | None = None,
        embedding_provider: str | None = None,
        api_key: str | None = None,
    ) -> bool:
        """The text is stored as ``<document_id>.txt``, then made findable by meaning. False where either failed."""
        save, name = self.documents.save, f"{document_id}.txt"
        try:
            stored = await asyncio.to_thread(save, user_id, session_id, name, content, metadata, document_id)
            where = (user_id, session_id, document_id, content, metadata)
            if stored:
                await self._meaning.store(*where, chunking_strategy, embedding_provider, api_key)
        except (PlatformError, ValueError) as error:
            log.error("a document was not made findable by meaning: %s", error)
            return False
        return bool(stored)

    async def vector_search(
        self,
        user_id: str,
        query: str,
        session_ids: Sequence[str] | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        embedding_provider: str | None = None,
        api_key: str | None = None,
    ) -> list[Any]:
        least = self.settings.threshold if threshold is None else threshold
        asked = Asked(user_id, query, session_ids, top_k or self.settings.top_k, least)
        return await self._by_meaning(asked, embedding_provider, api_key)

    async def hybrid_search(
        self,
        user_id: str,
        query: str,
        session_ids: Sequence[str] | None = None,
        top_k: int | None = None,
        vector_weight: float | None = None,
        *,
        threshold: float | None = None,
        embedding_provider: str | None = None,
        api_key: str | None = None,
    ) -> list[Any]:
        weight = self.settings.vector_weight if vector_weight is None else vector_weight
        least = self.settings.threshold if threshold is None else threshold
        asked = Asked(user_id, query, session_ids, top_k or self.settings.top_k, least, weight)
        return await self._by_meaning(asked, embedding_provider, api_key)

    async def delete_document_vectors(self, user_id: str, session_id: str, document_id: str) -> bool:
        return await _written(self.vectors.delete, session_id, document_id, user_id)

    async def get_vector_stats(self, user_id: str, session_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self.vectors.stats, session_id, user_id)

    # -- contexts --------------------------------------------------------------------------------------------

    async def update_context(self, user_id: str, session_id: str, context: Any) -> bool:
        values = values_of(context, "FFSituationalContextDTO")
        return await _written(self.contexts.replace, user_id, session_id, values)

    async def get_context(self, user_id: str, session_id: str) -> Any | None:
        found = await asyncio.to_thread(self.contexts.read, user_id, session_id)
        return None if found is None else self._context(found)

    async def save_context_snapshot(self, user_id: str, session_id: str, context: Any) -> bool:
        values = values_of(context, "FFSituationalContextDTO")
        return await _written(lambda: bool(self.contexts.take(user_id, session_id, values)))

    async def get_context_history(self, user_id: str, session_id: str, limit: int | None = None) -> list[Any]:
        found = await asyncio.to_thread(self.contexts.history, user_id, session_id, limit)
        return [made for values in found if (made := self._context(values)) is not None]

    # -- panels and personas -----------------------------------------------------------------------------------

    async def create_panel(self, panel_type: str, personas: list[str], config: dict[str, Any] | None = None) -> str:
        return await asyncio.to_thread(self.panels.create, panel_type, personas, config)

    async def add_panel_message(self, panel_id: str, message: Any) -> bool:
        values = values_of(message, "FFPanelMessageDTO")
        return await _written(self.panels.add, panel_id, values)

    async def get_panel_messages(self, panel_id: str, limit: int | None = None) -> list[Any]:
        found = await asyncio.to_thread(self.panels.page, panel_id, limit)
        return [self.records.make("FFPanelMessageDTO", values) for values in found]

    async def save_panel_insight(self, panel_id: str, insight: Any) -> bool:
        return await _written(self.panels.save_insight, panel_id, values_of(insight, "FFPanelInsightDTO"))

    async def save_persona(self, persona_id: str, data: dict[str, Any], user_id: str | None = None) -> bool:
        return await _written(self.people.save_persona, persona_id, data, user_id)

    async def get_persona(self, persona_id: str, user_id: str | None = None) -> dict[str, Any] | None:
        return await asyncio.to_thread(self.people.persona, persona_id, user_id)

    async def list_personas(self, user_id: str | None = None) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.people.personas, user_id)

    # -- PrismMind: was never there ------------------------------------------------------------------------------

    async def process_document_with_prismmind(
        self, document_path: str, user_id: str, session_id: str, *args: Any, **options: Any
    ) -> dict[str, Any]:
        """What the old manager always answered: this part of it was never shipped."""
        counts = {"chunk_count": 0, "vector_count": 0, "processing_time": 0}
        name = Path(document_path).name
        return {"success": False, "error": "PrismMind integration not available", "document_id": name, **counts}

    def get_prismmind_config(self) -> None:
        return None

    def is_prismmind_available(self) -> bool:
        return self.prismmind_available

    # -- below -----------------------------------------------------------------------------------------------

    def _make_base(self) -> bool:
        try:
            self.store.files.base.mkdir(parents=True, exist_ok=True)
            self.store.files.probe()
        except (OSError, StorageError) as error:
            log.error("%s cannot be used: %s", self.base_path, error)
            return False
        return True

    async def _created_by_module(
        self, user_id: str, title: str | None, session_type: str, metadata: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        chat = await self.context.get_module("text_chat")
        if chat is None:
            raise Unavailable("the text_chat module is not loaded")
        more: dict[str, Any] = {"metadata": metadata} if metadata else {}
        if session_type != "chat":
            more["session_type"] = session_type
        session = await chat.create_session(user_id=user_id, title=title, **more)
        return {"session_id": session.id, "session_name": session.title, "created_at": session.created_at}

    def _stats(self, user_id: str, session_id: str) -> dict[str, Any]:
        session = self.sessions.record(user_id, session_id)
        if session is None:
            raise ValueError(f"session {session_id!r} not found")
        home = session_dir(user_id, session_id)
        stamp = self.store.files.stamp(f"{home}/messages.jsonl")
        size, count = (stamp.size if stamp else 0), session["message_count"]
        documents = self.documents.listed(user_id, session_id)
        names = ("session_id", "user_id", "created_at", "updated_at", "message_count")
        return {
            **{name: session[name] for name in names},
            "storage_path": home,
            "document_count": len(documents),
            "total_size_bytes": size + sum(int(one["size"]) for one in documents),
            "average_message_size": size / count if count else 0,
            "vector_count": self.vectors.stats(session_id, user_id)["total_vectors"],
            "has_context": self.contexts.read(user_id, session_id) is not None,
            "context_snapshots": self.contexts.count(user_id, session_id),
            "last_activity": session["updated_at"],
        }

    async def _found(self, wanted: Wanted) -> list[Any]:
        found = await asyncio.to_thread(self._search.find, wanted)
        return [self.records.make("FFSearchResultDTO", values) for values in found]

    async def _by_meaning(self, asked: Asked, provider: str | None, api_key: str | None) -> list[Any]:
        found = await self._meaning.find(asked, provider, api_key)
        return [self.records.make("FFSearchResultDTO", values) for values in found]

    def _context(self, values: Mapping[str, Any]) -> Any | None:
        """None for one that the platform keeps and the old record cannot hold."""
        known = ("summary", "key_points", "entities", "timestamp", "confidence", "message_range", "metadata")
        try:
            return self.records.make(
                "FFSituationalContextDTO", {name: values[name] for name in known if name in values}
            )
        except (ValueError, TypeError) as error:
            log.warning("a context that the old record cannot hold is left out: %s", error)
            return None


async def _written(write: Callable[..., bool], *arguments: Any) -> bool:
    """The answer of a write; False where the disk refused."""
    try:
        return await asyncio.to_thread(write, *arguments)
    except StorageError as error:
        log.error("nothing was written: %s", error)
        return False


class _NoStorage:
    """In place of what needs files, where a context has no storage: the first use says so."""

    def __getattr__(self, name: str) -> Any:
        raise ConfigurationError("the old API needs the platform's files, and this context has no storage")


def _settings_of(context: Any) -> LegacySettings | None:
    if not hasattr(context, "get_storage"):
        return None
    storage = context.get_storage()
    if not isinstance(storage, FlatFileStorage):
        raise ConfigurationError("the old API needs flat files; set storage.backend to 'flatfile'")
    return LegacySettings(Path(storage.files.base))
