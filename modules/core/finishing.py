"""Work that goes on to its end when its caller goes away: half a change is worse than one that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class Finishing:
    """*what* names the work in the log, where its failure is said when its caller is no longer there to hear of it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Await *work*, which goes on when this caller is cancelled."""
        task = self.begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_failure)
            raise

    async def alone(self, work: Callable[[], T]) -> T:
        """What *work* returns, done in a thread while nothing else that came this way is done; it, too, goes on when
        this caller is cancelled, also while it waits for its turn."""

        async def whole() -> T:
            async with self._one_at_a_time:
                return await asyncio.to_thread(work)

        return await self.finish(whole())

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """*work*, begun and not waited for."""
        task = asyncio.create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    def cancel(self) -> None:
        for task in self._unfinished:
            task.cancel()

    async def wait(self) -> None:
        """Return when all that was begun has ended, however it has."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s whose caller had gone away failed", self._what, exc_info=error)
