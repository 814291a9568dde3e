"""A module's bus where the listeners may live elsewhere.

Handlers in this process are called as ever, and every event is also handed to *forward*, which gets it to the others.
An event that comes from elsewhere is delivered here alone, with the envelope that it came with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from modules.core.bus import ALL_EVENTS, BatchHandler, Delivery, Envelope, Handler, MessageBus
from modules.core.tracing import Tracer

Forward = Callable[[Envelope], None]
H = TypeVar("H", bound=Handler)

_FORWARD = "the way to other modules"


class HostedBus(MessageBus):
    """``listens``: the events that handlers were registered for. *forward* queues an event, or raises ValidationError
    for one that cannot cross, which is reported as a handler's failure is. *is_elsewhere* says of an event that the
    module itself listens to that it is another shard's to handle. *tracer* notes what is emitted. Other arguments as
    for `MessageBus`."""

    def __init__(
        self,
        forward: Forward,
        *,
        is_elsewhere: Callable[[str, Mapping[str, Any]], bool],
        tracer: Tracer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.listens: set[str] = set()
        self._forward = forward
        self._is_elsewhere = is_elsewhere
        self._tracer = tracer or Tracer()

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
        delivery = await super().emit(event_type, data, source_module=source_module, trace_id=trace_id)
        self._tracer.note(delivery.envelope)
        return delivery

    async def hand_out(self, envelope: Envelope) -> Delivery:
        failed = await self._forwarded(envelope)
        is_ours = envelope.event not in self.listens or not self._is_elsewhere(envelope.event, envelope.data)
        delivery = await super().hand_out(envelope) if is_ours else Delivery(envelope, 0)
        return replace(delivery, failed=(*delivery.failed, *failed)) if failed else delivery

    def hear_all(self, handler: BatchHandler) -> None:
        super().hear_all(handler)
        self.listens.add(ALL_EVENTS)

    async def receive(self, envelope: Envelope) -> Delivery:
        """Hand an event from elsewhere to the handlers here, and to nobody else."""
        return await self.deliver(envelope)

    async def receive_chains(self, chains: Sequence[Sequence[Envelope]]) -> None:
        """The same for many: those of one chain one after the other, chains side by side."""
        heard = [chain for chain in chains if any(self.hears(one.event) for one in chain)]
        together = [envelope for chain in chains for envelope in chain]
        await asyncio.gather(self.deliver_together(together), *(self._receive_chain(chain) for chain in heard))

    async def _receive_chain(self, chain: Sequence[Envelope]) -> None:
        for envelope in chain:
            await self.receive(envelope)

    async def _forwarded(self, envelope: Envelope) -> tuple[str, ...]:
        try:
            self._forward(envelope)
        except Exception as error:  # noqa: BLE001 - as for any handler: middleware is foreign code, and made what goes out
            await self.report(envelope, _FORWARD, error)
            return (_FORWARD,)
        return ()
