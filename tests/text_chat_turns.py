"""text_chat with a model that says what it is told to: for tests of turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from modules.core.bus import MessageBus
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.models.protocols import Delta, Usage
from modules.text_chat import TextChatModule
from modules.text_chat.answer_chunks import TextDelta

OPEN_RATES = {"messages_per_minute": None, "tokens_per_minute": None}


class FakeModel:
    """Says its *answers* in turn, the last one again and again. An answer is a list of texts, errors to raise, and
    events to wait for; what was asked of it is in ``prompts``."""

    name = "fake"
    can_call_tools = False

    def __init__(self, *answers, window=None):
        self.answers = list(answers) or [["Hello", " there"]]
        self.context_window = window
        self.prompts = []
        self.options = []
        self.running = 0
        self.most_running = 0
        self.abandoned = 0
        self.closed = 0

    async def load(self):
        pass

    async def stream(self, messages, **options):
        answer = self.answers[min(len(self.prompts), len(self.answers) - 1)]
        self.prompts.append(messages)
        self.options.append(options)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        has_ended = False
        try:
            for step in answer:
                await asyncio.sleep(0)
                if isinstance(step, Exception):
                    has_ended = True
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield Delta(step)
            has_ended = True
            yield Delta(finish_reason="stop", usage=Usage(11, 7))
        finally:
            self.running -= 1
            self.abandoned += not has_ended

    def count_tokens(self, prompt):
        if isinstance(prompt, str):
            return len(prompt.split())
        return sum(len(message.content.split()) + 4 for message in prompt)

    async def close(self):
        self.closed += 1


@dataclass
class Platform:
    chat: TextChatModule
    model: FakeModel
    told: list = field(default_factory=list)

    def events(self, name):
        return [data for event, data in self.told if event == name]


@pytest.fixture
async def start(tmp_path):
    """Starts a chat with a model and neighbours, on the same base each time."""
    started = []

    async def platform(model=None, neighbours=None, make_model=None, section=None, **settings):
        model = model or FakeModel()
        bus = MessageBus()
        chat = TextChatModule(make_model=make_model or (lambda settings: model))
        running = Platform(chat, model)

        @bus.on("*", envelope=True)
        async def hear(envelope):
            running.told.append((envelope.event, envelope.data))

        async def resolve(name):
            return (neighbours or {}).get(name)

        context = ModuleContext(
            bus=bus,
            storage=FlatFileStorage(tmp_path),
            settings={"text_chat": {"rate_limit": OPEN_RATES, "model": section or {}} | settings},
            resolve=resolve,
        )
        await chat.initialize(context.named("text_chat"))
        started.append(chat)
        return running

    yield platform
    for chat in started:
        await chat.close()


async def read(stream):
    return [chunk async for chunk in stream]


def text_of(chunks):
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


async def until(is_true):
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.001)


def contents(messages):
    return [(one.role, one.content, one.status) for one in messages]
