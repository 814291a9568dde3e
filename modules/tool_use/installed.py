"""The packages that calling tools needs beside the platform's own, imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modules.core.errors import ConfigurationError

EXTRA = "tools"


def imported(package: str) -> Any:
    """The package or module of that name. Raises ConfigurationError, which names the extra, when it is missing or
    lacks a part itself."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigurationError(f"{package} cannot be imported ({error}): install modchat[{EXTRA}]") from error
