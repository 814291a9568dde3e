"""The events that tool_use listens to, each answered by a call. What goes wrong is left to the bus to report, but for
the failure of a tool, which ``tool.error`` has told already."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from modules.core.context import ModuleContext
from modules.core.event_calls import EventCall, Listener

from .errors import ToolError

if TYPE_CHECKING:
    from .tool_use import ToolUseModule

log = logging.getLogger(__name__)

Execute = Callable[..., Awaitable[object]]


class ToolEvents(Listener):
    """Joins a module to a bus. ``request_id``, where an event has one, comes back with what it leads to."""

    def __init__(self, module: ToolUseModule, context: ModuleContext, execute: Execute) -> None:
        self._module = module
        self._context = context
        self._run = execute
        handlers = {
            "tool.register": self._register,
            "tool.execute": self._execute,
            "tool.chain": self._chain,
            "tool.validate": self._validate,
        }
        super().__init__(context.bus, handlers)

    async def _register(self, data: Mapping[str, Any]) -> None:
        given = _picked(
            "tool.register",
            data,
            ("tool_name", "endpoint"),
            ("input_schema", "output_schema", "metadata", "user_id"),
        )
        await self._module.register_tool(**given)

    async def _execute(self, data: Mapping[str, Any]) -> None:
        given = _picked("tool.execute", data, ("tool_name",), ("parameters", "timeout", "user_id", "session_id"))
        try:
            await self._run(given.pop("tool_name"), asked=_asked(data), **given)
        except ToolError as error:
            log.info("tool.execute failed, as tool.error has told: %s", error.code)

    async def _chain(self, data: Mapping[str, Any]) -> None:
        """Runs the chain ``chain_id``, or one made of ``tools`` for this once."""
        if "chain_id" in data:
            given = _picked("tool.chain", data, ("chain_id",), ("parameters", "timeout", "user_id", "session_id"))
            await self._module.execute_chain(**given)
            return
        made = _picked("tool.chain", data, ("tools",), ("strategy", "user_id"))
        chain = await self._module.create_tool_chain(**made, keep=False)
        run = _picked("tool.chain", data, (), ("parameters", "timeout", "user_id", "session_id"))
        await self._module.execute_chain(chain, **run)

    async def _validate(self, data: Mapping[str, Any]) -> None:
        given = _picked("tool.validate", data, ("tool_name",), ("parameters", "user_id"))
        problems = await self._module.validate_parameters(**given)
        event = "tool.error" if problems else "tool.result"
        told = {"tool_name": given["tool_name"], "user_id": given.get("user_id", ""), "problems": list(problems)}
        await self._context.emit(event, {**_asked(data), **told, "is_validation": True})


def _picked(event: str, data: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    return EventCall("", needed, optional).arguments(event, data)


def _asked(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("request_id",) if name in data}
