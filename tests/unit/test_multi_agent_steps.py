from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ValidationError
from modules.multi_agent.likeness import Group
from modules.multi_agent.plans import Plan, plan_for
from modules.multi_agent.settings import MultiAgentSettings
from modules.multi_agent.steps import Ask, Record, Stop, heard, next_step, note_on, silenced
from modules.multi_agent.team import next_speaker
from modules.multi_agent.termination import Agreement, TurnLimit
from modules.multi_agent.turns import Turn

AGENTS = ("ada", "ben", "cleo")
FAILURE = {"code": "timed_out", "message": "late"}


def plan(**more: Any) -> Plan:
    return Plan("pets?", AGENTS, **more)


def turn(agent: str | None, content: str = "", *, kind: str = "answer", round: int = 1, **more: Any) -> Turn:
    name = f"m-{agent}-{kind}-{round}-{content}"
    return Turn(
        name, "c", "assistant", content or f"{agent} says", agent_id=agent, run=1, kind=kind, round=round, **more
    )


def step(of: Plan, *turns: Turn, **more: Any) -> Ask | Stop:
    return next_step(of, Record(turns, **more))


# -- who speaks --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.data())
def test_a_selector_never_picks_whom_it_must_exclude(order: list[str], data: st.DataObject) -> None:
    last = data.draw(st.none() | st.sampled_from(order))
    excluded = data.draw(st.sets(st.sampled_from(order)))
    chosen = next_speaker(order, last, excluded)
    assert chosen not in excluded
    assert (chosen is None) == (excluded == set(order))
    if chosen == last and last is not None:
        assert set(order) - excluded == {last}, "nobody else was left"


