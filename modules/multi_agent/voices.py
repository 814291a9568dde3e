"""Which model an agent speaks with.

Usually that of text_chat, asked through its module while it runs: so a platform holds one embedded model, however
many modules speak with it. Without text_chat, or with a provider of its own in the settings, the module has models of
its own; agents that name one of ``model.allowed_models`` speak with that one of the same server.

As many answers are asked for at a time as the model can work on; the others wait in line, and their time limit starts
when it is their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modules.core.context import Resolver
from modules.core.errors import Unavailable, ValidationError
from modules.models.protocols import ChatModel, Delta, PromptMessage

from .agents import Agent
from .settings import MultiAgentSettings

MakeModel = Callable[[Mapping[str, Any]], ChatModel]

# Models inside a process answer so many at a time; a server says by itself when it is too much.
_ANSWERS_AT_A_TIME = {"smollm2": 2}


class Speaks(Protocol):
    def __call__(
        self, messages: Sequence[PromptMessage], *, max_tokens: int, temperature: float | None
    ) -> AsyncGenerator[Delta, None]: ...


@dataclass(frozen=True, slots=True)
class Voice:
    """``slots`` is to be held while it speaks."""

    name: str
    speak: Speaks
    slots: asyncio.Semaphore


class Voices:
    """*find* gives a loaded module by name, or None; *make* a model of its settings."""

    def __init__(self, settings: MultiAgentSettings, find: Resolver, make: MakeModel) -> None:
        self._settings = settings
        self._find = find
        self._make = make
        self._models: dict[str, ChatModel] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._making = asyncio.Lock()
        self._is_closed = False
        self._chats_name = ""

    async def voice_of(self, agent: Agent) -> Voice:
        """Raises ValidationError for a model that is not allowed, what making it raises, Unavailable once closed."""
        wanted = agent.metadata.get("model") or self._settings.model.get("model") or ""
        own = self._settings.model.get("model") or ""
        if wanted != own and wanted not in self._settings.allowed_models:
            raise ValidationError(f"agent {agent.id!r} wants model {wanted!r}, which the settings do not allow")
        if wanted == own and self._settings.is_through_chat:
            chat = await self._find("text_chat")
            if chat is not None and hasattr(chat, "complete"):
                return await self._through(chat)
        model = await self._model(wanted)
        return Voice(model.name, model.stream, self._slots_of(model.name))

    async def close(self) -> None:
        async with self._making:
            self._is_closed = True
            models, self._models = self._models, {}
            for model in models.values():
                await model.close()

    async def _through(self, chat: Any) -> Voice:
        if not self._chats_name:
            self._chats_name = (await chat.describe_model()).name
        return Voice(self._chats_name, chat.complete, self._slots_of(self._chats_name))

    async def _model(self, name: str) -> ChatModel:
        async with self._making:
            if self._is_closed:
                raise Unavailable("the agents' module is closing")
            if name not in self._models:
                section = {**self._settings.model, "model": name} if name else self._settings.model
                # Importing an engine takes a moment, in which others want to be served.
                self._models[name] = await asyncio.to_thread(self._make, section)
            return self._models[name]

    def _slots_of(self, name: str) -> asyncio.Semaphore:
        if name not in self._slots:
            most = self._settings.max_parallel_answers
            self._slots[name] = asyncio.Semaphore(min(most, _ANSWERS_AT_A_TIME.get(name, most)))
        return self._slots[name]
