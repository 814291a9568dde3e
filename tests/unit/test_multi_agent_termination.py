from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ValidationError
from modules.multi_agent.termination import (
    Agreement,
    Condition,
    SoFar,
    TextSaid,
    TimeLimit,
    TokenLimit,
    TurnLimit,
    condition_of,
)
from modules.multi_agent.turns import Turn


def turn(content: str = "x", agent: str | None = "ada", **more: Any) -> Turn:
    kind = more.pop("kind", "answer" if agent else "human")
    return Turn("m", "c", "assistant", content, agent_id=agent, run=1, kind=kind, **more)


def test_turns_count_agents_also_those_that_failed_and_no_people() -> None:
    failed = turn(failure={"code": "timed_out", "message": "late"})
    said = [turn(), turn(agent=None), failed]
    assert TurnLimit(2).met(SoFar(said)) == "turns"
    assert TurnLimit(3).met(SoFar(said)) is None


def test_time_is_over_when_it_is_reached() -> None:
    assert TimeLimit(5).met(SoFar([], elapsed_s=4.9)) is None
    assert TimeLimit(5).met(SoFar([], elapsed_s=5.0)) == "time"


def test_tokens_are_those_of_prompts_and_answers_of_all_turns() -> None:
    said = [turn(total_tokens=60), turn(total_tokens=40)]
    assert TokenLimit(100).met(SoFar(said)) == "tokens"
    assert TokenLimit(101).met(SoFar(said)) is None


def test_a_text_is_found_in_any_case_and_only_where_an_agent_said_it() -> None:
    assert TextSaid("Done").met(SoFar([turn("we are DONE here")])) == "text"
    assert TextSaid("done").met(SoFar([turn("done?", agent=None)])) is None
    assert TextSaid("done").met(SoFar([turn("done", failure={"code": "x", "message": "y"})])) is None


def test_a_text_may_have_to_come_from_somebody_in_particular() -> None:
    said = SoFar([turn("done", agent="ben")])
    assert TextSaid("done", ("ada",)).met(said) is None
    assert TextSaid("done", ("ada", "ben")).met(said) == "text"


def test_agreement_needs_somebody_to_have_looked() -> None:
    assert Agreement(0.7).met(SoFar([])) is None
    assert Agreement(0.7).met(SoFar([], agreement=2 / 3)) is None
    assert Agreement(0.7).met(SoFar([], agreement=0.7)) == "agreement"


def test_either_ends_it_with_the_first_reason_and_both_need_both() -> None:
    either, both = TurnLimit(1) | TimeLimit(10), TurnLimit(1) & TimeLimit(10)
    early, late = SoFar([turn()], elapsed_s=1), SoFar([turn()], elapsed_s=10)
    assert (either.met(early), both.met(early)) == ("turns", None)
    assert (either.met(late), both.met(late)) == ("turns", "turns+time")


def test_what_was_said_earlier_still_counts_when_the_other_half_comes_later() -> None:
    both = TextSaid("done") & TurnLimit(3)
    assert both.met(SoFar([turn("done"), turn()])) is None
    assert both.met(SoFar([turn("done"), turn(), turn()])) == "text+turns"


def test_whether_agreement_has_to_be_worked_out_is_known_through_any_nesting() -> None:
    assert ((TurnLimit(1) | Agreement(1)) & TimeLimit(1)).needs_agreement
    assert not ((TurnLimit(1) | TokenLimit(1)) & TimeLimit(1)).needs_agreement


def _joined(parts: tuple[Condition, Condition, bool]) -> Condition:
    first, second, is_either = parts
    return first | second if is_either else first & second


_LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.integers(1, 99).map(TurnLimit),
    st.floats(0.1, 999).map(TimeLimit),
    st.integers(1, 99).map(TokenLimit),
    st.builds(TextSaid, st.text("abc", min_size=1), st.lists(st.text("xy", min_size=1)).map(tuple)),
    st.floats(0.01, 1).map(Agreement),
)


@given(st.recursive(_LEAVES, lambda inner: st.tuples(inner, inner, st.booleans()).map(_joined), max_leaves=6))
def test_a_condition_comes_back_from_its_json_as_it_was(condition: Condition) -> None:
    assert condition_of(condition.to_dict()) == condition


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "turns",
        {},
        {"turns": 0},
        {"turns": True},
        {"turns": 1.5},
        {"turns": 1, "tokens": 1},
        {"turns": 1, "by": ["ada"]},
        {"time_s": float("nan")},
        {"time_s": float("inf")},
        {"time_s": -1},
        {"tokens": "many"},
        {"text": ""},
        {"text": "x", "by": "ada"},
        {"text": "x", "by": [1]},
        {"by": ["ada"]},
        {"agreement": 1.1},
        {"moon": 1},
        {"any": []},
        {"any": {"turns": 1}},
        {"all": "turns"},
        {"any": [{"turns": 1}, {"turns": 0}]},
    ],
)
def test_what_is_no_condition_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValidationError, match="termination") as caught:
        condition_of(wrong)
    assert caught.value.param == "termination"


def test_conditions_have_a_depth_and_a_number() -> None:
    deep: dict[str, Any] = {"turns": 1}
    for _ in range(8):
        deep = {"any": [deep]}
    with pytest.raises(ValidationError, match="8 deep"):
        condition_of(deep)
    with pytest.raises(ValidationError, match="at most 64"):
        condition_of({"any": [{"turns": 1}] * 64})
