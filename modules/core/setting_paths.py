"""Settings by dotted paths: what a dataclass of settings is built from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNSET = object()


def given(settings: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """What *settings* hold at *paths* (name -> dotted path), by name. What is not there is left out, so that a default
    can stand for it; what is given as null is given."""
    found = {name: _at(settings, path) for name, path in paths.items()}
    return {name: value for name, value in found.items() if value is not _UNSET}


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for part in path.split("."):
        value = value.get(part, _UNSET) if isinstance(value, Mapping) else _UNSET
    return value
