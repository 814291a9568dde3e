"""Messages of a session: sent, answered (whole or as a stream), read back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from pydantic import ConfigDict, Discriminator, Field, Tag
from starlette.responses import Response

from actors.module_ref import ModuleRef
from modules.core.errors import Unavailable
from modules.core.types import Attachment, Message
from modules.text_chat.answer_chunks import Chunk, TextDelta, TurnEnded, TurnStarted
from serve.disconnect import unless_gone
from serve.event_stream import event
from serve.json_response import Json
from serve.pages import Id, PageQuery, page_of
from serve.paths import PathId
from serve.schemas import TAG, Answer, AttachmentIn, Body, MessageOut, MessagePage, No, Positive, Whole, Yes
from serve.serving import caller_of, serving_of
from serve.streaming import streamed

router = APIRouter(tags=["messages"])

Stops = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


class _Message(Body):
    user_id: Id | None = None
    """Whose session it is: looked for where it is not given."""

    content: str
    metadata: dict[str, Any] | None = None
    attachments: Annotated[list[AttachmentIn], Field(max_length=100)] = Field(default_factory=list)

    def to_attachments(self) -> tuple[Attachment, ...]:
        return tuple(Attachment(one.id, one.type, one.url, one.size_bytes, one.metadata) for one in self.attachments)


class AskedMessage(_Message):
    """A user's message that is answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "content": "What is a shard?"}]})

    content: Annotated[str, Field(min_length=1)]
    role: Literal["user"] = "user"
    reply: Yes = True
    stream: bool = False
    """Server-sent events: ``started``, ``delta`` for each piece of the answer, ``ended``; or ``error``."""

    if_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue"
    """While the session is being answered: wait, be refused (409), or cut that answer off."""

    max_tokens: Positive | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    stop: Stops = Field(default_factory=list)
    seed: Whole | None = None


class NotedMessage(_Message):
    """A user's message that is only stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "content": "Noted.", "reply": False}]})

    content: Annotated[str, Field(min_length=1)]
    role: Literal["user"] = "user"
    reply: No
    parent_id: Id | None = None
    """The message that this one follows."""


class OthersMessage(_Message):
    """A message of somebody else, which is only stored."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "role": "system", "content": "Be brief."}]}
    )

    role: Literal["assistant", "system", "tool"]
    reply: No = False
    parent_id: Id | None = None


def _shape_of(message: Any) -> str:
    def get(name: str, default: Any) -> Any:
        return message.get(name, default) if isinstance(message, dict) else getattr(message, name, default)

    if get("role", "user") != "user":
        return f"{TAG}others"
    return f"{TAG}noted" if get("reply", True) is False else f"{TAG}asked"


NewMessage = Annotated[
    Annotated[AskedMessage, Tag(f"{TAG}asked")]
    | Annotated[NotedMessage, Tag(f"{TAG}noted")]
    | Annotated[OthersMessage, Tag(f"{TAG}others")],
    Discriminator(_shape_of),
]


class Sent(Answer):
    """``reply`` null: none was asked for, or the answer was cut off before a word of it."""

    message: MessageOut
    reply: MessageOut | None


@router.post(
    "/v1/sessions/{session_id}/messages",
    status_code=201,
    response_model=Sent,
    responses={200: {"description": "With `stream`: the events.", "content": {"text/event-stream": {}}}},
)
async def send_message(
    session_id: PathId, body: NewMessage, request: Request, idempotency_key: IdempotencyKey = None
) -> Response:
    """Store a message, and answer it. With an `Idempotency-Key`, the same request again gets the same message and
    answer, and attaches to an answer under way."""
    # The busiest routes go without dependencies (`serve.shortcut`).
    serving = serving_of(request)
    chat, user_id = serving.module("text_chat"), caller_of(request).acting_for(body.user_id)
    if not isinstance(body, AskedMessage):
        message = await _stored(chat, session_id, user_id, body, idempotency_key)
        return Json({"message": message.to_dict(), "reply": None}, 201)
    chunks = chat.stream(
        "stream_response",
        session_id,
        body.content,
        user_id=user_id,
        idempotency_key=idempotency_key,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        stop=tuple(body.stop),
        seed=body.seed,
        metadata=body.metadata,
        attachments=body.to_attachments(),
        if_busy=body.if_busy,
        timeout_s=serving.http.max_stream_seconds,
    )
    if body.stream:
        return streamed(serving, request, _events(chunks), name="error")
    if idempotency_key is None:
        # Nobody could ask for the rest of it.
        return Json(await unless_gone(request, _whole(chunks)), 201)
    return Json(await _whole(chunks), 201)


class MessagesQuery(PageQuery):
    user_id: Id | None = None


@router.get("/v1/sessions/{session_id}/messages", response_model=MessagePage)
async def list_messages(session_id: PathId, query: Annotated[MessagesQuery, InQuery()], request: Request) -> Json:
    """The messages of a session, oldest or newest first."""
    serving = serving_of(request)
    chat, user_id = serving.module("text_chat"), caller_of(request).acting_for(query.user_id)

    async def ask(**window: Any) -> Any:
        return await chat.ask("get_messages", session_id, user_id=user_id, **window)

    return Json(await page_of(query, serving.http.pages, ask))


async def _stored(
    chat: ModuleRef,
    session_id: str,
    user_id: str | None,
    body: NotedMessage | OthersMessage,
    idempotency_key: str | None,
) -> Message:
    message: Message = await chat.ask(
        "send_message",
        session_id,
        body.content,
        body.role,
        body.metadata,
        user_id=user_id,
        attachments=body.to_attachments(),
        parent_id=body.parent_id,
        idempotency_key=idempotency_key,
    )
    return message


async def _events(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield event(chunk.to_dict(), chunk.type)


async def _whole(chunks: AsyncGenerator[Chunk, None]) -> dict[str, Any]:
    message: Message | None = None
    async with aclosing(chunks):
        async for chunk in chunks:
            match chunk:
                case TurnStarted():
                    message = chunk.message
                case TurnEnded() if message is not None:
                    reply = None if chunk.message is None else chunk.message.to_dict()
                    return {"message": message.to_dict(), "reply": reply}
                case TextDelta() | TurnEnded():
                    continue
    raise Unavailable("the answer ended without an end")
