"""What waits for the disk: bounded, so that a slow disk costs records and not memory, and never anybody's time.

Records come as they were noted, and are made ready for the file (users hashed, secrets taken out, encoded) where they
are written, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from modules.core.clock import Clock
from modules.core.errors import StorageError
from modules.core.tracing import Record, SpanRecord

from .pseudonyms import Pseudonyms
from .records import Stored, StoredLog, StoredSpan, line_of, stored_event, stored_span, user_hash_of
from .trace_files import TraceFiles

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 5_000
# Spans of calls that were under way while a user was erased come in for a while after.
_ERASED_REMEMBERED = timedelta(minutes=10)

# What these say is recorded already, by the span or the message itself.
_TOLD_TWICE = frozenset({"trace.span.created", "trace.span.completed", "error.logged"})

Told = Callable[[list[StoredSpan]], None]
Noted = tuple[str, Record] | StoredLog


@dataclass(slots=True)
class IntakeCounts:
    """``recorded`` reached the disk, ``dropped`` found the queue full (here or where they were noted), ``lost`` were
    refused by the disk."""

    recorded: int = 0
    dropped: int = 0
    lost: int = 0


class Intake:
    """For one event loop. *told* gets the spans that were written; it must not wait."""

    def __init__(self, files: TraceFiles, pseudonyms: Pseudonyms, clock: Clock, *, max_queued: int, told: Told) -> None:
        self.counts = IntakeCounts()
        self._files = files
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._max_queued = max_queued
        self._told = told
        self._waiting: deque[Noted] = deque()
        self._one_at_a_time = asyncio.Lock()
        self._erased: dict[str, float] = {}
        self._is_failing = False

    def take(self, source: str, records: Iterable[Record], dropped: int = 0) -> None:
        """Queue what a process has noted. *dropped*: how many were dropped there."""
        self.counts.dropped += dropped
        for record in records:
            self.add((source, record))

    def add(self, noted: Noted) -> None:
        if len(self._waiting) < self._max_queued:
            self._waiting.append(noted)
            return
        if not self.counts.dropped:
            log.warning("traces are dropped: %d records wait for the disk already", len(self._waiting))
        self.counts.dropped += 1

    async def flush(self) -> None:
        """Write what has been queued until now. What the disk refuses is counted and gone."""
        async with self._one_at_a_time:
            left = len(self._waiting)
            while left > 0:
                batch = [self._waiting.popleft() for _ in range(min(left, _MOST_AT_ONCE))]
                left -= len(batch)
                await self._write(batch)

    def forget(self, user_hash: str) -> None:
        """Keep nothing about that user that comes in late."""
        now_s = self._clock.monotonic()
        self._erased = {known: until for known, until in self._erased.items() if until > now_s}
        self._erased[user_hash] = now_s + _ERASED_REMEMBERED.total_seconds()

    async def _write(self, batch: list[Noted]) -> None:
        try:
            written = await asyncio.to_thread(self._store, batch)
        except StorageError as error:
            self.counts.lost += len(batch)
            if not self._is_failing:
                log.error("%d records of traces are lost: %s", len(batch), error)
            self._is_failing = True
            return
        self._is_failing = False
        self.counts.recorded += len(written)
        self._told([record for record in written if isinstance(record, StoredSpan)])

    def _store(self, batch: list[Noted]) -> list[Stored]:
        records = [record for noted in batch if (record := self._stored(noted)) is not None]
        if records:
            self._files.append(b"".join(map(line_of, records)), self._clock.now())
        return records

    def _stored(self, noted: Noted) -> Stored | None:
        record: Stored | None
        if isinstance(noted, StoredLog):
            record = noted
        else:
            source, found = noted
            if isinstance(found, SpanRecord):
                record = stored_span(found, source, self._pseudonyms)
            elif found.event in _TOLD_TWICE:
                return None
            else:
                record = stored_event(found, self._pseudonyms)
        return None if record is not None and self._erased and self.is_erased(user_hash_of(record)) else record

    def is_erased(self, user_hash: str | None) -> bool:
        """Whether that user was erased just now."""
        until = self._erased.get(user_hash or "")
        return until is not None and self._clock.monotonic() < until
