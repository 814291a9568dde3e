"""OpenAI's chat completions: the `openai` SDK and what is built on it work as they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from modules.core.clock import new_hex
from modules.core.errors import NotFound, Unavailable, ValidationError
from modules.models.protocols import Delta, ToolCall, Usage
from serve.chat_request import ChatRequest
from serve.disconnect import unless_gone
from serve.event_stream import event
from serve.json_response import Json
from serve.schemas import Answer
from serve.serving import CallerNow, ServingNow, TextChat
from serve.streaming import streamed

router = APIRouter(tags=["openai"])

_DONE = b"data: [DONE]\n\n"


class FunctionCallOut(Answer):
    name: str
    arguments: str


class ToolCallOut(Answer):
    id: str
    type: str
    function: FunctionCallOut


class AnswerMessage(Answer):
    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallOut] | None = None


class Choice(Answer):
    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: None


class UsageOut(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Answer):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: UsageOut
    system_fingerprint: str | None


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses={
        200: {"description": "The answer; with `stream`, its chunks.", "content": {"text/event-stream": {}}},
    },
)
async def create_completion(
    body: ChatRequest, request: Request, chat: TextChat, caller: CallerNow, serving: ServingNow
) -> Response:
    """Answer a conversation. Nothing of it is stored."""
    body.check()
    user_id = caller.acting_for(body.user or body.safety_identifier)
    model = await serving.model()
    if body.model != model.name:
        raise NotFound(f"The model '{body.model}' does not exist or is no chat model here.")
    tools, tool_choice = body.to_tools()
    if tools and not model.can_call_tools:
        raise ValidationError(f"the model {model.name} cannot call tools", param="tools")
    answering = Answering(f"chatcmpl-{new_hex()}", int(serving.clock.now().timestamp()), model.name)
    deltas = chat.stream(
        "complete",
        body.prompt(),
        user_id=user_id or "",
        max_tokens=body.answer_tokens,
        temperature=body.temperature,
        stop=body.stops,
        seed=body.seed,
        tools=tools,
        tool_choice=tool_choice,
        shard_key=user_id or body.prompt_cache_key or answering.id,
        timeout_s=serving.http.max_stream_seconds,
    )
    if body.stream:
        return streamed(serving, request, answering.chunks(deltas, includes_usage=body.includes_usage), name=None)
    return Json(await unless_gone(request, answering.whole(deltas)))


@dataclass(frozen=True, slots=True)
class Answering:
    """An answer in the shapes of the API."""

    id: str
    created: int
    model: str

    async def whole(self, deltas: AsyncGenerator[Delta, None]) -> dict[str, Any]:
        texts: list[str] = []
        async with aclosing(deltas):
            async for delta in deltas:
                texts.append(delta.text)
                if delta.finish_reason is not None:
                    return self._completion("".join(texts), delta)
        raise Unavailable("the answer ended without an end")

    async def chunks(self, deltas: AsyncGenerator[Delta, None], *, includes_usage: bool) -> AsyncGenerator[bytes, None]:
        usage = {"usage": None} if includes_usage else {}
        last: Delta | None = None
        has_begun = False
        async with aclosing(deltas):
            async for delta in deltas:
                if not has_begun:
                    has_begun = True
                    yield self._chunk({"role": "assistant", "content": "", "refusal": None}, None, usage)
                if delta.text:
                    yield self._chunk({"content": delta.text}, None, usage)
                if delta.finish_reason is not None:
                    last = delta
        if last is None:
            raise Unavailable("the answer ended without an end")
        if last.tool_calls:
            calls = [{"index": place, **_call(one)} for place, one in enumerate(last.tool_calls)]
            yield self._chunk({"tool_calls": calls}, None, usage)
        yield self._chunk({}, last.finish_reason, usage)
        if includes_usage:
            yield event({**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(last.usage)})
        yield _DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None, usage: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **usage})

    def _completion(self, text: str, last: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if last.tool_calls:
            message |= {"content": text or None, "tool_calls": [_call(one) for one in last.tool_calls]}
        choice = {"index": 0, "message": message, "finish_reason": last.finish_reason, "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(last.usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _usage(usage: Usage | None) -> dict[str, int]:
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
