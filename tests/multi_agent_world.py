"""Agents with a script instead of a model, for the tests of the module multi_agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modules.core.bus import Envelope, MessageBus
from modules.core.context import ModuleContext
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.models.protocols import Delta, PromptMessage, Usage
from modules.multi_agent import MultiAgentModule, Turn

Script = Callable[["Asked"], "str | Awaitable[str]"]


class Asked:
    """One request to the model. ``name``: the agent that is asked, by the prompt."""

    def __init__(self, messages: Sequence[PromptMessage], options: Mapping[str, Any]) -> None:
        self.messages = list(messages)
        self.options = dict(options)
        system = messages[0].content if messages[0].role == "system" else ""
        self.name = system.removeprefix("I am ").partition(".")[0]
        self.question = messages[-1].content

    @property
    def is_vote(self) -> bool:
        return self.question.endswith("Reply with the number only.")


class ScriptedModel:
    """*script* gives the answer to a request, or raises; a coroutine may take its time. ``asked``: all requests."""

    name = "scripted"
    context_window = None
    can_call_tools = False

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.at_a_time = 0
        self.most_at_a_time = 0
        self.is_closed = False

    async def load(self) -> None:
        """Nothing."""

    async def stream(self, messages: Sequence[PromptMessage], **options: Any) -> AsyncGenerator[Delta, None]:
        request = Asked(messages, options)
        self.asked.append(request)
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            answer = self.script(request)
            text = answer if isinstance(answer, str) else await answer
            for word in text.split(" "):
                yield Delta(word + " ")
            yield Delta(finish_reason="stop", usage=Usage(10, 5))
        finally:
            self.at_a_time -= 1

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        raise AssertionError("nobody needs to count")

    async def close(self) -> None:
        self.is_closed = True


class World:
    """The module on *base*, with what was emitted. ``neighbours``: other modules by name."""

    def __init__(self, base: Path, script: Script, settings: Mapping[str, Any], files: FlatFiles | None) -> None:
        self.model = ScriptedModel(script)
        self.heard: list[Envelope] = []
        self.neighbours: dict[str, Any] = {}
        self.bus = MessageBus()
        self.module = MultiAgentModule(make_model=lambda section: self.model, make_embedding=lambda section: None)
        self.neighbours["multi_agent"] = self.module
        storage = FlatFileStorage(base)
        if files is not None:
            storage.files = files
        self.context = ModuleContext(
            bus=self.bus,
            settings={"multi_agent": settings},
            storage=storage,
            resolve=self._find,
            module_name="multi_agent",
        )

    async def _find(self, name: str) -> Any:
        return self.neighbours.get(name)

    async def hear(self, envelope: Envelope) -> None:
        self.heard.append(envelope)

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [envelope.data for envelope in self.heard if envelope.event == name]

    async def register(self, *names: str, user_id: str = "", **metadata: Any) -> list[str]:
        for name in names:
            prompt = {"system_prompt": f"I am {name}.", **metadata}
            await self.module.register_agent(name, "assistant", ["talk"], prompt, user_id=user_id)
        return list(names)

    async def turns(self, conversation_id: str) -> list[Turn]:
        return await self.module.get_turns(conversation_id, 1000)


@asynccontextmanager
async def world(
    base: Path,
    script: Script = lambda asked: f"{asked.name} speaks",
    *,
    files: FlatFiles | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    made = World(base, script, settings, files)
    made.bus.on("*", envelope=True)(made.hear)
    await made.module.initialize(made.context)
    try:
        yield made
    finally:
        await made.module.close()


async def said(world: World, conversation_id: str, count: int) -> None:
    """Return once so many agents' turns are kept."""
    async with asyncio.timeout(10):
        while sum(turn.is_of_agent for turn in await world.turns(conversation_id)) < count:
            await asyncio.sleep(0.005)
