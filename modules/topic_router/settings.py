"""What topic_router reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given


@dataclass(frozen=True, slots=True)
class TopicRouterSettings:
    """``embedding`` is the whole section, for whoever makes the model of it."""

    threshold: float = 0.7
    fallback_specialist: str | None = None
    context_messages: int = 10
    max_examples: int = 5_000
    unhealthy_after_failures: int = 3
    recover_s: float = 30.0
    route_timeout_s: float = 120.0
    log_retention_days: int = 30
    embedding: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not _is_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise ConfigurationError(f"topic_router.threshold must be from 0 to 1, not {self.threshold!r}")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigurationError(f"topic_router.{_PATHS[name]} must be a whole number from {least} up")
        for name in ("recover_s", "route_timeout_s"):
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigurationError(f"topic_router.{_PATHS[name]} must be above 0, not {getattr(self, name)!r}")
        fallback = self.fallback_specialist
        if fallback is not None and (not isinstance(fallback, str) or not fallback):
            raise ConfigurationError("topic_router.fallback_specialist must be the name of one, or null")
        if not isinstance(self.embedding, Mapping):
            raise ConfigurationError(f"topic_router.embedding must be an object, not {self.embedding!r}")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.topic_router``."""
        return cls(**given(settings, _PATHS))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_WHOLE = {"context_messages": 0, "max_examples": 1, "unhealthy_after_failures": 1, "log_retention_days": 1}
_PATHS = {
    "threshold": "threshold",
    "fallback_specialist": "fallback_specialist",
    "context_messages": "context_messages",
    "max_examples": "max_examples",
    "unhealthy_after_failures": "specialists.failures",
    "recover_s": "specialists.recover_seconds",
    "route_timeout_s": "specialists.route_timeout_seconds",
    "log_retention_days": "log_retention_days",
    "embedding": "embedding",
}
