"""Audit entries from many callers at once: those that wait together share the trips to the disk. None is ever dropped:
a caller waits until its own is on the disk, or hears that it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from modules.core.errors import PlatformError, Unavailable

from .audit_chain import AuditEntry
from .audit_trail import AuditDraft, AuditTrail

T = TypeVar("T")


class AuditWriter:
    """For one event loop."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._waiting: list[tuple[AuditDraft, asyncio.Future[AuditEntry]]] = []
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def record(self, draft: AuditDraft) -> AuditEntry:
        """The entry, once it is on the disk. Raises StorageError, Unavailable once closed. What has begun is finished,
        also when the caller goes away."""
        self._check_open()
        recorded: asyncio.Future[AuditEntry] = asyncio.get_running_loop().create_future()
        self._waiting.append((draft, recorded))
        if self._writing is None or self._writing.done():
            self._writing = self._begin(self._write())
        return await recorded

    async def alone(self, work: Callable[[AuditTrail], T]) -> T:
        """What *work* gives, which has the trail for itself meanwhile."""
        self._check_open()
        return await asyncio.shield(self._begin(self._alone(work)))

    async def close(self) -> None:
        """Finish what has begun; then another process may write."""
        self._is_closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._trail.close)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the audit trail is closing and takes no more")

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _alone(self, work: Callable[[AuditTrail], T]) -> T:
        async with self._one_at_a_time:
            return await asyncio.to_thread(work, self._trail)

    async def _write(self) -> None:
        while self._waiting:
            async with self._one_at_a_time:
                batch, self._waiting = self._waiting, []
                await self._write_batch(batch)

    async def _write_batch(self, batch: list[tuple[AuditDraft, asyncio.Future[AuditEntry]]]) -> None:
        try:
            entries = await asyncio.to_thread(self._trail.append, [draft for draft, _ in batch])
        except PlatformError as error:
            if len(batch) > 1:  # one that cannot be written must not take the others with it
                for one in batch:
                    await self._write_batch([one])
                return
            _fail(batch, error)
        except BaseException:
            _fail(batch, Unavailable("the audit trail broke off before this was recorded"))
            raise
        else:
            for (_, recorded), entry in zip(batch, entries, strict=True):
                if not recorded.done():
                    recorded.set_result(entry)


def _fail(batch: list[tuple[AuditDraft, asyncio.Future[AuditEntry]]], error: PlatformError) -> None:
    for _, recorded in batch:
        if not recorded.done():
            recorded.set_exception(error)
