"""How long operations took, and how often they failed: from spans to percentiles. Pure."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from modules.core.clock import moment_of
from modules.core.errors import ValidationError

from .records import StoredSpan

_PERCENTILES = (50, 90, 95, 99)
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

TimeRange = str | int | float | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OperationTimes:
    """Milliseconds. ``failed`` are those that ended in an error of the platform's own; ``error_rate`` their share."""

    operation: str
    calls: int
    failed: int
    error_rate: float
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """Operations that took the most time in all come first. ``unreadable``: files whose spans are missing."""

    start: str
    end: str
    operations: tuple[OperationTimes, ...]
    unreadable: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        return {"object": "performance_report", **asdict(self)}


def range_of(time_range: TimeRange, now: datetime) -> tuple[datetime, datetime]:
    """What a time range means: ``"15m"``, ``"24h"``, ``"7d"`` or a number of seconds until now; or two moments, as a
    pair or as ``{"start", "end"}``. Raises ValidationError."""
    if isinstance(time_range, Mapping):
        time_range = (time_range.get("start", ""), time_range.get("end", now.isoformat()))
    if isinstance(time_range, str):
        found = _LENGTH.fullmatch(time_range.strip())
        if found is None:
            raise _no_range(time_range)
        time_range = float(found[1]) * _UNITS_S[found[2]]
    if isinstance(time_range, int | float) and not isinstance(time_range, bool):
        try:
            return now - timedelta(seconds=time_range), now
        except (OverflowError, ValueError):
            raise _no_range(time_range) from None
    if not isinstance(time_range, Sequence) or len(time_range) != 2:
        raise _no_range(time_range)
    start, end = (moment_of(one) if isinstance(one, str) else None for one in time_range)
    if start is None or end is None or start > end:
        raise _no_range(time_range)
    try:
        return start.astimezone(UTC), end.astimezone(UTC)
    except OverflowError:  # of the first or the last day there is, by its zone the day before or after
        raise _no_range(time_range) from None


class Measuring:
    """Adds up spans, by name, that began between two moments of the epoch, in nanoseconds."""

    def __init__(self, start_ns: int, end_ns: int, operation: str | None = None) -> None:
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._operation = operation
        self._durations: dict[str, array[int]] = {}
        self._failed: dict[str, int] = {}

    def add(self, span: StoredSpan) -> None:
        if not self._start_ns <= span.start_ns <= self._end_ns or self._operation not in (None, span.name):
            return
        durations = self._durations.get(span.name)
        if durations is None:
            durations = self._durations[span.name] = array("q")
        durations.append(span.duration_ns)
        if span.error is not None:
            self._failed[span.name] = self._failed.get(span.name, 0) + 1

    def times(self) -> tuple[OperationTimes, ...]:
        by_total = sorted(self._durations.items(), key=lambda item: -sum(item[1]))
        return tuple(times_of(name, durations, self._failed.get(name, 0)) for name, durations in by_total)


def times_of(operation: str, durations_ns: Iterable[int], failed: int) -> OperationTimes:
    """At least one duration. Percentiles are interpolated between neighbours."""
    ms = np.asarray(durations_ns, dtype=np.float64) / 1e6
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ms, _PERCENTILES))
    return OperationTimes(
        operation=operation,
        calls=len(ms),
        failed=failed,
        error_rate=failed / len(ms),
        mean_ms=float(ms.mean()),
        min_ms=float(ms.min()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=float(ms.max()),
    )


def _no_range(value: object) -> ValidationError:
    return ValidationError(
        f"time_range must be a length such as 15m, 24h or 7d, a number of seconds, or two moments; not {value!r}",
        param="time_range",
    )
