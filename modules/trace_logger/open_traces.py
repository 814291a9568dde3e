"""Spans that are begun by one call and ended by another: what `start_trace` gives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modules.core.errors import NotFound, ValidationError
from modules.core.tracing import Span, Tracer

from .records import USER_ID

_MOST_OPEN = 10_000
_LONGEST_OPERATION = 200
UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class StartedTrace:
    """``traceparent`` goes with requests to others, so that they go on with the trace (W3C Trace Context)."""

    trace_id: str
    span_id: str
    operation: str
    traceparent: str
    is_sampled: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class OpenTraces:
    """At most 10 000: the oldest one is ended as unfinished when there is one more."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: OrderedDict[tuple[str, str], Span] = OrderedDict()

    def start(self, operation: str, metadata: Mapping[str, Any] | None, trace_id: str | None = None) -> StartedTrace:
        """Begin a trace (*trace_id* where it is given), or, within a call that belongs to one, a span of that. Raises
        ValidationError."""
        if not isinstance(operation, str) or not 0 < len(operation) <= _LONGEST_OPERATION:
            raise ValidationError(f"operation must be text of 1 to {_LONGEST_OPERATION} characters", param="operation")
        span = self._tracer.begin(operation, _attributes(metadata), trace_id=trace_id)
        context = span.context
        self._open[context.trace_id, context.span_id] = span
        if len(self._open) > _MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            _end(oldest, UNFINISHED)
        return StartedTrace(context.trace_id, context.span_id, operation, context.traceparent, context.is_sampled)

    def end(self, trace_id: str, span_id: str | None, error: str | None, metadata: Mapping[str, Any] | None) -> Span:
        """End a span; without *span_id* the one of that trace that was begun last. Raises NotFound."""
        if span_id is None:
            span_id = next((key[1] for key in reversed(self._open) if key[0] == trace_id), None)
        span = None if span_id is None else self._open.pop((trace_id, span_id), None)
        if span is None:
            raise NotFound(f"no span of trace {trace_id!r} is open")
        span.attributes.update(_attributes(metadata))
        _end(span, error)
        return span

    def end_all(self) -> None:
        """End every open span as unfinished."""
        while self._open:
            _, span = self._open.popitem(last=False)
            _end(span, UNFINISHED)

    def forget_user(self, user_id: str) -> None:
        """Drop the open spans that are about a user."""
        for key in [key for key, span in self._open.items() if span.attributes.get(USER_ID) == user_id]:
            del self._open[key]


def _end(span: Span, error: str | None) -> None:
    if error is not None:
        span.fail(error)
    span.end()


def _attributes(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ValidationError("metadata must be a mapping", param="metadata")
    names = {"user_id": USER_ID, "session_id": "session.id"}
    return {names.get(str(key), str(key)): value for key, value in metadata.items()}
