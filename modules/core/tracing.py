"""Spans: what was done, for how long, and as a part of what. And how a trace goes on in another process.

A tracer only notes finished spans, and events, in a bounded queue that somebody else empties: it never waits, writes or
sends, and it is off until it is turned on. So a module opens spans without knowing whether anybody reads them, or who.

Ids and the text that carries them are those of W3C Trace Context; names of spans and attributes are those of the
OpenTelemetry semantic conventions. The first 32 bits of a trace id are the second at which the trace began, which is
how a trace is found without an index; the other 96 are random. Whether a trace is kept is decided by the lower half of
its id, as OpenTelemetry's ratio sampler does, where it begins; whoever goes on with it follows.
"""

from __future__ import annotations

import re
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from .errors import Conflict, NotFound, PlatformError, RateLimited, ValidationError
from .harmless import about

# By which records travel to whoever collects them: {"source": str, "records": [SpanRecord | EventRecord],
# "dropped": int}.
RECORDS_NOTED = "trace.records.noted"

INTERNAL, SERVER, CLIENT = "internal", "server", "client"

# What the caller did wrong is told, and is no failure of who says so.
_CALLERS_OWN = (ValidationError, NotFound, Conflict, RateLimited)
_NO_FAILURES = (CancelledError, GeneratorExit)
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_RATIO_BITS = 64
_MOST_WHOLE = 1_000


class SpanContext(NamedTuple):
    """What goes with a call so that the other side can go on with the trace: 32 and 16 hex digits, and a decision."""

    trace_id: str
    span_id: str
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    @classmethod
    def parse(cls, traceparent: str | None) -> SpanContext | None:
        """None for what is no ``traceparent``: a trace that cannot be gone on with is begun anew."""
        found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        is_wrong = version == "ff" or (version == "00" and more is not None)
        if is_wrong or not trace_id.strip("0") or not span_id.strip("0"):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & 1))


class SpanRecord(NamedTuple):
    """A finished span. ``start_ns`` is of the epoch. ``error`` is None, or the kind of what went wrong."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    duration_ns: int
    error: str | None
    attributes: Mapping[str, Any]


class EventRecord(NamedTuple):
    """An event that was emitted: ``about`` is what `harmless.about` leaves of its data."""

    trace_id: str
    span_id: str | None
    event: str
    event_id: str
    at: str
    source: str
    about: Mapping[str, Any]


Record = SpanRecord | EventRecord

_current: ContextVar[SpanContext | Span | None] = ContextVar("modchat_span", default=None)


def current() -> SpanContext | None:
    """The innermost open span of this task, or that of the caller that this task works for."""
    span = _current.get()
    return span.context if isinstance(span, Span) else span


def current_traceparent() -> str | None:
    """The same as text, which goes with calls and events."""
    span = _current.get()
    return None if span is None else span.traceparent


def go_on(traceparent: str | None) -> None:
    """From here on, this task works for the span that *traceparent* names, as `current_traceparent` gave it."""
    # Ours, so its parts are where they are. What comes from outside the platform goes through `SpanContext.parse`.
    _current.set(SpanContext(traceparent[3:35], traceparent[36:52], traceparent[-1] == "1") if traceparent else None)


class Span:
    """To be entered once. What it raises ends it: what the caller did wrong as an attribute, the rest as ``error``.
    It has begun when it is made."""

    __slots__ = (
        "_before",
        "_began_ns",
        "_duration_ns",
        "_error",
        "_kind",
        "_parent_id",
        "_start_ns",
        "_tracer",
        "attributes",
        "is_sampled",
        "name",
        "span_id",
        "trace_id",
    )

    def __init__(
        self,
        tracer: Tracer,
        context: tuple[str, str, bool],
        parent_id: str | None,
        name: str,
        kind: str,
        attributes: dict[str, Any],
        start_ns: int,
    ) -> None:
        self.trace_id, self.span_id, self.is_sampled = context
        self.name = name
        self.attributes = attributes
        self._tracer = tracer
        self._parent_id = parent_id
        self._kind = kind
        self._error: str | None = None
        self._start_ns = start_ns
        self._began_ns = tracer.elapsed_ns()

    @property
    def context(self) -> SpanContext:
        return SpanContext(self.trace_id, self.span_id, self.is_sampled)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    def set(self, attribute: str, value: Any) -> None:
        """*value* is text, a number, a truth value or a list of them. Never what people wrote, never a secret."""
        self.attributes[attribute] = value

    def rename(self, name: str) -> None:
        """For a span whose name is known only at its end. A name is of few: no ids in it."""
        self.name = name

    def fail(self, error: str) -> None:
        """Count the span as failed, with the kind of what went wrong."""
        self._error = error

    def end(self) -> None:
        """For a span that was begun and not entered."""
        self._duration_ns = self._tracer.elapsed_ns() - self._began_ns
        if self.is_sampled:
            self._tracer.keep(self)

    def record(self) -> SpanRecord:
        """What is kept of it, once it has ended."""
        return SpanRecord(
            self.trace_id,
            self.span_id,
            self._parent_id,
            self.name,
            self._kind,
            self._start_ns,
            self._duration_ns,
            self._error,
            self.attributes,
        )

    def __enter__(self) -> Self:
        self._before = _current.get()
        _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not by a token: a generator may be closed from another context than the one that it was opened in.
        _current.set(self._before)
        if error is not None:
            self._note(error)
        self._duration_ns = self._tracer.elapsed_ns() - self._began_ns
        if self.is_sampled:
            self._tracer.keep(self)

    def _note(self, error: BaseException) -> None:
        if isinstance(error, _NO_FAILURES):
            self.attributes["cancelled"] = True
            return
        kind = error.code if isinstance(error, PlatformError) else type(error).__name__
        self.attributes["error.type"] = kind
        if not isinstance(error, _CALLERS_OWN):
            self._error = kind


class NoSpan:
    """In the place of a span that nobody keeps."""

    __slots__ = ()
    context: SpanContext | None = None

    def set(self, attribute: str, value: Any) -> None:
        """Nothing."""

    def rename(self, name: str) -> None:
        """Nothing."""

    def fail(self, error: str) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing."""


