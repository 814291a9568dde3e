"""The events that multimodal listens to, each answered by a call. What goes wrong has been told by
``multimodal.error`` when the call raises; what is not the platform's own error is left to the bus to report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.core.bus import Handler
from modules.core.context import ModuleContext
from modules.core.errors import PlatformError, ValidationError
from modules.core.event_calls import EventCall, EventCalls, Listener

if TYPE_CHECKING:
    from .multimodal import MultimodalModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: EventCalls = {
    "multimodal.process": EventCall("process_image", ("path", "operations"), ("user_id", "keep")),
    "multimodal.generate": EventCall("generate_image", ("prompt",), ("style", "size", "user_id")),
    "multimodal.convert": EventCall("convert", ("path", "target"), ("user_id", "keep")),
    "multimodal.analyze": EventCall("analyze", ("path",), ("analysis_types", "user_id")),
}


class MultimodalEvents(Listener):
    """Joins a module to a bus."""

    def __init__(self, module: MultimodalModule, context: ModuleContext) -> None:
        self._context = context
        super().__init__(context.bus, {event: self._handler(event, module) for event in _CALLS})

    def _handler(self, event: str, module: MultimodalModule) -> Handler:
        call = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            try:
                arguments = call.arguments(event, data)
            except ValidationError as error:
                await tell_error(self._context, call.function, data, error)
                return
            try:
                await getattr(module, call.function)(**arguments)
            except PlatformError:
                return  # told by multimodal.error already

        handle.__qualname__ = f"multimodal:{event}"
        return handle


async def tell_error(context: ModuleContext, operation: str, request: Mapping[str, Any], error: PlatformError) -> None:
    """Emit ``multimodal.error``."""
    await context.emit(
        "multimodal.error",
        {
            "operation": operation,
            "user_id": request.get("user_id", ""),
            "path": request.get("path"),
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
        },
    )
