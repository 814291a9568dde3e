"""What ``POST /v1/chat/completions`` takes: OpenAI's request, as far as the models here can do what it asks.

A parameter that OpenAI does not know is refused as OpenAI refuses it (``unknown_parameter``), one that it knows and no
model here can follow as it does for models that cannot (``unsupported_parameter``). One that can only say what is so
anyway (``n`` 1, ``top_p`` 1) is taken with that value alone. Nothing is taken and then ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from modules.core.errors import ValidationError
from modules.models.protocols import AUTO, PromptMessage, Tool, ToolCall

from .pages import Id
from .schemas import TAG, Body, No, Positive, Whole, whole

# OpenAI's, and beyond the models here.
_UNSUPPORTED = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "moderation",
        "prediction",
        "prompt_cache_retention",
        "reasoning_effort",
        "top_logprobs",
        "verbosity",
        "web_search_options",
    }
)


class TextPart(Body):
    type: Literal["text"]
    text: str


class FunctionCallIn(Body):
    name: Id
    arguments: str


class ToolCallIn(Body):
    id: Id
    type: Literal["function"] = "function"
    function: FunctionCallIn


Content = str | Annotated[list[TextPart], Field(min_length=1)]


class _Said(Body):
    content: Content
    name: Id | None = None
    """Taken as OpenAI takes it: told to nobody but models that know of names, of which there is none here."""


class SystemMessage(_Said):
    role: Literal["system", "developer"]


class UserMessage(_Said):
    role: Literal["user"]


class AssistantMessage(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["content"], "properties": {"content": {"not": {"type": "null"}}}},
                {"required": ["tool_calls"], "properties": {"tool_calls": {"type": "array", "minItems": 1}}},
                {"required": ["refusal"], "properties": {"refusal": {"type": "string"}}},
            ]
        }
    )

    role: Literal["assistant"]
    content: Content | None = None
    name: Id | None = None
    tool_calls: list[ToolCallIn] | None = None
    refusal: str | None = None
    # Members that OpenAI's client writes into an answer that it gives back.
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise ValueError("content, tool_calls or refusal must be given")
        return self


class ToolMessage(Body):
    role: Literal["tool"]
    content: Content
    tool_call_id: Id


def _shape_of(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else getattr(message, "role", None)
    return TAG + ("system" if role == "developer" else str(role))


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag(f"{TAG}system")]
    | Annotated[UserMessage, Tag(f"{TAG}user")]
    | Annotated[AssistantMessage, Tag(f"{TAG}assistant")]
    | Annotated[ToolMessage, Tag(f"{TAG}tool")],
    Discriminator(_shape_of, "unknown_role", "Unknown role: the roles are system, developer, user, assistant and tool"),
]


class FunctionIn(Body):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: No | None = None


class ToolIn(Body):
    type: Literal["function"]
    function: FunctionIn


class NamedFunction(Body):
    name: Id


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: No | None = None


class ResponseFormat(Body):
    type: Literal["text"]


def _where_given(name: str, then: dict[str, Any], *, needed: bool = True) -> dict[str, Any]:
    """In JSON Schema: where *name* is given, and not as null, the members of *then* are to be so."""
    consequence: dict[str, Any] = {"properties": then}
    if needed:
        consequence["required"] = list(then)
    return {"if": {"properties": {name: {"not": {"type": "null"}}}, "required": [name]}, "then": consequence}


class ChatRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "smollm2", "messages": [{"role": "user", "content": "Name a prime."}], "max_tokens": 16}
            ],
            "allOf": [
                _where_given("stream_options", {"stream": {"const": True}}),
                _where_given("tool_choice", {"tools": {"type": "array", "minItems": 1}}),
                _where_given("parallel_tool_calls", {"tools": {"type": "array", "minItems": 1}}),
                _where_given("parallel_tool_calls", {"parallel_tool_calls": {"const": True}}),
                _where_given("max_tokens", {"max_completion_tokens": {"type": "null"}}, needed=False),
            ],
        }
    )

    model: Id
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
        | None
    ) = None
    seed: Whole | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[ToolIn], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    user: Id | None = None
    """Whose messages and tokens these count as."""

    safety_identifier: Id | None = None
    """The newer name of ``user``."""

    prompt_cache_key: Id | None = None
    """Requests of one key go to the same process, which may have read the beginning of the prompt already."""

    # What can only be as it is.
    n: Annotated[int, Field(ge=1, le=1), BeforeValidator(whole)] | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    logprobs: No | None = None
    store: No | None = None
    metadata: Annotated[dict[str, str], Field(max_length=0)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _within_the_models_here(cls, value: Any) -> Any:
        for name in sorted(_UNSUPPORTED & value.keys()) if isinstance(value, dict) else ():
            if value[name] is not None:
                raise PydanticCustomError(
                    "unsupported_parameter",
                    "Unsupported parameter: '{name}' is not supported with this model.",
                    {"name": name},
                )
        if isinstance(value, dict):
            return {name: one for name, one in value.items() if name not in _UNSUPPORTED}
        return value

    def check(self) -> None:
        """What is between parameters. Raises ValidationError."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValidationError("max_tokens is the older name of max_completion_tokens: give one", param="max_tokens")
        if self.stream_options is not None and not self.stream:
            raise ValidationError("'stream_options' is for 'stream': true", param="stream_options")
        if self.tool_choice is not None and not self.tools:
            raise ValidationError("'tool_choice' is for requests with 'tools'", param="tool_choice")
        if self.parallel_tool_calls is not None and not self.tools:
            raise ValidationError("'parallel_tool_calls' is for requests with 'tools'", param="parallel_tool_calls")
        if self.parallel_tool_calls is False:
            raise ValidationError("the models here cannot be kept to one call", param="parallel_tool_calls")
        if None not in (self.user, self.safety_identifier) and self.user != self.safety_identifier:
            raise ValidationError("user and safety_identifier name two users", param="safety_identifier")

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def prompt(self) -> tuple[PromptMessage, ...]:
        return tuple(_prompt_message(one) for one in self.messages)

    def to_tools(self) -> tuple[tuple[Tool, ...], str]:
        """The tools, and the choice among them. ``none`` without a word of tools is as good for any model."""
        if not self.tools or (self.tool_choice == "none" and not self._has_calls()):
            return (), AUTO
        tools = tuple(Tool(one.function.name, one.function.description, one.function.parameters) for one in self.tools)
        choice = self.tool_choice
        return tools, choice.function.name if isinstance(choice, NamedTool) else choice or AUTO

    def _has_calls(self) -> bool:
        return any(isinstance(one, ToolMessage) for one in self.messages)


def _prompt_message(message: SystemMessage | UserMessage | AssistantMessage | ToolMessage) -> PromptMessage:
    match message:
        case SystemMessage():
            return PromptMessage("system", _text(message.content))
        case UserMessage():
            return PromptMessage("user", _text(message.content))
        case ToolMessage():
            return PromptMessage("tool", _text(message.content), tool_call_id=message.tool_call_id)
        case AssistantMessage():
            calls = tuple(
                ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
            )
            return PromptMessage("assistant", _text(message.content or message.refusal or ""), tool_calls=calls)


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
