"""The events that topic_router listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import ValidationError

if TYPE_CHECKING:
    from .topic_router import TopicRouterModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "router.classify": ("classify_content", ("content",), ("context_history", "user_id")),
    "router.route": (
        "route_to_specialist",
        ("content",),
        ("available_specialists", "user_id", "session_id", "context_history", "capabilities"),
    ),
    "router.update": ("learn_topics", ("examples",), ("user_id",)),
    "router.analyze": ("analyze_routing_efficiency", ("time_period",), ()),
}


class RouterEvents:
    """Joins a module to a bus."""

    def __init__(self, module: TopicRouterModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: _handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)


def _handler(event: str, module: TopicRouterModule) -> Callable[[Any], Awaitable[None]]:
    function, needed, optional = _CALLS[event]

    async def handle(data: Mapping[str, Any]) -> None:
        missing = [name for name in needed if name not in data]
        if missing:
            raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
        await getattr(module, function)(**{name: data[name] for name in needed + optional if name in data})

    handle.__qualname__ = f"topic_router:{event}"
    return handle
