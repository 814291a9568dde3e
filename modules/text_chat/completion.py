"""Answers to conversations that a caller brings whole: nothing of them is stored, and no session is needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from modules.core.types import estimate_tokens
from modules.models.protocols import AUTO, Delta, PromptMessage, Tool, check_messages, check_request, check_tools

from .answer_model import AnswerModel
from .limits import RateLimits


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """``context_window``: tokens of prompt and answer together; None when only the server knows."""

    name: str
    context_window: int | None
    can_call_tools: bool


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Checked when built. *user_id* ``""``: nobody in particular, whose messages and tokens are not limited."""

    messages: tuple[PromptMessage, ...]
    max_tokens: int
    user_id: str = ""
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = AUTO

    def __post_init__(self) -> None:
        check_messages(self.messages)
        check_request(self.max_tokens, self.temperature, self.stop)
        check_tools(self.tools, self.tool_choice)


class Completions:
    def __init__(self, model: AnswerModel, limits: RateLimits) -> None:
        self._model = model
        self._limits = limits

    async def describe(self) -> ModelDescription:
        model = await self._model.get()
        return ModelDescription(model.name, model.context_window, model.can_call_tools)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """The model's deltas; the last has the finish reason. Raises RateLimited, and what the model raises.

        A user's prompt counts as one message of theirs, and its tokens and the answer's as theirs, also when the
        answer is cut off.
        """
        if request.user_id:
            self._limits.admit(request.user_id, _tokens_of(request.messages))
        given = 0
        deltas = self._model.stream(
            request.messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            stop=request.stop,
            seed=request.seed,
            tools=request.tools,
            tool_choice=request.tool_choice,
        )
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    given = delta.usage.completion_tokens if delta.usage else given + estimate_tokens(delta.text)
                    yield delta
        finally:
            if request.user_id:
                self._limits.note_tokens(request.user_id, given)


def _tokens_of(messages: Sequence[PromptMessage]) -> int:
    return sum(estimate_tokens(message.content) for message in messages)
