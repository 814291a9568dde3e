"""What multimodal reads of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from modules.core.errors import ConfigurationError
from modules.core.setting_paths import given


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What one operation may cost. ``max_memory_mb`` is for the child process that does it."""

    max_bytes: int = 104_857_600
    max_pixels: int = 50_000_000
    max_media_s: float = 14_400.0
    timeout_s: float = 120.0
    max_memory_mb: int = 2048
    max_user_bytes: int = 10_737_418_240

    def __post_init__(self) -> None:
        for name, path in _LIMITS.items():
            _above_zero(f"limits.{path}", getattr(self, name), is_whole=name not in ("max_media_s", "timeout_s"))


@dataclass(frozen=True, slots=True)
class MultimodalSettings:
    """``ocr``, ``speech`` and ``image_generation`` are the sections of their providers, as they stand."""

    limits: MediaLimits = field(default_factory=MediaLimits)
    workers: int = 2
    max_cache_bytes: int = 1_073_741_824
    local_directories: tuple[Path, ...] = ()
    ocr: Mapping[str, Any] = field(default_factory=dict)
    speech: Mapping[str, Any] = field(default_factory=dict)
    image_generation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _above_zero("workers", self.workers, is_whole=True)
        if not isinstance(self.max_cache_bytes, int) or self.max_cache_bytes < 0:
            raise ConfigurationError(
                f"multimodal.max_cache_bytes must be a whole number from 0 up, not {self.max_cache_bytes!r}"
            )
        for directory in self.local_directories:
            if not directory.is_absolute():
                raise ConfigurationError(f"multimodal.local_directories must be absolute, not {str(directory)!r}")
        for name in _PROVIDERS:
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigurationError(f"multimodal.{name} must be a section")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.multimodal``. Raises ConfigurationError."""
        found = given(settings, {name: name for name in _PLAIN})
        directories = found.pop("local_directories", ())
        if isinstance(directories, str) or not isinstance(directories, Sequence):
            raise ConfigurationError(f"multimodal.local_directories must be a list, not {directories!r}")
        limits = given(settings, {name: f"limits.{path}" for name, path in _LIMITS.items()})
        return cls(limits=MediaLimits(**limits), local_directories=tuple(map(Path, directories)), **found)


def _above_zero(path: str, value: object, *, is_whole: bool) -> None:
    kinds = int if is_whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
        what = "whole number" if is_whole else "number"
        raise ConfigurationError(f"multimodal.{path} must be a {what} above 0, not {value!r}")


_PROVIDERS = ("ocr", "speech", "image_generation")
_PLAIN = ("workers", "max_cache_bytes", "local_directories", *_PROVIDERS)
_LIMITS = {
    "max_bytes": "max_bytes",
    "max_pixels": "max_pixels",
    "max_media_s": "max_media_seconds",
    "timeout_s": "timeout_seconds",
    "max_memory_mb": "max_memory_mb",
    "max_user_bytes": "max_user_bytes",
}
