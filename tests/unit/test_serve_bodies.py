"""How much a request may bring, and of which kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from modules.core.errors import ValidationError
from serve.bodies import BodyRules, check_announced
from serve.errors import TooLarge, WrongMediaType
from tests.served import served, settings_of

RULES = BodyRules({"/v1/documents"}, max_body_bytes=100, max_upload_bytes=1000)
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        ("POST", "/v1/sessions", 100),
        ("POST", "/v1/documents", 1000),
        ("GET", "/v1/documents", 100),
        ("POST", "/v1/documents/x", 100),
    ],
)
def test_only_paths_that_take_files_take_more(method: str, path: str, most: int) -> None:
    assert RULES.of(method, path).most_bytes == most


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content-length": "101", **JSON}, TooLarge),
        ({"content-length": "9" * 40, **JSON}, TooLarge),
        ({"content-length": "-1", **JSON}, ValidationError),
        ({"content-length": "١", **JSON}, ValidationError),
        ({"content-length": "2"}, WrongMediaType),
        ({"content-length": "2", "content-type": "text/plain"}, WrongMediaType),
        ({"transfer-encoding": "chunked", "content-type": "multipart/form-data; boundary=x"}, WrongMediaType),
    ],
)
def test_what_can_be_known_before_is_refused_before(headers: dict[str, str], error: type[Exception]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    with pytest.raises(error):
        check_announced(RULES.of("POST", "/v1/sessions"), "POST", Headers(raw=raw))


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/v1/sessions", {"content-length": "100", "content-type": "Application/JSON; charset=utf-8"}),
        ("POST", "/v1/documents", {"content-length": "1000", "content-type": "multipart/form-data; boundary=x"}),
        ("POST", "/v1/sessions", {"content-length": "0"}),
        ("DELETE", "/v1/sessions/x", {"content-length": "5", "content-type": "text/plain"}),
    ],
)
def test_what_may_be_is_let_through(method: str, path: str, headers: dict[str, str]) -> None:
    check_announced(RULES.of(method, path), method, Headers(headers))


async def in_pieces(total: int) -> AsyncIterator[bytes]:
    yield b'{"user_id": "'
    for _ in range(total // 1000):
        yield b"a" * 1000
    yield b'"}'


async def test_a_body_that_does_not_say_its_length_is_counted_while_it_is_read(tmp_path: Path) -> None:
    async with served(tmp_path, settings_of({"max_body_bytes": 5000})) as here:
        answer = await here.client.post("/v1/sessions", content=in_pieces(20_000), headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


async def test_a_body_that_says_too_great_a_length_is_not_read(tmp_path: Path) -> None:
    async with served(tmp_path, settings_of({"max_body_bytes": 10})) as here:
        answer = await here.client.post("/v1/sessions", json={"user_id": "a" * 20})
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize(
    "content", [b"{", b"[1", b'{"user_id": "\xff"}', b"[" * 100_000, b'{"user_id": 1' + b"0" * 5000]
)
async def test_a_body_that_is_no_json_is_a_400(tmp_path: Path, content: bytes) -> None:
    async with served(tmp_path) as here:
        answer = await here.client.post("/v1/sessions", content=content, headers=JSON)
        assert answer.status_code == 400, answer.text
        assert set(answer.json()["error"]) == {"type", "message", "code", "param", "request_id"}


async def test_a_post_without_a_body_is_a_400(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        assert (await here.client.post("/v1/sessions")).status_code == 400
