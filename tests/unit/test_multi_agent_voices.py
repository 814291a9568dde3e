"""With which model an agent speaks, as which persona, and within which settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modules.core.errors import ConfigurationError, Conflict, NotFound, Unavailable, ValidationError
from modules.models.errors import ModelUnavailable
from modules.multi_agent.settings import MultiAgentSettings
from tests.multi_agent_world import Asked, World, world


async def ended(world: World, topic: str, *agents: str, **options: Any) -> Any:
    made = await world.module.start_conversation(topic, list(agents), **options)
    return await world.module.wait_for_conversation(made.id, 10)


# -- models and personas -----------------------------------------------------------------------------------------------


async def test_agents_speak_through_text_chat_while_it_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")

        async def describe_model() -> Any:
            return SimpleNamespace(name="smollm2")

        here.neighbours["text_chat"] = SimpleNamespace(complete=here.model.stream, describe_model=describe_model)
        here.module._voices._make = lambda section: pytest.fail("it has a model of its own")
        conversation = await ended(here, "t", "ada", max_turns=1)
        assert (await here.turns(conversation.id))[-1].metadata["model"] == "smollm2"


async def test_a_persona_shapes_its_agent_and_its_absence_does_not_matter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def inject_personality(message: str, persona_id: str, *, user_id: str) -> str:
        if persona_id == "broken":
            raise RuntimeError("no template")
        return f"{message} Like {persona_id}, for {user_id}."

    async with world(tmp_path) as here:
        here.neighbours["persona"] = SimpleNamespace(inject_personality=inject_personality)
        await here.register("ada", user_id="u", persona_id="einstein")
        await here.register("ben", user_id="u", persona_id="broken")
        await here.module.send_to_agents("hello", ["ada", "ben"], user_id="u")
        systems = sorted(asked.messages[0].content for asked in here.model.asked)
        assert systems == ["I am ada. Like einstein, for u.", "I am ben."]
        assert "without its persona" in caplog.text


async def test_a_persona_takes_part_without_being_registered(tmp_path: Path) -> None:
    async def get_persona(persona_id: str, *, user_id: str) -> Any:
        if persona_id != "einstein":
            raise NotFound("no persona")
        return SimpleNamespace(name="Albert")

    async def inject_personality(message: str, persona_id: str, *, user_id: str) -> str:
        return f"I am {persona_id}."

    async with world(tmp_path) as here:
        here.neighbours["persona"] = SimpleNamespace(get_persona=get_persona, inject_personality=inject_personality)
        assert (await ended(here, "t", "einstein", max_turns=1)).turns == 1
        with pytest.raises(NotFound, match="no persona has this id"):
            await here.module.start_conversation("t", ["newton"])


async def test_an_agent_may_only_name_models_that_the_settings_allow(tmp_path: Path) -> None:
    sections: list[Any] = []
    settings = {"model": {"provider": "openai", "model": "big", "allowed_models": ["small"]}}
    async with world(tmp_path, **settings) as here:
        here.module._voices._make = lambda section: sections.append(section["model"]) or here.model  # type: ignore[func-returns-value]
        await here.register("ada", model="small")
        await here.register("ben", model="secret")
        await here.register("cleo")
        result = await here.module.send_to_agents("hello", ["ada", "ben", "cleo"])
        assert [one.status for one in result.answers] == ["complete", "failed", "complete"]
        assert "not allow" in (result.answers[1].failure.message if result.answers[1].failure else "")
        assert sorted(sections) == ["big", "small"]


async def test_limits_on_answers_and_what_agents_ask_for_reach_the_model(tmp_path: Path) -> None:
    async with world(tmp_path, model={"max_tokens": 50}) as here:
        await here.register("ada", temperature=0.25, max_tokens=20)
        await here.register("ben", max_tokens=500)
        await here.module.send_to_agents("hello", ["ada", "ben"])
        options = {asked.name: asked.options for asked in here.model.asked}
        assert (options["ada"]["max_tokens"], options["ada"]["temperature"]) == (20, 0.25)
        assert (options["ben"]["max_tokens"], options["ben"]["temperature"]) == (50, None)


async def test_each_turn_is_a_span_without_what_was_said(tmp_path: Path) -> None:
    def script(asked: Asked) -> str:
        if asked.name == "ben":
            raise ModelUnavailable("away")
        return "a secret"

    async with world(tmp_path, script) as here:
        here.context.tracer.turn_on()
        await here.register("ada", "ben")
        await here.module.send_to_agents("hello", ["ada", "ben"])
        spans = {span.name: span for span in here.context.tracer.drain(10)}
        assert set(spans) == {"invoke_agent ada", "invoke_agent ben"}
        assert spans["invoke_agent ada"].attributes == {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.id": "ada",
            "gen_ai.request.model": "scripted",
            "modchat.turn.kind": "reply",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
        }
        assert (spans["invoke_agent ada"].error, spans["invoke_agent ben"].error) == (None, "model_unavailable")


async def test_closing_frees_the_models_and_refuses_what_comes_after(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        await here.module.send_to_agents("hello", ["ada"])
        await here.module.close()
        assert here.model.is_closed
        with pytest.raises(Unavailable):
            await here.module._voices.voice_of(await here.module.get_agent("ada"))


# -- settings ----------------------------------------------------------------------------------------------------------


def read(**modules: Any) -> MultiAgentSettings:
    def get(path: str, default: Any) -> Any:
        value: Any = modules
        for part in path.split("."):
            if part not in value:
                return default
            value = value[part]
        return value

    return MultiAgentSettings.read(get)


def test_the_model_is_text_chats_unless_the_settings_say_otherwise() -> None:
    chat = {"model": {"provider": "openai", "model": "big", "timeout_seconds": 9.0}}
    through = read(text_chat=chat, multi_agent={"model": {"provider": "text_chat", "timeout_seconds": 3.0}})
    assert through.is_through_chat
    assert through.model == {"provider": "openai", "model": "big", "timeout_seconds": 3.0}
    own = read(text_chat=chat, multi_agent={"model": {"provider": "smollm2"}})
    assert (own.is_through_chat, own.model) == (False, {"provider": "smollm2"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_turns": 0},
        {"agent_timeout_seconds": 0},
        {"consensus": {"quorum": 1.5}},
        {"consensus": {"likeness": "much"}},
        {"model": {"model": "big"}},
        {"model": {"allowed_models": [""]}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_their_path(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="multi_agent"):
        read(multi_agent=wrong)


async def test_limits_on_numbers_are_kept(tmp_path: Path) -> None:
    limits = {
        "max_agents_per_user": 3,
        "max_agents_per_conversation": 2,
        "max_running_per_user": 1,
        "max_message_length": 9,
    }

    async def never(asked: Asked) -> str:
        await asyncio.Event().wait()
        return ""

    async with world(tmp_path, never, **limits) as here:
        await here.register("a", "b", "c")
        await here.register("a")
        with pytest.raises(Conflict, match="3 agents of at most 3"):
            await here.register("d")
        with pytest.raises(ValidationError, match="3 agents of at most 2"):
            await here.module.start_conversation("t", ["a", "b", "c"])
        with pytest.raises(ValidationError, match="1 to 9"):
            await here.module.start_conversation("t" * 10, ["a"])
        await here.module.start_conversation("t", ["a"])
        with pytest.raises(Conflict, match="1 conversations are under way"):
            await here.module.start_conversation("t", ["a"])
        await here.module.start_conversation("t", ["a"], user_id="somebody else")
