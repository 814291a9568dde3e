"""The events that trace_logger listens to: three that ask it for something, and everything.

On a platform, every event is noted in the process that emits it, and comes in a batch with the spans of that process;
elsewhere it is heard on the bus.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from modules.core.bus import ALL_EVENTS, Envelope
from modules.core.context import ModuleContext
from modules.core.errors import ValidationError
from modules.core.tracing import RECORDS_NOTED

from .intake import Intake

if TYPE_CHECKING:
    from .trace_logger import TraceLoggerModule

Handle = Callable[[Envelope], Awaitable[None]]


class TraceEvents:
    """Joins a module to a bus. What goes wrong is left to the bus to report: with the whole event, in the dead-letter
    file."""

    def __init__(self, module: TraceLoggerModule, intake: Intake, context: ModuleContext) -> None:
        self._module = module
        self._intake = intake
        self._bus = context.bus
        self._tracer = context.tracer
        self._handlers: dict[str, Handle] = {
            "trace.start": self._start,
            "trace.end": self._end,
            "audit.log": self._audit,
            RECORDS_NOTED: self._records,
        }

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._bus.on(event, envelope=True)(handler)
        if not self._tracer.hears_events:
            self._bus.hear_all(self._note)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._bus.off(event, handler)
        self._bus.off(ALL_EVENTS, self._note)

    async def _start(self, envelope: Envelope) -> None:
        """The span is of the event's trace, whose id its emitter knows."""
        _need(envelope, "operation")
        data = envelope.data
        trace_id = data.get("trace_id", envelope.trace_id)
        await self._module.start_trace(data["operation"], data.get("metadata"), trace_id=trace_id)

    async def _end(self, envelope: Envelope) -> None:
        data = envelope.data
        trace_id = data.get("trace_id", envelope.trace_id)
        await self._module.end_trace(
            trace_id, data.get("span_id"), error=data.get("error"), metadata=data.get("metadata")
        )

    async def _audit(self, envelope: Envelope) -> None:
        _need(envelope, "action", "user_id", "resource")
        data = envelope.data
        # An event that must arrive may arrive twice.
        await self._module.create_audit_entry(
            data["action"],
            data["user_id"],
            data["resource"],
            data.get("details"),
            idempotency_key=data.get("idempotency_key", envelope.event_id),
        )

    async def _records(self, envelope: Envelope) -> None:
        self._intake.take(envelope.data["source"], envelope.data["records"], envelope.data["dropped"])

    async def _note(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            self._tracer.note(envelope)


def _need(envelope: Envelope, *names: str) -> None:
    missing = [name for name in names if name not in envelope.data]
    if missing:
        raise ValidationError(f"{envelope.event} lacks {', '.join(missing)}", param=missing[0])
