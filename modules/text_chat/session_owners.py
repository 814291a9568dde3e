"""Whose a session is, for calls that do not say: looked for once, then remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from modules.core.errors import Conflict, NotFound

from .arguments import check_name
from .session_store import SessionStore

_REMEMBERED = 10_000


class SessionOwners:
    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._known: OrderedDict[str, str] = OrderedDict()

    async def find(self, session_id: str, user_id: str | None) -> str:
        """*user_id* where it is given, else who has the session. Raises NotFound, Conflict for several owners, and
        ValidationError for what is no id."""
        check_name("session_id", session_id)
        if user_id is not None:
            check_name("user_id", user_id)
            return user_id
        known = self._known.get(session_id)
        if known is not None:
            return known
        owners = await asyncio.to_thread(self._store.owners, session_id)
        if not owners:
            raise NotFound(f"no user has a session {session_id!r}")
        if len(owners) > 1:
            names = ", ".join(map(repr, owners))
            raise Conflict(f"session {session_id!r} exists for users {names}: say which", candidates=tuple(owners))
        self.remember(session_id, owners[0])
        return owners[0]

    def remember(self, session_id: str, user_id: str) -> None:
        self._known[session_id] = user_id
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, session_id: str) -> None:
        self._known.pop(session_id, None)
