from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modules.core.errors import Unavailable, ValidationError
from modules.tool_use.schema_check import SchemaCheck

pytestmark = pytest.mark.slow


@pytest.fixture
async def check() -> AsyncIterator[SchemaCheck]:
    made = SchemaCheck(check_s=1.0)
    yield made
    await made.close()


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}, "days": {"type": "integer", "maximum": 7}},
    "required": ["city"],
    "additionalProperties": False,
}


async def test_what_is_valid_has_no_problems(check: SchemaCheck) -> None:
    assert await check.problems(CITY, {"city": "Rome", "days": 3}) == ()


@pytest.mark.parametrize(
    ("instance", "problems"),
    [
        ({}, ("$: 'city' is a required property",)),
        ({"city": ""}, ("$.city: must satisfy minLength 1",)),
        ({"city": "x", "days": 9}, ("$.days: must satisfy maximum 7",)),
        ({"city": 7}, ('$.city: must satisfy type "string"',)),
        ({"city": "x", "more": 1}, ("$: Additional properties are not allowed ('more' was unexpected)",)),
        ([], ('$: must satisfy type "object"',)),
    ],
)
async def test_problems_name_place_and_rule(check: SchemaCheck, instance: Any, problems: tuple[str, ...]) -> None:
    assert await check.problems(CITY, instance) == problems


async def test_problems_do_not_repeat_values(check: SchemaCheck) -> None:
    schema = {"properties": {"key": {"enum": ["a"], "pattern": "^b", "const": "c", "maxLength": 2, "type": "null"}}}
    problems = await check.problems(schema, {"key": "s3cret-value"})
    assert len(problems) == 5
    assert "s3cret" not in "".join(problems)


async def test_there_are_at_most_ten(check: SchemaCheck) -> None:
    assert len(await check.problems({"items": {"type": "string"}}, list(range(1000)))) == 10


async def test_references_within_the_schema_are_followed(check: SchemaCheck) -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    await check.check_schema("input_schema", schema)
    assert await check.problems(schema, [1, 2]) == ()
    assert await check.problems(schema, ["x"]) == ('$[0]: must satisfy type "integer"',)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"properties": []},
        {"pattern": "("},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"x": {"$ref": "http://127.0.0.1:1/"}}},
        {"allOf": [{"$ref": "other.json#/x"}]},
        {"$dynamicRef": "http://127.0.0.1:1/#x"},
    ],
)
async def test_a_schema_that_is_none_or_leads_elsewhere_is_refused(check: SchemaCheck, schema: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        await check.check_schema("output_schema", schema)
    assert caught.value.param == "output_schema"


async def test_draft_seven_is_read_as_draft_seven(check: SchemaCheck) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert await check.problems(schema, [1]) == ('$[0]: must satisfy type "string"',)


def branching(depth: int) -> dict[str, Any]:
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**defs, f"d{depth}": {"type": "string"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 40 + "!"),
        ({"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}, "a" * 60),
        ({"patternProperties": {"^(a|a)*$": True}}, {"a" * 40 + "!": 1}),
        (branching(40), "valid, and never done"),
    ],
)
async def test_a_schema_that_takes_for_ever_is_ended_and_the_next_one_is_not_harmed(
    check: SchemaCheck, schema: Any, instance: Any
) -> None:
    await check.problems(CITY, {"city": "warm"})
    began = time.monotonic()
    others = asyncio.create_task(alive())
    with pytest.raises(ValidationError, match="takes more than 1 s"):
        await check.problems(schema, instance)
    assert time.monotonic() - began < 4
    assert await others > 5, "the loop went on"
    assert await check.problems(CITY, {"city": "Rome"}) == ()


async def alive() -> int:
    beats = 0
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        await asyncio.sleep(0.01)
        beats += 1
    return beats


async def test_a_schema_that_refers_to_itself_without_end_is_told(check: SchemaCheck) -> None:
    with pytest.raises(ValidationError, match="cannot be used"):
        await check.problems({"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}, 1)


async def test_memory_is_bounded_too(check: SchemaCheck) -> None:
    """A schema may say the same thing again and again; the process that holds it all is not this one."""
    schema = {"anyOf": [{"pattern": "x" * 50 + str(number)} for number in range(800)]}
    assert len(await check.problems(schema, "y")) == 1


async def test_one_that_goes_away_does_not_leave_its_answer_to_the_next(check: SchemaCheck) -> None:
    await check.problems(CITY, {"city": "warm"})
    asked = asyncio.create_task(check.problems({"pattern": "^(a+)+$"}, "a" * 40 + "!"))
    await asyncio.sleep(0.1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await check.problems(CITY, {"city": "Rome"}) == ()
    assert await check.problems(CITY, {}) == ("$: 'city' is a required property",)


async def test_many_at_once_each_get_their_own_answer(check: SchemaCheck) -> None:
    answers = await asyncio.gather(*(check.problems({"const": n}, n % 2) for n in range(30)))
    assert [answer == () for answer in answers] == [n in (0, 1) for n in range(30)]


async def test_after_closing_nothing_is_started_again() -> None:
    check = SchemaCheck()
    assert await check.problems(CITY, {"city": "x"}) == ()
    await check.close()
    with pytest.raises(Unavailable):
        await check.problems(CITY, {"city": "x"})
