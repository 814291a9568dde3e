"""The items of one user and one kind, in memory and in a journal that a restart reads.

The journal is a file of lines: an item as it was stored or used last, or the identity of one that was forgotten.
It is only appended to, until more than half of it is out of date; then it is rewritten, atomically. Lines that
cannot be read are kept beside it in ``.quarantine.jsonl``.
"""

from __future__ import annotations

import heapq
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from modules.core.errors import NotFound, ValidationError
from modules.core.storage import FlatFiles

from .items import Identity, MemoryItem, value_of

log = logging.getLogger(__name__)

_SMALL_JOURNAL = 64


class Bank:
    """Without *files* the items live in this process only.

    *victim* chooses whom to forget when there are more than *at_most*: it gets the items, least recently used first.
    Safe for one caller at a time.
    """

    def __init__(
        self, files: FlatFiles | None, key: str, *, at_most: int, victim: Callable[[Iterator[MemoryItem]], MemoryItem]
    ) -> None:
        self._files = files
        self._key = key
        self._at_most = at_most
        self._victim = victim
        self._items: OrderedDict[Identity, MemoryItem] = OrderedDict()
        # A number between time and identity: identities have no order of their own.
        self._expiries: list[tuple[float, int, Identity]] = []
        self._number = count()
        self._used: set[Identity] = set()
        self._lines = 0
        if files is not None:
            self._load(files)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[MemoryItem]:
        """Items, least recently used first."""
        return iter(self._items.values())

    def get(self, identity: Identity) -> MemoryItem | None:
        return self._items.get(identity)

    def put(self, item: MemoryItem) -> list[MemoryItem]:
        """Remember *item* in place of the one of its identity. Returns what had to be forgotten for it."""
        self._append(_encoded(item.to_dict()))
        self._keep(item)
        forgotten = []
        while len(self._items) > self._at_most:
            others = (other for other in self._items.values() if other.identity != item.identity)
            victim = self._victim(others)
            self.forget(victim.identity)
            forgotten.append(victim)
        return forgotten

    def use(self, identity: Identity, now: float) -> MemoryItem | None:
        """The item, and count that it was used. The count reaches the journal with `flush`."""
        item = self._items.get(identity)
        if item is None:
            return None
        used = item.accessed(now)
        self._items[identity] = used
        self._items.move_to_end(identity)
        self._used.add(identity)
        return used

    def forget(self, identity: Identity) -> MemoryItem | None:
        item = self._items.get(identity)
        if item is not None:
            key, session_id, agent_id = identity
            self._append(_encoded({"forgotten": key, "session_id": session_id, "agent_id": agent_id}))
            self._drop(identity)
        return item

    def erase(self, identity: Identity) -> MemoryItem | None:
        """As `forget`, and no byte of the item is left in the journal."""
        item = self._items.get(identity)
        if item is not None:
            self._drop(identity)
            try:
                self._rewrite()
            except BaseException:
                self._keep(item)
                raise
        return item

    def expire(self, now: float) -> list[MemoryItem]:
        """Forget what has expired, and return it."""
        expired = []
        while self._expiries and self._expiries[0][0] <= now:
            _, _, identity = heapq.heappop(self._expiries)
            item = self._items.get(identity)
            if item is not None and item.is_expired(now):
                self.forget(identity)
                expired.append(item)
        return expired

    def flush(self) -> None:
        """Write how items were used; a rewrite, when the journal has become mostly stale, is done here too."""
        used = [self._items[identity] for identity in self._items if identity in self._used]
        if used:
            self._append(b"".join(_encoded(item.to_dict()) for item in used), lines=len(used))
        self._used.clear()

    def _keep(self, item: MemoryItem) -> None:
        self._items[item.identity] = item
        self._items.move_to_end(item.identity)
        self._used.discard(item.identity)
        if item.expires_at is not None:
            heapq.heappush(self._expiries, (item.expires_at, next(self._number), item.identity))
        if len(self._expiries) > _SMALL_JOURNAL + 2 * len(self._items):
            self._expiries = [
                (kept.expires_at, next(self._number), kept.identity)
                for kept in self._items.values()
                if kept.expires_at is not None
            ]
            heapq.heapify(self._expiries)

    def _drop(self, identity: Identity) -> None:
        del self._items[identity]
        self._used.discard(identity)

    def _append(self, data: bytes, lines: int = 1) -> None:
        if self._files is None:
            return
        if self._lines > _SMALL_JOURNAL + 2 * len(self._items):
            self._rewrite()
        self._files.append(self._key, data)
        self._lines += lines

    def _rewrite(self) -> None:
        if self._files is not None:
            self._files.write(self._key, b"".join(_encoded(item.to_dict()) for item in self._items.values()))
            self._lines = len(self._items)

    def _load(self, files: FlatFiles) -> None:
        try:
            stored = files.read(self._key).split(b"\n")
        except NotFound:
            return
        damaged = []
        for line in stored:
            if line.strip():
                self._lines += 1
                if not self._take(line):
                    damaged.append(line)
        if damaged:
            self._set_aside(files, damaged)

    def _take(self, line: bytes) -> bool:
        try:
            record = json.loads(line)
            if "forgotten" in record:
                identity = (record["forgotten"], record["session_id"], record["agent_id"])
                if identity in self._items:
                    self._drop(identity)
            else:
                self._keep(MemoryItem.from_dict(record))
        except (ValueError, TypeError, KeyError, ValidationError):
            return False
        return True

    def _set_aside(self, files: FlatFiles, damaged: list[bytes]) -> None:
        log.warning("%s: %d unreadable lines were set aside", self._key, len(damaged))
        files.append(f"{self._key.removesuffix('.jsonl')}.quarantine.jsonl", b"\n".join(damaged) + b"\n", fsync=True)
        files.write(self._key, b"".join(_encoded(item.to_dict()) for item in self._items.values()), fsync=True)
        self._lines = len(self._items)


def least_recently_used(items: Iterator[MemoryItem]) -> MemoryItem:
    return next(items)


def least_important(items: Iterator[MemoryItem]) -> MemoryItem:
    return min(items, key=value_of)


def _encoded(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"a memory must be JSON: {error}", param="content") from error
