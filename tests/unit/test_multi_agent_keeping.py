"""What is kept of agents and conversations, whose it is, and that it can be gone on with and removed."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from migration.reverse import reverse
from migration.storage_mapper import StorageMapper
from migration.validate import MigrationValidator
from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles
from modules.multi_agent import Agent
from tests.multi_agent_world import Asked, World, world

HOME = "multi_agent/conversations"


async def never(asked: Asked) -> str:
    await asyncio.Event().wait()
    return ""


async def ended(here: World, *agents: str, topic: str = "a topic", **options: Any) -> Any:
    made = await here.module.start_conversation(topic, list(agents), **options)
    return await here.module.wait_for_conversation(made.id, 10)


# -- agents ------------------------------------------------------------------------------------------------------------


async def test_a_registered_agent_outlives_the_process(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        made = await here.module.register_agent("ada", "expert", ["maths", "maths"], {"name": "Ada"}, user_id="u")
        assert made.capabilities == ("maths",)
        assert here.events("agent.registered")[0]["agent"]["id"] == "ada"
    async with world(tmp_path) as here:
        assert await here.module.get_agent("ada", user_id="u") == made


async def test_a_user_sees_its_own_agents_and_those_for_everybody_and_no_others(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("shared", "ada")
        await here.register("ada", "mine", user_id="u")
        await here.register("theirs", user_id="v")
        found = await here.module.list_agents("u")
        assert [(one.id, one.user_id) for one in found] == [("ada", "u"), ("mine", "u"), ("shared", "")]
        with pytest.raises(NotFound):
            await here.module.get_agent("theirs", user_id="u")
        with pytest.raises(NotFound):
            await here.module.start_conversation("t", ["theirs"], user_id="u")


async def test_agents_are_listed_in_pages_and_by_what_they_can_do(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("a", "b", "c")
        await here.module.register_agent("d", "expert", ["dance"])
        first = await here.module.list_agents(limit=2)
        rest = await here.module.list_agents(limit=2, after=first[-1].id)
        assert [one.id for one in (*first, *rest)] == ["a", "b", "c", "d"]
        assert [one.id for one in await here.module.list_agents(capability="dance")] == ["d"]


async def test_an_agent_that_is_forgotten_is_gone_and_only_its_owner_can_forget_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        with pytest.raises(NotFound):
            await here.module.unregister_agent("ada", user_id="u")
        await here.module.unregister_agent("ada")
        with pytest.raises(NotFound):
            await here.module.get_agent("ada")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".", "..", "é" * 80, "%2E", "x "])
async def test_an_id_never_becomes_a_path_of_its_own(tmp_path: Path, name: str) -> None:
    async with world(tmp_path / "base") as here:
        await here.module.register_agent(name, user_id=name, metadata={"system_prompt": "I am x."})
        conversation = await ended(here, name, max_turns=1, user_id=name)
        assert [one.id for one in await here.module.list_agents(name)] == [name]
        assert conversation.agents == (name,)
        assert (await here.module.get_turns(conversation.id))[-1].agent_id == name
    assert [one.name for one in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "a\nb"}, "agent_id"),
        ({"agent_id": "a" * 201}, "agent_id"),
        ({"agent_id": 5}, "agent_id"),
        ({"agent_type": ""}, "agent_type"),
        ({"capabilities": "maths"}, "capabilities"),
        ({"capabilities": [""]}, "capabilities"),
        ({"capabilities": [str(n) for n in range(51)]}, "capabilities"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"api_key": "k"}}, "metadata"),
        ({"metadata": {"base_url": "http://10.0.0.1"}}, "metadata"),
        ({"metadata": {"temperature": 3}}, "metadata"),
        ({"metadata": {"max_tokens": 0}}, "metadata"),
        ({"metadata": {"system_prompt": 5}}, "metadata"),
        ({"metadata": {"x": float("nan")}}, "metadata"),
        ({"metadata": {"x": "y" * 70_000}}, "metadata"),
        ({"user_id": None}, "user_id"),
    ],
)
async def test_an_agent_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any], param: str) -> None:
    async with world(tmp_path) as here:
        with pytest.raises(ValidationError) as caught:
            await here.module.register_agent(**{"agent_id": "a", "metadata": {"x": 1}, **wrong})
        assert caught.value.param == param
        assert not (tmp_path / "multi_agent").exists()


async def test_a_damaged_agent_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as here:
        await here.register("a", "b")
        (tmp_path / "multi_agent/agents/%/a.json").write_text("{")
        assert [one.id for one in await here.module.list_agents()] == ["b"]
        assert "a.json is damaged" in caplog.text
        with pytest.raises(StorageError, match="damaged"):
            await here.module.get_agent("a")


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_everything_of_a_conversation_stands_where_the_tree_says(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", "b/c")
        conversation = await ended(here, "ada", "b/c", max_turns=2, user_id="u", title="T", metadata={"k": 1})
    home = tmp_path / HOME / conversation.id
    assert sorted(str(one.relative_to(home)) for one in home.rglob("*") if one.is_file()) == [
        "decisions.json",
        "metadata.json",
        "participants.json",
        "participants/ada.json",
        "participants/b%2Fc.json",
        "state.json",
        "transcript.jsonl",
    ]
    metadata = json.loads((home / "metadata.json").read_text())
    assert (metadata["user_id"], metadata["title"], metadata["metadata"]) == ("u", "T", {"k": 1})
    assert (metadata["message_count"], metadata["participants"], metadata["decisions"]) == (3, 2, 0)
    assert "legacy" not in metadata
    assert json.loads((home / "participants.json").read_text()) == ["ada", "b/c"]


async def test_a_conversation_is_its_users_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        conversation = await ended(here, "ada", max_turns=1, user_id="u")
        module, stranger = here.module, {"user_id": "v"}
        for call in (
            module.get_conversation(conversation.id, "v"),
            module.get_turns(conversation.id, **stranger),
            module.get_decisions(conversation.id, **stranger),
            module.get_task(conversation.id, **stranger),
            module.add_turn(conversation.id, "x", **stranger),
            module.continue_conversation(conversation.id, **stranger),
            module.cancel_conversation(conversation.id, **stranger),
            module.delete_conversation(conversation.id, **stranger),
            module.wait_for_conversation(conversation.id, **stranger),
            module.resume_conversation(conversation.id, **stranger),
            anext(module.follow_conversation(conversation.id, **stranger)),
        ):
            with pytest.raises(NotFound):
                await call
        assert await module.list_conversations("v") == []
        assert [one.id for one in await module.list_conversations("u")] == [conversation.id]


async def test_conversations_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        made = [(await ended(here, "ada", max_turns=1)).id for _ in range(5)]
        first = await here.module.list_conversations(limit=3)
        rest = await here.module.list_conversations(limit=3, after=first[-1].id)
        assert [one.id for one in (*first, *rest)] == made[::-1]
        before = await here.module.list_conversations(limit=2, before=rest[0].id)
        assert [one.id for one in before] == [one.id for one in first[1:]]
        for wrong in ({"limit": 0}, {"limit": 1001}, {"order": "up"}):
            with pytest.raises(ValidationError):
                await here.module.list_conversations(**wrong)
        with pytest.raises(NotFound):
            await here.module.list_conversations(after="nobody's")


async def test_a_conversation_can_be_cancelled_and_what_was_said_stays(tmp_path: Path) -> None:
    async def script(asked: Asked) -> str:
        return await never(asked) if asked.name == "ben" else "hm"

    async with world(tmp_path, script) as here:
        await here.register("ada", "ben")
        conversation = await here.module.start_conversation("t", ["ada", "ben"])
        async with asyncio.timeout(5):
            while len(await here.turns(conversation.id)) < 2:
                await asyncio.sleep(0.005)
        cancelled = await here.module.cancel_conversation(conversation.id)
        assert (cancelled.status, cancelled.reason, cancelled.turns) == ("cancelled", "cancelled", 1)
        assert here.model.at_a_time == 0, "the model was told to stop"
        assert await here.module.cancel_conversation(conversation.id) == cancelled
        assert [data["reason"] for data in here.events("conversation.complete")] == ["cancelled"]


async def test_a_conversation_that_has_ended_can_be_gone_on_with(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", "ben", "cleo")
        first = await ended(here, "ada", "ben", max_turns=2)
        await here.module.continue_conversation(first.id, "and cats?", 1, agent_ids=["cleo"])
        second = await here.module.wait_for_conversation(first.id, 10)
        assert (second.turns, second.message_count, second.agents) == (1, 5, ("cleo",))
        turns = await here.turns(first.id)
        assert [turn.content for turn in turns[3:]] == ["and cats?", "cleo speaks"]
        assert "ada: ada speaks" in here.model.asked[-1].question, "who comes later has heard what was said"
        await here.module.continue_conversation(first.id, None, 1)
        await here.module.wait_for_conversation(first.id, 10)
        assert "Topic: and cats?" in here.model.asked[-1].question


class SlowToReturn(FlatFiles):
    """Says late that the end of a conversation is kept."""

    def write(self, key: str, data: bytes, *, fsync: bool = False) -> None:
        super().write(key, data, fsync=fsync)
        if key.endswith("state.json") and b'"completed"' in data:
            time.sleep(0.2)


async def test_what_has_ended_can_be_gone_on_with_while_that_is_still_being_told(tmp_path: Path) -> None:
    async with world(tmp_path, files=SlowToReturn(tmp_path)) as here:
        told = asyncio.Event()

        async def slow(data: Any) -> None:
            await told.wait()

        here.bus.on("conversation.complete")(slow)
        await here.register("ada")
        conversation = await here.module.start_conversation("t", ["ada"], 1)
        async with asyncio.timeout(5):
            while (await here.module.get_conversation(conversation.id)).status == "running":
                await asyncio.sleep(0.005)
        await here.module.continue_conversation(conversation.id, "more", 1)
        told.set()
        assert (await here.module.wait_for_conversation(conversation.id, 10)).message_count == 4


async def test_each_run_has_its_own_decision(tmp_path: Path) -> None:
    async with world(tmp_path, lambda asked: "1" if asked.is_vote else "hm") as here:
        await here.register("ada")
        first = await ended(here, "ada", strategy="consensus", options=["x", "y"])
        await here.module.continue_conversation(first.id, "again", strategy="consensus", options=["p", "q"])
        second = await here.module.wait_for_conversation(first.id, 10)
        assert [one["content"] for one in await here.module.get_decisions(first.id)] == ["x", "p"]
        assert second.decision is not None
        assert second.decision["content"] == "p"


async def test_what_is_under_way_cannot_be_begun_again(tmp_path: Path) -> None:
    async with world(tmp_path, never) as here:
        await here.register("ada")
        conversation = await here.module.start_conversation("t", ["ada"])
        with pytest.raises(Conflict, match="under way"):
            await here.module.continue_conversation(conversation.id)


async def test_a_start_that_failed_half_way_leaves_no_conversation(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        half = tmp_path / HOME / "conv_half"
        half.mkdir(parents=True)
        (half / "transcript.jsonl").write_text('{"id": "m"}\n')
        assert await here.module.list_conversations() == []
        with pytest.raises(NotFound):
            await here.module.get_conversation("conv_half")


async def test_a_conversation_whose_metadata_is_damaged_keeps_its_owner(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        conversation = await ended(here, "ada", max_turns=1, user_id="u")
    (tmp_path / HOME / conversation.id / "metadata.json").write_bytes(b"{")
    async with world(tmp_path) as here:
        assert await here.module.list_conversations() == []
        (found,) = await here.module.list_conversations("u")
        assert (found.title, found.message_count) == ("Untitled", 2)
        assert (await here.module.erase_user("u")).conversations == 1


# -- users -------------------------------------------------------------------------------------------------------------


def bytes_of(base: Path, needle: bytes) -> list[str]:
    return [str(one) for one in base.rglob("*") if one.is_file() and needle in one.read_bytes()]


async def test_a_user_is_exported_whole_and_erased_to_the_last_byte(tmp_path: Path) -> None:
    secret = "a-secret-that-is-only-hers"
    running = asyncio.Event()

    async def script(asked: Asked) -> str:
        if "endless" in asked.question:
            running.set()
            return await never(asked)
        return secret

    async with world(tmp_path, script) as here:
        await here.register("shared")
        await here.module.register_agent("own", metadata={"system_prompt": secret}, user_id="u")
        ended_one = await ended(here, "own", topic=secret, max_turns=2, user_id="u", metadata={"note": secret})
        under_way = await here.module.start_conversation(f"endless {secret}", ["own"], user_id="u")
        other = await ended(here, "shared", max_turns=1, user_id="v")
        await running.wait()
        exported = json.loads(json.dumps(await here.module.export_user("u"), allow_nan=False))
        assert [one["id"] for one in exported["agents"]] == ["own"]
        assert {one["id"] for one in exported["conversations"]} == {ended_one.id, under_way.id}
        spoken = next(one for one in exported["conversations"] if one["id"] == ended_one.id)["transcript"]
        assert [turn["content"] for turn in spoken] == [secret] * 3
        erased = await here.module.erase_user("u")
        assert (erased.agents, erased.conversations) == (1, 2)
        assert here.model.at_a_time == 0
        assert (await here.module.export_user("u"))["conversations"] == []
        assert await here.module.erase_user("u") == type(erased)("u", 0, 0)
        assert (await here.module.get_conversation(other.id)).status == "completed"
        assert [one.id for one in await here.module.list_agents("u")] == ["shared"]
    assert bytes_of(tmp_path, secret.encode()) == [str(tmp_path / HOME / other.id / "transcript.jsonl")], (
        "only what was said to somebody else is left"
    )


async def test_erasing_nobody_is_refused_nothing_and_harms_no_one(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", user_id="u")
        assert await here.module.erase_user("somebody who never was") is not None
        assert [one.id for one in await here.module.list_agents("u")] == ["ada"]


# -- panels of v2 ------------------------------------------------------------------------------------------------------


def v2_panel(base: Path) -> None:
    panel = base / "panel_sessions/panel_20250101_120000_000001"
    (panel / "personas").mkdir(parents=True)
    (panel / "insights").mkdir()
    record = {
        "id": panel.name,
        "type": "expert_panel",
        "personas": ["dr. who", "plain"],
        "created_at": "2025-01-01T12:00:00",
        "updated_at": "2025-01-01T12:30:00",
        "message_count": 0,
        "config": {"rounds": 2},
        "metadata": {},
    }
    (panel / "panel.json").write_text(json.dumps(record))
    lines = [
        {"role": "user", "content": "What is time?", "message_id": "m1", "persona_id": "user", "response_to": None},
        {"role": "dr. who", "content": "Wibbly.", "message_id": "m2", "persona_id": "dr. who", "response_to": "m1"},
    ]
    (panel / "messages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    persona = {"persona_id": "dr. who", "name": "The Doctor", "description": "I am who.", "traits": ["odd"]}
    (panel / "personas/dr. who.json").write_text(json.dumps(persona))
    (panel / "insights/insight_000000000001.json").write_text(
        json.dumps({"id": "insight_000000000001", "panel_id": panel.name, "content": "time is odd", "type": "summary"})
    )


async def test_a_migrated_panel_is_listed_read_and_gone_on_with(tmp_path: Path) -> None:
    source, base = tmp_path / "v2", tmp_path / "new"
    v2_panel(source)
    StorageMapper(str(source), str(base)).migrate_sessions()
    (home,) = (base / HOME).iterdir()
    before = {str(one.relative_to(home)): one.read_bytes() for one in home.rglob("*") if one.is_file()}

    async with world(base, lambda asked: "1" if asked.is_vote else "Timey.") as here:
        (panel,) = await here.module.list_conversations()
        assert (panel.status, panel.agents, panel.is_migrated) == ("idle", ("dr. who", "plain"), True)
        assert [(turn.agent_id, turn.content) for turn in await here.turns(panel.id)] == [
            (None, "What is time?"),
            ("dr. who", "Wibbly."),
        ]
        assert [one["content"] for one in await here.module.get_decisions(panel.id)] == ["time is odd"]

        await here.module.continue_conversation(panel.id, "And space?", strategy="consensus", options=["big", "small"])
        continued = await here.module.wait_for_conversation(panel.id, 10)
        assert (continued.reason, continued.message_count) == ("consensus", 7)
        first = here.model.asked[0]
        assert first.messages[0].content.startswith("I am who.")
        assert any("Wibbly." in one.content for asked in here.model.asked for one in asked.messages)
        assert [one["content"] for one in await here.module.get_decisions(panel.id)] == ["time is odd", "big"]

    after = {str(one.relative_to(home)): one.read_bytes() for one in home.rglob("*") if one.is_file()}
    assert after.pop("state.json")
    assert after["transcript.jsonl"].startswith(before["transcript.jsonl"])
    assert after | {"transcript.jsonl": b""} == before | {"transcript.jsonl": b""}
    is_valid, errors, _ = MigrationValidator(str(source), str(base)).validate_all()
    assert (is_valid, errors) == (True, [])
    assert reverse(str(base), str(tmp_path / "back")).findings == ()
    lines = (tmp_path / "back/panel_sessions" / panel.id / "messages.jsonl").read_text().splitlines()
    assert [json.loads(line)["content"] for line in lines][2:] == ["And space?", "Timey.", "Timey.", "1", "1"]


async def test_an_agent_that_was_registered_since_speaks_for_its_persona_in_a_panel(tmp_path: Path) -> None:
    v2_panel(tmp_path / "v2")
    StorageMapper(str(tmp_path / "v2"), str(tmp_path / "new")).migrate_sessions()
    async with world(tmp_path / "new") as here:
        await here.module.register_agent("dr. who", metadata={"system_prompt": "I am the newest."})
        (panel,) = await here.module.list_conversations()
        await here.module.continue_conversation(panel.id, "hello", 1)
        await here.module.wait_for_conversation(panel.id, 10)
        assert here.model.asked[0].name == "the newest"


async def test_an_agent_knows_itself_from_either_schema_of_v2(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        home = tmp_path / HOME / "p/participants"
        home.mkdir(parents=True)
        (home / "a.json").write_text('{"behavioral_traits": {"personality": ["calm"]}, "expertise_areas": ["tea", 5]}')
        (home / "b.json").write_text('{"name": 5, "traits": "bold", "communication_style": {}, "id": "other"}')
        (home / "c.json").write_text("[]")
        found = [here.module._store.participant("p", name) for name in "abcd"]
        assert found[0].system_prompt == "Traits: calm.\nYou know: tea."
        assert (found[1].id, found[1].name, found[1].system_prompt) == ("b", "b", "Traits: bold.")
        assert found[2:] == [Agent("c"), Agent("d")]