def test_turns_go_round_and_a_person_who_speaks_up_changes_nothing() -> None:
    said: list[Turn] = []
    for expected in ("ada", "ben", "cleo", "ada"):
        asked = step(plan(), *said)
        assert asked == Ask((expected,), "answer", len([one for one in said if one.agent_id]) // 3 + 1)
        said += [turn(expected, f"{len(said)}"), turn(None, f"and {len(said)}", kind="human")]


def test_who_failed_twice_in_a_row_is_not_asked_again() -> None:
    said = [turn("ada"), turn("ben", failure=FAILURE), turn("cleo"), turn("ada"), turn("ben", failure=FAILURE)]
    assert silenced(plan(), said) == {"ben"}
    said += [turn("cleo"), turn("ada")]
    assert step(plan(), *said) == Ask(("cleo",), "answer", 3)


def test_a_failure_that_was_made_good_silences_nobody() -> None:
    said = [turn("ben", failure=FAILURE), turn("ben"), turn("ben", failure=FAILURE)]
    assert silenced(plan(), said) == frozenset()


def test_it_ends_when_nobody_answers_any_more() -> None:
    said = [turn(agent, failure=FAILURE) for agent in (*AGENTS, *AGENTS)]
    assert step(plan(), *said) == Stop("failed", "agents_failed")


# -- when it ends ------------------------------------------------------------------------------------------------------


def test_the_turn_limit_ends_it_and_failed_turns_count() -> None:
    said = [turn("ada"), turn("ben", failure=FAILURE)]
    assert step(plan(max_turns=2), *said) == Stop("completed", "turns")


def test_a_round_is_cut_to_the_turns_that_are_left() -> None:
    asked = step(plan(strategy="consensus", max_turns=2))
    assert asked == Ask(("ada", "ben"), "answer", 1)


def test_a_condition_ends_it_with_its_reason() -> None:
    assert step(plan(ends=TurnLimit(1)), turn("ada")) == Stop("completed", "turns")


def test_agreement_ends_a_round_robin_with_what_was_agreed() -> None:
    said = (turn("ada", "Paris"), turn("ben", "It is Paris"))
    ended = step(plan(ends=Agreement(0.6)), *said, group=Group(said, 2 / 3))
    assert isinstance(ended, Stop)
    assert (ended.reason, ended.verdict and ended.verdict.content) == ("agreement", "Paris")


def test_the_last_answer_of_a_task_is_its_result() -> None:
    said = [turn("ada", "one"), turn("ben", "two"), turn("cleo", failure=FAILURE)]
    ended = step(plan(max_turns=3, is_task=True), *said)
    assert isinstance(ended, Stop)
    assert ended.verdict is not None
    assert (ended.reason, ended.verdict.content, ended.verdict.created_by) == ("answered", "two", "ben")


# -- consensus ---------------------------------------------------------------------------------------------------------

OPTIONS = ("cat", "dog")


def votes(round: int, *chosen: str | None) -> list[Turn]:
    return [
        turn(agent, vote or "?", kind="vote", round=round, vote=vote)
        for agent, vote in zip(AGENTS, chosen, strict=False)
    ]


def answers(round: int) -> list[Turn]:
    return [turn(agent, f"{agent} {round}", round=round) for agent in AGENTS]


def test_a_round_asks_for_answers_then_for_votes_and_only_who_has_not_given_them() -> None:
    of = plan(strategy="consensus", options=OPTIONS)
    assert step(of) == Ask(AGENTS, "answer", 1)
    assert step(of, turn("ben")) == Ask(("ada", "cleo"), "answer", 1)
    assert step(of, *answers(1)) == Ask(AGENTS, "vote", 1, OPTIONS)
    assert step(of, *answers(1), *votes(1, "cat")) == Ask(("ben", "cleo"), "vote", 1, OPTIONS)


def test_a_quorum_of_votes_ends_it() -> None:
    of = plan(strategy="consensus", options=OPTIONS)
    ended = step(of, *answers(1), *votes(1, "cat", "cat", "cat"))
    assert isinstance(ended, Stop)
    assert ended.verdict is not None
    assert (ended.reason, ended.verdict.content, ended.verdict.level) == ("consensus", "cat", 1.0)
    assert ended.verdict.supporting == tuple(one.id for one in votes(1, "cat", "cat", "cat"))


def test_without_a_quorum_the_next_round_begins_and_the_last_one_breaks_the_tie() -> None:
    of = plan(strategy="consensus", options=OPTIONS, max_rounds=2, leader="cleo")
    first = [*answers(1), *votes(1, "cat", None, "dog")]
    assert step(of, *first) == Ask(AGENTS, "answer", 2)
    ended = step(of, *first, *answers(2), *votes(2, "cat", None, "dog"))
    assert isinstance(ended, Stop)
    assert (ended.reason, ended.verdict and ended.verdict.content) == ("tie_break", "dog")


def test_where_no_options_are_given_the_answers_are_what_is_voted_on() -> None:
    said = [turn("ada", "A cat."), turn("ben", "a cat"), turn("cleo", "A dog.")]
    assert step(plan(strategy="consensus"), *said) == Ask(AGENTS, "vote", 1, ("A cat.", "A dog."))


def test_votes_that_nobody_could_read_end_without_a_decision() -> None:
    of = plan(strategy="consensus", options=OPTIONS, max_rounds=1)
    assert step(of, *answers(1), *votes(1, None, None, None)) == Stop("completed", "no_consensus")


def test_who_fails_to_answer_is_not_waited_for_and_counts_against_the_quorum() -> None:
    of = plan(strategy="consensus", options=OPTIONS, max_rounds=1)
    failed = turn("cleo", failure=FAILURE)
    said = [turn("ada"), turn("ben"), failed]
    assert step(of, *said) == Ask(AGENTS, "vote", 1, OPTIONS)
    late = turn("cleo", kind="vote", failure=FAILURE)
    ended = step(of, *said, *votes(1, "cat", "cat"), late)
    assert isinstance(ended, Stop)
    assert ended.verdict is not None
    assert (ended.verdict.how, ended.verdict.level) == ("majority", pytest.approx(2 / 3))


def test_by_likeness_the_answers_themselves_agree_or_do_not() -> None:
    of = plan(strategy="consensus", agreement="likeness", max_rounds=1)
    said = tuple(answers(1))
    agreed = step(of, *said, group=Group(said, 1.0))
    assert isinstance(agreed, Stop)
    assert agreed.reason == "consensus"
    apart = step(of, *said, group=Group(said[:1], 1 / 3))
    assert isinstance(apart, Stop)
    assert (apart.reason, apart.verdict and apart.verdict.how) == ("tie_break", "largest_group")
    assert step(replace(of, max_rounds=2), *said, group=Group(said[:1], 1 / 3)) == Ask(AGENTS, "answer", 2)


# -- a leader ----------------------------------------------------------------------------------------------------------


def test_a_leader_plans_the_others_answer_together_and_the_leader_concludes() -> None:
    of = plan(strategy="leader_based", leader="ben")
    assert step(of) == Ask(("ben",), "plan", 1)
    said = [turn("ben", kind="plan")]
    assert step(of, *said) == Ask(("ada", "cleo"), "answer", 1)
    said += [turn("ada"), turn("cleo")]
    assert step(of, *said) == Ask(("ben",), "final", 1)
    ended = step(of, *said, turn("ben", "done", kind="final"))
    assert isinstance(ended, Stop)
    assert ended.verdict is not None
    assert (ended.verdict.content, ended.verdict.how, ended.verdict.created_by) == ("done", "leader", "ben")


def test_a_deputy_concludes_for_a_leader_who_cannot() -> None:
    of = plan(strategy="leader_based")
    said = [turn("ada", kind="plan", failure=FAILURE), turn("ben"), turn("cleo")]
    said.append(turn("ada", kind="final", failure=FAILURE))
    assert step(of, *said) == Ask(("ben",), "final", 1)
    ended = step(of, *said, turn("ben", "instead", kind="final"))
    assert isinstance(ended, Stop)
    assert (ended.verdict and ended.verdict.how) == "deputy"


def test_a_leader_alone_concludes_at_once() -> None:
    assert step(Plan("t", ("ada",), strategy="leader_based")) == Ask(("ada",), "final", 1)


# -- what they know ----------------------------------------------------------------------------------------------------


def test_who_is_asked_together_does_not_hear_the_others_of_the_round() -> None:
    of = plan(strategy="consensus", options=OPTIONS)
    before, person = (turn("old", "history"),), turn(None, "hurry", kind="human")
    said = [*answers(1), person, turn("ada", "ada 2", round=2)]
    known = heard(of, Ask(("ben",), "answer", 2), before, said)
    assert [one.content for one in known] == ["history", "ada 1", "ben 1", "cleo 1", "hurry"]


def test_voters_hear_the_answers_of_their_round_unless_they_vote_on_these() -> None:
    ask = Ask(AGENTS, "vote", 1, OPTIONS)
    assert len(heard(plan(strategy="consensus", options=OPTIONS), ask, (), answers(1))) == 3
    assert heard(plan(strategy="consensus"), ask, (), answers(1)) == ()


def test_the_topic_is_not_heard_twice() -> None:
    topic = turn(None, "pets?", kind="human")
    assert heard(plan(), Ask(("ada",), "answer", 1), (), [topic]) == ()


def test_the_next_round_is_told_how_the_vote_went() -> None:
    said = [*answers(1), *votes(1, "cat", "cat", "dog")]
    assert note_on(Ask(AGENTS, "answer", 2), said) == "No agreement yet. The last vote: 2 for 'cat', 1 for 'dog'."
    assert note_on(Ask(AGENTS, "answer", 1), []) == ""


# -- any run at all ----------------------------------------------------------------------------------------------------


@given(
    strategy=st.sampled_from(["round_robin", "consensus", "leader_based"]),
    max_turns=st.integers(1, 25),
    seed=st.randoms(use_true_random=False),
    is_task=st.booleans(),
)
def test_any_run_ends_within_its_turns_and_asks_nobody_twice_for_the_same(
    strategy: str, max_turns: int, seed: Any, is_task: bool
) -> None:
    of = plan(strategy=strategy, max_turns=max_turns, is_task=is_task)
    said: list[Turn] = []
    while True:
        asked = step(of, *said)
        if isinstance(asked, Stop):
            break
        assert not set(asked.agents) & silenced(of, said)
        done = {(one.agent_id, one.kind, one.round) for one in said}
        if strategy != "round_robin":
            assert not {(agent, asked.kind, asked.round) for agent in asked.agents} & done
        some = seed.sample(asked.agents, seed.randint(1, len(asked.agents)))  # the others: lost in a crash
        for agent in some:
            vote = seed.choice([*asked.options, None]) if asked.kind == "vote" else None
            failure = FAILURE if seed.random() < 0.2 else None
            said.append(turn(agent, kind=asked.kind, round=asked.round, vote=vote, failure=failure))
    assert len(said) <= max_turns


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"topic": " "}, "topic"),
        ({"agents": ()}, "agent_ids"),
        ({"agents": ("ada", "ada")}, "agent_ids"),
        ({"strategy": "shout"}, "strategy"),
        ({"agreement": "by magic"}, "agreement"),
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": 1001}, "max_turns"),
        ({"max_turns": True}, "max_turns"),
        ({"options": ("one",), "strategy": "consensus"}, "options"),
        ({"options": ("A", "a"), "strategy": "consensus"}, "options"),
        ({"options": ("a", " "), "strategy": "consensus"}, "options"),
        ({"options": ("a", "b")}, "options"),
        ({"options": ("a", "b"), "strategy": "consensus", "agreement": "likeness"}, "options"),
        ({"leader": "dan"}, "leader"),
    ],
)
def test_a_plan_that_nobody_can_mean_is_refused(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan(**{"topic": "t", "agents": AGENTS, **wrong})
    assert caught.value.param == param


def test_a_plan_comes_back_from_its_json_as_it_was() -> None:
    settings = MultiAgentSettings(quorum=0.6, max_rounds=3)
    made = plan_for(
        settings,
        "t",
        list(AGENTS),
        None,
        started_at="now",
        strategy="consensus",
        options=["a", "b"],
        termination={"all": [{"turns": 3}, {"text": "x", "by": ["ada"]}]},
    )
    assert (made.max_turns, made.quorum, made.max_rounds) == (50, 0.6, 3)
    assert Plan.of_dict(made.to_dict()) == made
