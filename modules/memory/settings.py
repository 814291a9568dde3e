"""What memory reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given

from .items import WORTH_KEEPING


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Items are counted by user."""

    short_term_ttl_s: float = 3600.0
    short_term_max_items: int = 1000
    long_term_max_items: int = 10_000
    consolidation: str = "importance"
    context_window_tokens: int = 4000
    min_similarity: float = 0.12

    def __post_init__(self) -> None:
        for name, path in _PATHS.items():
            value = getattr(self, name)
            if name == "consolidation":
                if value not in WORTH_KEEPING:
                    allowed = ", ".join(WORTH_KEEPING)
                    raise ConfigurationError(f"memory.{path} must be one of {allowed}, not {value!r}")
            elif name == "min_similarity":
                if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                    raise ConfigurationError(f"memory.{path} must be a number from 0 to 1, not {value!r}")
            elif not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise ConfigurationError(f"memory.{path} must be a number above 0, not {value!r}")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.memory``."""
        return cls(**given(settings, _PATHS))


_PATHS = {
    "short_term_ttl_s": "short_term.ttl_seconds",
    "short_term_max_items": "short_term.max_items",
    "long_term_max_items": "long_term.max_items_per_user",
    "consolidation": "long_term.consolidation",
    "context_window_tokens": "context_window_tokens",
    "min_similarity": "min_similarity",
}
