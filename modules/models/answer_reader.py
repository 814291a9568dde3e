"""Reads a streamed chat completion: chunks as dictionaries of the OpenAI API in, text and one last delta out.

Servers and the embedded model speak this format alike. Format: OpenAI API reference, "chat.completion.chunk".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modules.core.types import estimate_tokens

from .errors import ModelAnswerInvalid, ModelInterrupted
from .protocols import AUTO, TOOL_CHOICES, Delta, FinishReason, PromptMessage, Tool, ToolCall, Usage

# What servers write beside the API's own words; what is in neither is an ordinary end.
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class AnswerReader:
    """One answer. *prompt* serves the estimate of usage where the server counts nothing."""

    def __init__(self, prompt: Sequence[PromptMessage]) -> None:
        self._prompt = prompt
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None
        self._texts: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}

    def take(self, chunk: Mapping[str, Any]) -> str:
        """The text that *chunk* brings, often none; the rest is kept for `end`. Raises ModelAnswerInvalid."""
        try:
            text = self._take(chunk)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ModelAnswerInvalid(f"the model sent what is no chunk of an answer: {error!r}") from error
        self._texts.append(text)
        return text

    def end(self) -> Delta:
        """The last delta. Raises ModelInterrupted when no chunk said that the answer was whole."""
        if self._finish is None:
            raise ModelInterrupted("the answer broke off: it ended without a finish reason")
        # Some servers leave out the id, without which no result could be given back.
        calls = tuple(
            ToolCall(call["id"] or f"call_{place}", call["name"], call["arguments"])
            for place, call in sorted(self._calls.items())
        )
        # Some servers finish with "stop" although they called.
        finish: FinishReason = "tool_calls" if calls and self._finish == "stop" else self._finish
        return Delta(finish_reason=finish, usage=self._usage or self._guessed(), tool_calls=calls)

    def _take(self, chunk: Mapping[str, Any]) -> str:
        usage = chunk.get("usage")
        if usage:
            self._usage = Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        choices = chunk.get("choices") or ()
        if not choices:
            return ""
        choice = choices[0]
        if choice.get("finish_reason"):
            self._finish = _FINISH.get(choice["finish_reason"], "stop")
        delta = choice.get("delta") or {}
        for part in delta.get("tool_calls") or ():
            call = self._calls.setdefault(part.get("index", 0), {"id": "", "name": "", "arguments": ""})
            function = part.get("function") or {}
            call["id"] = part.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError(f"content of type {type(text).__name__}")
        return text

    def _guessed(self) -> Usage:
        return Usage(estimate_prompt(self._prompt), estimate_tokens("".join(self._texts)), estimated=True)


def estimate_prompt(prompt: str | Sequence[PromptMessage]) -> int:
    """About how many tokens *prompt* comes to; a message costs a few beside its text."""
    if isinstance(prompt, str):
        return estimate_tokens(prompt)
    return sum(_tokens_of(message) for message in prompt)


_TOKENS_AROUND_A_MESSAGE = 4


def _tokens_of(message: PromptMessage) -> int:
    calls = sum(estimate_tokens(call.name + call.arguments) for call in message.tool_calls)
    return estimate_tokens(message.content) + calls + _TOKENS_AROUND_A_MESSAGE


def request_of(
    messages: Sequence[PromptMessage],
    *,
    temperature: float | None,
    stop: Sequence[str],
    seed: int | None,
    tools: Sequence[Tool],
    tool_choice: str = AUTO,
) -> dict[str, Any]:
    """The request that all who speak the API take; nothing that was not given stands in it."""
    request: dict[str, Any] = {
        "messages": [_message(one) for one in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    given = {"temperature": temperature, "seed": seed, "stop": list(stop) or None}
    request.update({name: value for name, value in given.items() if value is not None})
    if tools:
        request["tools"] = [
            {
                "type": "function",
                "function": {"name": one.name, "description": one.description, "parameters": dict(one.parameters)},
            }
            for one in tools
        ]
        if tool_choice not in TOOL_CHOICES:
            request["tool_choice"] = {"type": "function", "function": {"name": tool_choice}}
        elif tool_choice != AUTO:
            request["tool_choice"] = tool_choice
    return request


def _message(message: PromptMessage) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return plain
