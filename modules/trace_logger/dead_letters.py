"""What the file of undelivered events holds of a user. The events in it are whole, so that they can be handled later by
hand; a user's must be found in it and go with the user."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from modules.core.bus import DEAD_LETTERS
from modules.core.errors import NotFound
from modules.core.storage import FlatFiles

_ASIDE = f"{DEAD_LETTERS.removesuffix('.jsonl')}.erasing.jsonl"
# Hosts append to the file without knowing of each other: one that had opened it gets so long to write its line.
_PATIENCE_S = 0.2
_OWNERS = frozenset({"user_id", "owner_id"})


def letters_of(files: FlatFiles, user_id: str) -> list[dict[str, Any]]:
    try:
        lines = files.read(DEAD_LETTERS).splitlines()
    except NotFound:
        return []
    letters = (_letter_of(line) for line in lines)
    return [letter for letter in letters if letter is not None and _is_about(letter, user_id)]


def erase_letters(files: FlatFiles, user_id: str, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Remove a user's letters, and lines that cannot be read, which might be. How many. Others may append meanwhile."""
    erased = _sift(files, user_id)  # what a crash left of an erasure before this one
    if files.rename(DEAD_LETTERS, _ASIDE):
        sleep(_PATIENCE_S)
        erased += _sift(files, user_id)
    return erased


def _sift(files: FlatFiles, user_id: str) -> int:
    try:
        lines = files.read(_ASIDE).splitlines(keepends=True)
    except NotFound:
        return 0
    kept = [line for line in lines if (letter := _letter_of(line)) is not None and not _is_about(letter, user_id)]
    if kept:
        files.append(DEAD_LETTERS, b"".join(kept), fsync=True)
    files.delete(_ASIDE)
    return len(lines) - len(kept)


def _letter_of(line: bytes) -> dict[str, Any] | None:
    try:
        letter = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return letter if isinstance(letter, dict) else None


def _is_about(letter: dict[str, Any], user_id: str) -> bool:
    waiting: list[Any] = [letter]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if any(value.get(name) == user_id for name in _OWNERS):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
