"""The events that rag listens to, each answered by a call. What goes wrong is left to the bus to report.

Whoever asks by event gets what was found by event: `rag.results.ready` then has the query and the passages. Where a
caller asked by call, and has them, the event says only where they stand: events are kept, and what is kept must not be
a second copy of a user's documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import ValidationError

from .searching import Searcher

if TYPE_CHECKING:
    from .rag import RagModule

_SCOPE = ("user_id", "session_id")

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "rag.document.add": (
        "add_document",
        ("source",),
        ("metadata", "chunking_strategy", "name", "content_type", *_SCOPE),
    ),
    "rag.query": ("search_knowledge", ("query",), ("top_k", "filters", *_SCOPE)),
    "rag.index.update": ("update_embeddings", (), ("document_ids", "force", "user_id")),
    "rag.source.verify": ("verify_source", ("document_id", "quote"), ("start", "end", "user_id")),
}


class RagEvents:
    """Joins a module to a bus."""

    def __init__(self, module: RagModule, searcher: Searcher, context: ModuleContext) -> None:
        self._context = context
        self._searcher = searcher
        self._handlers = {event: self._handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)

    def _handler(self, event: str, module: RagModule) -> Callable[[Any], Awaitable[None]]:
        function, needed, optional = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            missing = [name for name in needed if name not in data]
            if missing:
                raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
            arguments = {name: data[name] for name in needed + optional if name in data}
            if event == "rag.query":
                passages = await self._searcher.by_query(**arguments)
                told = {
                    "user_id": data.get("user_id", ""),
                    "query": data["query"],
                    "results": [passage.to_dict() for passage in passages],
                }
                await self._context.emit("rag.results.ready", told)
            else:
                await getattr(module, function)(**arguments)

        handle.__qualname__ = f"rag:{event}"
        return handle
