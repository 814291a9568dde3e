from __future__ import annotations

from typing import Any

import pytest

from modules.core.errors import ValidationError
from modules.models.protocols import PromptMessage, ToolCall, check_texts


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
