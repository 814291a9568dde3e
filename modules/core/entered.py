"""A context that waits for the disk, entered in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def entered(context: AbstractContextManager[T, Any]) -> AsyncIterator[T]:
    """What *context* gives; it is left when this is, whatever was raised, and also where the caller goes away while it
    is still being entered. Leaving it must be quick, as closing a file is."""
    entering = asyncio.ensure_future(asyncio.to_thread(context.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:
        entering.add_done_callback(lambda done: _left(context, done))
        raise
    try:
        yield value
    finally:
        context.__exit__(None, None, None)


def _left(context: AbstractContextManager[Any, Any], entering: asyncio.Future[Any]) -> None:
    if not entering.cancelled() and entering.exception() is None:
        context.__exit__(None, None, None)
