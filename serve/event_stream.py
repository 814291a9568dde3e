"""An answer of server-sent events that ends its source whenever and however it ends itself.

The source is read in a task of its own, one event at a time. Whatever stops the stream (the reader goes away, the
server stops, time is up, the request is cancelled) cancels that task once and then waits for it, so what the source
does at its end (a model that is stopped, an answer that is stored) is done before this returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from actors.errors import TimedOut
from modules.core.errors import Unavailable

from .json_response import encoded

log = logging.getLogger(__name__)

HEARTBEAT = b": heartbeat\n\n"


def event(data: Any, name: str | None = None) -> bytes:
    """One event in the wire format; *data* becomes JSON, which has no line breaks of its own."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encoded(data) + b"\n\n"


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """``draining`` is set when the server stops."""

    heartbeat_s: float
    most_s: float
    draining: asyncio.Event


class EventStream(Response):
    """*events* gives events in the wire format. What it raises before its first event is raised, and can still be an
    answer of another status, unless that took so long that a heartbeat had to go before it; later, *error_event* makes
    the stream's last event of it. *began* is told of the first event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        limits: StreamLimits,
        error_event: Callable[[Exception], bytes],
        began: Callable[[], None],
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-cache"
        self.headers["X-Accel-Buffering"] = "no"  # proxies that hold answers back let this one through
        self._events = events
        self._limits = limits
        self._error_event = error_event
        self._began = began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Out(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.create_task(_disconnected(receive))
        draining = asyncio.create_task(self._limits.draining.wait())
        steps: list[asyncio.Task[bytes | None]] = []
        try:
            await self._pass_on(out, gone, draining, steps)
        finally:
            for task in (gone, draining):
                task.cancel()
            await _let_go(steps, self._events)

    async def _pass_on(
        self,
        out: _Out,
        gone: asyncio.Task[None],
        draining: asyncio.Task[Any],
        steps: list[asyncio.Task[bytes | None]],
    ) -> None:
        """*steps* holds the read under way, for whoever has to end it."""
        end = asyncio.get_running_loop().time() + self._limits.most_s
        is_first = True
        while True:
            steps[:] = [asyncio.create_task(_next(self._events))]
            try:
                if not await self._has_come(steps[0], gone, draining, end, out):
                    return
                data = steps[0].result()
            except Exception as error:
                if not out.has_begun:
                    raise
                await out.end(self._error_event(error))
                return
            if is_first:
                self._began()
                is_first = False
            if data is None:
                await out.end(b"")
                return
            await out.give(data)

    async def _has_come(
        self,
        step: asyncio.Task[bytes | None],
        gone: asyncio.Task[None],
        draining: asyncio.Task[Any],
        end: float,
        out: _Out,
    ) -> bool:
        """Wait for *step*, with heartbeats; False when the reader has gone away first. Raises what stops the stream."""
        loop = asyncio.get_running_loop()
        while True:
            wait_s = min(self._limits.heartbeat_s, max(0.0, end - loop.time()))
            done, _ = await asyncio.wait({step, gone, draining}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                return False
            if step in done:
                return True
            if draining in done:
                raise Unavailable("the server is stopping; what there is of the answer is kept")
            if loop.time() >= end:
                raise TimedOut(f"a stream may last {self._limits.most_s:g} s; what there is of the answer is kept")
            await out.give(HEARTBEAT)


class _Out:
    """What goes to the reader; begun with the first piece."""

    def __init__(self, send: Send, start: Message) -> None:
        self.has_begun = False
        self._send = send
        self._start = start

    async def give(self, data: bytes, *, is_last: bool = False) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send(self._start)
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def end(self, data: bytes) -> None:
        await self.give(data, is_last=True)


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)


async def _let_go(steps: list[asyncio.Task[bytes | None]], events: AsyncGenerator[bytes, None]) -> None:
    for step in steps:
        step.cancel()
        await asyncio.wait([step])
        if not step.cancelled() and (error := step.exception()) is not None:
            log.debug("a stream that nobody reads any more ended in %r", error)
    await events.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
