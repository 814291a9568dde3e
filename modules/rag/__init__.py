"""rag: knowledge from documents, found by meaning and words, and cited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .documents import Document
from .errors import ParsingStopped, RagNotInstalled, UnreadableDocument, UnsupportedDocument
from .parsing import Text
from .passages import Citation, Passage
from .rag import RagModule
from .relevant_context import RelevantContext
from .results import Deletion, DocumentPage, Erasure, IndexingReport, IndexStatus
from .settings import RagSettings
from .sources import SourceCheck

__all__ = [
    "Citation",
    "Deletion",
    "Document",
    "DocumentPage",
    "Erasure",
    "IndexStatus",
    "IndexingReport",
    "ParsingStopped",
    "Passage",
    "RagModule",
    "RagNotInstalled",
    "RagSettings",
    "RelevantContext",
    "SourceCheck",
    "Text",
    "UnreadableDocument",
    "UnsupportedDocument",
    "create",
]


def create(settings: Mapping[str, Any]) -> RagModule:
    """The module for a loader."""
    return RagModule(settings)
