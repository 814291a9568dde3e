"""What persona reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given


@dataclass(frozen=True, slots=True)
class PersonaSettings:
    """``embedding`` is the whole section, for whoever makes the model of it. ``max_versions`` counts those of one
    persona."""

    max_personas_per_user: int = 20
    max_global_personas: int = 50
    max_versions: int = 100
    consistency_threshold: float = 0.7
    template_timeout_s: float = 0.25
    embedding: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("max_personas_per_user", "max_global_personas", "max_versions"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"persona.{_PATHS[name]} must be a whole number above 0, not {value!r}")
        threshold, timeout_s = self.consistency_threshold, self.template_timeout_s
        if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold <= 1:
            raise ConfigurationError(f"persona.consistency_threshold must be from 0 to 1, not {threshold!r}")
        if not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool) or timeout_s <= 0:
            raise ConfigurationError(f"persona.template_timeout_seconds must be above 0, not {timeout_s!r}")
        if not isinstance(self.embedding, Mapping):
            raise ConfigurationError(f"persona.embedding must be an object, not {self.embedding!r}")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.persona``."""
        return cls(**given(settings, _PATHS))


_PATHS = {
    "max_personas_per_user": "max_personas_per_user",
    "max_global_personas": "max_global_personas",
    "max_versions": "max_versions",
    "consistency_threshold": "consistency_threshold",
    "template_timeout_s": "template_timeout_seconds",
    "embedding": "embedding",
}
