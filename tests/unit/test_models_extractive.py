from __future__ import annotations

from collections.abc import Sequence

import pytest

from modules.core.errors import ValidationError
from modules.models.errors import ModelRefused
from modules.models.extractive import FOUND, NOTHING, NOTICE, ExtractiveChat, cut, extract_from
from modules.models.protocols import Delta, PromptMessage, Tool

HANDBOOK = PromptMessage(
    "system",
    "The office opens at nine. Holidays are requested by mail. The dog is called Bruno and sleeps a lot.",
    is_context=True,
)


def asking(question: str) -> PromptMessage:
    return PromptMessage("user", question)


async def answer(messages: Sequence[PromptMessage], max_tokens: int = 200, stop: Sequence[str] = ()) -> list[Delta]:
    return [delta async for delta in ExtractiveChat().stream(messages, max_tokens=max_tokens, stop=stop)]


def test_the_sentence_that_speaks_of_the_question_is_quoted() -> None:
    assert extract_from([HANDBOOK, asking("How do I request holidays?")]).sentences == (
        "Holidays are requested by mail.",
    )


def test_what_shares_only_function_words_is_not_quoted() -> None:
    assert extract_from([HANDBOOK, asking("What is the capital of France?")]).text == NOTHING


def test_the_conversation_is_a_source_too() -> None:
    prompt = [
        asking("My bicycle is green."),
        PromptMessage("assistant", "Noted."),
        asking("Which colour has my bicycle?"),
    ]
    assert extract_from(prompt).sentences == ("My bicycle is green.",)


def test_instructions_are_not_quoted() -> None:
    instructions = PromptMessage("system", "Never speak of the bicycle.")
    assert extract_from([instructions, asking("The bicycle?")]).sentences == ()


def test_neither_the_question_itself_nor_an_earlier_quotation_is_quoted() -> None:
    prompt = [asking("Where is Bruno?"), PromptMessage("assistant", f"{FOUND}\n- Bruno."), asking("Where is Bruno?")]
    assert extract_from(prompt).sentences == ()


def test_the_best_sentences_are_chosen_and_stand_in_their_own_order() -> None:
    filler = [f"Bruno was seen on day {day} in a crowd of many other quite noisy dogs." for day in range(20)]
    text = " ".join(["Bruno limps.", *filler, "Bruno likes tea.", "Tea."])
    sentences = extract_from([PromptMessage("system", text, is_context=True), asking("Bruno tea")]).sentences
    assert len(sentences) == 4
    assert "Bruno likes tea." in sentences
    assert list(sentences) == sorted(sentences, key=text.index)


def test_sentences_end_at_line_ends_and_at_marks_of_other_scripts() -> None:
    text = "first line about tea\nversion 3.11 has tea inside\n茶はここです。犬はいない。"
    context = PromptMessage("system", text, is_context=True)
    assert extract_from([context, asking("tea")]).sentences == ("first line about tea", "version 3.11 has tea inside")
    assert extract_from([context, asking("茶")]).sentences == ("茶はここです。",)


def test_without_a_question_nothing_is_quoted() -> None:
    assert extract_from([HANDBOOK]).text == NOTHING


async def test_the_answer_streams_says_that_no_model_is_installed_and_ends_with_its_reason() -> None:
    deltas = await answer([HANDBOOK, asking("When does the office open? opens")])
    text = "".join(delta.text for delta in deltas)
    assert text == f"{FOUND}\n- The office opens at nine."
    assert text.startswith(NOTICE)
    assert len(deltas) > 5
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    usage = deltas[-1].usage
    assert usage is not None
    assert usage.estimated
    assert usage.completion_tokens > 0


async def test_an_answer_that_is_cut_says_so() -> None:
    *_, last = await answer([HANDBOOK, asking("holidays")], max_tokens=3)
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("max_tokens", "stop", "cut_to", "finish"),
    [
        (9, [], "one two", "stop"),
        (9, [" two", "e t"], "on", "stop"),
        (1, [], "one ", "length"),
        (1, ["e"], "on", "stop"),
    ],
)
def test_text_ends_at_the_first_stop_string_or_at_the_limit(
    max_tokens: int, stop: list[str], cut_to: str, finish: str
) -> None:
    assert cut("one two", max_tokens, stop) == (cut_to, finish)


def test_a_cut_never_splits_a_character() -> None:
    assert cut("ééé", 1, []) == ("éé", "length")
    assert cut("aééé", 1, []) == ("aé", "length")


async def test_tools_and_empty_prompts_are_refused() -> None:
    model = ExtractiveChat()
    with pytest.raises(ModelRefused):
        await anext(model.stream([asking("x")], max_tokens=5, tools=[Tool("clock")]))
    with pytest.raises(ValidationError):
        await anext(model.stream([], max_tokens=5))