_NO_SPAN = NoSpan()


class Emitted(Protocol):
    """What `Tracer.note` needs of an event: see `bus.Envelope`."""

    @property
    def event(self) -> str: ...
    @property
    def event_id(self) -> str: ...
    @property
    def timestamp(self) -> str: ...
    @property
    def source_module(self) -> str: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def traceparent(self) -> str: ...


class Tracer:
    """Off at first. Safe for use from several threads. ``dropped`` counts records that found the queue full.
    ``hears_events``: events are noted here where they are emitted, so who collects need not listen to them."""

    def __init__(
        self,
        *,
        random: Random | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        elapsed_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.is_on = False
        self.hears_events = False
        self.dropped = 0
        self.elapsed_ns = elapsed_ns
        self._now_ns = now_ns
        self._random_bits = (random or Random()).getrandbits
        self._bound = 0
        self._max_waiting = 0
        self._noted: deque[Span | Emitted | EventRecord] = deque()

    def turn_on(self, *, sampling_rate: float = 1.0, max_waiting: int = 10_000) -> None:
        """Keep that share of the traces that begin here, and at most so many records that wait."""
        self._bound = round(sampling_rate * (1 << _RATIO_BITS))
        self._max_waiting = max_waiting
        self.is_on = True

    def turn_off(self) -> None:
        """Keep no more. What has been kept can still be drained."""
        self.is_on = False

    def span(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        kind: str = INTERNAL,
        parent: SpanContext | None = None,
    ) -> Span | NoSpan:
        """A span below *parent*, else below the open one of this task, else the first of a new trace."""
        if not self.is_on:
            return _NO_SPAN
        above = parent or _current.get()
        if above is not None and not above.is_sampled and parent is None:
            return _NO_SPAN  # what is below goes on with the one above just as well
        return self._span(name, attributes, kind, above)

    def begin(self, name: str, attributes: Mapping[str, Any] | None = None, *, trace_id: str | None = None) -> Span:
        """A span that is ended by `Span.end`, below the open one of this task, else the first of the trace *trace_id*;
        also while nobody collects, so that there is one to be ended."""
        return self._span(name, attributes, INTERNAL, _current.get(), trace_id)

    def _span(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        kind: str,
        above: SpanContext | Span | None,
        trace_id: str | None = None,
    ) -> Span:
        now_ns = self._now_ns()
        if above is not None:
            context = (above.trace_id, f"{self._random_bits(64) or 1:016x}", above.is_sampled)
            parent_id = above.span_id
        else:
            # One number for both ids: 96 bits of the trace's, 64 of the span's.
            digits = f"{self._random_bits(160) | 1:040x}"
            if trace_id is None or not is_trace_id(trace_id):
                trace_id = f"{now_ns // 1_000_000_000 & 0xFFFFFFFF:08x}{digits[:24]}"
            context = (trace_id, digits[24:], int(trace_id[16:], 16) < self._bound)
            parent_id = None
        return Span(self, context, parent_id, name, kind, dict(attributes) if attributes else {}, now_ns)

    def note(self, emitted: Emitted) -> None:
        """Note an event, unless its trace is not kept."""
        if not self.is_on or emitted.traceparent.endswith("-00"):
            return
        # What it is about is worked out when there is time. But its data may be long, and must not pile up.
        self.keep(emitted if len(self._noted) < _MOST_WHOLE else _event_record(emitted))

    def keep(self, noted: Span | Emitted | EventRecord) -> None:
        """Queue what was noted, or count that there was no room."""
        if len(self._noted) < self._max_waiting:
            self._noted.append(noted)
        else:
            self.dropped += 1

    def drain(self, at_most: int) -> list[Record]:
        """The oldest records, which are then no longer here."""
        noted = self._noted
        return [_record(noted.popleft()) for _ in range(min(at_most, len(noted)))]


def _record(noted: Span | Emitted | EventRecord) -> Record:
    if isinstance(noted, Span):
        return noted.record()
    return noted if isinstance(noted, EventRecord) else _event_record(noted)


def _event_record(emitted: Emitted) -> EventRecord:
    return EventRecord(
        emitted.trace_id,
        emitted.traceparent[36:52] or None,
        emitted.event,
        emitted.event_id,
        emitted.timestamp,
        emitted.source_module,
        about(emitted.data),
    )


def is_trace_id(text: object) -> bool:
    return isinstance(text, str) and _TRACE_ID.fullmatch(text) is not None


def began_at_s(trace_id: str) -> int:
    """The second of the epoch at which a trace of ours began; of a trace from elsewhere it means nothing."""
    return int(trace_id[:8], 16)
