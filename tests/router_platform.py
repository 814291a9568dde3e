"""A router on a base of its own, with an embedding model that knows kitchens from courts."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from modules.core.bus import MessageBus
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.models.errors import ModelUnavailable
from modules.topic_router import TopicRouterModule
from tests.manual_clock import ManualClock

COOKING = ["bake bread", "roast a chicken", "boil an egg", "bake a cake", "soup with egg", "bread dough", "roast pork"]
LEGAL = ["sign a contract", "the court hearing", "sue my landlord", "a lawyer letter", "court fine", "contract law"]
EXAMPLES = [{"content": text, "topics": ["cooking"]} for text in COOKING]
EXAMPLES += [(text, ["legal"]) for text in LEGAL]


class Embedder:
    """Knows kitchens from courts."""

    name, dimension = "fake", 3

    def __init__(self):
        self.is_away = False
        self.texts = 0

    async def embed(self, texts):
        if self.is_away:
            raise ModelUnavailable("away")
        self.texts += len(texts)
        kitchen = ("bake", "roast", "egg", "bread", "soup", "cake", "dough", "stew", "pork", "boil")
        court = ("contract", "court", "sue", "lawyer", "law", "judge")
        rows = [[any(w in t for w in kitchen), any(w in t for w in court), 0.1] for t in texts]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    async def close(self):
        pass


@pytest.fixture
def clock():
    return ManualClock(datetime(2026, 1, 15, 12, tzinfo=UTC))


@pytest.fixture
async def start(tmp_path, clock):
    """A router on the same base each time: a second start is a restart."""
    started = []

    async def make(embedder=None, told=None, agents=None, **config):
        embedder = embedder or Embedder()
        bus = MessageBus()

        @bus.on("*", envelope=True)
        async def hear(envelope):
            if told is not None:
                told.append((envelope.event, dict(envelope.data)))

        async def resolve(name):
            return agents if name == "multi_agent" else None

        router = TopicRouterModule(config, clock=clock, make_embedder=lambda settings: embedder)
        context = ModuleContext(bus=bus, storage=FlatFileStorage(tmp_path), resolve=resolve, clock=clock)
        await router.initialize(context.named("topic_router"))
        started.append(router)
        return router

    yield make
    for router in started:
        await router.close()
