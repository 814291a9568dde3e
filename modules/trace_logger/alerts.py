"""Says when an operation has become slow or fails often: over a sliding window, once until it is well again. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from .records import StoredSpan
from .settings import TraceSettings

LATENCY, ERROR_RATE = "latency_ms", "error_rate"
_SLICES = 20  # of the window; it is exact to one of them
_MOST_OPERATIONS = 1_000
_OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Alert:
    """``value`` is over ``limit``: the mean latency in milliseconds, or the share of failed calls."""

    operation: str
    kind: str
    value: float
    limit: float
    calls: int
    window_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    failed: int = 0
    duration_ms: float = 0.0


class AlertWindows:
    """Of the first 1000 operations each has its own window; those beyond share one."""

    def __init__(self, settings: TraceSettings) -> None:
        self._settings = settings
        self._slice_s = settings.alert_window_s / _SLICES
        self._windows: dict[str, deque[_Slice]] = {}
        self._raised: set[tuple[str, str]] = set()

    def add(self, spans: list[StoredSpan], now_s: float) -> list[Alert]:
        """Count finished spans. Returns what is to be told because of them."""
        touched = {self._count(span, now_s) for span in spans}
        return [alert for operation in sorted(touched) for alert in self._judge(operation, now_s)]

    def _count(self, span: StoredSpan, now_s: float) -> str:
        operation = span.name
        window = self._windows.get(operation)
        if window is None:
            if len(self._windows) >= _MOST_OPERATIONS:
                operation = _OTHERS
            window = self._windows.setdefault(operation, deque())
        number = int(now_s / self._slice_s)
        if not window or window[-1].number != number:
            window.append(_Slice(number))
        newest = window[-1]
        newest.calls += 1
        newest.failed += span.error is not None
        newest.duration_ms += span.duration_ns / 1e6
        return operation

    def _judge(self, operation: str, now_s: float) -> list[Alert]:
        window = self._windows[operation]
        oldest = int(now_s / self._slice_s) - _SLICES
        while window and window[0].number <= oldest:
            window.popleft()
        calls = sum(one.calls for one in window)
        if calls < self._settings.alert_min_calls:
            return []
        values = {
            LATENCY: (sum(one.duration_ms for one in window) / calls, self._settings.alert_latency_ms),
            ERROR_RATE: (sum(one.failed for one in window) / calls, self._settings.alert_error_rate),
        }
        alerts = []
        for kind, (value, limit) in values.items():
            if value <= limit:
                self._raised.discard((operation, kind))
            elif (operation, kind) not in self._raised:
                self._raised.add((operation, kind))
                alerts.append(Alert(operation, kind, value, limit, calls, self._settings.alert_window_s))
        return alerts
