"""Results by content, operation and version, the least recently used out first. Synchronous.

The directory is the truth and there is no index: a file's time of change is when its result was last used. What other
shards add is seen at the next look, which comes at the latest when a tenth of the room has been filled from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack

from modules.core.errors import NotFound, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

ROOT = "multimodal/cache"
_LOOK_AGAIN = 0.1
_DOWN_TO = 0.9


@dataclass(frozen=True, slots=True)
class _Entry:
    used_ns: int
    size: int
    key: str


class ResultCache:
    """*max_bytes* of results of all users together; 0 keeps none."""

    def __init__(self, files: FlatFiles, *, max_bytes: int) -> None:
        self._files = files
        self._max_bytes = max_bytes
        self._known: int | None = None
        self._added = 0

    def get(self, user_id: str, key: str) -> dict[str, Any] | None:
        """The result, or None. What cannot be read is as good as not there, and goes."""
        if not self._max_bytes:
            return None
        name = f"{_place(user_id)}/{key}"
        try:
            result = msgpack.unpackb(self._files.read(name), raw=False)
            with self._files.opened(name, os.O_RDONLY) as fd:
                os.utime(fd)
        except NotFound:
            return None
        except (ValueError, msgpack.UnpackException, OSError):
            self._files.delete(name)
            return None
        return result if isinstance(result, dict) else None

    def put(self, user_id: str, key: str, result: Mapping[str, Any]) -> None:
        """Keep *result*, unless it alone is more than there is room for."""
        data = msgpack.packb(dict(result), use_bin_type=True)
        if len(data) > self._max_bytes:
            return
        self._make_room(len(data))
        self._files.write(f"{_place(user_id)}/{key}", data)
        self._added += len(data)

    def forget_content(self, user_id: str, content_hash: str) -> None:
        """Remove the results of one content, which is deleted."""
        for key in self._files.list(f"{_place(user_id)}/{content_hash}_"):
            self._files.delete(key)
        self._known = None

    def erase(self, user_id: str) -> int:
        """Remove all results of a user; returns how many."""
        results = len(self._files.list(f"{_place(user_id)}/"))
        self._files.delete_tree(_place(user_id))
        self._known = None
        return results

    def _make_room(self, more: int) -> None:
        is_stale = self._known is None or self._added > self._max_bytes * _LOOK_AGAIN
        if not is_stale and self._known is not None and self._known + self._added + more <= self._max_bytes:
            return
        entries = self._entries()
        total = sum(entry.size for entry in entries)
        if total + more > self._max_bytes:
            for entry in sorted(entries, key=lambda entry: entry.used_ns):
                if total + more <= self._max_bytes * _DOWN_TO:
                    break
                self._files.delete(entry.key)
                total -= entry.size
        self._known, self._added = total, 0

    def _entries(self) -> list[_Entry]:
        found = []
        for key in self._files.list(f"{ROOT}/"):
            with suppress(NotFound, StorageError), self._files.opened(key, os.O_RDONLY) as fd:
                status = os.fstat(fd)
                found.append(_Entry(status.st_mtime_ns, status.st_size, key))
        return found


def cache_key(content_hash: str, request: Mapping[str, Any]) -> str:
    """The name of a result: its content's hash first, so that results can be found by content."""
    packed = msgpack.packb(_sorted(request), use_bin_type=True)
    return f"{content_hash}_{blake2b(packed, digest_size=16).hexdigest()}"


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [[key, _sorted(value[key])] for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [_sorted(one) for one in value]
    return value


def _place(user_id: str) -> str:
    return f"{ROOT}/{component(user_id)}"
