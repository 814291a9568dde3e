"""What users, sessions and agents are remembered by: short-term memory that fades, long-term memory that stays."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from modules.core.clock import Clock, SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, StorageError, Unavailable, ValidationError
from modules.core.event_calls import Listener, calling
from modules.core.finishing import Finishing
from modules.core.layout import component
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.core.types import ModuleInfo
from modules.core.words import fused
from modules.models.choose import embedding_model
from modules.models.errors import ModelError

from .items import (
    LONG_TERM,
    MEMORY_TYPES,
    SHORT_TERM,
    USUAL_IMPORTANCE,
    WORTH_KEEPING,
    MemoryItem,
    Scope,
    check_memory_type,
)
from .memory_events import CALLS
from .session_context import ContextWindow, SessionContexts, window_of
from .settings import MemorySettings
from .user_memories import Consolidation, UserMemories

log = logging.getLogger(__name__)
T = TypeVar("T")

_USERS_HELD = 256
_TEXTS_A_CALL = 256


class Embedder(Protocol):
    """Texts to vectors of one length whose nearness is that of their meaning. Raises Unavailable when it is away."""

    async def embed(self, texts: Sequence[str]) -> Any:
        """One row for each of *texts*, numbers that `numpy` takes: shape (len(texts), dimension)."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed of a user."""

    user_id: str
    items: int
    contexts: int


