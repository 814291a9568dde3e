"""A server in this process that speaks enough of the OpenAI API, and fails on demand; and models that ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from modules.models.errors import ModelError
from modules.models.openai_compatible import ServedChat, Server
from modules.models.protocols import Delta, PromptMessage

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeModelServer:
    """Gives its *replies* in order, the last one again and again. What was asked is in ``requests``."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.address = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(dict(request.headers))
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        return await reply(request)


@asynccontextmanager
async def running(*replies: Reply) -> AsyncIterator[FakeModelServer]:
    server = FakeModelServer(*replies)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    app.router.add_post("/v1/embeddings", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.address = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def text_chunk(text: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}


def finish_chunk(reason: str = "stop") -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage_chunk(prompt: int, completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}}


def streams(*chunks: dict[str, Any] | str | float, done: bool = True, dies: bool = False) -> Reply:
    """Sends dictionaries as events and texts as they are, and sleeps for numbers."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            elif isinstance(chunk, str):
                await response.write(chunk.encode())
            else:
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if dies:
            assert request.transport is not None
            request.transport.abort()
        elif done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return reply


def says(*texts: str) -> Reply:
    return streams(*map(text_chunk, texts), finish_chunk(), usage_chunk(7, len(texts)))


def fails(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **error: Any) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": message, **error}}, status=status, headers=headers)

    return reply


def hangs_up() -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return reply


def gives(body: dict[str, Any]) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return reply


SAID = [PromptMessage("system", "Be brief."), PromptMessage("user", "Hello?")]
KEY = "sk-very-secret"


class Naps:
    """Sleeps that take no time and are remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
def naps() -> Naps:
    return Naps()


@asynccontextmanager
async def chat(server: FakeModelServer, naps: Naps | None = None, **of_server: Any) -> AsyncIterator[ServedChat]:
    model = ServedChat(Server(server.address, "tiny", **of_server), sleep=naps or Naps())
    try:
        yield model
    finally:
        await model.close()


async def answer(model: ServedChat, **request: Any) -> list[Delta]:
    async with aclosing(model.stream(SAID, max_tokens=50, **request)) as deltas:
        return [delta async for delta in deltas]


async def failure(model: ServedChat, given: list[Delta] | None = None) -> ModelError:
    """What an answer fails with; *given* gets what came before."""
    try:
        async with aclosing(model.stream(SAID, max_tokens=50)) as deltas:
            async for delta in deltas:
                if given is not None:
                    given.append(delta)
    except ModelError as error:
        return error
    raise AssertionError("the answer did not fail")
