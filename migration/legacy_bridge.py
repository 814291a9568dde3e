"""The bridge by which other applications used the old store, and its data layer, over the adapter.

Every call of the data layer answers ``{success, data, metadata, error, warnings}`` and raises nothing: the error is
named there and logged. A page says how many messages there are in all, and is never older than the last write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, naive_now
from migration.legacy_sessions import login_name
from modules.core.clock import moment_of
from modules.core.errors import PlatformError

log = logging.getLogger(__name__)

Answer = dict[str, Any]

# How alike a text must be to be found by meaning, by the old modes of performance.
_THRESHOLDS: Mapping[str, float] = {"speed": 0.8, "balanced": 0.7, "quality": 0.6}

# The old templates, as far as they say something that holds here.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "development": {"enable_streaming": False},
    "production": {},
    "high_performance": {"performance_mode": "speed", "history_page_size": 100, "enable_vector_search": False},
    "lightweight": {"performance_mode": "speed", "enable_vector_search": False, "enable_streaming": False},
    "feature_rich": {"performance_mode": "quality"},
    "testing": {"enable_streaming": False, "enable_analytics": False},
}
_USE_CASES: Mapping[str, str] = {
    "simple_chat": "lightweight",
    "ai_assistant": "production",
    "high_volume": "high_performance",
    "research": "feature_rich",
}


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What a bridge obeys. The three that enable something are what `FFChatAppBridge.get_capabilities` says."""

    performance_mode: str = "balanced"
    history_page_size: int = 50
    search_result_limit: int = 20
    enable_vector_search: bool = True
    enable_streaming: bool = True
    enable_analytics: bool = True

    def __post_init__(self) -> None:
        if self.performance_mode not in _THRESHOLDS:
            raise ValueError(f"performance_mode must be one of {', '.join(_THRESHOLDS)}, not {self.performance_mode!r}")
        for name in ("history_page_size", "search_result_limit"):
            if not 1 <= getattr(self, name) <= 500:
                raise ValueError(f"{name} must be from 1 to 500, not {getattr(self, name)!r}")

    @property
    def similarity_threshold(self) -> float:
        return _THRESHOLDS[self.performance_mode]


class FFChatAppBridge:
    """*warnings*: options that were given and mean nothing here."""

    def __init__(self, storage: LegacyStorageAdapter, options: BridgeOptions, warnings: tuple[str, ...] = ()) -> None:
        self.storage = storage
        self.options = options
        self.warnings = warnings
        self._data_layer = FFChatDataLayer(storage, options)

    @classmethod
    async def create_for_chat_app(
        cls, storage_path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
    ) -> Self:
        """*storage_path* is the base of the platform's data. Raises ValueError for options out of range, and OSError
        where the base cannot be used."""
        return await cls._created(storage_path, {}, options)

    @classmethod
    async def create_from_preset(
        cls, preset: str, storage_path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
    ) -> Self:
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        return await cls._created(storage_path, PRESETS[preset], overrides)

    @classmethod
    async def create_for_use_case(
        cls, use_case: str, storage_path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
    ) -> Self:
        """A use case only chooses defaults: one that is not known has those of any chat application."""
        return await cls._created(storage_path, PRESETS[_USE_CASES.get(use_case, "production")], overrides)

    @classmethod
    async def _created(
        cls, path: str | os.PathLike[str], preset: Mapping[str, Any], options: Mapping[str, Any] | None
    ) -> Self:
        given = {**preset, **(options or {})}
        known = {field.name for field in fields(BridgeOptions)}
        wanted = BridgeOptions(**{name: value for name, value in given.items() if name in known})
        sections = {
            "storage": SimpleNamespace(base_path=os.fspath(path)),
            "vector": SimpleNamespace(similarity_threshold=wanted.similarity_threshold),
        }
        storage = LegacyStorageAdapter(SimpleNamespace(**sections))
        if not await storage.initialize():
            raise OSError(f"{os.fspath(path)} cannot be used as a store")
        unknown = tuple(f"option {name!r} means nothing here" for name in sorted(given.keys() - known))
        return cls(storage, wanted, unknown)

    def get_data_layer(self) -> FFChatDataLayer:
        return self._data_layer

    async def health_check(self) -> Answer:
        can_write = await asyncio.to_thread(_can_write, self.storage)
        return {
            "status": "healthy" if can_write else "unhealthy",
            "checks": {"storage_writable": can_write},
            "timestamp": naive_now(),
        }

    def get_capabilities(self) -> Answer:
        vectors = self.options.enable_vector_search
        return {
            "chat": True,
            "history": True,
            "search": {"text": True, "vector": vectors, "hybrid": vectors},
            "analytics": self.options.enable_analytics,
            "streaming": self.options.enable_streaming,
            "prismmind": False,
        }

    def get_standardized_config(self) -> Answer:
        return {
            "storage": {"base_path": str(self.storage.base_path)},
            **asdict(self.options),
            "warnings": list(self.warnings),
        }

    def get_current_user(self) -> str:
        return login_name()

    async def get_user_info(self, user_id: str | None = None) -> Answer:
        wanted = user_id or login_name()
        profile = await self.storage.get_user_profile(wanted)
        return {"user_id": wanted, "exists": await self.storage.user_exists(wanted), "profile": profile}

    async def close(self) -> None:
        await self.storage.close()


