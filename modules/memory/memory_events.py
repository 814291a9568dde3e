"""The events that memory listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import ValidationError

if TYPE_CHECKING:
    from .memory import MemoryModule

_SCOPE = ("user_id", "session_id", "agent_id")

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "memory.store": ("store_memory", ("key", "content"), ("memory_type", "ttl", "metadata", *_SCOPE)),
    "memory.recall": ("recall_memory", ("key",), ("memory_type", *_SCOPE)),
    "memory.search": ("search_memories", ("query",), ("memory_type", "limit", *_SCOPE)),
    "memory.consolidate": ("consolidate_memories", ("user_id",), ("strategy",)),
    "session.context.save": ("save_context", ("user_id", "session_id", "context"), ()),
}


class MemoryEvents:
    """Joins a module to a bus."""

    def __init__(self, module: MemoryModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: _handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)


def _handler(event: str, module: MemoryModule) -> Callable[[Any], Awaitable[None]]:
    function, needed, optional = _CALLS[event]

    async def handle(data: Mapping[str, Any]) -> None:
        missing = [name for name in needed if name not in data]
        if missing:
            raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
        await getattr(module, function)(**{name: data[name] for name in needed + optional if name in data})

    handle.__qualname__ = f"memory:{event}"
    return handle
