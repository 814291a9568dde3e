"""text_chat on a base of its own: started again, looked at on disk, given what a migration leaves."""

from __future__ import annotations

import json

import pytest

from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.text_chat import TextChatModule
from tests.manual_clock import ManualClock

OPEN_RATES = {"messages_per_minute": None, "tokens_per_minute": None}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def start(tmp_path, clock):
    """Starts a module on the same base each time: a second start is a restart of the platform."""

    async def started(**settings):
        module = TextChatModule(clock=clock)
        settings = {"rate_limit": OPEN_RATES} | settings
        context = ModuleContext(storage=FlatFileStorage(tmp_path), settings={"text_chat": settings}, clock=clock)
        await module.initialize(context.named("text_chat"))
        return module

    return started


def home(tmp_path, session):
    return tmp_path / "text_chat" / "sessions" / session.user_id / session.id


def migrated(tmp_path, user, session, *, metadata, lines=()):
    """A session as a migration writes it; *metadata* is the text of metadata.json."""
    directory = tmp_path / "text_chat" / "sessions" / user / session
    directory.mkdir(parents=True)
    if lines:
        (directory / "messages.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (directory / "metadata.json").write_bytes(metadata)
    return directory


def plain_metadata(user, session, updated_at="2024-01-01T00:00:00", count=0):
    document = {
        "id": session,
        "user_id": user,
        "title": f"About {session}",
        "created_at": "2024-01-01T00:00:00",
        "updated_at": updated_at,
        "metadata": {},
        "session_type": "chat",
        "message_count": count,
        "active": True,
        "legacy": {"generation": "G6"},
    }
    return json.dumps(document).encode()


def contents(messages):
    return [message.content for message in messages]
