"""A trace as a tree of its spans. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .records import Stored, StoredEvent, StoredLog, StoredSpan

_DEEPEST = 100
_SHOWN = (
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "http.response.status_code",
    "error.type",
)


@dataclass(frozen=True, slots=True)
class SpanNode:
    """``is_orphan``: its parent is not among the spans that are there: it began elsewhere, goes on, or was dropped."""

    span: StoredSpan
    children: tuple[SpanNode, ...] = ()
    is_orphan: bool = False

    def to_dict(self) -> dict[str, Any]:
        node: dict[str, Any] = msgspec.to_builtins(self.span)
        del node["record"]
        return {**node, "is_orphan": self.is_orphan, "children": [child.to_dict() for child in self.children]}


@dataclass(frozen=True, slots=True)
class Trace:
    """``roots``, and each node's children, in the order of their beginnings. ``is_cut``: there are more records than
    are shown. ``unreadable``: files that could not be read, and may hold more of it."""

    trace_id: str
    roots: tuple[SpanNode, ...]
    events: tuple[StoredEvent, ...] = ()
    logs: tuple[StoredLog, ...] = ()
    is_cut: bool = False
    unreadable: tuple[str, ...] = field(default=())

    @property
    def spans(self) -> tuple[StoredSpan, ...]:
        return tuple(node.span for _, node in walk(self.roots))

    @property
    def duration_ms(self) -> float:
        """From the first beginning to the last end."""
        spans = self.spans
        if not spans:
            return 0.0
        end = max(span.start_ns + span.duration_ns for span in spans)
        return (end - min(span.start_ns for span in spans)) / 1e6

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.trace_id,
            "object": "trace",
            "duration_ms": self.duration_ms,
            "span_count": len(self.spans),
            "roots": [root.to_dict() for root in self.roots],
            "events": msgspec.to_builtins(self.events),
            "logs": msgspec.to_builtins(self.logs),
            "is_cut": self.is_cut,
            "unreadable": list(self.unreadable),
        }

    def as_text(self) -> str:
        """The tree for people: a line a span, with what it took."""
        return "\n".join(f"{'  ' * depth}{_line(node)}" for depth, node in walk(self.roots))


def trace_of(
    trace_id: str, records: Iterable[Stored], *, is_cut: bool = False, unreadable: tuple[str, ...] = ()
) -> Trace:
    spans: dict[str, StoredSpan] = {}
    events: dict[str, StoredEvent] = {}
    logs = []
    for record in records:
        if isinstance(record, StoredSpan):
            spans[record.span_id] = record  # the same one again, when a batch came twice
        elif isinstance(record, StoredEvent):
            events[record.event_id] = record
        else:
            logs.append(record)
    below: defaultdict[str | None, list[StoredSpan]] = defaultdict(list)
    for span in sorted(spans.values(), key=lambda one: one.start_ns):
        below[span.parent_id if span.parent_id in spans else None].append(span)
    return Trace(
        trace_id,
        tuple(_roots(list(spans.values()), below)),
        tuple(sorted(events.values(), key=lambda event: event.at)),
        tuple(sorted(logs, key=lambda one: one.at)),
        is_cut,
        unreadable,
    )


def walk(nodes: Iterable[SpanNode], depth: int = 0) -> Iterator[tuple[int, SpanNode]]:
    """Each node with its depth, parents before their children."""
    for node in nodes:
        yield depth, node
        yield from walk(node.children, depth + 1)


def _roots(spans: list[StoredSpan], below: dict[str | None, list[StoredSpan]]) -> Iterator[SpanNode]:
    """Trees that hold every span once: those without a parent here first, then what is too deep below them, then what
    only damaged records can be, each other's parents."""
    reached: set[str] = set()
    waiting = deque([*below[None], *sorted(spans, key=lambda one: one.start_ns)])
    while waiting:
        span = waiting.popleft()
        if span.span_id not in reached:
            yield _node(span, below, reached, 1)


def _node(span: StoredSpan, below: dict[str | None, list[StoredSpan]], reached: set[str], depth: int) -> SpanNode:
    reached.add(span.span_id)
    children = []
    if depth < _DEEPEST:
        for child in below.get(span.span_id, ()):
            if child.span_id not in reached:
                children.append(_node(child, below, reached, depth + 1))
    return SpanNode(span, tuple(children), is_orphan=depth == 1 and span.parent_id is not None)


def _line(node: SpanNode) -> str:
    span = node.span
    shown = [f"{name.rpartition('.')[2]}={span.attributes[name]}" for name in _SHOWN if name in span.attributes]
    failed = [f"FAILED: {span.error}"] if span.error else []
    return "  ".join([f"{span.name}  {span.duration_ns / 1e6:.1f} ms  [{span.source}]", *shown, *failed])
