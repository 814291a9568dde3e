"""Old applications on the new store: v2's calls and shapes, answered by the text_chat module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from modules.core.errors import Unavailable
from modules.core.types import Message, Session


class ModuleSource(Protocol):
    async def get_module(self, name: str) -> Any | None: ...


class LegacyStorageAdapter:
    """*module_context* is any context whose ``get_module`` finds text_chat; each call raises Unavailable where it
    finds none, else what text_chat raises. Answers are the plain dictionaries of v2, keys and all."""

    def __init__(self, module_context: ModuleSource) -> None:
        self.context = module_context

    async def create_session(
        self, user_id: str, session_name: str, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """``{"session_id", "session_name", "created_at"}`` of a new session."""
        chat = await self._text_chat()
        session = await chat.create_session(user_id=user_id, title=session_name, metadata=metadata)
        return {"session_id": session.id, "session_name": session.title, "created_at": session.created_at}

    async def get_session(self, session_id: str, user_id: str | None = None) -> dict[str, Any]:
        chat = await self._text_chat()
        return legacy_session(await chat.get_session(session_id, user_id))

    async def list_sessions(self, user_id: str, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Newest first."""
        chat = await self._text_chat()
        return [legacy_session(session) for session in await chat.list_sessions(user_id, limit, offset)]

    async def add_message(
        self, session_id: str, message: Mapping[str, Any], user_id: str | None = None
    ) -> dict[str, Any]:
        """Store ``{"content", "role"?, "metadata"?}`` and return the message as stored."""
        chat = await self._text_chat()
        stored = await chat.send_message(
            session_id=session_id,
            content=message.get("content", ""),
            role=message.get("role", "user"),
            metadata=message.get("metadata"),
            user_id=user_id,
        )
        return legacy_message(stored)

    async def get_messages(
        self, session_id: str, limit: int = 100, offset: int = 0, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Oldest first."""
        chat = await self._text_chat()
        messages = await chat.get_messages(session_id, limit, offset, user_id=user_id)
        return [legacy_message(message) for message in messages]

    async def _text_chat(self) -> Any:
        chat = await self.context.get_module("text_chat")
        if chat is None:
            raise Unavailable("the text_chat module is not loaded")
        return chat


def legacy_message(message: Message) -> dict[str, Any]:
    """A message as v2 spelled it; members that only v2 knew come back under their own names."""
    return {
        "message_id": message.id,
        "role": message.role,
        "content": message.content,
        "timestamp": message.timestamp,
        "attachments": [attachment.url or attachment.id for attachment in message.attachments],
        "metadata": dict(message.metadata),
        **message.extra,
    }


def legacy_session(session: Session) -> dict[str, Any]:
    """A session as v2 spelled it, under both names that v2 had for its title."""
    return {
        "session_id": session.id,
        "user_id": session.user_id,
        "session_name": session.title,
        "title": session.title,
        "session_type": session.session_type,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "message_count": session.message_count,
        "metadata": dict(session.metadata),
    }
