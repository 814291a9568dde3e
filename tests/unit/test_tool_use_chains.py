from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from modules.core.errors import ValidationError
from modules.tool_use.chain_runs import run_chain
from modules.tool_use.chains import ChainStep, ToolChain, parameters_of, steps_of
from modules.tool_use.errors import ToolFailed
from modules.tool_use.output import ToolResult


def chain(*tools: Any, strategy: str = "sequential") -> ToolChain:
    return ToolChain("chain", steps_of(tools), strategy)


async def run(made: ToolChain, parameters: Mapping[str, Any] | None = None) -> Any:
    calls: list[tuple[str, Any]] = []

    async def execute(tool: str, given: Mapping[str, Any], timeout_s: float | None) -> ToolResult:
        calls.append((tool, given))
        await asyncio.sleep(0)
        if tool == "broken":
            raise ToolFailed("it says no")
        output = {"double": {"n": given.get("n", 0) * 2}, "list": [10, {"deep": "x"}], "text": "words"}.get(tool, given)
        return ToolResult("id", tool, output)

    return await run_chain(made, parameters or {}, 1.0, execute, lambda: 0.0), calls


async def test_each_step_gets_what_the_one_before_gave() -> None:
    result, calls = await run(chain("double", "double", "double"), {"n": 1})
    assert result.ok
    assert result.output == {"n": 8}
    assert [given for _, given in calls] == [{"n": 1}, {"n": 2}, {"n": 4}]
    assert [step.name for step in result.steps] == ["double", "double_2", "double_3"]


async def test_inputs_are_taken_from_where_they_say() -> None:
    result, _ = await run(
        chain(
            {"tool": "list", "name": "first"},
            {
                "tool": "echo",
                "input": {
                    "city": "$input.city",
                    "all": "$input",
                    "ten": "$previous.0",
                    "deep": "$steps.first.1.deep",
                    "price": "$$5",
                    "plain": 7,
                    "within": {"list": ["$input.city", "x"]},
                },
            },
        ),
        {"city": "Rome"},
    )
    assert result.output == {
        "city": "Rome",
        "all": {"city": "Rome"},
        "ten": 10,
        "deep": "x",
        "price": "$5",
        "plain": 7,
        "within": {"list": ["Rome", "x"]},
    }


async def test_a_step_that_fails_ends_the_chain_and_keeps_what_was_done() -> None:
    result, calls = await run(chain("double", "broken", "echo"), {"n": 1})
    assert not result.ok
    assert result.output is None
    assert [tool for tool, _ in calls] == ["double", "broken"]
    assert result.steps[0].output == {"n": 2}
    assert result.steps[1].error == {"code": "tool_failed", "message": "it says no"}


async def test_parallel_steps_all_run_and_each_has_its_outcome() -> None:
    result, calls = await run(chain("double", "broken", "echo", strategy="parallel"), {"n": 3})
    assert not result.ok
    assert result.output == {"double": {"n": 6}, "echo": {"n": 3}}
    assert len(calls) == 3


async def test_a_place_that_holds_nothing_fails_its_step() -> None:
    result, _ = await run(chain("list", {"tool": "echo", "input": {"x": "$previous.7"}}))
    assert result.steps[-1].error is not None
    assert "leads to nothing" in result.steps[-1].error["message"]


async def test_an_output_that_is_no_object_cannot_be_parameters() -> None:
    result, _ = await run(chain("text", "echo"))
    assert "gave no object" in result.steps[-1].error["message"]


@pytest.mark.parametrize(
    ("tools", "strategy", "said"),
    [
        ([], "sequential", "1 to 32"),
        (["a"] * 33, "sequential", "1 to 32"),
        (["a"], "random", "strategy"),
        ("a", "sequential", "list"),
        ([7], "sequential", "a step is"),
        ([{"tool": "a", "when": 1}], "sequential", "a step is"),
        ([{"tool": "a b"}], "sequential", "name"),
        ([{"tool": "a", "name": "x"}, {"tool": "b", "name": "x"}], "sequential", "two steps"),
        ([{"tool": "a", "input": {"x": "$previous"}}], "sequential", "leads to nothing"),
        ([{"tool": "a", "input": {"x": "$steps.later"}}, {"tool": "b", "name": "later"}], "sequential", "leads to"),
        (["a", {"tool": "b", "input": {"x": ["$steps.a"]}}], "parallel", "leads to nothing"),
        (["a", {"tool": "b", "input": {"x": "$environment"}}], "sequential", "leads to nothing"),
    ],
)
def test_a_chain_that_cannot_run_cannot_be_built(tools: Any, strategy: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToolChain("chain", steps_of(tools), strategy)


def test_a_chain_comes_back_as_it_was() -> None:
    made = chain("a", {"tool": "b", "name": "c", "input": {"x": "$previous"}})
    assert ToolChain.of_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_first_step_gets_the_chains_parameters() -> None:
    assert parameters_of(ChainStep("a", "a"), {"x": 1}, {}, None, is_first=True) == {"x": 1}
