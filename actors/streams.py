"""A module's generator while somebody at a distance reads it.

The generator runs on its own as far as the buffer reaches; the reader fetches what there is, so the first item goes at
once, later ones go together when they come faster than they are fetched, and a slow reader slows the generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from modules.core.errors import Unavailable

from .wire import Codec, StreamPart

_ITEMS_AHEAD = 256


class OpenStream:
    """A reader that stays away for *idle_s* is taken for gone: the generator is cancelled and *abandoned* is called.
    Needs a running loop."""

    def __init__(
        self, items: AsyncGenerator[Any, None], codec: Codec, *, idle_s: float, abandoned: Callable[[], None]
    ) -> None:
        self._codec = codec
        self._idle_s = idle_s
        self._abandoned = abandoned
        self._ready: list[Any] = []
        self._error: Any | None = None
        self._has_ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._pump = asyncio.create_task(self._run(items))
        self._watch: asyncio.TimerHandle | None = None

    async def part(self) -> StreamPart:
        """What has come since the last part; waits for an item or the end."""
        self._stop_watch()
        while not self._ready and not self._has_ended:
            self._news.clear()
            await self._news.wait()
        items, self._ready = tuple(self._ready), []
        self._room.set()
        if not self._has_ended:
            self._watch = asyncio.get_running_loop().call_later(self._idle_s, self._give_up)
        return StreamPart(items, self._has_ended, self._error)

    async def close(self) -> None:
        """Cancel the generator and wait until it has cleaned up."""
        self._stop_watch()
        self._pump.cancel()
        await asyncio.wait([self._pump])

    async def _run(self, items: AsyncGenerator[Any, None]) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    while len(self._ready) >= _ITEMS_AHEAD:
                        self._room.clear()
                        await self._room.wait()
                    self._ready.append(self._codec.pack(item))
                    self._news.set()
        except asyncio.CancelledError:
            # A reader that comes back after all must not take this for the end.
            self._error = self._codec.pack_error(Unavailable("the stream was closed, or nobody read it for too long"))
            raise
        except Exception as error:  # noqa: BLE001 - the module's own; the reader gets it in its place
            self._error = self._codec.pack_error(error)
        finally:
            self._has_ended = True
            self._news.set()

    def _give_up(self) -> None:
        self._pump.cancel()
        self._abandoned()

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
