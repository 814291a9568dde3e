"""The tools that a model may call while it answers: which it is offered, and what its calls come to.

A session's metadata say which (``tools``): a list of names, an empty list or false for none; where they say nothing,
all that its user can call and that are offered to models. Whatever a call comes to is text for the model, a failure
too: it may try something else, or say what is wrong. Nothing here ends a turn.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.context import Resolver
from modules.core.errors import ConfigurationError, PlatformError
from modules.core.types import Session
from modules.models.protocols import Tool, ToolCall

log = logging.getLogger(__name__)

TOOLS, TOOL_CALLS = "tools", "tool_calls"
MOST_CALLS = 8  # of one round; a model that wants more is told so
_DISCOVER_S = 5.0
_BYTES_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class ToolsInChat:
    """``max_rounds``: how often a model may call before it must answer. ``max_result_tokens`` are shown of a result."""

    max_rounds: int = 5
    max_tools: int = 32
    max_result_tokens: int = 2000

    def __post_init__(self) -> None:
        for name, least in (("max_rounds", 0), ("max_tools", 1), ("max_result_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigurationError(f"tool_use.chat.{name} must be a whole number from {least} up, not {value!r}")

    @classmethod
    def read(cls, get: Callable[[str, Any], Any]) -> Self:
        """*get(path, default)* looks a setting up, as `ModuleContext.get_config` does."""
        default = cls()
        names = ("max_rounds", "max_tools", "max_result_tokens")
        return cls(**{name: get(f"tool_use.chat.{name}", getattr(default, name)) for name in names})


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What *call* came to. ``text`` is what the model is shown; ``about`` is for the metadata of the message."""

    call: ToolCall
    text: str
    about: Mapping[str, Any] = field(default_factory=dict)


class AnswerTools:
    """*find* gives a loaded module by name, or None."""

    def __init__(self, find: Resolver, settings: ToolsInChat | None = None) -> None:
        self._find = find
        self.settings = settings or ToolsInChat()

    async def offered(self, session: Session) -> tuple[Tool, ...]:
        """None where the session wants none, tool_use does not run, or does not answer."""
        wanted = session.metadata.get(TOOLS)
        if self.settings.max_rounds == 0 or wanted is False or wanted == []:
            return ()
        try:
            async with asyncio.timeout(_DISCOVER_S):
                tool_use = await self._find("tool_use")
                known = [] if tool_use is None else await tool_use.discover_tools(user_id=session.user_id)
        except Exception:  # another module's failure, whatever it is, must not become this turn's
            log.warning("session %r is answered without tools", session.id, exc_info=True)
            return ()
        return offered_of(known, wanted, self.settings.max_tools)

    async def outcomes(self, session: Session, calls: Sequence[ToolCall]) -> list[ToolOutcome]:
        """In the order of *calls*, which are made at the same time."""
        made = [self._outcome(session, call) for call in calls[:MOST_CALLS]]
        too_many = [_failure(call, "too_many", f"at most {MOST_CALLS} calls at a time") for call in calls[MOST_CALLS:]]
        return [*await asyncio.gather(*made), *too_many]

    async def _outcome(self, session: Session, call: ToolCall) -> ToolOutcome:
        try:
            parameters = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError) as error:
            return _failure(call, "invalid_arguments", f"the arguments are not JSON: {error}")
        try:
            tool_use = await self._find("tool_use")
            if tool_use is None:
                return _failure(call, "unavailable", "tools cannot be called now")
            result = await tool_use.execute_tool(call.name, parameters, user_id=session.user_id, session_id=session.id)
        except PlatformError as error:
            return _failure(call, error.code, error.message)
        except Exception:
            log.exception("tool %s failed in session %r", call.name, session.id)
            return _failure(call, PlatformError.code, "the tool failed")
        text, is_cut = shown_of(result.output, self.settings.max_result_tokens)
        about = {"call_id": result.call_id, "is_cut": is_cut or result.is_cut, "duration_ms": result.duration_ms}
        return ToolOutcome(call, text, {**_about(call, ok=True), **about})


def offered_of(known: Sequence[Any], wanted: Any, at_most: int) -> tuple[Tool, ...]:
    """Of the *known* definitions, those that a session *wants*, by name; all that are offered where it does not say."""
    names = [one for one in wanted if isinstance(one, str)] if isinstance(wanted, list | tuple) else None
    tools = [
        Tool(one.name, one.description, one.input_schema)
        for one in known
        if (one.name in names if names is not None else one.options.is_offered)
    ]
    if len(tools) > at_most:
        log.warning(
            "%d tools could be offered, and %d are: name those of a session in its metadata", len(tools), at_most
        )
    return tuple(tools[:at_most])


def shown_of(output: Any, max_tokens: int) -> tuple[str, bool]:
    """An output as a model reads it, and whether it was cut to so many tokens."""
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    data = text.encode("utf-8", "replace")
    room = max_tokens * _BYTES_A_TOKEN
    if len(data) <= room:
        return text, False
    return data[:room].decode("utf-8", "ignore") + f"\n[cut here; {len(data) - room} more bytes]", True


def _failure(call: ToolCall, code: str, message: str) -> ToolOutcome:
    return ToolOutcome(call, f"Error ({code}): {message}", {**_about(call, ok=False), "error": code})


def _about(call: ToolCall, *, ok: bool) -> dict[str, Any]:
    return {"tool_call_id": call.id, "tool_name": call.name, "ok": ok}
