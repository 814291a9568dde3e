"""Events that a module answers by calling one of its functions: a table of them, joined to a bus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .bus import Handler, MessageBus
from .errors import ValidationError


class EventCall(NamedTuple):
    """A function of the module, the fields of the event that it needs, and those that it takes when they are there."""

    function: str
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()

    def arguments(self, event: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the event gives the function. Raises ValidationError for a field that is needed and not there."""
        missing = [name for name in self.needs if name not in data]
        if missing:
            raise ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
        return {name: data[name] for name in self.needs + self.takes if name in data}


EventCalls = Mapping[str, EventCall]


class Listener:
    """Handlers, by their events, joined to a bus and taken off it again."""

    def __init__(self, bus: MessageBus, handlers: Mapping[str, Handler]) -> None:
        self._bus = bus
        self._handlers = handlers

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._bus.off(event, handler)


def calling(name: str, module: object, calls: EventCalls, bus: MessageBus) -> Listener:
    """Has the module *name* called for each event of the table. What goes wrong is left to the bus to report."""
    return Listener(bus, {event: _handler(f"{name}:{event}", module, event, call) for event, call in calls.items()})


def _handler(shown: str, module: object, event: str, call: EventCall) -> Handler:
    async def handle(data: Mapping[str, Any]) -> None:
        await getattr(module, call.function)(**call.arguments(event, data))

    handle.__module__, handle.__qualname__ = type(module).__module__, shown  # as failures are reported under
    return handle