class FFChatDataLayer:
    def __init__(self, storage: LegacyStorageAdapter, options: BridgeOptions | None = None) -> None:
        self.storage = storage
        self.options = options or BridgeOptions()

    async def store_chat_message(self, user_id: str, session_id: str, message: Mapping[str, Any]) -> Answer:
        async def store() -> tuple[Any, int]:
            began = time.monotonic()
            given = ("role", "content", "timestamp", "message_id", "attachments")
            values = {name: message[name] for name in given if message.get(name) is not None}
            marks = {"chat_optimized": True, "stored_via_bridge": True}
            metadata = {**(message.get("metadata") or {}), **marks, "processing_time": time.monotonic() - began}
            record = FFMessageDTO(**values, metadata=metadata)
            if not await self.storage.add_message(user_id, session_id, record):
                raise ValueError("the message was not stored: it is too large, no JSON, or the disk refused")
            there = await self.storage.get_session(user_id, session_id) is not None
            return {"message_id": record.message_id, "stored_at": naive_now(), "session_updated": there}, 1

        return await _answered("store_chat_message", store)

    async def get_chat_history(
        self, user_id: str, session_id: str, limit: int | None = None, offset: int = 0
    ) -> Answer:
        async def read() -> tuple[Any, int]:
            count = limit or self.options.history_page_size
            page = await self.storage.get_messages(user_id, session_id, count, offset)
            total = await asyncio.to_thread(lambda: sum(1 for _ in self.storage.sessions.messages(user_id, session_id)))
            data = {
                "messages": [one.to_dict() for one in page],
                "total_count": total,
                "has_more": offset + len(page) < total,
                "pagination": {"limit": count, "offset": offset, "returned": len(page)},
            }
            return data, len(page)

        return await _answered("get_chat_history", read)

    async def search_conversations(self, user_id: str, query: str, options: Mapping[str, Any] | None = None) -> Answer:
        async def search() -> tuple[Any, int]:
            given = dict(options or {})
            kind, sessions = given.get("search_type", "text"), given.get("session_ids")
            limit = int(given.get("limit") or self.options.search_result_limit)
            found: list[Any]
            match kind:
                case "text":
                    found = await self.storage.search_messages(user_id, query, session_ids=sessions)
                case "vector":
                    found = await self.storage.vector_search(user_id, query, sessions, limit)
                case "hybrid":
                    found = await self.storage.hybrid_search(user_id, query, sessions, limit)
                case _:
                    raise ValueError(f"search_type must be text, vector or hybrid, not {kind!r}")
            results = [one.to_dict() for one in found[:limit]]
            about = {"query": query, "search_type": kind, "limit": limit, "results": len(results)}
            return {"results": results, "search_metadata": about, "performance_info": {}}, len(results)

        answer = await _answered("search_conversations", search)
        if answer["success"]:
            answer["data"]["performance_info"] = {"search_time_ms": answer["metadata"]["operation_time_ms"]}
        return answer

    async def get_analytics_summary(self, user_id: str, days: int = 30) -> Answer:
        async def sum_up() -> tuple[Any, int]:
            return await asyncio.to_thread(self._analytics, user_id, days)

        return await _answered("get_analytics_summary", sum_up)

    async def stream_conversation(
        self, user_id: str, session_id: str, chunk_size: int = 50
    ) -> AsyncIterator[dict[str, Any]]:
        """Pages of the conversation, oldest first. Raises ValueError for a size below 1."""
        if chunk_size < 1:
            raise ValueError("chunk_size must be from 1 up")
        offset = 0
        page = await self.storage.get_messages(user_id, session_id, chunk_size, 0)
        while page:
            following = await self.storage.get_messages(user_id, session_id, chunk_size, offset + len(page))
            info = {
                "offset": offset,
                "size": len(page),
                "has_more": bool(following),
                "total_streamed": offset + len(page),
            }
            yield {"chunk": [one.to_dict() for one in page], "chunk_info": info}
            offset += len(page)
            page = following

    def _analytics(self, user_id: str, days: int) -> tuple[Any, int]:
        sessions = self.storage.sessions.listed(user_id)
        since = datetime.now(UTC) - timedelta(days=days)
        hours: Counter[int] = Counter()
        recent: Counter[str] = Counter()
        total = 0
        for session in sessions:
            for message in self.storage.sessions.messages(user_id, session["session_id"]):
                total += 1
                when = moment_of(message["timestamp"])
                if when is not None and when >= since:
                    hours[when.hour] += 1
                    recent[f"{when:%Y-%m-%d}"] += 1
        analytics = {
            "total_sessions": len(sessions),
            "total_messages": total,
            "avg_session_length": total / len(sessions) if sessions else 0,
            "usage_patterns": {"messages_by_hour": {str(hour): hours[hour] for hour in sorted(hours)}},
            "recent_activity": {day: recent[day] for day in sorted(recent)},
        }
        return {"analytics": analytics, "period_days": days}, len(sessions)


