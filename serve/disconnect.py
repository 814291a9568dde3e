"""Work for a caller who waits: given up when the caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What *work* gives. Raises ClientDisconnect when the caller goes away first; *work* has then been cancelled, and
    has cleaned up. For requests whose body has been read."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # of a caller that waits, raised above; of one that went away, nobody's any more


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
