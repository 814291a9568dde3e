"""What is told of a turn while it goes on: in order, and beside it, so that no listener holds an answer up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from modules.core.errors import PlatformError, RateLimited

Emit = Callable[[str, dict[str, Any]], Awaitable[object]]

CHUNK = "chat.stream.chunk"
_BATCH_S = 0.1


class TurnEvents:
    """The events of one turn. The first piece of an answer is told at once, later ones together as they come within
    *batch_s*, or while the listeners are at work on the piece before. ``index`` counts the pieces from 0."""

    def __init__(self, emit: Emit, about: Mapping[str, Any], *, batch_s: float = _BATCH_S) -> None:
        self._emit = emit
        self._about = about
        self._batch_s = batch_s
        self._queue: deque[tuple[str, dict[str, Any]]] = deque()
        self._texts: list[str] = []
        self._pieces = 0
        self._is_ending = False
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        self._close_batch()
        self._queue.append((event, {**self._about, **data}))
        self._urgent.set()
        self._wake()

    def tell_text(self, text: str) -> None:
        self._texts.append(text)
        self._wake()

    async def end(self) -> None:
        """Return when all has been told."""
        self._is_ending = True
        self._urgent.set()
        self._news.set()
        if self._pump is not None:
            await self._pump

    def _close_batch(self) -> None:
        if self._texts:
            data = {**self._about, "index": self._pieces, "text": "".join(self._texts)}
            self._queue.append((CHUNK, data))
            self._texts.clear()
            self._pieces += 1

    def _wake(self) -> None:
        self._news.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._queue or self._texts or not self._is_ending:
            if not self._queue:
                self._close_batch()
            if not self._queue:
                self._news.clear()
                await self._news.wait()
                continue
            event, data = self._queue.popleft()
            await self._emit(event, data)
            if event == CHUNK:
                await self._pause()

    async def _pause(self) -> None:
        if not self._queue and not self._is_ending:
            self._urgent.clear()
            try:
                async with asyncio.timeout(self._batch_s):
                    await self._urgent.wait()
            except TimeoutError:
                return


def error_data(error: Exception) -> dict[str, Any]:
    """What chat.error says of a turn that failed, beside whose it was."""
    return {
        "event": "chat.response",
        "code": error.code if isinstance(error, PlatformError) else PlatformError.code,
        "message": str(error) or type(error).__name__,
        "retryable": isinstance(error, PlatformError) and error.retryable,
        "retry_after_s": error.retry_after_s if isinstance(error, RateLimited) else None,
    }
