"""The sessions that are in use in this process: opened once, written by one at a time, let go when there are many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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

    @asynccontextmanager
    async def reading(self, user_id: str, session_id: str) -> AsyncIterator[Held]:
        """The session, held open; others may read and one may write meanwhile."""
        key = (user_id, session_id)
        if key not in self._held:
            opened = await asyncio.to_thread(self._open_session, *key)
            # Somebody else may have opened it meanwhile; then theirs is the one.
            self._held.setdefault(key, Held(opened))
        held = self._held[key]
        self._held.move_to_end(key)
        held.holders += 1
        try:
            await self._let_surplus_go()
            yield held
        finally:
            held.holders -= 1

    @asynccontextmanager
    async def writing(self, user_id: str, session_id: str) -> AsyncIterator[Held]:
        """The session, for this caller alone to write. Raises NotFound when it was deleted meanwhile."""
        async with self.reading(user_id, session_id) as held, held.lock:
            if held.is_gone:
                raise NotFound(f"user {user_id!r} has no session {session_id!r}")
            yield held

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
        surplus = len(self._held) - self._at_most
        if surplus > 0:
            oldest = set(list(self._held.values())[:surplus])
            await self.let_go(lambda opened: any(held.opened is opened for held in oldest))
