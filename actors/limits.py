"""The figures that bound calls, streams and events, as they stand under ``runtime`` in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """Times in seconds. A host begins at most ``max_running`` calls at a time and lets ``max_waiting`` more wait."""

    call_timeout_s: float = 60.0
    restart_wait_s: float = 30.0
    max_calls_per_batch: int = 64
    handler_timeout_s: float = 30.0
    max_handlers_per_event: int = 100
    max_queued_events: int = 10_000
    max_events_per_batch: int = 256
    max_running: int = 256
    max_waiting: int = 4096
    max_streams: int = 256
    stream_idle_s: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise ConfigurationError(f"runtime.{_PATHS.get(name, name)} must be a number above 0, not {value!r}")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* is the mapping under ``runtime``; what is not in it keeps its default."""
        return cls(**given(settings, _PATHS))


_PATHS = {
    "call_timeout_s": "call_timeout_seconds",
    "restart_wait_s": "restart_wait_seconds",
    "max_calls_per_batch": "max_calls_per_batch",
    "handler_timeout_s": "events.handler_timeout_seconds",
    "max_handlers_per_event": "events.max_handlers_per_event",
    "max_queued_events": "events.max_queued",
}
