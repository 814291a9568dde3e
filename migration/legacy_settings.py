"""What the adapter obeys: read from the old application's configuration object, or from the platform's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from config.load import load_settings
from modules.core.errors import ConfigurationError

_TEXT_FILES = (".pdf", ".txt", ".md", ".json", ".csv", ".doc", ".docx", ".rtf", ".odt")
_IMAGE_FILES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
DOCUMENT_EXTENSIONS = frozenset((*_TEXT_FILES, *_IMAGE_FILES))

# Field -> where an old configuration says it: section and name; then the name in the flat form of version 1.
_PLACES: Mapping[str, tuple[str, str, str]] = {
    "page_size": ("search", "default_page_size", "message_pagination_default_limit"),
    "search_limit": ("runtime", "default_search_limit", "search_default_limit"),
    "max_message_bytes": ("storage", "max_message_size_bytes", "max_message_size_bytes"),
    "max_document_bytes": ("storage", "max_document_size_bytes", "max_document_size_bytes"),
    "backup_before_delete": ("storage", "backup_before_delete", "backup_before_delete"),
    "extensions": ("document", "allowed_extensions", "allowed_document_extensions"),
    "max_personas": ("panel", "max_personas_per_panel", "panel_max_personas"),
    "top_k": ("vector", "search_top_k", "vector_search_top_k"),
    "threshold": ("vector", "similarity_threshold", "similarity_threshold"),
    "vector_weight": ("vector", "hybrid_search_weight", "hybrid_search_weight"),
}


@dataclass(frozen=True, slots=True)
class LegacySettings:
    """*base_path* is the base of the platform's data. The rest are the limits that the old manager kept to."""

    base_path: Path
    page_size: int = 20
    search_limit: int = 100
    max_message_bytes: int = 1024 * 1024
    max_document_bytes: int = 100 * 1024 * 1024
    backup_before_delete: bool = True
    extensions: frozenset[str] = DOCUMENT_EXTENSIONS
    max_personas: int = 10
    top_k: int = 5
    threshold: float = 0.7
    vector_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("page_size", "search_limit", "max_message_bytes", "max_document_bytes", "max_personas", "top_k"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number from 1 up, not {value!r}")

    @classmethod
    def of(cls, config: object | None) -> Self:
        """From *config*, any object with the old configuration's sections; without one, the platform's own base path.

        Raises ConfigurationError where *config* says no base path or a limit that is none.
        """
        if config is None:
            return cls(Path(load_settings(environ=os.environ).storage.base_path))
        base = _said(config, "storage", "base_path", "storage_base_path")
        if not isinstance(base, str | os.PathLike) or not os.fspath(base):
            raise ConfigurationError("config.storage.base_path must be the base directory of the platform's data")
        found = {name: value for name, place in _PLACES.items() if (value := _said(config, *place)) is not None}
        if "extensions" in found:
            found["extensions"] = _extensions(found["extensions"])
        return cls(Path(base), **found)


def _said(config: object, section: str, name: str, flat: str) -> Any:
    value = getattr(getattr(config, section, None), name, None)
    return value if value is not None else getattr(config, flat, None)


def _extensions(given: object) -> frozenset[str]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ConfigurationError("document.allowed_extensions must be a list of extensions")
    return frozenset(str(one).lower() for one in given)
