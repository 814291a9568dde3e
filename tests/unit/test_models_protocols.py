from __future__ import annotations

from typing import Any

import pytest

from modules.core.errors import ValidationError
from modules.models.answer_reader import request_of
from modules.models.protocols import PromptMessage, Tool, ToolCall, check_texts, check_tools


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "robot", "content": "x"},
        {"role": "user", "content": None},
        {"role": "user", "content": "x", "tool_calls": (ToolCall("1", "clock", "{}"),)},
        {"role": "user", "content": "x", "tool_call_id": "1"},
        {"role": "tool", "content": "x"},
    ],
)
def test_a_message_that_makes_no_sense_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PromptMessage(**wrong)


@pytest.mark.parametrize("wrong", ["one text", [1], [None]])
def test_what_are_no_texts_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        check_texts(wrong)


@pytest.mark.parametrize("choice", ["auto", "none", "required", "clock"])
def test_a_choice_of_a_tool_that_is_there_is_taken(choice: str) -> None:
    check_tools([Tool("clock"), Tool("map")], choice)


@pytest.mark.parametrize(
    ("names", "choice"),
    [(["clock"], "map"), ([], "clock"), ([], "required"), (["clock", "clock"], "auto"), (["required"], "auto")],
)
def test_a_choice_of_nothing_and_tools_that_cannot_be_told_apart_are_refused(names: list[str], choice: str) -> None:
    with pytest.raises(ValidationError):
        check_tools([Tool(name) for name in names], choice)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", "none"),
        ("required", "required"),
        ("clock", {"type": "function", "function": {"name": "clock"}}),
        ("auto", None),
    ],
)
def test_a_choice_is_sent_as_the_api_has_it(choice: str, sent: Any) -> None:
    request = request_of(
        [PromptMessage("user", "x")], temperature=None, stop=(), seed=None, tools=[Tool("clock")], tool_choice=choice
    )
    assert request.get("tool_choice") == sent
