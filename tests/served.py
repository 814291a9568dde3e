"""The HTTP application over a real platform in this process, and a client that sees it as a browser's server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from actors.local import LocalRuntime
from actors.system import Platform
from config.load import load_settings
from config.settings import Settings
from serve.app import create_app

MODULES = ("text_chat", "memory")
OPEN_RATES = {"messages_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000}


def settings_of(
    http: Mapping[str, Any] | None = None, modules: Mapping[str, Any] | None = None, **more: Any
) -> Settings:
    """Settings of a test; chat is answered by quoting, unless *modules* say otherwise."""
    chat = {"rate_limit": OPEN_RATES, "model": {"provider": "extractive"}}
    overrides = {
        "http": {"requests_per_minute": 1_000_000, **(http or {})},
        "modules": {"text_chat": chat, **(modules or {})},
        **more,
    }
    return load_settings(environment="test", environ={}, overrides=overrides)


@asynccontextmanager
async def platform_on(base: Path, settings: Settings, names: tuple[str, ...] = MODULES) -> AsyncIterator[Platform]:
    values = settings.model_dump()
    values["modules"] = {name: values["modules"][name] for name in names}
    platform = await Platform.start(values, base=base, runtime=LocalRuntime(copies=True))
    try:
        yield platform
    finally:
        await platform.stop()


class Served:
    """``client`` asks; answers come whole. `begin` gives one whose parts can be waited for, and that can be left."""

    def __init__(self, app: FastAPI, platform: Platform, client: httpx.AsyncClient) -> None:
        self.app = app
        self.platform = platform
        self.client = client

    def begin(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Open:
        return Open(self.app, method, path, body, headers or {})

    async def session(self, user_id: str = "ada", **more: Any) -> str:
        answer = await self.client.post("/v1/sessions", json={"user_id": user_id, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def store(self, session_id: str, content: str, user_id: str = "ada", **more: Any) -> dict[str, Any]:
        body = {"user_id": user_id, "content": content, "reply": False, **more}
        answer = await self.client.post(f"/v1/sessions/{session_id}/messages", json=body)
        assert answer.status_code == 201, answer.text
        message: dict[str, Any] = answer.json()["message"]
        return message


@asynccontextmanager
async def served(
    base: Path, settings: Settings | None = None, names: tuple[str, ...] = MODULES, **options: Any
) -> AsyncIterator[Served]:
    settings = settings or settings_of()
    async with platform_on(base, settings, names) as platform:
        app = create_app(platform, settings, **options)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            yield Served(app, platform, client)


class Open:
    """One request, spoken in ASGI."""

    def __init__(self, app: FastAPI, method: str, path: str, body: Any, headers: Mapping[str, str]) -> None:
        path, _, query = path.partition("?")
        data = json.dumps(body).encode() if body is not None else b""
        length = str(len(data))
        given = {"host": "127.0.0.1:8000", "content-type": "application/json", "content-length": length, **headers}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 8000),
        }
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._in.put_nowait({"type": "http.request", "body": data, "more_body": False})
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(self._scope, self._in.get, self._out.put))

    async def status(self) -> int:
        async with asyncio.timeout(10):
            message = await self._out.get()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def part(self) -> bytes:
        """The next part of the body; empty at its end."""
        async with asyncio.timeout(10):
            message = await self._out.get()
        assert message["type"] == "http.response.body"
        return bytes(message["body"])

    async def until(self, text: bytes) -> bytes:
        """The body up to and with the part that holds *text*."""
        whole = b""
        while text not in whole:
            part = await self.part()
            assert part, f"{text!r} did not come: {whole!r}"
            whole += part
        return whole

    async def rest(self) -> bytes:
        await self.ended()
        return b"".join(self._out.get_nowait()["body"] for _ in range(self._out.qsize()))

    def leave(self) -> None:
        self._in.put_nowait({"type": "http.disconnect"})

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.task


def events_of(body: bytes) -> list[tuple[str | None, Any]]:
    """(name, data) of each event; heartbeats left out."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in lines:
            data = lines["data"]
            found.append((lines.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found
