"""The OpenAPI document: every route says what it is for, what it takes, and how it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from actors.system import Platform
from modules.multimodal.arguments import AUDIO_TYPES, SOUND_TARGETS, TEXT, VIDEO_TYPES
from modules.multimodal.operations import ENCODERS, OPERATIONS
from modules.persona.profile import LIMITS
from modules.tool_use.definition import METHODS
from serve.app import create_app
from serve.routes import methods_at
from serve.routes.media import Look, OperationName, Target
from serve.routes.tools import ToolMetadata
from tests.e2e.test_openapi import ANOTHERS, AWAY, GROUPS, TRIED_ELSEWHERE, UNSAID
from tests.served import settings_of


async def nobody() -> Platform:
    raise AssertionError("the document needs no platform")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(nobody, settings_of()).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_in_a_group_that_is_tested(document: dict[str, Any]) -> None:
    tags = {tag for group in GROUPS.values() for tag in group}
    assert [where for where, operation in operations(document) if not set(operation["tags"]) <= tags] == []


def test_every_route_says_what_it_is_for(document: dict[str, Any]) -> None:
    assert [where for where, operation in operations(document) if not operation.get("description")] == []


def test_every_route_says_how_it_refuses(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        assert "422" not in operation["responses"], where
        assert {"400", "500", "503"} <= set(operation["responses"]), where
        if "requestBody" in operation:
            assert {"413", "415"} <= set(operation["responses"]), where


def test_every_body_that_needs_members_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    lacking = []
    for where, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        for shape in content["schema"].get("oneOf", [content["schema"]]):
            name = shape["$ref"].rpartition("/")[2]
            if schemas[name].get("required") and not schemas[name].get("examples"):
                lacking.append(f"{where}: {name}")
    assert lacking == []


def test_every_route_that_is_tested_in_a_way_of_its_own_is_there(document: dict[str, Any]) -> None:
    there = {where for where, _ in operations(document)}
    assert {*UNSAID, *AWAY, *ANOTHERS, *TRIED_ELSEWHERE} <= there


def test_texts_of_a_persona_may_be_as_long_as_the_module_lets_them(document: dict[str, Any]) -> None:
    members = document["components"]["schemas"]["NewPersona"]["properties"]
    for name in ("description", "backstory", "voice", "system_prompt", "template"):
        assert members[name]["anyOf"][0]["maxLength"] == LIMITS[name], name


def test_what_is_documented_to_be_taken_is_what_modules_take() -> None:
    measures = {name for name, kind in OPERATIONS.items() if not kind.changes}
    assert get_args(OperationName) == tuple(OPERATIONS)
    assert set(get_args(Look)) == measures | {*AUDIO_TYPES, *VIDEO_TYPES}
    assert get_args(Target) == (*ENCODERS, *SOUND_TARGETS, TEXT)
    assert get_args(ToolMetadata.model_fields["method"].annotation) == METHODS


def test_the_methods_of_a_path_are_those_of_all_its_routes() -> None:
    assert methods_at("/v1/media-generations") == ("POST",)
    assert methods_at("/v1/media/one") == ("DELETE", "GET")
    assert methods_at("/nowhere") == ()
