"""Two systems at once: the old one leads, the new one follows and may be late, but never loses a message.

Each write goes to the old system first; what that raises is the caller's. Then it is noted in a queue, offered to
the new system, and crossed off when that has it. Where the new system fails, the note stays: `replay` offers it
again, in order. While one of a session's messages waits, its later ones wait behind it, so that the order is the same
on both sides. Every note has an idempotency key, so a message that arrived without our hearing of it is not doubled.

With a queue on disk, a crash loses none of this, save in the instant between the old system's answer and the note:
the final synchronisation of the cut-over compares both sides and carries such a message over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from modules.core.clock import IdMaker, new_hex
from modules.core.errors import StorageError
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)

_LINES_BEFORE_A_NEW_FILE = 1000


class OldStorage(Protocol):
    async def add_message(self, *, session_id: str, message: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A message that the old system has and the new one may not have."""

    session_id: str
    content: str
    idempotency_key: str
    role: str = "user"
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """``failures`` says for each session that is still behind what stopped it."""

    written: int
    remaining: int
    failures: Mapping[str, str]


class DualWriter:
    """*new_modules* holds the text_chat module under its name. Without *queue_path* the queue is in memory only.

    ``pending`` is what waits, in order; ``failures`` counts how often the new system failed.
    """

    def __init__(
        self,
        old_storage: OldStorage,
        new_modules: Mapping[str, Any],
        queue_path: Path | str | None = None,
        *,
        new_key: IdMaker = new_hex,
    ) -> None:
        self.old_storage = old_storage
        self.new_modules = new_modules
        self.failures = 0
        self._new_key = new_key
        self._queue = WriteQueue(None if queue_path is None else Path(queue_path))
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[str, int] = defaultdict(int)

    @property
    def pending(self) -> tuple[PendingWrite, ...]:
        return self._queue.waiting()

    async def write_message(
        self, session_id: str, content: str, *, role: str = "user", user_id: str | None = None
    ) -> tuple[Any, Any | None]:
        """``(old result, new result)``; the new result is None while the new system is behind.

        Raises what the old system raises (then nothing is written to the new one), and StorageError when the queue
        itself cannot be written.
        """
        async with self._one_at_a_time(session_id):
            message = {"content": content} if role == "user" else {"content": content, "role": role}
            old_result = await self.old_storage.add_message(session_id=session_id, message=message)
            is_behind = self._queue.has(session_id)
            write = PendingWrite(session_id, content, f"dual_{self._new_key()}", role, user_id)
            # From here on the old system has the message: it is noted before anything can be cancelled.
            self._queue.add(write, fsync=is_behind)
            if is_behind:
                return old_result, None
            return old_result, await self._offer(write)

    async def replay(self) -> Replayed:
        """Offer all that waits to the new system, session by session in order. A session stops at its first failure,
        the others go on."""
        written = 0
        failures: dict[str, str] = {}
        for session_id in dict.fromkeys(write.session_id for write in self._queue.waiting()):
            async with self._one_at_a_time(session_id):
                for write in self._queue.waiting(session_id):
                    try:
                        await self._send(write)
                    except Exception as error:  # noqa: BLE001 - the new side may fail in any way; reported
                        self._count(write, error)
                        failures[session_id] = f"{type(error).__name__}: {error}"
                        break
                    self._queue.done(write)
                    written += 1
        return Replayed(written, len(self._queue.waiting()), failures)

    async def _offer(self, write: PendingWrite) -> Any | None:
        try:
            result = await self._send(write)
        except Exception as error:  # noqa: BLE001 - the new side must never fail the caller; kept and counted
            self._count(write, error)
            self._queue.keep(write)
            return None
        self._queue.done(write)
        return result

    async def _send(self, write: PendingWrite) -> Any:
        more = {} if write.user_id is None else {"user_id": write.user_id}
        return await self.new_modules["text_chat"].send_message(
            session_id=write.session_id,
            content=write.content,
            role=write.role,
            idempotency_key=write.idempotency_key,
            **more,
        )

    def _count(self, write: PendingWrite, error: Exception) -> None:
        self.failures += 1
        log.warning("the new system did not take a message of session %r: %r", write.session_id, error)

    @asynccontextmanager
    async def _one_at_a_time(self, session_id: str) -> AsyncIterator[None]:
        self._users[session_id] += 1
        try:
            async with self._locks[session_id]:
                yield
        finally:
            self._users[session_id] -= 1
            if not self._users[session_id]:
                del self._users[session_id], self._locks[session_id]


class WriteQueue:
    """Notes of writes, in order; on disk as a file of lines: a note, or the key of one that is done.

    Raises StorageError for a file with a line that is no note, save a last one that a crash cut off: that note's
    message was never acknowledged to anybody.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._files = None if path is None else FlatFiles(path.parent)
        self._waiting: dict[str, PendingWrite] = {}
        self._behind: Counter[str] = Counter()
        self._lines = 0
        if path is not None and path.exists():
            self._load(path)

    def waiting(self, session_id: str | None = None) -> tuple[PendingWrite, ...]:
        return tuple(write for write in self._waiting.values() if session_id in (None, write.session_id))

    def has(self, session_id: str) -> bool:
        return self._behind[session_id] > 0

    def add(self, write: PendingWrite, *, fsync: bool) -> None:
        """Note a write; with *fsync* the note survives the machine's end too."""
        self._append(asdict(write), fsync=fsync)
        self._take(write)

    def keep(self, write: PendingWrite) -> None:
        """The write was not done: see to it that its note survives the machine's end."""
        if self._files is not None and self._path is not None:
            self._files.sync(self._path.name)

    def done(self, write: PendingWrite) -> None:
        # Not synced: a note that comes back after a crash is offered again, and its key prevents doubling.
        self._append({"done": write.idempotency_key}, fsync=False)
        self._drop(write.idempotency_key)
        if not self._waiting and self._lines > _LINES_BEFORE_A_NEW_FILE:
            self._start_anew()

    def _append(self, record: dict[str, Any], *, fsync: bool) -> None:
        if self._files is not None and self._path is not None:
            # Escaped, so that any string that the old system took has a line here.
            line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
            self._files.append(self._path.name, line, fsync=fsync)
            self._lines += 1

    def _start_anew(self) -> None:
        if self._files is not None and self._path is not None:
            self._files.delete(self._path.name)
            self._lines = 0

    def _take(self, write: PendingWrite) -> None:
        self._waiting[write.idempotency_key] = write
        self._behind[write.session_id] += 1

    def _drop(self, key: str) -> None:
        write = self._waiting.pop(key, None)
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
                record = json.loads(line)
                if "done" in record:
                    self._drop(record["done"])
                else:
                    self._take(PendingWrite(**record))
            except (ValueError, TypeError) as error:
                raise StorageError(f"{path}, line {number}, is no note of a write: {error}", key=str(path)) from error
        if rest:
            log.warning("%s: a last line of %d bytes was cut off by a crash and is dropped", path, len(rest))
            os.truncate(path, len(data) - len(rest))
