"""The least that could be done: FastAPI on uvicorn, one process, appending the line that modchat stores to a file.

    uvicorn benchmarks.http_ceiling:app      with CEILING_DIR naming the directory of the files

No sessions, no keys, no limits, no other process: what a server in Python could do at most with such requests. It also
stands in for a model that speaks slowly (``/v1/chat/completions``).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

WORDS = 20
SLOW_WORDS, SLOW_PAUSE_S = 2000, 0.05


class NewMessage(BaseModel):
    user_id: str
    content: str
    role: str = "user"
    reply: bool = True
    stream: bool = False


def build() -> FastAPI:
    directory = Path(os.environ["CEILING_DIR"])
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/sessions", status_code=201)
    async def create_session() -> dict[str, str]:
        return {"id": uuid4().hex}

    @app.post("/v1/sessions/{session_id}/messages", status_code=201, response_model=None)
    async def send_message(session_id: str, body: NewMessage) -> Any:
        message = {
            "id": f"msg_{uuid4().hex}",
            "role": body.role,
            "content": body.content,
            "timestamp": datetime.now(UTC).isoformat(),
            "metadata": {},
            "attachments": [],
            "status": "complete",
        }
        _append(directory / f"{session_id}.jsonl", message)
        if body.stream:
            return StreamingResponse(_events(), media_type="text/event-stream")
        return JSONResponse({"message": {**message, "session_id": session_id}, "reply": None}, 201)

    @app.get("/v1/sessions/{session_id}/messages", response_model=None)
    async def list_messages(session_id: str, limit: int = 100) -> Any:
        lines = (directory / f"{session_id}.jsonl").read_bytes().splitlines()[:limit]
        data = [json.loads(line) for line in lines]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    @app.post("/v1/chat/completions", response_model=None)
    async def completions() -> Any:
        return StreamingResponse(_slowly(), media_type="text/event-stream")

    return app


def _append(path: Path, message: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(message).encode() + b"\n")


async def _events() -> AsyncIterator[str]:
    yield "event: started\ndata: {}\n\n"
    for number in range(WORDS):
        yield f'event: delta\ndata: {{"type":"delta","text":"word{number} "}}\n\n'
    yield "event: ended\ndata: {}\n\n"


async def _slowly() -> AsyncIterator[str]:
    for number in range(SLOW_WORDS):
        choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "slow", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n"
        await asyncio.sleep(SLOW_PAUSE_S)
    yield "data: [DONE]\n\n"


def app() -> FastAPI:
    """For ``uvicorn --factory``."""
    return build()
