"""The events that persona listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import ValidationError

if TYPE_CHECKING:
    from .persona import PersonaModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "persona.create": ("create_persona", ("name", "traits"), ("backstory", "examples", "user_id", "fields")),
    "persona.activate": ("activate_persona", ("persona_id",), ("session_id", "user_id", "strength")),
    "persona.update": ("update_persona", ("persona_id", "changes"), ("user_id", "expected_version")),
    "persona.evaluate": ("evaluate_consistency", ("messages", "persona_id"), ("user_id",)),
}


class PersonaEvents:
    """Joins a module to a bus."""

    def __init__(self, module: PersonaModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: _handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)


def _handler(event: str, module: PersonaModule) -> Callable[[Any], Awaitable[None]]:
    function, needed, optional = _CALLS[event]

    async def handle(data: Mapping[str, Any]) -> None:
        missing = [name for name in needed if name not in data]
        if missing:
            raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
        await getattr(module, function)(**{name: data[name] for name in needed + optional if name in data})

    handle.__qualname__ = f"persona:{event}"
    return handle
