"""What a model is shown: the question always, the chat as far as it fits, what is known beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ValidationError
from modules.core.types import Message
from modules.models.errors import ContextTooLong
from modules.models.protocols import PromptMessage
from modules.text_chat.prompt import Spoken, before, budget_of, prompt_of

AROUND = 8


def count(prompt):
    """A token a word, and as many around a message as the prompt reckons with."""
    if isinstance(prompt, str):
        return len(prompt.split())
    return sum(len(message.content.split()) + AROUND for message in prompt)


def message(number, words=2, role="user", **fields):
    content = fields.pop("content", f"m{number} " + "x " * (words - 1))
    return Message(f"id{number}", "s", role, content.strip(), **fields)


def newest_first(total, words=2):
    return [message(number, words) for number in range(total, 0, -1)]


def said(prompt):
    return [one.content.split()[0] for one in prompt.messages]


def test_the_chat_stands_between_instructions_and_question_oldest_first():
    prompt = prompt_of("sys", ["known"], "why", newest_first(3), 1000, Spoken(count))
    assert said(prompt) == ["sys", "m1", "m2", "m3", "known", "why"]
    assert [one.role for one in prompt.messages] == ["system", "user", "user", "user", "system", "user"]
    assert [one.is_context for one in prompt.messages] == [False, False, False, False, True, False]
    assert (prompt.history, prompt.is_cut) == (3, False)
    assert prompt.tokens == count(prompt.messages)


def test_the_newest_messages_are_the_ones_that_stay():
    # system 9, question 9, and 10 for each message of the chat
    prompt = prompt_of("sys", [], "why", newest_first(10), 18 + 3 * 10 + 9, Spoken(count))
    assert said(prompt) == ["sys", "m8", "m9", "m10", "why"]
    assert prompt.is_cut


def test_a_message_that_could_never_be_shown_does_not_hide_the_ones_before_it():
    history = [message(3), message(2, words=500), message(1)]
    prompt = prompt_of("", [], "why", history, 100, Spoken(count))
    assert said(prompt) == ["m1", "m3", "why"]


def test_the_window_is_one_stretch_of_the_chat():
    history = [message(3), message(2, words=60), message(1)]
    prompt = prompt_of("", [], "why", history, 9 + 10 + 50, Spoken(count))
    assert said(prompt) == ["m3", "why"]


def test_the_question_is_whole_even_when_nothing_else_fits():
    prompt = prompt_of("sys", ["known " * 20], "why " * 30, newest_first(5), 9 + 38, Spoken(count))
    assert said(prompt) == ["sys", "why"]


def test_a_question_that_alone_does_not_fit_is_refused_with_both_figures():
    with pytest.raises(ContextTooLong, match=r"47 tokens.* 46 at most") as raised:
        prompt_of("sys", [], "why " * 30, newest_first(5), 46, Spoken(count))
    assert (raised.value.tokens, raised.value.limit) == (47, 46)
    assert isinstance(raised.value, ValidationError)


def test_what_is_known_takes_at_most_half_of_what_the_question_leaves():
    prompt = prompt_of("", ["a " * 30, "b " * 10], "why", newest_first(9), 9 + 60, Spoken(count))
    assert said(prompt) == ["m6", "m7", "m8", "m9", "b", "why"]
    assert "a" not in said(prompt)
    assert prompt.history > 0


def test_unreadable_empty_and_tool_messages_are_not_shown():
    history = [
        message(4, role="tool"),
        message(3, status="unreadable"),
        message(2, content="  "),
        message(1, role="assistant", status="partial"),
    ]
    prompt = prompt_of("", [], "why", history, 1000, Spoken(count))
    assert prompt.messages == (PromptMessage("assistant", "m1 x"), PromptMessage("user", "why"))


def test_an_estimate_that_was_too_low_costs_the_oldest_messages():
    def dearer(prompt):
        extra = 0 if isinstance(prompt, str) else 5 * len(prompt)
        return count(prompt) + extra

    prompt = prompt_of("", [], "why", newest_first(10), 14 + 45, Spoken(dearer))
    assert said(prompt) == ["m8", "m9", "m10", "why"]
    assert prompt.tokens <= 59
    assert prompt.is_cut


@given(
    sizes=st.lists(st.integers(1, 40), max_size=30),
    known=st.lists(st.integers(1, 40), max_size=3),
    question=st.integers(1, 30),
    budget=st.integers(40, 400),
)
def test_a_prompt_never_exceeds_its_budget_and_always_ends_with_the_question(sizes, known, question, budget):
    history = [message(number, words) for number, words in enumerate(sizes)]
    prompt = prompt_of(
        "s", ["k " * words for words in known], "why " * question, history, max(budget, 60), Spoken(count)
    )
    assert prompt.tokens == count(prompt.messages) <= max(budget, 60)
    assert prompt.messages[-1] == PromptMessage("user", "why " * question)
    assert prompt.is_cut or prompt.history == sum(words + AROUND <= max(budget, 60) for words in sizes)


def test_the_answer_s_room_is_kept_free_in_the_window():
    assert budget_of(8192, 1024, 100_000) == 7168
    assert budget_of(8192, 1024, 4000) == 4000
    assert budget_of(None, 1024, 4000) == 4000
    with pytest.raises(ContextTooLong, match="2048 tokens leaves no room"):
        budget_of(2048, 2048, 4000)


def test_what_came_after_the_question_is_no_history_of_it():
    newest = newest_first(4)
    assert list(before(newest, "id3")) == newest[2:]
    assert list(before(newest, "id1")) == []
    assert list(before(newest, "other")) == []
    assert list(before(newest, "id4", at_most=3)) == newest[1:3]


def test_no_more_of_the_chat_is_looked_at_than_fits():
    looked_at = []

    def chat():
        for one in newest_first(1000):
            looked_at.append(one.id)
            yield one

    prompt = prompt_of("", [], "why", chat(), 9 + 3 * 10, Spoken(count))
    assert prompt.history == 3
    assert len(looked_at) == 4
