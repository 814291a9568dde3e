"""What modules ask of a model: to answer a conversation, or to place texts in a space of meanings.

Implementations are interchangeable: the caller sees the same deltas, the same last word and the same errors
(`modules.models.errors`) from a server, from an embedded model, and where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from modules.core.errors import ValidationError
from modules.core.types import ROLES

Vectors = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model wants made. ``arguments`` is the JSON text that it wrote, which may be no JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


# What a model may be told of its tools beside "call this one", which is said by the tool's name.
AUTO, NO_CALL, ANY_CALL = "auto", "none", "required"
TOOL_CHOICES = (AUTO, NO_CALL, ANY_CALL)


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message of a prompt.

    ``is_context`` marks material to answer from (memories, passages of documents): language models read it as its
    role says; the extractive model answers from it. Raises ValidationError for an unknown role, content that is not
    text, and tool fields on a role that cannot have them.
    """

    role: str
    content: str
    is_context: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValidationError(f"role must be one of {', '.join(sorted(ROLES))}; not {self.role!r}", param="role")
        if not isinstance(self.content, str):
            raise ValidationError(f"content must be text, not {type(self.content).__name__}", param="content")
        if self.tool_calls and self.role != "assistant":
            raise ValidationError("only the assistant calls tools", param="tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValidationError("tool_call_id belongs to messages of the role tool, and to all", param="tool_call_id")


@dataclass(frozen=True, slots=True)
class Usage:
    """``estimated`` when the model did not count and its implementation guessed."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one, and only it, has a ``finish_reason``, the ``usage``, and the tool calls,
    whole."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class ChatModel(Protocol):
    """Answers conversations. One object serves any number of concurrent callers."""

    @property
    def name(self) -> str: ...

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and answer together; None when only the server knows."""
        ...

    @property
    def can_call_tools(self) -> bool: ...

    async def load(self) -> None:
        """Make ready what the first answer would else wait for. Doing it again changes nothing."""
        ...

    def stream(
        self,
        messages: Sequence[PromptMessage],
        *,
        max_tokens: int,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: str = AUTO,
    ) -> AsyncGenerator[Delta, None]:
        """The answer, piece by piece. It either ends with a delta that has a finish reason, or raises a ModelError.

        *temperature* None is the model's own. The text of a *stop* string is not given. Closing the generator
        (`contextlib.aclosing`) ends the work behind it. Nothing is tried again once a piece has been given. *tools*
        for a model that `can_call_tools` denies are refused, not ignored. *tool_choice* leaves a call to the model
        (``auto``), forbids it (``none``, for a model that shall know of earlier calls and make no more), demands one
        (``required``), or demands the one tool that it names.
        """
        ...

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        """Tokens of a text, or of messages as a prompt. Never waits on a server: an estimate where that is needed."""
        ...

    async def close(self) -> None:
        """Free what is held. Answers under way end with ModelCancelled."""
        ...


class EmbeddingModel(Protocol):
    """Places texts in a space where near means alike."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None until a server whose dimension nobody set has answered once."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32, shape (len(texts), dimension), C-contiguous, each row of unit norm, in the order of *texts*.

        The row of a text without words is all zeros: like nothing. Where nothing says the dimension (a server that
        was not asked, as no text had words) it is 0. Raises ModelError.
        """
        ...

    async def close(self) -> None: ...


def check_request(max_tokens: int, temperature: float | None, stop: Sequence[str]) -> None:
    """What every model refuses alike. Raises ValidationError."""
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise ValidationError(f"max_tokens must be a whole number from 1 up, not {max_tokens!r}", param="max_tokens")
    if temperature is not None and not 0 <= temperature <= 2:
        raise ValidationError(f"temperature must be from 0 to 2, not {temperature!r}", param="temperature")
    if isinstance(stop, str) or not all(isinstance(one, str) and one for one in stop):
        raise ValidationError("stop must be a list of texts that are not empty", param="stop")


def check_tools(tools: Sequence[Tool], tool_choice: str) -> None:
    """Raises ValidationError for two tools of one name, one named as a choice is, and a choice of what is not there."""
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names) or set(names) & set(TOOL_CHOICES):
        raise ValidationError(
            f"tools need names of their own that are none of {', '.join(TOOL_CHOICES)}", param="tools"
        )
    if tool_choice not in (AUTO, NO_CALL) and not (names if tool_choice == ANY_CALL else tool_choice in names):
        raise ValidationError(f"no tool for the choice {tool_choice!r}", param="tool_choice")


def check_messages(messages: Sequence[PromptMessage]) -> None:
    """Raises ValidationError where there is nothing to answer."""
    if not messages:
        raise ValidationError("a prompt needs at least one message", param="messages")


def check_texts(texts: Sequence[str]) -> list[str]:
    """Raises ValidationError for a single text in place of a list, and for what is no text."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValidationError("texts must be a list of texts", param="texts")
    return list(texts)
