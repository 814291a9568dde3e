"""The events that rag listens to, each answered by a call. What goes wrong is left to the bus to report.

Whoever asks by event gets what was found by event: `rag.results.ready` then has the query and the passages. Where a
caller asked by call, and has them, the event says only where they stand: events are kept, and what is kept must not be
a second copy of a user's documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.core.bus import Handler
from modules.core.context import ModuleContext
from modules.core.event_calls import EventCall, EventCalls, Listener

from .searching import Searcher

if TYPE_CHECKING:
    from .rag import RagModule

_SCOPE = ("user_id", "session_id")

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: EventCalls = {
    "rag.document.add": EventCall(
        "add_document",
        ("source",),
        ("metadata", "chunking_strategy", "name", "content_type", *_SCOPE),
    ),
    "rag.query": EventCall("search_knowledge", ("query",), ("top_k", "filters", *_SCOPE)),
    "rag.index.update": EventCall("update_embeddings", (), ("document_ids", "force", "user_id")),
    "rag.source.verify": EventCall("verify_source", ("document_id", "quote"), ("start", "end", "user_id")),
}


class RagEvents(Listener):
    """Joins a module to a bus."""

    def __init__(self, module: RagModule, searcher: Searcher, context: ModuleContext) -> None:
        self._context = context
        self._searcher = searcher
        super().__init__(context.bus, {event: self._handler(event, module) for event in _CALLS})

    def _handler(self, event: str, module: RagModule) -> Handler:
        call = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            arguments = call.arguments(event, data)
            if event == "rag.query":
                passages = await self._searcher.by_query(**arguments)
                told = {
                    "user_id": data.get("user_id", ""),
                    "query": data["query"],
                    "results": [passage.to_dict() for passage in passages],
                }
                await self._context.emit("rag.results.ready", told)
            else:
                await getattr(module, call.function)(**arguments)

        handle.__qualname__ = f"rag:{event}"
        return handle
