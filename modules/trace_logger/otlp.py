"""Hands spans to an OpenTelemetry collector, beside everything else: OTLP over HTTP, by OpenTelemetry's own exporter.

Spans are recorded as plain tuples, which costs a tenth of what the SDK's span objects do, and become the SDK's here,
where nobody waits. Headers, certificates and compression come from the environment variables that the OpenTelemetry
specification names (``OTEL_EXPORTER_OTLP_HEADERS``, ...).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from modules.core.errors import ConfigurationError

from .records import StoredSpan

log = logging.getLogger(__name__)

EXTRA = "otlp"
_PATH = "/v1/traces"
_PAUSE_S = 1.0
_MOST_AT_ONCE = 512
_TIMEOUT_S = 10.0


class Exporter(Protocol):
    """What is needed of ``opentelemetry.sdk.trace.export.SpanExporter``. Synchronous; may take seconds."""

    def export(self, spans: Sequence[Any]) -> Any: ...
    def shutdown(self) -> None: ...


class OtlpExport:
    """*endpoint* is the collector's address; ``/v1/traces`` is added where it is missing. ``dropped`` counts spans that
    found the queue full, ``failed`` those that the collector did not take, ``sent`` the others.

    Raises ConfigurationError when the exporter is not installed. Needs a running loop.
    """

    def __init__(self, endpoint: str, *, max_waiting: int, make: Callable[[str], Exporter] | None = None) -> None:
        self.sent = self.failed = self.dropped = 0
        self._spans_of = _Conversion()
        address = endpoint if endpoint.rstrip("/").endswith(_PATH) else endpoint.rstrip("/") + _PATH
        self._exporter = (make or _exporter)(address)
        self._max_waiting = max_waiting
        self._waiting: deque[StoredSpan] = deque()
        self._is_closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def offer(self, spans: Sequence[StoredSpan]) -> None:
        """Queue spans. Never waits."""
        room = max(0, self._max_waiting - len(self._waiting))
        self._waiting.extend(spans[:room])
        self.dropped += max(0, len(spans) - room)

    async def close(self, *, grace_s: float = 2.0) -> None:
        """Give what is queued that much time to leave; what then remains counts as dropped."""
        self._is_closing.set()
        await asyncio.wait([self._task], timeout=grace_s)
        self.dropped += len(self._waiting)
        self._waiting.clear()
        # Ends the exporter's own waiting for a collector that does not answer, so the thread below ends too.
        await asyncio.to_thread(self._exporter.shutdown)
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting or not self._is_closing.is_set():
            if self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
                await self._export(batch)
            else:
                try:
                    async with asyncio.timeout(_PAUSE_S):
                        await self._is_closing.wait()
                except TimeoutError:
                    continue

    async def _export(self, batch: list[StoredSpan]) -> None:
        try:
            outcome = await asyncio.to_thread(lambda: self._exporter.export([self._spans_of(span) for span in batch]))
            is_sent = outcome.name == "SUCCESS"
        except Exception:  # the loop that owns the exporter, which is foreign code: counted, and it goes on
            log.exception("%d spans could not be exported", len(batch))
            is_sent = False
        if is_sent:
            self.sent += len(batch)
        else:
            if not self.failed:
                log.warning("the collector does not take spans; those that it does not take are counted")
            self.failed += len(batch)


class _Conversion:
    """From our spans to the SDK's."""

    def __init__(self) -> None:
        self._api = _imported("opentelemetry.trace")
        self._sdk = _imported("opentelemetry.sdk.trace")
        self._scopes = _imported("opentelemetry.sdk.util.instrumentation")
        resources = _imported("opentelemetry.sdk.resources")
        self._resource = resources.Resource.create({"service.name": "modchat"})

    def __call__(self, span: StoredSpan) -> Any:
        status = self._api.Status(self._api.StatusCode.ERROR, span.error) if span.error else self._api.Status()
        return self._sdk.ReadableSpan(
            name=span.name,
            context=self._context(span.trace_id, span.span_id, is_remote=False),
            parent=None if span.parent_id is None else self._context(span.trace_id, span.parent_id, is_remote=True),
            resource=self._resource,
            attributes=_plain(span.attributes),
            kind=getattr(self._api.SpanKind, span.kind.upper()),
            status=status,
            start_time=span.start_ns,
            end_time=span.start_ns + span.duration_ns,
            instrumentation_scope=self._scopes.InstrumentationScope(f"modchat.{span.source}"),
        )

    def _context(self, trace_id: str, span_id: str, *, is_remote: bool) -> Any:
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        return self._api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, flags)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenTelemetry takes for an attribute: no null, and no object."""
    kept: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, list):
            kept[name] = [one if isinstance(one, bool | int | float | str) else str(one) for one in value]
        elif value is not None:
            kept[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return kept


def _exporter(address: str) -> Exporter:
    found = _imported("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter: Exporter = found.OTLPSpanExporter(endpoint=address, timeout=_TIMEOUT_S)
    return exporter


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"trace_logger.otlp_endpoint is set, and exporting needs the extra {EXTRA!r}: "
            f"pip install 'modchat[{EXTRA}]' ({error})"
        ) from error
