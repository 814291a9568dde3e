"""Which optional packages are here, and where their files lie, without importing them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import ModelNotInstalled

EXTRA = "local-llm"


def is_installed(package: str) -> bool:
    return find_spec(package) is not None


def imported(package: str, *, extra: str = EXTRA) -> Any:
    """The package. Raises ModelNotInstalled, which names the *extra*, when it is missing or lacks a part itself."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ModelNotInstalled(
            f"{package} cannot be imported ({error}): install modchat[{extra}]", extra=extra
        ) from error


def directory_of(package: str, *, extra: str = EXTRA) -> Path:
    """Where the package's files lie; it is not imported. Raises ModelNotInstalled."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotInstalled(f"{package} is not installed: install modchat[{extra}]", extra=extra)
    return Path(spec.submodule_search_locations[0])
