"""What the tests of tool_use share: the module on a base, servers on loopback that note who came, a lying resolver."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.tool_use import ToolUseModule, schema_child
from modules.tool_use.schema_check import SchemaCheck

SECRET = "s3cret-never-to-be-shown"


class Heard:
    """A context whose events are kept, and whose neighbours are the given ones."""

    def __init__(self, base: Path, **neighbours: Any) -> None:
        async def find(name: str) -> Any:
            return neighbours.get(name)

        self.events: list[tuple[str, dict[str, Any]]] = []
        self.context = ModuleContext(storage=FlatFileStorage(base), resolve=find, module_name="tool_use")

        async def hear(envelope: Any) -> None:
            self.events.append((envelope.event, dict(envelope.data)))

        self.context.bus.on("*", envelope=True)(hear)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == event]


class SchemasHere(SchemaCheck):
    """Applies schemas in this process, as its own would: starting one takes a tenth of a second."""

    async def asked(self, question: Mapping[str, Any], param: str) -> tuple[tuple[str, ...], bool]:
        said = schema_child.answer(json.loads(json.dumps(question, default=dict)), OrderedDict())
        return tuple(said["problems"]), bool(said["is_schema"])


@asynccontextmanager
async def running(
    base: Path, config: Mapping[str, Any] | None = None, heard: Heard | None = None, **options: Any
) -> AsyncIterator[ToolUseModule]:
    """The module, which applies schemas in this process unless *options* say otherwise."""
    module = ToolUseModule(config, **{"schemas": SchemasHere()} | options)
    await module.initialize((heard or Heard(base)).context)
    try:
        yield module
    finally:
        await module.close()


class LoopbackServer:
    """An HTTP server on loopback; *answer* gives the bytes that a request gets. ``connections`` counts who came, and
    ``requests`` holds what they sent."""

    def __init__(self, answer: Callable[[str], bytes] | None = None, host: str = "127.0.0.1") -> None:
        self._answer = answer or (lambda request: reply(200, b'{"reached": true}'))
        self._host = host
        self.connections = 0
        self.requests: list[str] = []

    @property
    def where(self) -> str:
        return f"{self._host}:{self.port}"

    async def __aenter__(self) -> LoopbackServer:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
            )
            body = (await reader.readexactly(length)).decode() if length else ""
            self.requests.append(head + body)
            writer.write(self._answer(head + body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, which is a client's right
        finally:
            writer.close()


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """``host:port`` of a server that does with each connection what *serve* does."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # the client went away
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Listen until the other side goes away."""
    while await reader.read(65536):
        pass


def reply(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode() + body


def json_reply(value: Any, status: int = 200) -> bytes:
    return reply(status, json.dumps(value).encode())


class Names:
    """A resolver. Each name has the addresses that it gives in turn, the last ones again and again."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self._names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._names:
            return [host]
        answers = self._names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]
