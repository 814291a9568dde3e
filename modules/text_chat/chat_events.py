"""The events that text_chat listens to, each answered by a call; what the caller did wrong becomes chat.error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.core.bus import Handler
from modules.core.context import ModuleContext
from modules.core.errors import PlatformError, RateLimited
from modules.core.event_calls import EventCall, EventCalls, Listener

if TYPE_CHECKING:
    from .chat import TextChatModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: EventCalls = {
    "chat.message.send": EventCall(
        "send_message",
        ("session_id", "content"),
        ("role", "metadata", "user_id", "parent_id", "tokens", "idempotency_key"),
    ),
    "chat.session.create": EventCall("create_session", ("user_id",), ("title", "metadata", "session_type")),
    "chat.session.start": EventCall("create_session", ("user_id",), ("title", "metadata", "session_type")),
    "chat.session.end": EventCall("end_session", ("session_id",), ("user_id",)),
}


class ChatEvents(Listener):
    """Joins a module to a bus. Errors that are not the platform's own are left to the bus to report."""

    def __init__(self, module: TextChatModule, context: ModuleContext) -> None:
        self._context = context
        super().__init__(context.bus, {event: self._handler(event, module) for event in _CALLS})

    def _handler(self, event: str, module: TextChatModule) -> Handler:
        call = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            try:
                await getattr(module, call.function)(**call.arguments(event, data))
            except PlatformError as error:
                await self._emit_error(event, data, error)

        handle.__qualname__ = f"text_chat:{event}"
        return handle

    async def _emit_error(self, event: str, data: Mapping[str, Any], error: PlatformError) -> None:
        await self._context.emit(
            "chat.error",
            {
                "event": event,
                "code": error.code,
                "message": str(error),
                "retryable": error.retryable,
                "retry_after_s": error.retry_after_s if isinstance(error, RateLimited) else None,
                "session_id": data.get("session_id"),
                "user_id": data.get("user_id"),
            },
        )
