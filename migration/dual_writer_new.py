"""The new side of a dual writer: how each noted write is done there. Doing one again changes nothing.

A message is in its note. Of everything else the note says only what it was about: what the old side says of that by
then is what the new side gets, so that a late replay brings the newest state and never an older one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from migration.dual_writer_queue import PendingWrite
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import values_of


class RefusedWrite(Exception):
    """The new side will never take this write: only a synchronisation of the files can bring it over."""


class ModulesSide:
    """The platform's modules, by name: for messages alone, whose ids the platform chooses."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        self._modules = modules

    async def do(self, write: PendingWrite) -> Any:
        more = {} if write.user_id is None else {"user_id": write.user_id}
        return await self._modules["text_chat"].send_message(
            session_id=write.session_id,
            content=write.content,
            role=write.role,
            idempotency_key=write.idempotency_key,
            **more,
        )


class AdapterSide:
    """The platform's store, through the adapter; *old* is asked for what a note does not hold."""

    def __init__(self, adapter: LegacyStorageAdapter, old: Any) -> None:
        self._new = adapter
        self._old = old
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[None]]] = {
            "message": self._message,
            "profile": self._profile,
            "session": self._session,
            "session_gone": self._session_gone,
            "document": self._document,
            "context": self._context,
            "persona": self._persona,
            "panel": self._panel,
            "panel_message": self._panel_message,
            "insight": self._insight,
        }

    async def do(self, write: PendingWrite) -> Any:
        """Raises RefusedWrite for what can never be done, and whatever else stands in the way by now."""
        await self._operations[write.operation](write.values)
        return True

    async def _message(self, values: Mapping[str, Any]) -> None:
        new = self._new.sessions
        if not await asyncio.to_thread(new.add, values["user"], values["session"], values["message"], once=True):
            raise RefusedWrite("the message is too large for the new side, or no JSON")

    async def _profile(self, values: Mapping[str, Any]) -> None:
        record = await self._old.get_user_profile(values["user"])
        if record is not None:
            await asyncio.to_thread(self._new.people.put, {**record, "user_id": values["user"]})

    async def _session(self, values: Mapping[str, Any]) -> None:
        record = await self._old.get_session(values["user"], values["session"])
        if record is not None:  # else it was deleted since, and that is noted behind this
            await asyncio.to_thread(self._new.sessions.put, values_of(record, "FFSessionDTO"))

    async def _session_gone(self, values: Mapping[str, Any]) -> None:
        if not await self._new.delete_session(values["user"], values["session"]):
            raise OSError("the session could not be put away")

    async def _document(self, values: Mapping[str, Any]) -> None:
        where = (values["user"], values["session"])
        entries = [values_of(one, "FFDocumentDTO") for one in await self._old.list_documents(*where)]
        content = await self._old.get_document(*where, values["document"])
        for entry in entries:
            if entry["filename"] == values["document"] and content is not None:
                await asyncio.to_thread(self._new.documents.put, values["user"], values["session"], entry, content)

    async def _context(self, values: Mapping[str, Any]) -> None:
        where = (values["user"], values["session"])
        context = await self._old.get_context(*where)
        if context is not None:
            stored = values_of(context, "FFSituationalContextDTO")
            await asyncio.to_thread(self._new.contexts.replace, values["user"], values["session"], stored)

    async def _persona(self, values: Mapping[str, Any]) -> None:
        data = await self._old.get_persona(values["persona"], *([values["user"]] if values["user"] else []))
        if data is not None:
            await asyncio.to_thread(self._new.people.save_persona, values["persona"], data, values["user"])

    async def _panel(self, values: Mapping[str, Any]) -> None:
        made = (values["type"], values["personas"], values["config"], values["panel"])
        await asyncio.to_thread(self._new.panels.create, *made)

    async def _panel_message(self, values: Mapping[str, Any]) -> None:
        if not await asyncio.to_thread(self._new.panels.add, values["panel"], values["message"], once=True):
            raise RefusedWrite("the message is no JSON")

    async def _insight(self, values: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._new.panels.save_insight, values["panel"], values["insight"])
