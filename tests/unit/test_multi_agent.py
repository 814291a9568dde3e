"""The module as its callers see it, with agents that have a script instead of a model."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import NotFound
from modules.models.errors import ContextTooLong, ModelUnavailable
from modules.models.protocols import Delta
from modules.multi_agent import TextSaid, TurnLimit
from tests.multi_agent_world import Asked, World, said, world

PETS = ["a cat", "a dog", "a horse"]


def voting(**chosen: str) -> Any:
    """Agents that speak in a sentence, and vote as given."""

    def script(asked: Asked) -> str:
        if not asked.is_vote:
            return f"{asked.name} thinks"
        return chosen[asked.name]

    return script


async def ended(world: World, topic: str = "Which pet?", *agents: str, **options: Any) -> Any:
    made = await world.module.start_conversation(topic, list(agents) or ["ada", "ben", "cleo"], **options)
    return await world.module.wait_for_conversation(made.id, 10)


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_agents_speak_in_turn_until_the_turn_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", "ben", "cleo")
        conversation = await ended(here, max_turns=5)
        assert (conversation.status, conversation.reason, conversation.turns) == ("completed", "turns", 5)
        spoken = [turn.agent_id for turn in await here.turns(conversation.id)]
        assert spoken == [None, "ada", "ben", "cleo", "ada", "ben"]
        assert len(here.events("agent.response")) == 5
        assert [data["reason"] for data in here.events("conversation.complete")] == ["turns"]
        assert here.events("consensus.reached") == []


async def test_the_usual_turn_limit_is_that_of_the_settings(tmp_path: Path) -> None:
    async with world(tmp_path, max_turns=3) as here:
        await here.register("ada")
        assert (await ended(here, "t", "ada")).turns == 3


async def test_each_agent_hears_those_before_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", "ben")
        await ended(here, "t", "ada", "ben", max_turns=3)
        last = here.model.asked[-1]
        assert [one.content for one in last.messages[1:3]] == ["Topic: t", "ada speaks"]
        assert last.question.startswith("ben: ben speaks")


async def test_a_conversation_ends_by_consensus_and_the_decision_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path, voting(ada="1", ben="a cat", cleo="1. a cat")) as here:
        await here.register("ada", "ben", "cleo")
        conversation = await ended(here, strategy="consensus", options=PETS)
        assert (conversation.status, conversation.reason, conversation.turns) == ("completed", "consensus", 6)
        assert conversation.decision["content"] == "a cat"
        (kept,) = json.loads((tmp_path / f"multi_agent/conversations/{conversation.id}/decisions.json").read_text())
        assert set(kept) == {
            "id",
            "panel_id",
            "type",
            "content",
            "supporting_messages",
            "consensus_level",
            "created_at",
            "created_by",
            "metadata",
        }
        ballots = [turn for turn in await here.turns(conversation.id) if turn.kind == "vote"]
        assert kept["supporting_messages"] == [turn.id for turn in ballots]
        assert [turn.consensus_level for turn in ballots] == [pytest.approx(n / 3) for n in (1, 2, 3)]
        assert [data["decision"]["content"] for data in here.events("consensus.reached")] == ["a cat"]


async def test_without_a_quorum_the_rounds_of_the_settings_are_held_and_the_leader_breaks_the_tie(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, voting(ada="1", ben="2", cleo="3"), consensus={"max_rounds": 2}) as here:
        await here.register("ada", "ben", "cleo")
        conversation = await ended(here, strategy="consensus", options=PETS, leader="cleo")
        assert (conversation.reason, conversation.turns) == ("tie_break", 12)
        assert conversation.decision["content"] == "a horse"
        assert here.events("consensus.reached") == []


async def test_the_quorum_of_the_settings_decides(tmp_path: Path) -> None:
    async with world(tmp_path, voting(ada="1", ben="1", cleo="2"), consensus={"quorum": 0.6}) as here:
        await here.register("ada", "ben", "cleo")
        assert (await ended(here, strategy="consensus", options=PETS)).reason == "consensus"


async def test_a_vote_that_cannot_be_read_is_asked_for_once_more(tmp_path: Path) -> None:
    answers = iter(["well, hard to say", "2"])
    async with world(tmp_path, lambda asked: next(answers) if asked.is_vote else "hm") as here:
        await here.register("ada")
        conversation = await ended(here, "t", "ada", strategy="consensus", options=PETS)
        assert conversation.decision["content"] == "a dog"


async def test_answers_that_say_the_same_are_an_agreement_by_likeness(tmp_path: Path) -> None:
    script = {"ada": "It is Paris", "ben": "it is paris!", "cleo": "Paris it is"}
    async with world(tmp_path, lambda asked: script[asked.name]) as here:
        await here.register("ada", "ben", "cleo")
        conversation = await ended(here, strategy="consensus", agreement="likeness")
        assert (conversation.reason, conversation.turns) == ("consensus", 3)


async def test_the_likeness_of_the_settings_is_what_counts_as_the_same(tmp_path: Path) -> None:
    script = {"ada": "It is Paris", "ben": "It is Rome"}
    for likeness, reason in ((0.4, "consensus"), (0.9, "tie_break")):
        settings = {"likeness": likeness, "max_rounds": 1}
        async with world(tmp_path, lambda asked: script[asked.name], consensus=settings) as here:
            await here.register("ada", "ben")
            assert (await ended(here, "t", "ada", "ben", strategy="consensus", agreement="likeness")).reason == reason


async def test_conditions_given_as_json_end_a_conversation(tmp_path: Path) -> None:
    async with world(tmp_path, lambda asked: "we are DONE" if asked.name == "ben" else "go on") as here:
        await here.register("ada", "ben")
        either = {"any": [{"tokens": 1000}, {"all": [{"text": "done", "by": ["ben"]}, {"turns": 3}]}]}
        conversation = await ended(here, "t", "ada", "ben", termination=either)
        assert (conversation.reason, conversation.turns) == ("text+turns", 3)
        assert conversation.termination == either


async def test_conditions_can_be_put_together_in_python(tmp_path: Path) -> None:
    async with world(tmp_path, lambda asked: "done") as here:
        await here.register("ada")
        conversation = await ended(here, "t", "ada", termination=(TextSaid("done") & TurnLimit(2)) | TurnLimit(9))
        assert (conversation.reason, conversation.turns) == ("text+turns", 2)


async def test_agreement_can_end_a_round_robin(tmp_path: Path) -> None:
    async with world(tmp_path, lambda asked: "yes indeed") as here:
        await here.register("ada", "ben")
        conversation = await ended(here, "t", "ada", "ben", termination={"agreement": 1.0})
        assert (conversation.reason, conversation.turns) == ("agreement", 2)
        assert conversation.decision["content"] == "yes indeed"
        assert len(here.events("consensus.reached")) == 1


async def test_a_person_can_speak_up_while_it_goes_on(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(asked: Asked) -> str:
        if len(here.model.asked) == 2:
            await gate.wait()
        return "hm"

    async with world(tmp_path, slow) as here:
        await here.register("ada", "ben")
        conversation = await here.module.start_conversation("t", ["ada", "ben"], 3)
        await said(here, conversation.id, 1)
        await here.module.add_turn(conversation.id, "what about fish?")
        gate.set()
        await here.module.wait_for_conversation(conversation.id, 10)
        assert "User: what about fish?" in here.model.asked[2].question


async def test_turns_can_be_followed_as_they_come(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada", "ben")
        conversation = await here.module.start_conversation("t", ["ada", "ben"], 4)
        followed = [turn async for turn in here.module.follow_conversation(conversation.id)]
        assert followed == await here.turns(conversation.id)
        rest = [turn async for turn in here.module.follow_conversation(conversation.id, after=followed[2].id)]
        assert rest == followed[3:]
        with pytest.raises(NotFound, match="no turn"):
            await anext(here.module.follow_conversation(conversation.id, after="nobody's"))


# -- when agents fail --------------------------------------------------------------------------------------------------


async def test_who_is_too_slow_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    async def script(asked: Asked) -> str:
        if asked.name == "ben":
            await asyncio.sleep(30)
        return "1" if asked.is_vote else "fast"

    began = time.monotonic()
    async with world(tmp_path, script, agent_timeout_seconds=0.2, consensus={"quorum": 0.6}) as here:
        await here.register("ada", "ben", "cleo")
        conversation = await ended(here, strategy="consensus", options=PETS)
        assert conversation.decision["content"] == "a cat"
        failed = [turn for turn in await here.turns(conversation.id) if turn.failure is not None]
        assert {(turn.agent_id, turn.failure["code"], turn.role) for turn in failed if turn.failure} == {
            ("ben", "timed_out", "system")
        }
    assert time.monotonic() - began < 5


async def test_an_answer_that_is_cut_off_by_the_time_keeps_its_words(tmp_path: Path) -> None:
    async with world(tmp_path, agent_timeout_seconds=0.2) as here:
        await here.register("ada")

        async def stream(messages: Any, **options: Any) -> Any:
            yield Delta("first words")
            await asyncio.sleep(30)

        here.model.stream = stream  # type: ignore[method-assign]
        conversation = await ended(here, "t", "ada", max_turns=1)
        turn = (await here.turns(conversation.id))[-1]
        assert (turn.content, turn.status, turn.failure) == ("first words", "partial", None)
        assert turn.metadata["cut_off"]["code"] == "timed_out"


async def test_a_conversation_whose_agents_all_fail_ends_as_failed(tmp_path: Path) -> None:
    def broken(asked: Asked) -> str:
        raise ModelUnavailable("no connection")

    async with world(tmp_path, broken) as here:
        await here.register("ada", "ben")
        conversation = await ended(here, "t", "ada", "ben")
        assert (conversation.status, conversation.reason, conversation.turns) == ("failed", "agents_failed", 4)


async def test_an_agent_that_says_nothing_has_failed(tmp_path: Path) -> None:
    async with world(tmp_path, lambda asked: "  ") as here:
        await here.register("ada")
        conversation = await ended(here, "t", "ada")
        assert conversation.reason == "agents_failed"
        assert (await here.turns(conversation.id))[-1].failure == {
            "code": "empty_answer",
            "message": "the model said nothing",
        }


async def test_a_prompt_that_is_too_long_for_the_model_is_shortened(tmp_path: Path) -> None:
    def narrow(asked: Asked) -> str:
        length = sum(len(one.content) for one in asked.messages)
        if length > 900:
            raise ContextTooLong("too long", tokens=length, limit=900)
        return "word " * 50

    async with world(tmp_path, narrow) as here:
        await here.register("ada", "ben")
        conversation = await ended(here, "t", "ada", "ben", max_turns=12)
        assert (conversation.status, conversation.turns) == ("completed", 12)
        assert not any(turn.failure for turn in await here.turns(conversation.id))


async def test_a_mistake_in_the_module_ends_its_conversation_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def script(asked: Asked) -> str:
        if asked.name == "ada":
            raise KeyError("a bug")
        return "fine"

    async with world(tmp_path, script) as here:
        await here.register("ada", "ben")
        assert (await ended(here, "t", "ada")).reason == "internal_error"
        assert (await ended(here, "t", "ben", max_turns=1)).reason == "turns"
        assert "ended by an error of its own" in caplog.text


# -- at a time ---------------------------------------------------------------------------------------------------------


async def test_agents_of_a_round_are_asked_at_the_same_time_up_to_the_setting(tmp_path: Path) -> None:
    async def slow(asked: Asked) -> str:
        await asyncio.sleep(0.05)
        return "1"

    for most in (2, 8):
        async with world(tmp_path, slow, max_parallel_answers=most) as here:
            names = await here.register("a", "b", "c", "d", "e")
            await ended(here, "t", *names, strategy="consensus", options=PETS)
            assert here.model.most_at_a_time == min(most, 5)


@pytest.mark.slow
async def test_waiting_for_the_model_is_not_counted_as_the_agents_time(tmp_path: Path) -> None:
    async def slow(asked: Asked) -> str:
        await asyncio.sleep(0.1)
        return "1"

    async with world(tmp_path, slow, max_parallel_answers=1, agent_timeout_seconds=0.25) as here:
        names = await here.register("a", "b", "c", "d", "e")
        conversation = await ended(here, "t", *names, strategy="consensus", options=PETS)
        assert (conversation.reason, conversation.turns) == ("consensus", 10)


# -- messages and tasks ------------------------------------------------------------------------------------------------


async def test_agents_answer_a_message_all_at_a_time_each_for_itself(tmp_path: Path) -> None:
    async def script(asked: Asked) -> str:
        if asked.name == "ben":
            raise ModelUnavailable("away")
        await asyncio.sleep(0.05)
        return f"{asked.name}: {asked.question}"

    async with world(tmp_path, script) as here:
        await here.register("ada", "ben", "cleo")
        result = await here.module.send_to_agents("hello", ["ada", "ben", "cleo"])
        assert [(one.agent_id, one.content, one.status) for one in result.answers] == [
            ("ada", "hello", "complete"),
            ("ben", "", "failed"),
            ("cleo", "hello", "complete"),
        ]
        assert (result.answers[1].failure and result.answers[1].failure.code) == "model_unavailable"
        assert len(here.events("agent.response")) == 3
        assert not (tmp_path / "multi_agent/conversations").exists()


async def test_the_first_answer_is_enough_when_not_all_are_waited_for(tmp_path: Path) -> None:
    async def script(asked: Asked) -> str:
        if asked.name == "ada":
            raise ModelUnavailable("away")
        await asyncio.sleep(0 if asked.name == "ben" else 30)
        return "quick"

    async with world(tmp_path, script) as here:
        await here.register("ada", "ben", "cleo")
        result = await here.module.send_to_agents("hello", ["ada", "ben", "cleo"], wait_for_all=False)
        assert [(one.agent_id, one.status) for one in result.answers] == [("ada", "failed"), ("ben", "complete")]
        assert result.unanswered == ("cleo",)
        assert here.model.at_a_time == 0, "the slow one was called off"


@pytest.mark.parametrize(
    ("strategy", "turns", "answer"), [("round_robin", 2, "ben thinks"), ("leader_based", 3, "ada thinks")]
)
async def test_a_task_is_given_to_who_can_do_it_and_comes_to_an_answer(
    tmp_path: Path, strategy: str, turns: int, answer: str
) -> None:
    async with world(tmp_path, voting()) as here:
        for name, able in (("ada", ["maths", "prose"]), ("ben", ["prose"]), ("cleo", ["song"])):
            await here.module.register_agent(name, "expert", able, {"system_prompt": f"I am {name}."})
        result = await here.module.coordinate_task("write it", ["prose"], strategy)
        assert (result.answer, len(result.turns)) == (answer, turns)
        assert result.conversation.agents == ("ada", "ben")
        assert result.conversation.reason == "answered"


async def test_a_task_can_be_decided_by_consensus(tmp_path: Path) -> None:
    async with world(tmp_path, voting(ada="2", ben="2")) as here:
        await here.register("ada", "ben")
        result = await here.module.coordinate_task("choose", ["talk"], "consensus", options=PETS)
        assert result.answer == "a dog"


async def test_a_task_that_nobody_can_do_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        with pytest.raises(NotFound, match="dance, sing"):
            await here.module.coordinate_task("t", ["talk", "sing", "dance"])


async def test_a_task_that_takes_longer_than_its_caller_waits_is_still_done(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(asked: Asked) -> str:
        await gate.wait()
        return "done"

    async with world(tmp_path, slow) as here:
        await here.register("ada")
        early = await here.module.coordinate_task("t", ["talk"], wait_s=0.05)
        assert (early.answer, early.conversation.status) == (None, "running")
        gate.set()
        await here.module.wait_for_conversation(early.conversation.id, 10)
        assert (await here.module.get_task(early.conversation.id)).answer == "done"


async def test_the_same_start_with_a_key_gives_the_first_ones_conversation(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.register("ada")
        first = await here.module.start_conversation("t", ["ada"], 1, user_id="u", idempotency_key="k")
        again = await here.module.start_conversation("t", ["ada"], 1, user_id="u", idempotency_key="k")
        other = await here.module.start_conversation("t", ["ada"], 1, user_id="v", idempotency_key="k")
        assert first.id == again.id != other.id
        assert len(await here.module.list_conversations("u")) == 1
