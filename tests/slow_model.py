"""A model server that speaks slowly, in a thread of its own: what a served model looks like to the platform."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from serve.addresses import free_port


class SlowModel:
    """Answers every prompt with *words* words, one every *pause_s*. Counts answers begun, finished and broken off."""

    def __init__(self, *, words: int = 40, pause_s: float = 0.05) -> None:
        self.words = words
        self.pause_s = pause_s
        self.port = free_port()
        self.begun = 0
        self.finished = 0
        self.broken_off = 0

    @property
    def settings(self) -> dict[str, object]:
        return {"provider": "slow", "model": "slow", "base_url": f"http://127.0.0.1:{self.port}/v1"}

    async def answer(self, request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(self._pieces(), media_type="text/event-stream")

    async def _pieces(self) -> AsyncIterator[str]:
        self.begun += 1
        try:
            for number in range(self.words):
                yield _piece({"content": f"word{number} "}, None)
                await asyncio.sleep(self.pause_s)
            yield _piece({}, "stop")
            yield "data: [DONE]\n\n"
            self.finished += 1
        finally:
            self.broken_off = self.begun - self.finished


def _piece(delta: dict[str, str], finish_reason: str | None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "slow", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


@contextmanager
def slow_model(**options: float) -> Iterator[SlowModel]:
    model = SlowModel(**options)  # type: ignore[arg-type]
    app = Starlette(routes=[Route("/v1/chat/completions", model.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=model.port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the model server did not start"
            thread.join(0.01)
        yield model
    finally:
        server.should_exit = True
        with contextlib.suppress(RuntimeError):
            thread.join(10)
