"""Two systems at once: the old one leads, the new one follows and may be late, but never loses a write.

Each write goes to the old system first; what that raises or refuses is the caller's. Then it is noted in a queue,
offered to the new system, and crossed off when that has it. Where the new system fails, or takes too long, the note
stays, and the caller hears nothing of it: `replay` offers it again, in order; `keep_up` does so for as long as it runs.
While one of a session's writes waits, its later ones wait behind it, so that the order is the same on both sides.

In the old manager's form (the new side is a `LegacyStorageAdapter`) messages have one id on both sides, by which the
synchronisation of the cut-over knows them for one. With a queue on disk, a crash loses none of this, save in the
instant between the old system's answer and the note: that synchronisation carries such a write over.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migration.dual_writer_new import AdapterSide, ModulesSide, RefusedWrite
from migration.dual_writer_queue import MOST_BYTES, MOST_NOTES, PendingWrite, WriteQueue
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, values_of
from migration.legacy_sessions import writer_of
from modules.core.clock import IdMaker, new_hex
from modules.core.errors import ConfigurationError, StorageError

log = logging.getLogger(__name__)

__all__ = ["DualStatus", "DualWriter", "PendingWrite", "Replayed", "WriteQueue"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """``failures`` says for each session that is still behind what stopped it."""

    written: int
    remaining: int
    failures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DualStatus:
    """How the new side keeps up: what it has done (at once, and late), how often it failed or was too slow, what it
    will never take, what waits and since when, and which sessions only a synchronisation can bring into step."""

    written: int
    replayed: int
    failures: int
    late: int
    mismatches: int
    waiting: int
    waiting_bytes: int
    oldest_s: float
    out_of_step: tuple[str, ...]


class DualWriter:
    """*new* is a `LegacyStorageAdapter`, or (the guide's form) the modules by name, with text_chat among them; then
    only `write_message` is there. Without *queue_path* the queue is in memory only; each process needs a file of its
    own, and a file that another one uses is a ConfigurationError.

    With an adapter, the old manager's calls are all here: writes are done on both sides, all others by *reads* (such
    as `ShadowReads`; the old storage where it is None). Snapshots of contexts and vectors, to which the old manager
    gives names that it does not tell, are the old side's alone until the next synchronisation.
    """

    def __init__(
        self,
        old_storage: Any,
        new: Mapping[str, Any] | LegacyStorageAdapter,
        queue_path: Path | str | None = None,
        *,
        reads: Any = None,
        new_timeout_s: float = 5.0,
        most_notes: int = MOST_NOTES,
        most_bytes: int = MOST_BYTES,
        new_key: IdMaker = new_hex,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.old_storage = old_storage
        self.new = new
        self.failures = self.written = self.replayed = self.late = self.mismatches = 0
        self._side = AdapterSide(new, old_storage) if isinstance(new, LegacyStorageAdapter) else ModulesSide(new)
        self._reads = old_storage if reads is None else reads
        self._timeout_s = new_timeout_s
        self._new_key = new_key
        self._now = now
        path = None if queue_path is None else Path(queue_path)
        self._owned = None if path is None else _owned(path)
        self._queue = WriteQueue(path, most_notes=most_notes, most_bytes=most_bytes)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[str, int] = defaultdict(int)
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    @property
    def pending(self) -> tuple[PendingWrite, ...]:
        return self._queue.waiting()

    def status(self) -> DualStatus:
        waiting = self._queue.waiting()
        now = self._now()
        oldest = min((write.noted_at for write in waiting), default=now)
        return DualStatus(
            *(self.written, self.replayed, self.failures, self.late, self.mismatches),
            *(len(waiting), self._queue.size_bytes, max(0.0, now - oldest), self._queue.out_of_step),
        )

    def resynced(self, sessions: tuple[str, ...] | None = None) -> None:
        """A synchronisation has brought these sessions (all, where None) into step."""
        self._queue.resynced(self._queue.out_of_step if sessions is None else sessions)

    # -- the guide's form ------------------------------------------------------------------------------------

    async def write_message(
        self, session_id: str, content: str, *, role: str = "user", user_id: str | None = None
    ) -> tuple[Any, Any | None]:
        """``(old result, new result)``; the new result is None while the new system is behind.

        Raises what the old system raises; then nothing is written to the new one. With an adapter *user_id* is needed.
        """
        if isinstance(self.new, LegacyStorageAdapter):
            if user_id is None:
                raise TypeError("write_message needs user_id, as the old storage does")
            message = FFMessageDTO(role, content)
            return await self._message(user_id, session_id, message)
        said = {"content": content} if role == "user" else {"content": content, "role": role}
        write = PendingWrite(session_id, content, f"dual_{self._new_key()}", role, user_id, noted_at=self._now())
        return await self._both(
            session_id, lambda: self.old_storage.add_message(session_id=session_id, message=said), lambda _: write
        )

    # -- the old manager's form ------------------------------------------------------------------------------

    async def add_message(self, user_id: str, session_id: str, message: Any) -> Any:
        return (await self._message(user_id, session_id, message))[0]

    async def create_user(self, user_id: str, profile: dict[str, Any] | None = None) -> Any:
        return await self._user(user_id, lambda: self.old_storage.create_user(user_id, profile))

    async def update_user_profile(self, user_id: str, updates: dict[str, Any]) -> Any:
        return await self._user(user_id, lambda: self.old_storage.update_user_profile(user_id, updates))

    async def store_user_profile(self, profile: Any) -> Any:
        return await self._user(profile.user_id, lambda: self.old_storage.store_user_profile(profile))

    async def create_session(self, user_id: str, title: str | None = None, session_type: str = "chat") -> Any:
        owner = writer_of(user_id)

        def note(session_id: Any) -> PendingWrite:
            return self._note(_of_session(owner, session_id), "session", user=owner, session=session_id)

        made = (user_id, title, session_type)
        session_id, _ = await self._both(
            f"new session of {owner}", lambda: self.old_storage.create_session(*made), note
        )
        await self._user_at(owner)
        return session_id

    async def update_session(self, user_id: str, session_id: str, updates: dict[str, Any]) -> Any:
        return await self._session(
            user_id, session_id, lambda: self.old_storage.update_session(user_id, session_id, updates)
        )

    async def update_session_metadata(self, user_id: str, session_id: str, metadata: dict[str, Any]) -> Any:
        return await self._session(
            user_id, session_id, lambda: self.old_storage.update_session_metadata(user_id, session_id, metadata)
        )

    async def delete_session(self, user_id: str, session_id: str) -> Any:
        return await self._session(
            user_id, session_id, lambda: self.old_storage.delete_session(user_id, session_id), "session_gone"
        )

    async def save_document(
        self, user_id: str, session_id: str, filename: str, content: bytes, metadata: dict[str, Any] | None = None
    ) -> Any:
        def note(document: Any) -> PendingWrite:
            return self._note(key, "document", user=user_id, session=session_id, document=document)

        key = _of_session(user_id, session_id)
        given = (user_id, session_id, filename, content, metadata)
        return (await self._both(key, lambda: self.old_storage.save_document(*given), note))[0]

    async def update_document_analysis(
        self, user_id: str, session_id: str, document_id: str, analysis: dict[str, Any]
    ) -> Any:
        given = (user_id, session_id, document_id, analysis)
        return await self._session(
            user_id,
            session_id,
            lambda: self.old_storage.update_document_analysis(*given),
            "document",
            document=document_id,
        )

    async def update_context(self, user_id: str, session_id: str, context: Any) -> Any:
        return await self._session(
            user_id, session_id, lambda: self.old_storage.update_context(user_id, session_id, context), "context"
        )

    async def create_panel(self, panel_type: str, personas: list[str], config: dict[str, Any] | None = None) -> Any:
        def note(panel: Any) -> PendingWrite:
            made = {"type": panel_type, "personas": personas, "config": config}
            return self._note(f"panel {panel}", "panel", panel=panel, **made)

        return (
            await self._both("new panel", lambda: self.old_storage.create_panel(panel_type, personas, config), note)
        )[0]

    async def add_panel_message(self, panel_id: str, message: Any) -> Any:
        write = self._note(
            f"panel {panel_id}", "panel_message", panel=panel_id, message=values_of(message, "FFPanelMessageDTO")
        )
        return (
            await self._both(
                write.session_id, lambda: self.old_storage.add_panel_message(panel_id, message), lambda _: write
            )
        )[0]

    async def save_panel_insight(self, panel_id: str, insight: Any) -> Any:
        write = self._note(
            f"panel {panel_id}", "insight", panel=panel_id, insight=values_of(insight, "FFPanelInsightDTO")
        )
        return (
            await self._both(
                write.session_id, lambda: self.old_storage.save_panel_insight(panel_id, insight), lambda _: write
            )
        )[0]

    async def save_persona(self, persona_id: str, data: dict[str, Any], user_id: str | None = None) -> Any:
        write = self._note(f"persona {user_id or ''} {persona_id}", "persona", persona=persona_id, user=user_id)
        given = (persona_id, data) if user_id is None else (persona_id, data, user_id)
        return (await self._both(write.session_id, lambda: self.old_storage.save_persona(*given), lambda _: write))[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_reads" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._reads, name)

    # -- catching up -----------------------------------------------------------------------------------------

    async def replay(self) -> Replayed:
        """Offer all that waits to the new system, session by session in order. A session stops at its first failure,
        the others go on."""
        written = 0
        failures: dict[str, str] = {}
        for session_id in dict.fromkeys(write.session_id for write in self._queue.waiting()):
            async with self._one_at_a_time(session_id):
                for write in self._queue.waiting(session_id):
                    task = self._under_way.get(session_id) or self._started(write)
                    await asyncio.wait({task}, timeout=self._timeout_s)
                    if not task.done():
                        failures[session_id] = f"TimeoutError: not done after {self._timeout_s} s"
                        break
                    error = task.result()[1]
                    if error is not None:
                        failures[session_id] = f"{type(error).__name__}: {error}"
                        break
                    written += 1
        self.replayed += written
        return Replayed(written, len(self._queue.waiting()), failures)

    async def keep_up(self, *, every_s: float = 1.0, at_most_s: float = 60.0) -> None:
        """Replay whenever something waits, less and less often while nothing gets through, until cancelled."""
        pause_s = every_s
        while True:
            await asyncio.sleep(pause_s)
            if self._queue.waiting():
                replayed = await self.replay()
                pause_s = every_s if replayed.written or not replayed.remaining else min(at_most_s, pause_s * 2)
            else:
                pause_s = every_s

    async def close(self) -> None:
        """Wait for what is under way, and let the queue's file go."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=self._timeout_s)
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    # -- below -----------------------------------------------------------------------------------------------

    async def _message(self, user_id: str, session_id: str, message: Any) -> tuple[Any, Any | None]:
        owner = writer_of(user_id)
        values = {"user": owner, "session": session_id, "message": values_of(message, "FFMessageDTO")}
        write = self._note(_of_session(owner, session_id), "message", **values)
        return await self._both(
            write.session_id, lambda: self.old_storage.add_message(user_id, session_id, message), lambda _: write
        )

    async def _user(self, user_id: str, old: Callable[[], Any]) -> Any:
        write = self._note(f"user {user_id}", "profile", user=user_id)
        return (await self._both(write.session_id, old, lambda _: write))[0]

    async def _user_at(self, user_id: str) -> None:
        """The old side may have made the user: bring the profile over."""

        async def nothing() -> bool:
            return True

        await self._user(user_id, nothing)

    async def _session(
        self, user_id: str, session_id: str, old: Callable[[], Any], operation: str = "session", **more: Any
    ) -> Any:
        write = self._note(_of_session(user_id, session_id), operation, user=user_id, session=session_id, **more)
        return (await self._both(write.session_id, old, lambda _: write))[0]

    def _note(self, key: str, operation: str, **values: Any) -> PendingWrite:
        new_key, now = f"dual_{self._new_key()}", self._now()
        return PendingWrite(key, "", new_key, operation=operation, values=values, noted_at=now)

    async def _both(
        self, key: str, old: Callable[[], Any], note: Callable[[Any], PendingWrite]
    ) -> tuple[Any, Any | None]:
        """Do *old*; what it answers decides the *note*. An answer that says no (False, None, "") is the caller's, and
        nothing is done on the new side then."""
        async with self._one_at_a_time(key):
            old_result = await old()
            if isinstance(self.new, LegacyStorageAdapter) and not old_result:
                return old_result, None
            write = note(old_result)
            is_behind = self._queue.has(write.session_id)
            # From here on the old system has it: it is noted whether or not the caller goes away.
            noting = asyncio.ensure_future(asyncio.to_thread(self._noted, write, is_behind))
            try:
                is_noted = await asyncio.shield(noting)
            except asyncio.CancelledError:
                await noting
                raise
            if is_behind or not is_noted:
                return old_result, None
            task = self._started(write)
            await asyncio.wait({task}, timeout=self._timeout_s)
            if not task.done():
                self.late += 1
                return old_result, None
            new_result, error = task.result()
            self.written += error is None
            return old_result, new_result

    def _noted(self, write: PendingWrite, is_behind: bool) -> bool:
        try:
            return self._queue.add(write, fsync=is_behind)
        except (TypeError, ValueError) as error:
            log.error("a write to session %r cannot be noted: %s", write.session_id, type(error).__name__)
            self.mismatches += 1
            return False

    def _started(self, write: PendingWrite) -> asyncio.Task[Any]:
        """The new side's turn. It goes on when nobody waits for it any more; until it ends, its session is behind."""
        task = asyncio.create_task(self._offer(write))
        self._under_way[write.session_id] = task
        task.add_done_callback(lambda _: self._under_way.pop(write.session_id, None))
        return task

    async def _offer(self, write: PendingWrite) -> tuple[Any | None, Exception | None]:
        try:
            result = await self._side.do(write)
        except RefusedWrite as error:
            self.mismatches += 1
            log.warning("session %r: the new system will not take a write: %s", write.session_id, error)
            await asyncio.to_thread(self._queue.done, write)
            return None, None
        except Exception as error:  # noqa: BLE001 - the new side must never fail the caller; kept and counted
            self.failures += 1
            log.warning("the new system did not take a write of session %r: %s", write.session_id, type(error).__name__)
            await self._kept(write)
            return None, error
        try:
            await asyncio.to_thread(self._queue.done, write)
        except StorageError as error:
            log.error("a note that is done could not be crossed off, and will be offered again: %s", error)
        return result, None

    async def _kept(self, write: PendingWrite) -> None:
        try:
            await asyncio.to_thread(self._queue.keep, write)
        except StorageError as error:
            log.error("a note may not survive the machine's end: %s", error)

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


def _of_session(user_id: str, session_id: str) -> str:
    return f"{user_id}\0{session_id}"


def _owned(path: Path) -> int:
    """A lock beside the queue's file, for this process. Raises ConfigurationError when another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ConfigurationError(f"{path} is another writer's queue; give each process a file of its own") from error
    return fd
