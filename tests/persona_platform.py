"""The persona module on a base of its own, with sessions of ann in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from modules.core.bus import MessageBus
from modules.core.context import ModuleContext
from modules.core.errors import NotFound
from modules.core.storage import FlatFileStorage
from modules.core.types import Session
from modules.persona import PersonaModule


class ManualClock:
    def __init__(self):
        self.moment = datetime(2026, 1, 15, 12, tzinfo=UTC)

    def now(self):
        self.moment += timedelta(seconds=1)
        return self.moment

    def monotonic(self):
        return self.moment.timestamp()


class Chat:
    """Sessions of ann, in memory."""

    def __init__(self):
        self.sessions = {"s": Session("s", "ann", "Talk", metadata={"kept": 1})}

    async def get_session(self, session_id, user_id=None):
        session = self.sessions.get(session_id)
        if session is None or user_id not in (None, session.user_id):
            raise NotFound("no such session")
        return session

    async def update_session_metadata(self, session_id, changes, user_id=None):
        old = await self.get_session(session_id, user_id)
        metadata = {**old.metadata, **changes}
        self.sessions[session_id] = Session(old.id, old.user_id, old.title, metadata=metadata)


@pytest.fixture
def start(tmp_path):
    """A module on the same base each time: a second start is a restart."""

    async def started(chat=None, told=None, **config):
        bus = MessageBus()

        @bus.on("*", envelope=True)
        async def hear(envelope):
            if told is not None:
                told.append((envelope.event, dict(envelope.data)))

        async def resolve(name):
            return chat if name == "text_chat" else None

        module = PersonaModule(config, clock=ManualClock(), make_embedder=lambda settings: None)
        context = ModuleContext(bus=bus, storage=FlatFileStorage(tmp_path), resolve=resolve)
        await module.initialize(context.named("persona"))
        return module

    return started


def ids(personas):
    return [one.id for one in personas]
