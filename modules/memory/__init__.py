"""memory: what is remembered of users, sessions and agents, for a while or for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .items import MemoryItem, Scope
from .memory import Embedder, Erasure, MemoryModule
from .session_context import ContextWindow
from .settings import MemorySettings
from .user_memories import Consolidation

__all__ = [
    "Consolidation",
    "ContextWindow",
    "Embedder",
    "Erasure",
    "MemoryItem",
    "MemoryModule",
    "MemorySettings",
    "Scope",
    "create",
]


def create(settings: Mapping[str, Any]) -> MemoryModule:
    """The module for a loader."""
    return MemoryModule(settings)
