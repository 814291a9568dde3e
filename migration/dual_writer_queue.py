"""Notes of writes that the new side may not have: in order, on disk, bounded.

The file has a line for each note, for the key of each one that is done, and for each session that is out of step. A
session is out of step when a note of it could not be taken, as the queue was full or its disk refused: no later one is
taken either then, for they would arrive out of order. The next synchronisation brings such a session over whole, and
`resynced` says that it has.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modules.core.errors import StorageError
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)

_LINES_BEFORE_A_NEW_FILE = 1000
MOST_NOTES = 100_000
MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A write that the old system has and the new one may not have. Those of one *session_id* are kept in order.

    *operation* says what it is; *values* are what it needs beside. *noted_at*: seconds since 1970.
    """

    session_id: str
    content: str
    idempotency_key: str
    role: str = "user"
    user_id: str | None = None
    operation: str = "send_message"
    values: Mapping[str, Any] = field(default_factory=dict)
    noted_at: float = 0.0


class WriteQueue:
    """*path* None: in memory only. Safe for several threads; one process a file.

    Raises StorageError for a file with a line that is no note, save a last one that a crash cut off: that note's write
    was never acknowledged to anybody.
    """

    def __init__(self, path: Path | None, *, most_notes: int = MOST_NOTES, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._files = None if path is None else FlatFiles(path.parent)
        self._most_notes, self._most_bytes = most_notes, most_bytes
        self._waiting: dict[str, PendingWrite] = {}
        self._sizes: dict[str, int] = {}
        self._behind: Counter[str] = Counter()
        self._out_of_step: dict[str, None] = {}
        self._lines = 0
        self._lock = threading.Lock()
        if path is not None and path.exists():
            self._load(path)

    def waiting(self, session_id: str | None = None) -> tuple[PendingWrite, ...]:
        with self._lock:
            return tuple(write for write in self._waiting.values() if session_id in (None, write.session_id))

    def has(self, session_id: str) -> bool:
        return self._behind[session_id] > 0

    def is_out_of_step(self, session_id: str) -> bool:
        return session_id in self._out_of_step

    @property
    def out_of_step(self) -> tuple[str, ...]:
        return tuple(self._out_of_step)

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes.values())

    def add(self, write: PendingWrite, *, fsync: bool) -> bool:
        """Note a write; with *fsync* the note survives the machine's end too. False when its session is out of step,
        or is now, as there is no room or the disk refuses."""
        with self._lock:
            if write.session_id in self._out_of_step:
                return False
            line = _line(asdict(write))
            if len(self._waiting) >= self._most_notes or self.size_bytes + len(line) > self._most_bytes:
                log.error(
                    "the queue is full: session %r is out of step until the next synchronisation", write.session_id
                )
                self._lose(write.session_id)
                return False
            try:
                self._append(line, fsync=fsync)
            except StorageError as error:
                log.error("a note could not be taken, session %r is out of step: %s", write.session_id, error)
                self._lose(write.session_id)
                return False
            self._take(write, len(line))
            return True

    def keep(self, write: PendingWrite) -> None:
        """The write was not done: see to it that its note survives the machine's end."""
        if self._files is not None and self._path is not None:
            self._files.sync(self._path.name)

    def done(self, write: PendingWrite) -> None:
        # Not synced: a note that comes back after a crash is offered again, and its key prevents doubling.
        with self._lock:
            self._drop(write.idempotency_key)
            self._append(_line({"done": write.idempotency_key}), fsync=False)
            if not self._waiting and not self._out_of_step and self._lines > _LINES_BEFORE_A_NEW_FILE:
                self._start_anew()

    def resynced(self, session_ids: Iterable[str]) -> None:
        """These sessions are the same on both sides again."""
        with self._lock:
            for session_id in session_ids:
                if self._out_of_step.pop(session_id, 0) is None:
                    self._append(_line({"in_step": session_id}), fsync=True)

    def _lose(self, session_id: str) -> None:
        self._out_of_step[session_id] = None
        try:
            self._append(_line({"out_of_step": session_id}), fsync=True)
        except StorageError as error:
            log.error("that session %r is out of step is known to this process alone: %s", session_id, error)

    def _append(self, line: bytes, *, fsync: bool) -> None:
        if self._files is not None and self._path is not None:
            self._files.append(self._path.name, line, fsync=fsync)
            self._lines += 1

    def _start_anew(self) -> None:
        if self._files is not None and self._path is not None:
            self._files.delete(self._path.name)
            self._lines = 0

    def _take(self, write: PendingWrite, size: int) -> None:
        self._waiting[write.idempotency_key] = write
        self._sizes[write.idempotency_key] = size
        self._behind[write.session_id] += 1

    def _drop(self, key: str) -> None:
        write = self._waiting.pop(key, None)
        self._sizes.pop(key, None)
        if write is not None:
            self._behind[write.session_id] -= 1
            if not self._behind[write.session_id]:
                del self._behind[write.session_id]

    def _load(self, path: Path) -> None:
        data = path.read_bytes()
        *lines, rest = data.split(b"\n")
        self._lines = len(lines)
        for number, line in enumerate(lines, start=1):
            try:
                self._read(json.loads(line), len(line) + 1)
            except (ValueError, TypeError) as error:
                raise StorageError(f"{path}, line {number}, is no note of a write: {error}", key=str(path)) from error
        if rest:
            log.warning("%s: a last line of %d bytes was cut off by a crash and is dropped", path, len(rest))
            os.truncate(path, len(data) - len(rest))

    def _read(self, record: dict[str, Any], size: int) -> None:
        if "done" in record:
            self._drop(record["done"])
        elif "out_of_step" in record:
            self._out_of_step[record["out_of_step"]] = None
        elif "in_step" in record:
            self._out_of_step.pop(record["in_step"], None)
        else:
            self._take(PendingWrite(**record), size)


def _line(record: Mapping[str, Any]) -> bytes:
    # Escaped, so that any string that the old system took has a line here.
    return json.dumps(record, ensure_ascii=True).encode() + b"\n"
