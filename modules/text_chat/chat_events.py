"""The events that text_chat listens to, each answered by a call; what the caller did wrong becomes chat.error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import PlatformError, RateLimited

if TYPE_CHECKING:
    from .chat import TextChatModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "chat.message.send": (
        "send_message",
        ("session_id", "content"),
        ("role", "metadata", "user_id", "parent_id", "tokens", "idempotency_key"),
    ),
    "chat.session.create": ("create_session", ("user_id",), ("title", "metadata", "session_type")),
    "chat.session.start": ("create_session", ("user_id",), ("title", "metadata", "session_type")),
    "chat.session.end": ("end_session", ("session_id",), ("user_id",)),
}


class ChatEvents:
    """Joins a module to a bus. Errors that are not the platform's own are left to the bus to report."""

    def __init__(self, module: TextChatModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: self._handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)

    def _handler(self, event: str, module: TextChatModule) -> Callable[[Any], Awaitable[None]]:
        function, needed, optional = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            missing = [name for name in needed if name not in data]
            if missing:
                await self._emit_error(event, data, "invalid_request", f"missing: {', '.join(missing)}")
                return
            arguments = {name: data[name] for name in needed + optional if name in data}
            try:
                await getattr(module, function)(**arguments)
            except PlatformError as error:
                await self._emit_error(event, data, error.code, str(error), error)

        handle.__qualname__ = f"text_chat:{event}"
        return handle

    async def _emit_error(
        self, event: str, data: Mapping[str, Any], code: str, message: str, error: PlatformError | None = None
    ) -> None:
        await self._context.emit(
            "chat.error",
            {
                "event": event,
                "code": code,
                "message": message,
                "retryable": error is not None and error.retryable,
                "retry_after_s": error.retry_after_s if isinstance(error, RateLimited) else None,
                "session_id": data.get("session_id"),
                "user_id": data.get("user_id"),
            },
        )
