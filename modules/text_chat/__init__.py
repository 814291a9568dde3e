"""text_chat: sessions, messages, their history and search in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .chat import TextChatModule
from .settings import TextChatSettings

__all__ = ["TextChatModule", "TextChatSettings", "create"]


def create(settings: Mapping[str, Any]) -> TextChatModule:
    """The module for a loader; its settings come again, by path, from the context that `initialize` gets."""
    return TextChatModule()
