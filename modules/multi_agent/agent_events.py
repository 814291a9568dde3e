"""The events that multi_agent listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import ValidationError

if TYPE_CHECKING:
    from .multi_agent import MultiAgentModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "agent.register": ("register_agent", ("agent_id", "agent_type"), ("capabilities", "metadata", "user_id")),
    "agent.message": ("tell_agents", ("message", "agent_ids"), ("user_id",)),
    "conversation.start": (
        "start_conversation",
        ("topic", "agent_ids"),
        (
            "max_turns",
            "user_id",
            "strategy",
            "termination",
            "options",
            "agreement",
            "leader",
            "title",
            "metadata",
            "idempotency_key",
        ),
    ),
    "conversation.turn": ("add_turn", ("conversation_id", "content"), ("user_id",)),
}


class AgentEvents:
    """Joins a module to a bus."""

    def __init__(self, module: MultiAgentModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: _handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)


def _handler(event: str, module: MultiAgentModule) -> Callable[[Any], Awaitable[None]]:
    function, needed, optional = _CALLS[event]

    async def handle(data: Mapping[str, Any]) -> None:
        missing = [name for name in needed if name not in data]
        if missing:
            raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
        await getattr(module, function)(**{name: data[name] for name in needed + optional if name in data})

    handle.__qualname__ = f"multi_agent:{event}"
    return handle
