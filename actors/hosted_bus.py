"""A module's bus where the listeners may live elsewhere.

Handlers in this process are called as ever, and every event is also handed to *forward*, which gets it to the others.
An event that comes from elsewhere is delivered here alone, with the envelope that it came with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from modules.core.bus import ALL_EVENTS, Delivery, Envelope, Handler, MessageBus

Forward = Callable[[Envelope], Awaitable[None]]
H = TypeVar("H", bound=Handler)


class HostedBus(MessageBus):
    """``listens``: the events that handlers were registered for. *is_elsewhere* says of an event that the module
    itself listens to that it is another shard's to handle. Other arguments as for `MessageBus`."""

    def __init__(
        self, forward: Forward, *, is_elsewhere: Callable[[str, dict[str, Any]], bool], **options: Any
    ) -> None:
        super().__init__(**options)
        self.listens: set[str] = set()
        self._forward = forward
        self._is_elsewhere = is_elsewhere
        # Sends on what is not for the handlers here: same envelope, same middleware, nobody else on it.
        self._outward = MessageBus(**options)
        self._outward.middleware = self.middleware
        self._outward.failures = self.failures
        super().on(ALL_EVENTS, envelope=True)(forward)
        self._outward.on(ALL_EVENTS, envelope=True)(forward)

    def on(self, event_type: str, *, envelope: bool = False) -> Callable[[H], H]:
        register = super().on(event_type, envelope=envelope)
        self.listens.add(event_type)
        return register

    async def emit(
        self,
        event_type: str,
        data: dict[str, Any],
        *,
        source_module: str | None = None,
        trace_id: str | None = None,
    ) -> Delivery:
        if event_type in self.listens and self._is_elsewhere(event_type, data):
            return await self._outward.emit(event_type, data, source_module=source_module, trace_id=trace_id)
        return await super().emit(event_type, data, source_module=source_module, trace_id=trace_id)

    async def receive(self, envelope: Envelope) -> Delivery:
        """Hand an event from elsewhere to the handlers here, and to nobody else."""
        subscribed = (*self._subscriptions.get(envelope.event, ()), *self._subscriptions.get(ALL_EVENTS, ()))
        hearing = [one for one in subscribed if one.handler != self._forward]
        outcomes = await asyncio.gather(*(self._deliver(one, envelope) for one in hearing))
        failed = tuple(one.name for one, done in zip(hearing, outcomes, strict=True) if not done)
        return Delivery(envelope, len(hearing) - len(failed), failed)
