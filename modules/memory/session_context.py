"""What a session was about: context.json and its history, as migrated or saved, and the window made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modules.core.errors import NotFound, ValidationError
from modules.core.layout import component, name_of
from modules.core.storage import FlatFiles
from modules.core.types import estimate_tokens

from .items import MemoryItem

_ROOT = "memory/short_term"


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """What a model should know before it answers in a session; ``tokens`` is never above what was asked for."""

    session_id: str
    user_id: str
    summary: str
    key_points: tuple[str, ...]
    memories: tuple[MemoryItem, ...]
    tokens: int

    @property
    def text(self) -> str:
        """The window as it is put into a prompt."""
        return "\n".join([*filter(None, [self.summary]), *self.key_points, *(item.text for item in self.memories)])


def window_of(
    session_id: str,
    user_id: str,
    context: Mapping[str, Any],
    memories: Iterable[MemoryItem],
    max_tokens: int,
) -> ContextWindow:
    """Fill the window: the summary first (cut if it alone is too long), then key points, then memories in the order
    given; what does not fit is left out, and shorter ones after it may still come in."""
    room = max_tokens
    summary = _cut(_clean(context.get("summary")), room)
    room -= estimate_tokens(summary)
    points: list[str] = []
    given = context.get("key_points")
    for point in map(_clean, given if isinstance(given, list) else []):
        if point and (cost := _cost(point)) <= room:
            points.append(point)
            room -= cost
    chosen: list[MemoryItem] = []
    for item in memories:
        if (cost := _cost(item.text)) <= room:
            chosen.append(item)
            room -= cost
    return ContextWindow(session_id, user_id, summary, tuple(points), tuple(chosen), max_tokens - room)


class SessionContexts:
    """The contexts below one base. Synchronous."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files

    def read(self, user_id: str, session_id: str) -> Mapping[str, Any]:
        """The context, or an empty one when there is none or it is no JSON object."""
        try:
            context = json.loads(self._files.read(f"{_place(user_id, session_id)}/context.json"))
        except (NotFound, ValueError, RecursionError):
            return {}
        return context if isinstance(context, dict) else {}

    def save(self, user_id: str, session_id: str, context: Mapping[str, Any], now: datetime) -> None:
        """Replace the context; the one before goes to the history, byte for byte."""
        try:
            data = json.dumps(context, ensure_ascii=False, allow_nan=False, indent=2).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValidationError(f"context must be JSON: {error}", param="context") from error
        place = _place(user_id, session_id)
        try:
            before = self._files.read(f"{place}/context.json")
        except NotFound:
            before = None
        if before is not None:
            self._files.write(f"{place}/history/context_{now:%Y%m%d_%H%M%S_%f}.json", before)
        self._files.write(f"{place}/context.json", data)

    def owners(self, session_id: str) -> list[str]:
        """Users with a context for a session of this id."""
        name = component(session_id)
        users = self._files.directories(_ROOT)
        return [name_of(user) or user for user in users if self._files.exists(f"{_ROOT}/{user}/{name}/context.json")]

    def export(self, user_id: str) -> dict[str, str]:
        """Text of every context file of a user, by its path below the user's directory."""
        root = f"{_ROOT}/{component(user_id)}/"
        keys = [key for key in self._files.list(root) if key.endswith(".json")]
        return {key.removeprefix(root): self._files.read(key).decode("utf-8", "replace") for key in keys}


def _place(user_id: str, session_id: str) -> str:
    return f"{_ROOT}/{component(user_id)}/{component(session_id)}"


def _clean(value: object) -> str:
    """Text that every encoder takes; what is no text is none."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else ""


def _cost(text: str) -> int:
    return estimate_tokens(text + "\n")


def _cut(text: str, tokens: int) -> str:
    return text.encode()[: tokens * 4].decode("utf-8", "ignore")
