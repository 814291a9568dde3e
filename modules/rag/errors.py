"""What can go wrong with a document. Each error also is the platform's error of the same kind.

ValidationError
├── UnsupportedDocument   not a kind of document that is taken, or not the kind that its name says
└── UnreadableDocument    of a kind that is taken, and broken, encrypted, empty or too much
    └── ParsingStopped    its parser was stopped: it took too long, too much memory, or crashed
ConfigurationError
└── RagNotInstalled       a package is missing; `extra` names what brings it
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modules.core.errors import ConfigurationError, ValidationError

EXTRA = "rag"


class UnsupportedDocument(ValidationError):
    code = "unsupported_document"


class UnreadableDocument(ValidationError):
    code = "unreadable_document"


class ParsingStopped(UnreadableDocument):
    code = "parsing_stopped"


class RagNotInstalled(ConfigurationError):
    code = "rag_not_installed"

    def __init__(self, message: str, *, extra: str = EXTRA) -> None:
        super().__init__(message)
        self.extra = extra


def imported(package: str) -> Any:
    """The package. Raises RagNotInstalled, which names the extra, when it is missing or lacks a part itself."""
    try:
        return import_module(package)
    except ImportError as error:
        raise RagNotInstalled(f"{package} cannot be imported ({error}): install modchat[{EXTRA}]") from error
