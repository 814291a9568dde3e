"""memory on a base of its own: started again, with an embedder that tests can look into."""

from __future__ import annotations

import pytest

from modules.core.context import ModuleContext
from modules.core.errors import Unavailable
from modules.core.storage import FlatFileStorage
from modules.memory import MemoryModule
from tests.manual_clock import ManualClock


class AnimalEmbedder:
    """Knows that dogs and puppies are one thing, and cats another."""

    def __init__(self):
        self.texts = []
        self.is_away = False

    async def embed(self, texts):
        if self.is_away:
            raise Unavailable("no embedder")
        self.texts += texts
        return [[float("dog" in text or "puppy" in text), float("cat" in text), 0.1] for text in texts]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def start(tmp_path, clock):
    """A module on the same base each time: a second start is a restart."""

    async def started(embedder=None, **config):
        module = MemoryModule({"embedding": {"provider": "none"}} | config, embedder=embedder, clock=clock)
        await module.initialize(ModuleContext(storage=FlatFileStorage(tmp_path), clock=clock).named("memory"))
        return module

    return started


def keys(items):
    return [item.key for item in items]


def migrated_context(tmp_path, user, session, text):
    place = tmp_path / "memory/short_term" / user / session
    place.mkdir(parents=True)
    (place / "context.json").write_text(text)
    return place
