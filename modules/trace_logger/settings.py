"""What trace_logger reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given

ROTATIONS = ("hour", "day")


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """``sampling_rate`` and ``alert_error_rate`` are shares, from 0 to 1. ``alert_min_calls``: of fewer calls within
    the window, nothing is concluded. ``record_content``: what people wrote is kept in logs, not only its length."""

    sampling_rate: float = 1.0
    retention_days: float = 30
    compress_after_days: float = 1
    rotate: str = "day"
    max_queued: int = 10_000
    otlp_endpoint: str | None = None
    record_content: bool = False
    alert_latency_ms: float = 5_000.0
    alert_error_rate: float = 0.05
    alert_window_s: float = 300.0
    alert_min_calls: int = 10

    def __post_init__(self) -> None:
        if self.rotate not in ROTATIONS:
            raise ConfigurationError(f"trace_logger.rotate must be one of {', '.join(ROTATIONS)}, not {self.rotate!r}")
        if self.otlp_endpoint is not None and not isinstance(self.otlp_endpoint, str):
            raise ConfigurationError("trace_logger.otlp_endpoint must be an address or null")
        if not isinstance(self.record_content, bool):
            raise ConfigurationError("trace_logger.record_content must be true or false")
        for name in _SHARES:
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"trace_logger.{_PATHS[name]} must be from 0 to 1, not {getattr(self, name)!r}"
                )
        for name in _POSITIVE:
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"trace_logger.{_PATHS[name]} must be a number above 0, not {getattr(self, name)!r}"
                )

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.trace_logger``."""
        if settings.get("shards", 1) != 1:
            raise ConfigurationError("trace_logger.shards must be 1: the audit trail has one writer")
        return cls(**given(settings, _PATHS))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PATHS = {
    "sampling_rate": "sampling_rate",
    "retention_days": "retention_days",
    "compress_after_days": "compress_after_days",
    "rotate": "rotate",
    "max_queued": "max_queued",
    "otlp_endpoint": "otlp_endpoint",
    "record_content": "record_content",
    "alert_latency_ms": "alerts.latency_ms",
    "alert_error_rate": "alerts.error_rate",
    "alert_window_s": "alerts.window_seconds",
    "alert_min_calls": "alerts.min_calls",
}
_SHARES = ("sampling_rate", "alert_error_rate")
_POSITIVE = (
    "retention_days",
    "compress_after_days",
    "max_queued",
    "alert_latency_ms",
    "alert_window_s",
    "alert_min_calls",
)
