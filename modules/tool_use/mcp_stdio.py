"""The stdio transport of MCP with bounds: a message longer than allowed ends the connection, not the memory.

The transport of the `mcp` package keeps a line until it ends, however long it gets. This one reads in pieces, gives up
at the bound and closes; otherwise it does the same: newline-delimited JSON-RPC (MCP specification, "Transports,
stdio"), a process group of its own, and the specification's way of ending it: standard input closed, then SIGTERM, then
SIGKILL. What the program writes to standard error goes to the log, a line at a time and bounded too. Imported only
where `mcp` is installed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from .errors import ToolAnswerInvalid, ToolError, ToolUnavailable
from .mcp_servers import StdioServer

log = logging.getLogger(__name__)

_PIECE = 64 * 1024
_EXIT_S = 1.0
_EXIT_CODE_S = 0.2
_SHOWN_OF_A_LINE = 500
_SHORTEST_SECRET = 6
_LOGGED_LINES = 200


@asynccontextmanager
async def bounded_stdio(
    name: str, server: StdioServer, env: Mapping[str, str], max_bytes: int, tell_end: Callable[[ToolError], None]
) -> AsyncIterator[tuple[Any, Any]]:
    """Streams to and from *server*, started for it. When it ends or says too much, *tell_end* is told why, and then the
    stream of what it says ends.

    Raises ToolUnavailable when it cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            server.command,
            *server.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**get_default_environment(), **env},
            cwd=server.cwd,
            start_new_session=True,
            limit=_PIECE,
        )
    except OSError as error:
        raise ToolUnavailable(
            f"MCP server {name} cannot be started: {error.strerror or error}", was_sent=False
        ) from error
    said_in, said_out = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    asked_in, asked_out = anyio.create_memory_object_stream[SessionMessage](0)
    secrets = tuple(value for value in env.values() if len(value) >= _SHORTEST_SECRET)
    pump = _Pump(name, process, max_bytes, tell_end, secrets)
    tasks = [
        asyncio.create_task(pump.read(said_in)),
        asyncio.create_task(pump.write(asked_out)),
        asyncio.create_task(pump.log_errors()),
    ]
    try:
        yield said_out, asked_in
    finally:
        with anyio.CancelScope(shield=True):  # or the process would be left behind; every wait within is bounded
            await _end(process, tasks)
        for stream in (said_in, said_out, asked_in, asked_out):
            stream.close()


class _Pump:
    """*secrets* are what it was given to know and may say on standard error."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        max_bytes: int,
        tell_end: Callable[[ToolError], None],
        secrets: tuple[str, ...],
    ) -> None:
        self._name = name
        self._process = process
        self._max_bytes = max_bytes
        self._tell_end = tell_end
        self._secrets = secrets

    async def read(self, into: Any) -> None:
        assert self._process.stdout is not None
        line = bytearray()
        async with into:
            while piece := await self._process.stdout.read(_PIECE):
                *whole, rest = piece.split(b"\n")
                for part in whole:
                    line += part
                    if len(line) > self._max_bytes:
                        break
                    if line.strip() and not await self._passed_on(bytes(line), into):
                        return
                    line.clear()
                line += rest
                if len(line) > self._max_bytes:
                    self._tell_end(
                        ToolAnswerInvalid(f"MCP server {self._name} answers with more than {self._max_bytes} bytes")
                    )
                    return
            code = self._process.returncode if await _has_gone(self._process, _EXIT_CODE_S) else "not known yet"
            self._tell_end(ToolUnavailable(f"MCP server {self._name} has ended (exit code {code})"))

    async def write(self, asked: Any) -> None:
        assert self._process.stdin is not None
        async with asked:
            async for message in asked:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._process.stdin.write(text.encode() + b"\n")
                try:
                    await self._process.stdin.drain()
                except ConnectionError:
                    return  # it has ended, which its standard output says as well

    async def log_errors(self) -> None:
        assert self._process.stderr is not None
        logged = 0
        while piece := await self._process.stderr.read(_PIECE):
            for line in piece.splitlines():
                logged += 1
                if logged <= _LOGGED_LINES and line.strip():
                    log.info("MCP server %s: %s", self._name, self._shown(line))

    def _shown(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_SHOWN_OF_A_LINE]

    async def _passed_on(self, line: bytes, into: Any) -> bool:
        try:
            message: Any = SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError as error:
            log.warning("MCP server %s says what is no message: %.200r", self._name, line)
            message = error
        try:
            await into.send(message)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return False  # nobody listens any more
        return True


async def _end(process: asyncio.subprocess.Process, tasks: list[asyncio.Task[None]]) -> None:
    assert process.stdin is not None
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    process.stdin.close()
    for sent in (None, signal.SIGTERM, signal.SIGKILL):
        if sent is not None:
            with suppress(ProcessLookupError):  # the whole group is gone
                os.killpg(process.pid, sent)
        if await _has_gone(process, _EXIT_S):
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it has started and left behind
    # Else a child of it that holds the pipes open would keep ours open.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


async def _has_gone(process: asyncio.subprocess.Process, within_s: float) -> bool:
    # Not process.wait(): that also waits for the pipes, which a child of it may hold.
    deadline = asyncio.get_running_loop().time() + within_s
    while process.returncode is None:
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(0.01)
    return True
