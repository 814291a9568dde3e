"""What is told of a call: where it went, how it ended, how long it took. Never what went in or came out: parameters and
answers may hold secrets, and what is told here ends up in logs, traces and the audit trail."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.context import ModuleContext
from modules.core.errors import PlatformError
from modules.core.tracing import CLIENT, NoSpan, Span

from .definition import ToolDefinition

log = logging.getLogger(__name__)

OPERATION = "execute_tool"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """``error`` is the error's code, or empty."""

    call_id: str
    tool: ToolDefinition
    user_id: str
    session_id: str | None
    ok: bool = False
    error: str = ""
    message: str = ""
    retryable: bool = False
    attempts: int = 0
    duration_ms: float = 0.0
    size_bytes: int = 0
    is_cut: bool = False
    cost: float = 0.0

    def told(self) -> dict[str, Any]:
        """For events and the audit trail."""
        return {
            "call_id": self.call_id,
            "tool_name": self.tool.name,
            "tool_owner": self.tool.owner,
            "endpoint": self.tool.place.without_query(),
            "user_id": self.user_id,
            "session_id": self.session_id,
            "ok": self.ok,
            "error": self.error or None,
            "retryable": self.retryable,
            "attempts": self.attempts,
            "duration_ms": round(self.duration_ms, 3),
            "size_bytes": self.size_bytes,
            "is_cut": self.is_cut,
            "cost": self.cost,
        }


class CallTeller:
    """Tells of calls: a trace around each, an entry in the audit trail, an event."""

    def __init__(self, context: ModuleContext) -> None:
        self._context = context

    def span(self, record: CallRecord) -> Span | NoSpan:
        """To be entered around the call. Names: OpenTelemetry's semantic conventions for generative AI."""
        about = {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.tool.name": record.tool.name,
            "gen_ai.tool.call.id": record.call_id,
            "modchat.tool.endpoint": record.tool.place.without_query(),
        }
        return self._context.tracer.span(f"{OPERATION} {record.tool.name}", about, kind=CLIENT)

    async def ended(self, record: CallRecord, asked: Mapping[str, Any] | None = None, output: Any = None) -> None:
        """*asked* is what an event asked for that made the call: who emitted it has no other way to get the output, or
        the error's words. Raises nothing: a call that was made stays made, whatever becomes of its record."""
        told = record.told()
        answer = {} if asked is None else {**asked, "output": output, "message": record.message or None}
        await self._context.emit("tool.result" if record.ok else "tool.error", {**told, **answer})
        await self._audited(record, told)

    async def _audited(self, record: CallRecord, told: dict[str, Any]) -> None:
        entry = {
            "action": "tool.execute",
            "user_id": record.user_id,
            "resource": f"tool:{record.tool.name}",
            "details": told,
        }
        try:
            trace_logger = await self._context.get_module("trace_logger")
            create: Callable[..., Awaitable[Any]] | None = getattr(trace_logger, "create_audit_entry", None)
            if create is not None:
                await create(**entry, idempotency_key=record.call_id)
                return
        except PlatformError:
            log.exception("the audit trail did not take the call %s; it is told as an event", record.call_id)
        await self._context.emit("audit.log", {**entry, "idempotency_key": record.call_id})
