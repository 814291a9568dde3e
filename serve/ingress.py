"""What stands between Ray Serve and the application: how many requests go on at a time, and who may pass the queue.

Serve has such a limit itself, but a probe would wait behind the requests that the limit holds up, and be taken for
the death of a process that is only busy.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.errors import Unavailable

from .problems import problem_of

PROBES = frozenset({"/health", "/ready", "/metrics"})

# Waiting requests for each that is served. They cost a connection each, and are answered within their own time limits.
_WAITING_FOR_EACH = 4


def most_in_hand(at_once: int) -> int:
    """How many requests may be with a replica, served or waiting; for Serve's own limit, which must not come first."""
    return at_once * (1 + _WAITING_FOR_EACH) + _ROOM_FOR_PROBES


_ROOM_FOR_PROBES = 64


class Ingress:
    """An ASGI application around *app*: *at_once* requests are served at a time, others wait their turn, and what is
    beyond `_WAITING_FOR_EACH` times as many is refused. Probes always pass."""

    def __init__(self, app: ASGIApp, *, at_once: int) -> None:
        self._app = app
        self._slots = asyncio.Semaphore(at_once)
        self._in_hand = 0
        self._most_in_hand = at_once * (1 + _WAITING_FOR_EACH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _without_request_id(send)
        if scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._in_hand >= self._most_in_hand:
            await _refuse(scope, send)
            return
        self._in_hand += 1
        try:
            async with self._slots:
                await self._app(scope, receive, send)
        finally:
            self._in_hand -= 1


def _without_request_id(send: Send) -> Send:
    """Serve puts the request's id on every answer, and would do so a second time."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [header for header in message["headers"] if header[0] != b"x-request-id"]
            message = {**message, "headers": kept}
        await send(message)

    return sent


async def _refuse(scope: Scope, send: Send) -> None:
    problem = problem_of(Unavailable("more requests wait here than this server takes"))
    request_id = Headers(scope=scope).get("x-request-id", "")
    response = JSONResponse(problem.body(request_id), problem.status, problem.all_headers())
    await response(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
