"""The sessions that are in use in this process: opened once, written by one at a time, let go when there are many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

from modules.core.errors import NotFound

from .group_commit import GroupCommit
from .open_session import OpenSession

Key = tuple[str, str]


class Held:
    """An open session and its lock. ``holders`` counts who uses or awaits it; such a session is not let go."""

    def __init__(self, opened: OpenSession) -> None:
        self.opened = opened
        self.lock = asyncio.Lock()
        self.commit = GroupCommit(opened.log.sync)
        self.holders = 0
        self.is_gone = False


class HeldSessions:
    """*open_session* (user, session) reads a session in a thread, or raises NotFound."""

    def __init__(self, open_session: Callable[[str, str], OpenSession], *, at_most: int = 1024) -> None:
        self._open_session = open_session
        self._at_most = at_most
        self._held: OrderedDict[Key, Held] = OrderedDict()

    def get(self, user_id: str, session_id: str) -> OpenSession | None:
        """The session if it is open already."""
        held = self._held.get((user_id, session_id))
        return held.opened if held else None

    def reading(self, user_id: str, session_id: str) -> Holding:
        """The session, held open; others may read and one may write meanwhile."""
        return Holding(self, (user_id, session_id), to_write=False)

    def writing(self, user_id: str, session_id: str) -> Holding:
        """The session, for this caller alone to write. Raises NotFound when it was deleted meanwhile."""
        return Holding(self, (user_id, session_id), to_write=True)

    async def take(self, key: Key) -> Held:
        """The session, opened if it is not, with one holder more."""
        if key not in self._held:
            opened = await asyncio.to_thread(self._open_session, *key)
            # Somebody else may have opened it meanwhile; then theirs is the one.
            self._held.setdefault(key, Held(opened))
        held = self._held[key]
        self._held.move_to_end(key)
        held.holders += 1
        if len(self._held) > self._at_most:
            try:
                await self._let_surplus_go()
            except BaseException:
                held.holders -= 1
                raise
        return held

    def forget(self, user_id: str, session_id: str) -> None:
        """For the writer that has deleted it: whoever waits for the lock will be told."""
        held = self._held.pop((user_id, session_id), None)
        if held is not None:
            held.is_gone = True

    async def let_go(self, is_due: Callable[[OpenSession], bool]) -> list[Key]:
        """Save and close the unused sessions that are due."""
        due = [key for key, held in self._held.items() if not held.holders and is_due(held.opened)]
        gone = [self._held.pop(key) for key in due]
        for held in gone:
            await asyncio.to_thread(held.opened.save)
        return due

    async def _let_surplus_go(self) -> None:
        oldest = set(list(self._held.values())[: len(self._held) - self._at_most])
        await self.let_go(lambda opened: any(held.opened is opened for held in oldest))


class Holding:
    """A context in which a session is held, and to write also locked. Each message stored passes through one."""

    __slots__ = ("_held", "_key", "_sessions", "_to_write")

    def __init__(self, sessions: HeldSessions, key: Key, *, to_write: bool) -> None:
        self._sessions = sessions
        self._key = key
        self._to_write = to_write

    async def __aenter__(self) -> Held:
        held = self._held = await self._sessions.take(self._key)
        if self._to_write:
            try:
                await held.lock.acquire()
            except BaseException:
                held.holders -= 1
                raise
            if held.is_gone:
                self._release()
                raise NotFound(f"user {self._key[0]!r} has no session {self._key[1]!r}")
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._to_write:
            self._held.lock.release()
        self._held.holders -= 1
