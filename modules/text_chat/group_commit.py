"""Many waiters, one fsync: whoever wrote before a sync began is covered by it, the others share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modules.core.errors import PlatformError


class GroupCommit:
    """*sync* returns when all that was written before its call is on the disk; it runs in a thread."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._next: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Return when what was written before this call is on the disk. Raises what *sync* raised."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        # Shielded: one waiter that is cancelled must not cancel the others' future.
        await asyncio.shield(mine)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                batch, self._next = self._next, None
                try:
                    await asyncio.to_thread(self._sync)
                except PlatformError as error:
                    batch.set_exception(error)
                else:
                    batch.set_result(None)
        finally:
            self._running = None