class FFIntegrationHealthMonitor:
    """Looks without leaving anything behind."""

    def __init__(self, bridge: FFChatAppBridge) -> None:
        self._bridge = bridge

    async def comprehensive_health_check(self) -> Answer:
        storage = self._bridge.storage
        began = time.monotonic()
        can_write = await asyncio.to_thread(_can_write, storage)
        users = len(await storage.list_users())
        checks = {
            "storage_writable": can_write,
            "users": users,
            "response_time_ms": (time.monotonic() - began) * 1000,
        }
        status = "healthy" if can_write else "unhealthy"
        return {"overall_status": status, "checks": checks, "timestamp": naive_now()}


async def _answered(operation: str, work: Callable[[], Awaitable[tuple[Any, int]]]) -> Answer:
    began = time.monotonic()
    data, affected, error = None, 0, None
    try:
        data, affected = await work()
    except (PlatformError, ValueError, TypeError, AttributeError, OSError) as problem:
        log.warning("%s failed: %s", operation, problem)
        error = f"{type(problem).__name__}: {problem}"
    took = (time.monotonic() - began) * 1000
    return {
        "success": error is None,
        "data": data,
        "metadata": {
            "operation": operation,
            "operation_time_ms": took,
            "records_affected": affected,
            "performance_metrics": {"total_ms": took},
        },
        "error": error,
        "warnings": [],
    }


def _can_write(storage: LegacyStorageAdapter) -> bool:
    try:
        storage.store.files.probe()
    except PlatformError as error:
        log.warning("the store cannot be written to: %s", error)
        return False
    return True
