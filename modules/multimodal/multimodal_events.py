"""The events that multimodal listens to, each answered by a call. What goes wrong has been told by
``multimodal.error`` when the call raises; what is not the platform's own error is left to the bus to report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.errors import PlatformError, ValidationError

if TYPE_CHECKING:
    from .multimodal import MultimodalModule

# Event -> function of the module, fields it needs, fields it may have.
_CALLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "multimodal.process": ("process_image", ("path", "operations"), ("user_id", "keep")),
    "multimodal.generate": ("generate_image", ("prompt",), ("style", "size", "user_id")),
    "multimodal.convert": ("convert", ("path", "target"), ("user_id", "keep")),
    "multimodal.analyze": ("analyze", ("path",), ("analysis_types", "user_id")),
}


class MultimodalEvents:
    """Joins a module to a bus."""

    def __init__(self, module: MultimodalModule, context: ModuleContext) -> None:
        self._context = context
        self._handlers = {event: self._handler(event, module) for event in _CALLS}

    def listen(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.on(event)(handler)

    def stop(self) -> None:
        for event, handler in self._handlers.items():
            self._context.bus.off(event, handler)

    def _handler(self, event: str, module: MultimodalModule) -> Callable[[Any], Awaitable[None]]:
        function, needed, optional = _CALLS[event]

        async def handle(data: Mapping[str, Any]) -> None:
            missing = [name for name in needed if name not in data]
            if missing:
                error = ValidationError(f"{event} lacks {', '.join(missing)}", param=missing[0])
                await tell_error(self._context, function, data, error)
                return
            arguments = {name: data[name] for name in needed + optional if name in data}
            try:
                await getattr(module, function)(**arguments)
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
