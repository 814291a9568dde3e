"""Finds traces in the files. Synchronous: to be called in threads.

A file that cannot be read is passed over and named in the answer, so that an answer that may lack something says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from modules.core.errors import NotFound, StorageError
from modules.core.tracing import began_at_s

from .performance import Measuring, PerformanceReport
from .records import USER_HASH, Stored, StoredSpan, record_of, span_of, user_hash_of
from .trace_files import TraceFile, TraceFiles, lines_with
from .trace_tree import Trace, trace_of

log = logging.getLogger(__name__)

_MOST_RECORDS = 10_000
# A trace's first record may stand in a file that ended a little before the trace began: clocks differ.
_CLOCKS_DIFFER = timedelta(minutes=5)
_TRACE_ID = re.compile(rb'"trace_id":"([^"]*)"')
# Where a trace begins, as far as this platform is concerned: no parent, or one that the sender of a request named.
_ENTRIES = (b'"parent_id":null', b'"http.request.method"')


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace by its first span. ``user_hash`` where the span is about one user."""

    trace_id: str
    operation: str
    source: str
    started_at: str
    duration_ms: float
    error: str | None
    user_hash: str | None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return {"id": values.pop("trace_id"), "object": "trace_summary", **values}


@dataclass(frozen=True, slots=True)
class TraceList:
    """Newest first. ``unreadable``: files whose traces are missing."""

    traces: tuple[TraceSummary, ...]
    unreadable: tuple[str, ...] = field(default=())


class TraceQueries:
    """Reads only. Safe for use from several threads."""

    def __init__(self, files: TraceFiles) -> None:
        self._files = files

    def get(self, trace_id: str, now: datetime, user_hash: str | None = None) -> Trace:
        """Raises NotFound for one of which nothing is there (any more), or, with *user_hash*, nothing of that user."""
        unreadable: list[str] = []
        began = datetime.fromtimestamp(began_at_s(trace_id), UTC) - _CLOCKS_DIFFER
        since = began if began < now else None
        records = self._records_of(trace_id, self._files.found(since), unreadable)
        if not records and since is not None:
            # Not one of ours, whose id says when it began.
            records = self._records_of(trace_id, self._files.found(), unreadable)
        if user_hash is not None:
            records = _only_of(records, user_hash)
        if not records:
            raise NotFound(f"there is no trace {trace_id!r}: it was not kept, is too old, or never was")
        is_cut = len(records) > _MOST_RECORDS
        return trace_of(trace_id, records[:_MOST_RECORDS], is_cut=is_cut, unreadable=tuple(dict.fromkeys(unreadable)))

    def newest(
        self,
        start: datetime,
        end: datetime,
        limit: int,
        *,
        operation: str | None = None,
        only_failed: bool = False,
        user_hash: str | None = None,
    ) -> TraceList:
        """Traces that began within a time, newest first.

        A trace is written when it ends. So that nobody waits for a whole day's file to be gone through, a few times
        as many as are wanted are looked at: one that took far longer than those around it may stand too far back.
        """
        unreadable: list[str] = []
        found: list[StoredSpan] = []
        start_ns, end_ns = _ns(start), _ns(end)
        enough = 4 * limit + 100
        for content in self._contents(reversed(self._files.found(start)), unreadable):
            for line in reversed(content.splitlines()):
                span = span_of(line) if any(mark in line for mark in _ENTRIES) else None
                if (
                    span is not None
                    and start_ns <= span.start_ns <= end_ns
                    and operation in (None, span.name)
                    and (span.error is not None or not only_failed)
                    and user_hash in (None, span.attributes.get(USER_HASH))
                ):
                    found.append(span)
                    if len(found) >= enough:
                        break
            if len(found) >= enough:
                break
        found.sort(key=lambda span: -span.start_ns)
        return TraceList(tuple(_summary(span) for span in found[:limit]), tuple(unreadable))

    def measure(self, start: datetime, end: datetime, operation: str | None) -> PerformanceReport:
        """Of all spans that began within a time; of one operation where it is named."""
        unreadable: list[str] = []
        measuring = Measuring(_ns(start), _ns(end), operation)
        for content in self._contents(self._files.found(start), unreadable):
            for line in content.splitlines():
                span = span_of(line)
                if span is not None:
                    measuring.add(span)
        return PerformanceReport(start.isoformat(), end.isoformat(), measuring.times(), tuple(unreadable))

    def of_user(self, user_hash: str) -> list[Stored]:
        """All records of the traces in which a user's occur, but those about other users. Raises StorageError for a
        file that cannot be read."""
        is_wanted = self.concerns(user_hash)
        lines = (line for file in self._files.found() for line in self._files.read(file).splitlines())
        records = (record_of(line) for line in lines if is_wanted(line))
        return [record for record in records if record is not None and user_hash_of(record) in (None, user_hash)]

    def concerns(self, user_hash: str) -> _Concerns:
        """Whether a line belongs to a trace in which a user's occur. Raises StorageError."""
        mark = user_hash.encode()
        ids: set[bytes] = set()
        for file in self._files.found():
            for line in lines_with(self._files.read(file), mark):
                found = _TRACE_ID.search(line)
                if found is not None:
                    ids.add(found[1])
        return _Concerns(mark, frozenset(ids))

    def _records_of(self, trace_id: str, files: Iterable[TraceFile], unreadable: list[str]) -> list[Stored]:
        mark = f'"trace_id":"{trace_id}"'.encode()
        found: list[Stored] = []
        for content in self._contents(files, unreadable):
            records = (record_of(line) for line in lines_with(content, mark))
            found += [record for record in records if record is not None]
            if len(found) > _MOST_RECORDS:
                break
        return found

    def _contents(self, files: Iterable[TraceFile], unreadable: list[str]) -> Iterator[bytes]:
        for file in files:
            try:
                yield self._files.read(file)
            except StorageError as error:
                log.error("records are missing from what was asked for: %s", error)
                unreadable.append(file.key)


@dataclass(frozen=True, slots=True)
class _Concerns:
    mark: bytes
    trace_ids: frozenset[bytes]

    def __call__(self, line: bytes) -> bool:
        found = _TRACE_ID.search(line)
        return (found is not None and found[1] in self.trace_ids) or self.mark in line


def _only_of(records: list[Stored], user_hash: str) -> list[Stored]:
    """Those that are about the user or about nobody; none when none is about the user."""
    if not any(user_hash_of(record) == user_hash for record in records):
        return []
    return [record for record in records if user_hash_of(record) in (None, user_hash)]


def _summary(span: StoredSpan) -> TraceSummary:
    return TraceSummary(
        trace_id=span.trace_id,
        operation=span.name,
        source=span.source,
        started_at=datetime.fromtimestamp(span.start_ns / 1e9, UTC).isoformat(),
        duration_ms=span.duration_ns / 1e6,
        error=span.error or span.attributes.get("error.type"),
        user_hash=span.attributes.get(USER_HASH),
    )


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
