from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modules.multi_agent.likeness import largest_group, latest_answers, vectors_alike, words_alike
from modules.multi_agent.turns import Turn
from modules.multi_agent.votes import distinct, normalised, outcome, parse_vote

PETS = ["a cat", "a horse", "an elephant"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("1", "a cat"),
        ("2.", "a horse"),
        ("**3**", "an elephant"),
        ("(2) because it is fast", "a horse"),
        ("1. a cat", "a cat"),
        ("1. a cat\n2. a horse", None),
        ("I choose option 2", "a horse"),
        ("A CAT!", "a cat"),
        ("I think a cat is best for a small flat.", "a cat"),
        ("a cat or a horse", None),
        ("2. a cat", None),
        ("2 or 3", "a horse"),
        ("either 2 or 3", None),
        ("4", None),
        ("0", None),
        ("none of them", None),
        ("", None),
        ("12", None),
        ("a caterpillar", None),
    ],
)
def test_a_vote_is_read_leniently_and_never_guessed(text: str, chosen: str | None) -> None:
    assert parse_vote(text, PETS) == chosen


def test_an_option_may_hold_a_number_of_its_own() -> None:
    assert parse_vote("at 3 pm", ["at 1 pm", "at 2 pm", "at 3 pm"]) == "at 3 pm"
    assert parse_vote("10:30", ["10:30", "11:00"]) == "10:30"
    assert parse_vote("1.5 litres", ["1.5 litres", "2 litres"]) == "1.5 litres"


def test_of_options_that_hold_each_other_the_longest_is_meant() -> None:
    options = ["park", "the old park"]
    assert parse_vote("in the old park", options) == "the old park"
    assert parse_vote("some park", options) == "park"


def test_proposals_that_say_the_same_are_one() -> None:
    assert distinct(["A cat!", "a  cat", "A horse."]) == ("A cat!", "A horse.")
    assert normalised("  A, cat! ") == "a cat"


def result(votes: dict[str, str], *, quorum: float = 0.7, is_last: bool = False, voters: int = 3) -> Any:
    return outcome(votes, PETS, voters=voters, quorum=quorum, is_last=is_last, leader="ada")


def test_a_quorum_decides_at_once() -> None:
    found = result({"ada": "a cat", "ben": "a cat", "cleo": "a cat"})
    assert (found.chosen, found.how, found.level) == ("a cat", "quorum", 1.0)


def test_who_did_not_vote_counts_against_the_quorum() -> None:
    found = result({"ada": "a cat", "ben": "a cat"})
    assert found.chosen is None
    assert found.level == pytest.approx(2 / 3)
    assert result({"ada": "a cat", "ben": "a cat"}, quorum=2 / 3).chosen == "a cat"


def test_without_a_quorum_only_the_last_round_decides_by_the_most_votes() -> None:
    votes = {"ada": "a horse", "ben": "a cat", "cleo": "a cat"}
    assert result(votes).chosen is None
    found = result(votes, is_last=True)
    assert (found.chosen, found.how) == ("a cat", "majority")
    assert dict(found.votes) == {"a cat": ("ben", "cleo"), "a horse": ("ada",)}


def test_a_tie_is_broken_by_the_leader() -> None:
    votes = {"ben": "a cat", "ada": "an elephant"}
    found = result(votes, is_last=True)
    assert (found.chosen, found.how) == ("an elephant", "tie_break")


def test_a_tie_that_the_leader_has_no_part_in_goes_to_the_first_option() -> None:
    votes = {"ben": "an elephant", "cleo": "a horse"}
    assert result(votes, is_last=True).chosen == "a horse"


def test_half_against_half_is_no_quorum_however_low_it_is() -> None:
    votes = {"ada": "a cat", "ben": "a horse"}
    assert result(votes, quorum=0.5, voters=2).chosen is None


def test_no_votes_decide_nothing() -> None:
    found = result({}, is_last=True)
    assert (found.chosen, found.how, found.level) == (None, None, 0.0)


def said(agent: str, content: str, **more: Any) -> Turn:
    return Turn(f"m-{agent}-{content}", "c", "assistant", content, agent_id=agent, run=1, kind="answer", **more)


def test_the_largest_group_is_that_of_the_answer_with_the_most_near_it() -> None:
    turns = [said("ada", "a"), said("ben", "b"), said("cleo", "c"), said("dan", "d")]
    vectors = np.array([[1, 0], [0, 1], [0.1, 0.995], [0.2, 0.98]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group = largest_group(turns, vectors_alike(vectors), threshold=0.9, agents=4)
    assert group is not None
    assert {turn.agent_id for turn in group.turns} == {"ben", "cleo", "dan"}
    assert group.level == 0.75


def test_without_vectors_words_in_common_make_answers_alike() -> None:
    alike = words_alike(["The cat is best", "the cat is BEST!", "a horse", ""])
    assert alike[0, 1] == 1.0
    assert alike[0, 2] == 0.0
    assert alike[3, 3] == 1.0
    assert alike.shape == (4, 4)


def test_nobody_has_said_anything_is_no_group() -> None:
    assert largest_group([], words_alike([]), threshold=0.8, agents=3) is None


def test_only_the_latest_thing_that_each_has_said_is_compared() -> None:
    failed = said("ben", "no answer", failure={"code": "x", "message": "y"})
    human = Turn("h", "c", "user", "hello", run=1, kind="human")
    turns = [said("ada", "old"), said("ben", "word"), human, said("ada", "new"), failed]
    assert [turn.content for turn in latest_answers(turns)] == ["new", "word"]
