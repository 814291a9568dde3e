"""Traces, logs and the audit trail: what was done on the platform, how long it took, and who is answerable for it.

Two promises that differ. Traces may be lost: everything on their way is bounded, drops what does not fit, and counts
it, because nobody's answer may wait for a log. Audit entries are never lost: whoever asks for one waits until it is on
the disk, or hears that it is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from modules.core.clock import Clock, SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, StorageError, ValidationError
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.core.tracing import current, is_trace_id
from modules.core.types import ModuleInfo

from . import audit_check
from .alerts import AlertWindows
from .audit_chain import AuditEntry, Head, check_action
from .audit_check import AuditReport
from .audit_trail import ERASE, AuditDraft, AuditTrail
from .audit_writer import AuditWriter
from .dead_letters import erase_letters, letters_of
from .intake import Intake
from .open_traces import OpenTraces, StartedTrace
from .otlp import OtlpExport
from .performance import PerformanceReport, TimeRange, range_of
from .pseudonyms import Pseudonyms
from .queries import TraceList, TraceQueries
from .records import StoredSpan, stored_log
from .redaction import redacted
from .settings import TraceSettings
from .trace_events import TraceEvents
from .trace_files import TraceFiles
from .trace_tree import Trace

log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 0.25
_MOST_AT_ONCE = 10_000
_MOST_LISTED = 1_001  # a page of as many as a page may have, and one more, which says that there is one
_LONGEST_RESOURCE = 1_024
_ERASED = "[erased]"
_FAILURES = frozenset({"error", "critical"})


@dataclass(frozen=True, slots=True)
class TraceErasure:
    """What was removed of a user."""

    user_id: str
    records: int
    audit_entries: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """Records since the start: ``recorded`` are on the disk, ``dropped`` found a queue full, ``lost`` were refused by
    the disk. ``exported``, ``export_failed``, ``export_dropped`` are spans for the collector."""

    recorded: int
    dropped: int
    lost: int
    exported: int = 0
    export_failed: int = 0
    export_dropped: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


class TraceLoggerModule:
    """*config* is the mapping under ``modules.trace_logger``. One process at a time writes the audit trail."""

    info = ModuleInfo(
        name="trace_logger", version="1.0", capabilities=("traces", "logs", "audit", "performance", "alerts")
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        base_path: Path | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = TraceSettings.read(config or {})
        self._given_config = config
        self._files = None if base_path is None else FlatFiles(base_path)
        self._clock = clock or SystemClock()
        self._flushing: asyncio.Task[None] | None = None
        self._emitting: set[asyncio.Task[Any]] = set()

    async def initialize(self, context: ModuleContext) -> None:
        """Take settings and storage from *context* where none were given; listen to everything.

        Raises ConfigurationError for wrong settings, Conflict when another process writes the audit trail, and
        StorageError.
        """
        if self._given_config is None:
            self._settings = TraceSettings.read(context.get_config("trace_logger", {}))
        if self._files is None:
            storage = context.get_storage()
            if not isinstance(storage, FlatFileStorage):
                raise ConfigurationError("trace_logger keeps flat files; set storage.backend to 'flatfile'")
            self._files = storage.files
        settings, files = self._settings, self._files
        self._context = context
        self._pseudonyms = await asyncio.to_thread(Pseudonyms, files)
        self._traces = TraceFiles(files, settings.rotate)
        self._queries = TraceQueries(self._traces)
        self._alerts = AlertWindows(settings)
        trail = await asyncio.to_thread(AuditTrail, files, self._clock)
        try:
            self._otlp = self._exporting()
        except BaseException:
            trail.close()  # else nobody could write it until this process ends
            raise
        self._audit = AuditWriter(trail)
        self._intake = Intake(
            self._traces, self._pseudonyms, self._clock, max_queued=settings.max_queued, told=self._written
        )
        context.tracer.turn_on(sampling_rate=settings.sampling_rate, max_waiting=settings.max_queued)
        self._open = OpenTraces(context.tracer)
        self._events = TraceEvents(self, self._intake, context)
        self._events.listen()
        self._flushing = asyncio.create_task(self._keep_flushing())

    async def health_check(self) -> bool:
        """Whether something could be recorded now."""
        try:
            await asyncio.to_thread(self._on_disk().probe)
        except StorageError:
            log.warning("trace_logger cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Write what has come in, finish the audit, give the exporter a moment."""
        self._events.stop()
        self._open.end_all()
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        await self._flush()
        self._context.tracer.turn_off()
        if self._otlp is not None:
            await self._otlp.close()
        if self._emitting:
            await asyncio.wait(self._emitting)
        await self._audit.close()

    # -- traces ------------------------------------------------------------------------------------------------

    async def start_trace(
        self, operation: str, metadata: Mapping[str, Any] | None = None, *, trace_id: str | None = None
    ) -> StartedTrace:
        """Begin a trace (*trace_id*, where it is given); within a call that belongs to one, a part of that. It is
        measured until `end_trace`.

        *metadata* become its attributes; secrets and what people wrote are left out of them. Raises ValidationError.
        """
        started = self._open.start(operation, metadata, trace_id)
        await self._context.emit("trace.span.created", started.to_dict())
        return started

    async def end_trace(
        self,
        trace_id: str,
        span_id: str | None = None,
        *,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """End what `start_trace` began: as failed, where *error* names the kind of what went wrong. Raises NotFound."""
        if error is not None and (not isinstance(error, str) or not error):
            raise ValidationError("error must be text and not empty where it is given", param="error")
        span = self._open.end(trace_id, span_id, error, metadata)
        data = {"trace_id": trace_id, "span_id": span.context.span_id, "operation": span.name, "error": error}
        await self._context.emit("trace.span.completed", data)

    async def log_event(self, level: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Note something, in the trace of the caller. Does not wait for the disk: a full queue drops it, and counts it.

        *level* is debug, info, warning, error or critical. Secrets in *data* are left out, and of what people wrote
        (``content``, ``prompt``, ...) only the length is kept, unless ``record_content`` is set.
        """
        span, at = current(), self._clock.now().isoformat()
        keep_content = self._settings.record_content
        record = stored_log(level, message, data, span, at, self._pseudonyms, keep_content=keep_content)
        self._intake.add(record)
        if level in _FAILURES:
            told = {"level": level, "message": record.message, "trace_id": record.trace_id}
            await self._context.emit("error.logged", told)

    async def get_trace(self, trace_id: str, *, user_id: str | None = None) -> Trace:
        """The spans of a trace as a tree, with its events and logs. What others have noted arrives within half a
        second.

        With *user_id*, only a trace in which that user's spans are. Raises NotFound, ValidationError.
        """
        if not is_trace_id(trace_id):
            raise ValidationError(f"a trace id has 32 hex digits; not {trace_id!r}", param="trace_id")
        await self._flush()
        return await asyncio.to_thread(self._queries.get, trace_id, self._clock.now(), self._hash_of(user_id))

    async def list_traces(
        self,
        time_range: TimeRange = "24h",
        limit: int = 50,
        *,
        operation: str | None = None,
        only_failed: bool = False,
        user_id: str | None = None,
    ) -> TraceList:
        """Traces that began within a time, newest first, by their first spans; *operation* is the name of that."""
        _check_limit(limit)
        start, end = range_of(time_range, self._clock.now())
        await self._flush()
        newest = partial(
            self._queries.newest, operation=operation, only_failed=only_failed, user_hash=self._hash_of(user_id)
        )
        return await asyncio.to_thread(newest, start, end, limit)

    async def analyze_performance(
        self, time_range: TimeRange = "1h", operation: str | None = None
    ) -> PerformanceReport:
        """Calls, failures and percentiles by operation, from every kept span that began within a time.

        *time_range* is a length until now (``"15m"``, ``"24h"``, ``"7d"``, or seconds), or two moments. Raises
        ValidationError.
        """
        start, end = range_of(time_range, self._clock.now())
        await self._flush()
        return await asyncio.to_thread(self._queries.measure, start, end, operation)

    async def counts(self) -> TraceCounts:
        """What became of records since the start."""
        noted = self._intake.counts
        dropped = noted.dropped + self._context.tracer.dropped
        if self._otlp is None:
            return TraceCounts(noted.recorded, dropped, noted.lost)
        otlp = self._otlp
        return TraceCounts(noted.recorded, dropped, noted.lost, otlp.sent, otlp.failed, otlp.dropped)

    async def tidy(self) -> tuple[int, int]:
        """Compress what is old, delete what is older. Returns how many files and days. To be called now and then by
        whoever runs the module."""
        tidied = partial(
            self._traces.tidy,
            compress_after=timedelta(days=self._settings.compress_after_days),
            keep_for=timedelta(days=self._settings.retention_days),
        )
        return await asyncio.to_thread(tidied, self._clock.now())

    # -- audit -------------------------------------------------------------------------------------------------

    async def create_audit_entry(
        self,
        action: str,
        user_id: str,
        resource: str,
        details: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AuditEntry:
        """Record who did what to what; when this returns it is on the disk.

        *action* is a name such as ``tool.execute``, and stays for ever; everything else goes when the user is erased.
        *user_id* is ``""`` for the platform itself. An entry about the erasure of a user (``user.erase...``) that comes
        after it names that user no more. Secrets in *details* are left out. With an *idempotency_key*, the
        same request again gives the first one's entry, as long as that is among the last 1000. Raises ValidationError,
        StorageError; after the latter, ask again with the same key.
        """
        check_action(action)
        _check_text("user_id", user_id)
        _check_text("resource", resource)
        if len(resource) > _LONGEST_RESOURCE:
            raise ValidationError(f"resource has {len(resource)} characters of {_LONGEST_RESOURCE}", param="resource")
        if details is not None and not isinstance(details, Mapping):
            raise ValidationError("details must be a mapping", param="details")
        if idempotency_key is not None:
            _check_text("idempotency_key", idempotency_key)
        kept = redacted(details or {}, keep_content=self._settings.record_content)
        if action.startswith(ERASE) and self._intake.is_erased(self._pseudonyms(user_id)):
            # That somebody was erased is told once they are: by an entry that names them no more.
            user_id, resource, kept = "", resource.replace(user_id, _ERASED), _without(kept, user_id)
        return await self._audit.record(AuditDraft(action, user_id, resource, kept, idempotency_key))

    async def list_audit_entries(
        self, limit: int = 50, *, user_id: str | None = None, action: str | None = None, before: int | None = None
    ) -> tuple[AuditEntry, ...]:
        """Newest first; with *before*, those with smaller numbers."""
        _check_limit(limit)
        if before is not None and (not isinstance(before, int) or before < 1):
            raise ValidationError("before must be the number of an entry", param="before")

        def listed(trail: AuditTrail) -> list[AuditEntry]:
            return trail.entries(user_id=user_id, action=action, limit=limit, before=before)

        return tuple(await self._audit.alone(listed))

    async def verify_audit(self, expected: str | None = None) -> AuditReport:
        """Whether every byte of the trail is as it was written. *expected*: a head that was kept elsewhere."""
        head = None if expected is None else Head.parse(expected)
        return await asyncio.to_thread(partial(audit_check.verify, self._on_disk(), expected=head))

    # -- users -------------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: all records of the traces that are about them, their audit entries, and undelivered
        events."""
        _check_user(user_id)
        await self._flush()
        user_hash = self._pseudonyms(user_id)
        records = await asyncio.to_thread(self._queries.of_user, user_hash)
        entries = await self._audit.alone(lambda trail: trail.entries(user_id=user_id))
        return {
            "user_id": user_id,
            "user_hash": user_hash,
            "records": msgspec.to_builtins(records),
            "audit": [entry.to_dict() for entry in entries],
            "dead_letters": await asyncio.to_thread(letters_of, self._on_disk(), user_id),
        }

    async def erase_user(self, user_id: str) -> TraceErasure:
        """Remove all records of the traces that are about a user, who their audit entries were about and what those
        said, and undelivered events. The audit trail stays whole: it then says that somebody did this or that, and that
        who it was has been erased. Cannot be undone. Raises StorageError where a file cannot be read or written."""
        _check_user(user_id)
        user_hash = self._pseudonyms(user_id)
        self._intake.forget(user_hash)
        self._open.forget_user(user_id)
        await self._flush()
        records = await asyncio.to_thread(lambda: self._traces.remove(self._queries.concerns(user_hash)))
        entries = await self._audit.alone(lambda trail: trail.erase(user_id))
        letters = await asyncio.to_thread(erase_letters, self._on_disk(), user_id)
        return TraceErasure(user_id, records, entries, letters)

    # -- below -------------------------------------------------------------------------------------------------

    def _exporting(self) -> OtlpExport | None:
        endpoint = self._settings.otlp_endpoint
        return None if endpoint is None else OtlpExport(endpoint, max_waiting=self._settings.max_queued)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            try:
                await self._flush()
            except Exception:  # the loop that owns the flushing: without it nothing would be written any more
                log.exception("records of traces could not be written")

    async def _flush(self) -> None:
        self._intake.take(f"{self.info.name}-0", self._context.tracer.drain(_MOST_AT_ONCE))
        await self._intake.flush()

    def _written(self, spans: list[StoredSpan]) -> None:
        for alert in self._alerts.add(spans, self._clock.monotonic()):
            log.warning("%s: %s is %.3g, over %.3g", alert.operation, alert.kind, alert.value, alert.limit)
            task = asyncio.create_task(self._emit_alert(alert.to_dict()))
            self._emitting.add(task)
            task.add_done_callback(self._emitting.discard)
        if self._otlp is not None:
            self._otlp.offer(spans)

    async def _emit_alert(self, alert: dict[str, Any]) -> None:
        await self._context.emit("performance.alert", alert)

    def _hash_of(self, user_id: str | None) -> str | None:
        return None if user_id is None else self._pseudonyms(user_id)

    def _on_disk(self) -> FlatFiles:
        if self._files is None:
            raise ConfigurationError("trace_logger needs a base path: initialize it with a context that has storage")
        return self._files


def _without(value: Any, user_id: str) -> Any:
    """JSON without a user's name in it."""
    if isinstance(value, dict):
        return {_without(key, user_id): _without(inner, user_id) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, user_id) for inner in value]
    return value.replace(user_id, _ERASED) if isinstance(value, str) else value


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MOST_LISTED:
        raise ValidationError(f"limit must be from 1 to {_MOST_LISTED}, not {limit!r}", param="limit")


def _check_text(param: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValidationError(f"{param} must be text", param=param)


def _check_user(user_id: object) -> None:
    if not isinstance(user_id, str) or not user_id:
        raise ValidationError("user_id must be text and not empty", param="user_id")