class MemoryModule:
    """*config* is the mapping under ``modules.memory``. On its own the module keeps short-term memories in this
    process; with *base_path*, or once initialized with a context that has storage, both kinds are on disk.

    The user ``""`` is whoever is meant where nobody is named.
    """

    info = ModuleInfo(name="memory", version="1.0", capabilities=("short_term", "long_term", "search", "context"))

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        base_path: Path | str | None = None,
        embedder: Embedder | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config: Mapping[str, Any] = config or {}
        self._settings = MemorySettings.read(self.config)
        self.ttl = self._settings.short_term_ttl_s
        self._files = None if base_path is None else FlatFiles(base_path)
        self._embedder: Embedder | None = embedder
        self._closes_embedder = False
        self._clock = clock or SystemClock()
        self._context: ModuleContext | None = None
        self._events: Listener | None = None
        self._users: OrderedDict[str, UserMemories] = OrderedDict()
        # One at a time: spreading users over several actors is what makes it many.
        self._lock = asyncio.Lock()
        self._finishing = Finishing("work on memories")

    async def initialize(self, context: ModuleContext) -> None:
        """Take settings (where none were given) and storage (likewise) from *context*; listen to memory events."""
        if not self.config:
            self.config = context.get_config("memory", {})
            self._settings = MemorySettings.read(self.config)
            self.ttl = self._settings.short_term_ttl_s
        if self._files is None:
            storage = context.get_storage()
            if not isinstance(storage, FlatFileStorage):
                raise ConfigurationError("memory keeps its journals in flat files; set storage.backend to 'flatfile'")
            self._files = storage.files
        if self._embedder is None:
            self._embedder = await asyncio.to_thread(embedding_model, self.config.get("embedding", {}))
            self._closes_embedder = True
        self._context = context
        self._events = calling("memory", self, CALLS, context.bus)
        self._events.listen()

    async def health_check(self) -> bool:
        """Whether something could be remembered now."""
        if self._files is None:
            return True
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("memory cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Finish what has begun and write down how memories were used."""
        if self._events is not None:
            self._events.stop()
        await self._finishing.wait()
        for memories in self._users.values():
            await asyncio.to_thread(memories.flush)
        if self._closes_embedder and self._embedder is not None:
            await self._embedder.close()

    # -- the guide's names -----------------------------------------------------------------------------------

    async def store(self, key: str, value: Any, memory_type: str = SHORT_TERM) -> None:
        await self.store_memory(key, value, memory_type)

    async def recall(self, key: str, memory_type: str = SHORT_TERM) -> Any | None:
        """The stored value; None when there is none or it has expired."""
        item = await self.recall_memory(key, memory_type)
        return None if item is None else item.content

    # -- items -----------------------------------------------------------------------------------------------

    async def store_memory(
        self,
        key: str,
        content: Any,
        memory_type: str = SHORT_TERM,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
        agent_id: str | None = None,
    ) -> MemoryItem:
        """Remember *content* (any JSON value) under *key*, in place of what that scope had under it.

        *ttl* is in seconds; short-term items have one from the settings, long-term items none. ``importance`` in
        *metadata*, from 0 to 1, says how much it matters. Raises ValidationError, StorageError, and
        ConfigurationError for long-term memory without a place on disk.
        """
        if ttl is not None and (not isinstance(ttl, int | float) or ttl <= 0):
            raise ValidationError(f"ttl must be a number of seconds above 0, not {ttl!r}", param="ttl")
        if ttl is None and memory_type == SHORT_TERM:
            ttl = self._settings.short_term_ttl_s
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ValidationError("metadata must be a mapping", param="metadata")
        now = self._clock.now().timestamp()
        item = MemoryItem(
            key=key,
            content=content,
            memory_type=memory_type,
            user_id=user_id,
            session_id=session_id,
            agent_id=agent_id,
            metadata=metadata or {},
            importance=(metadata or {}).get("importance", USUAL_IMPORTANCE),
            created_at=now,
            expires_at=None if ttl is None else now + ttl,
            accessed_at=now,
        )
        await self._alone(user_id, lambda memories: memories.put(item))
        await self._emit("memory.stored", {"user_id": user_id, "key": key, "memory_type": memory_type})
        return item

    async def recall_memory(
        self,
        key: str,
        memory_type: str = SHORT_TERM,
        *,
        user_id: str = "",
        session_id: str | None = None,
        agent_id: str | None = None,
    ) -> MemoryItem | None:
        """The item under *key*: the one of this session and agent, else the session's, the agent's, the user's."""
        check_memory_type(memory_type)
        scope = Scope(user_id, session_id, agent_id)
        now = self._clock.now().timestamp()
        item = await self._alone(user_id, lambda memories: memories.recall(scope, key, memory_type, now))
        await self._emit_retrieved(user_id, [item] if item else [])
        return item

    async def delete_memory(
        self,
        key: str,
        memory_type: str = SHORT_TERM,
        *,
        user_id: str = "",
        session_id: str | None = None,
        agent_id: str | None = None,
    ) -> bool:
        """Take away what is under *key* in just this scope, from the disk too. False when there is nothing."""
        check_memory_type(memory_type)
        scope = Scope(user_id, session_id, agent_id)
        return await self._alone(user_id, lambda memories: memories.erase(scope, key, memory_type)) is not None

    async def search_memories(
        self,
        query: str,
        memory_type: str = "all",
        limit: int = 10,
        *,
        user_id: str = "",
        session_id: str | None = None,
        agent_id: str | None = None,
    ) -> list[MemoryItem]:
        """Items that speak of the query, best first: by words, and by meaning where there is an embedder.

        Without a session (or agent), items of all of the user's sessions (or agents) are searched.
        """
        types: tuple[str, ...] = MEMORY_TYPES
        if memory_type != "all":
            check_memory_type(memory_type)
            types = (memory_type,)
        if not isinstance(query, str) or not query.strip():
            raise ValidationError("query must not be empty", param="query")
        if not isinstance(limit, int) or limit < 1:
            raise ValidationError(f"limit must be 1 or more, not {limit!r}", param="limit")
        scope = Scope(user_id, session_id, agent_id)
        by_words = await self._alone(user_id, lambda memories: memories.by_words(query, types, scope))
        query_vector = await self._learn_vectors(query, types, scope)
        now = self._clock.now().timestamp()

        def found(memories: UserMemories) -> list[MemoryItem]:
            names = by_words
            if query_vector is not None:
                # Half the fusion's weight is lost beyond rank 60; more candidates change nothing that is shown.
                nearest = memories.by_meaning(query_vector, types, scope, max(limit, 60))
                names = fused([by_words, nearest])
            items = [item for name in names[:limit] if (item := memories.find(name)) is not None]
            return [memories.use(item, now) for item in items]

        items = await self._alone(user_id, found)
        await self._emit_retrieved(user_id, items)
        return items

    async def consolidate_memories(self, user_id: str, strategy: str | None = None) -> Consolidation:
        """Make long-term what is worth keeping of short-term memory: what matters more than usual (``importance``),
        was used at least twice (``frequency``) or within the last half of the usual life (``recency``)."""
        chosen = self._settings.consolidation if strategy is None else strategy
        if chosen not in WORTH_KEEPING:
            raise ValidationError(
                f"strategy must be one of {', '.join(WORTH_KEEPING)}, not {chosen!r}", param="strategy"
            )
        now = self._clock.now().timestamp()
        result = await self._alone(user_id, lambda memories: memories.consolidate(chosen, now))
        await self._emit(
            "memory.consolidated",
            {"user_id": user_id, "strategy": chosen, "moved": list(result.moved), "merged": list(result.merged)},
        )
        return result

    # -- sessions --------------------------------------------------------------------------------------------

    async def get_context_window(
        self, session_id: str, max_tokens: int | None = None, *, user_id: str | None = None
    ) -> ContextWindow:
        """What is known that bears on a session: its summary and key points, its memories, latest first, then the
        user's long-term memories, most important first. Empty when nothing is known.

        Raises Conflict, naming them, when *user_id* is not given and several users have such a session.
        """
        room = self._settings.context_window_tokens if max_tokens is None else max_tokens
        if not isinstance(room, int) or room < 0:
            raise ValidationError(f"max_tokens must be 0 or more, not {room!r}", param="max_tokens")
        owner = await self._owner(session_id) if user_id is None else user_id
        context: Mapping[str, Any] = {}
        if self._files is not None:
            context = await asyncio.to_thread(SessionContexts(self._files).read, owner, session_id)
        scope = Scope(owner, session_id)

        def bearing(memories: UserMemories) -> list[MemoryItem]:
            recent = sorted(memories.items((SHORT_TERM,), scope), key=lambda item: -item.accessed_at)
            lasting = sorted(memories.items((LONG_TERM,), scope), key=lambda item: -item.importance)
            return recent + lasting

        items = await self._alone(owner, bearing)
        return window_of(session_id, owner, context, items, room)

    async def save_context(self, user_id: str, session_id: str, context: Mapping[str, Any]) -> None:
        """Replace what a session was about; the one before goes to its history."""
        if not isinstance(context, Mapping):
            raise ValidationError("context must be a mapping", param="context")
        contexts = SessionContexts(self._on_disk())
        now = self._clock.now()
        await self._alone(user_id, lambda _: contexts.save(user_id, session_id, context, now))

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: items of both kinds, and the text of every context file by its path."""
        items = await self._alone(user_id, lambda memories: memories.items(MEMORY_TYPES, Scope(user_id)))
        contexts: dict[str, str] = {}
        if self._files is not None:
            contexts = await asyncio.to_thread(SessionContexts(self._files).export, user_id)
        by_type = {name: [item.to_dict() for item in items if item.memory_type == name] for name in MEMORY_TYPES}
        return {"user_id": user_id, **by_type, "contexts": contexts}

    async def erase_user(self, user_id: str) -> Erasure:
        """Remove all memories and contexts of a user, in memory and on disk. Cannot be undone."""

        def erase(memories: UserMemories) -> Erasure:
            items = len(memories.items(MEMORY_TYPES, Scope(user_id)))
            contexts = 0
            if self._files is not None:
                contexts = len(SessionContexts(self._files).export(user_id))
                for kind in MEMORY_TYPES:
                    self._files.delete_tree(f"memory/{kind}/{component(user_id)}")
            del self._users[user_id]
            return Erasure(user_id, items, contexts)

        return await self._alone(user_id, erase)

    # -- below -----------------------------------------------------------------------------------------------

    async def _learn_vectors(self, query: str, types: Sequence[str], scope: Scope) -> Sequence[float] | None:
        """The query's vector, once all items in scope have theirs; None without an embedder, or while it is away."""
        if self._embedder is None:
            return None
        new = await self._alone(scope.user_id, lambda memories: memories.without_vector(types, scope))
        try:
            (query_vector,) = await self._embedder.embed([query])
            for start in range(0, len(new), _TEXTS_A_CALL):
                some = new[start : start + _TEXTS_A_CALL]
                await self._learn(scope.user_id, some, await self._embedder.embed([item.text for item in some]))
        except (Unavailable, ModelError):
            log.warning("the embedder is away: searching by words only", exc_info=True)
            return None
        vector: Sequence[float] = query_vector
        return vector

    async def _learn(self, user_id: str, items: Sequence[MemoryItem], vectors: Sequence[Sequence[float]]) -> None:
        await self._alone(user_id, lambda memories: memories.learn(items, vectors))

    async def _owner(self, session_id: str) -> str:
        if self._files is None:
            return ""
        owners = await asyncio.to_thread(SessionContexts(self._files).owners, session_id)
        if len(owners) > 1:
            names = ", ".join(map(repr, owners))
            raise Conflict(f"session {session_id!r} exists for users {names}: say which", candidates=tuple(owners))
        return owners[0] if owners else ""

    def _on_disk(self) -> FlatFiles:
        if self._files is None:
            raise ConfigurationError(
                "contexts need a base path: MemoryModule(config, base_path=...) or storage.base_path"
            )
        return self._files

    async def _alone(self, user_id: str, work: Callable[[UserMemories], T]) -> T:
        """Run *work* on a user's memories in a thread, nothing else meanwhile; to its end even when the caller goes
        away. What has expired is forgotten first, and announced after."""
        if not isinstance(user_id, str):
            raise ValidationError("user_id must be text", param="user_id")
        now = self._clock.now().timestamp()

        def locked() -> tuple[T, list[MemoryItem]]:
            memories = self._memories_of(user_id)
            expired = memories.expire(now)
            return work(memories), expired

        async def whole() -> tuple[T, list[MemoryItem]]:
            async with self._lock:
                return await asyncio.to_thread(locked)

        result, expired = await self._finishing.finish(whole())
        if expired:
            await self._emit("memory.expired", {"user_id": user_id, "keys": [item.key for item in expired]})
        return result

    def _memories_of(self, user_id: str) -> UserMemories:
        if user_id not in self._users:
            self._users[user_id] = UserMemories(user_id, self._files, self._settings)
        self._users.move_to_end(user_id)
        if self._files is not None and len(self._users) > _USERS_HELD:
            oldest, memories = next(iter(self._users.items()))
            memories.flush()
            del self._users[oldest]
        return self._users[user_id]

    async def _emit_retrieved(self, user_id: str, items: Sequence[MemoryItem]) -> None:
        await self._emit("memory.retrieved", {"user_id": user_id, "items": [item.to_dict() for item in items]})

    async def _emit(self, event: str, data: dict[str, Any]) -> None:
        if self._context is not None:
            await self._context.emit(event, data)
