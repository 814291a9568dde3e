from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import ConfigurationError, PlatformError, ValidationError
from modules.tool_use import (
    ParametersInvalid,
    ToolAnswerInvalid,
    ToolBusy,
    ToolFailed,
    ToolTimedOut,
    ToolUnavailable,
)
from modules.tool_use.definition import Endpoint
from modules.tool_use.errors import AddressRefused
from modules.tool_use.http_tool import HttpRequest, request_of
from tests.tool_use_parts import SECRET, Heard, LoopbackServer, json_reply, raw_server, reply, running, say_nothing

FAST = {"retries": {"max_attempts": 3, "backoff_seconds": 0.02}, "circuit_breaker": {"failures": 100}}


async def call(
    tmp_path: Path,
    answer: Callable[[str], bytes],
    parameters: dict[str, Any] | None = None,
    *,
    path: str = "/",
    config: dict[str, Any] | None = None,
    timeout: float = 5.0,
    environ: dict[str, str] | None = None,
    **registered: Any,
) -> tuple[Any, LoopbackServer]:
    async with LoopbackServer(answer) as server:
        hosts = {"internal_hosts": [server.where], **FAST, **(config or {})}
        hosts["header_variables"] = [one.replace("HERE", "127.0.0.1") for one in hosts.get("header_variables", [])]
        async with running(tmp_path, hosts, environ=environ) as module:
            await module.register_tool("tool", f"http://{server.where}{path}", **registered)
            try:
                result: Any = await module.execute_tool("tool", parameters, timeout)
            except PlatformError as error:
                result = error
    return result, server


def test_parameters_fill_the_path_then_the_query_or_the_body() -> None:
    place = Endpoint.parse("https://h/users/{id}/files/{name}")
    given = {"id": 7, "name": "a/b ü", "limit": 5, "tags": ["x", "y"], "on": True, "none": None}
    assert request_of(place, "GET", given) == HttpRequest(
        "GET",
        "https://h/users/7/files/a%2Fb%20%C3%BC",
        (("limit", "5"), ("tags", "x"), ("tags", "y"), ("on", "true")),
    )
    assert request_of(place, "POST", given).body == {"limit": 5, "tags": ["x", "y"], "on": True, "none": None}


@pytest.mark.parametrize("value", [None, "", ".", "..", [], {}])
def test_a_part_of_the_path_cannot_be_missing_or_change_its_shape(value: Any) -> None:
    with pytest.raises(ParametersInvalid, match=r"\$\.id"):
        request_of(Endpoint.parse("https://h/users/{id}"), "GET", {"id": value})


async def test_json_goes_in_and_comes_out(tmp_path: Path) -> None:
    result, server = await call(tmp_path, lambda request: json_reply({"sum": 3}), {"a": 1, "b": 2})
    assert result.output == {"sum": 3}
    assert (result.attempts, result.is_cut, result.size_bytes) == (1, False, 10)
    assert server.requests[0].startswith("POST / ")
    assert server.requests[0].endswith('{"a":1,"b":2}')
    assert "accept-encoding: identity" in server.requests[0].lower()


@pytest.mark.parametrize(
    ("body", "content_type", "output"),
    [
        (b"plain", "text/plain", "plain"),
        (b"caf\xe9", "text/plain; charset=latin-1", "café"),
        (b"\xff", "text/plain", "\ufffd"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"\x00\x01", "image/png", {"content_type": "image/png", "base64": "AAE="}),
        (b"", "application/json", None),
        (b"[1]", "application/problem+json", [1]),
    ],
)
async def test_an_answer_is_what_its_type_says(tmp_path: Path, body: bytes, content_type: str, output: Any) -> None:
    result, _ = await call(tmp_path, lambda request: reply(200, body, content_type))
    assert result.output == output


@pytest.mark.parametrize("body", [b"{", b"NaN", b"[" * 100_000])
async def test_json_that_is_none_is_an_error(tmp_path: Path, body: bytes) -> None:
    result, _ = await call(tmp_path, lambda request: reply(200, body))
    assert isinstance(result, ToolAnswerInvalid)


@pytest.mark.slow
async def test_a_long_answer_is_cut_while_it_is_read(tmp_path: Path) -> None:
    size = 50_000_000
    result, _ = await call(
        tmp_path,
        lambda request: reply(200, b"y" * size, "text/plain"),
        config={"limits": {"max_output_bytes": 1000}},
    )
    assert result.is_cut
    assert result.output == "y" * 1000


async def test_an_answer_that_never_ends_is_cut_too(tmp_path: Path) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"z" * 65536)
            await writer.drain()

    async with raw_server(pour) as where:
        config = {"internal_hosts": [where], "limits": {"max_output_bytes": 100_000}}
        async with running(tmp_path, config) as module:
            await module.register_tool("endless", f"http://{where}/", metadata={"method": "GET"})
            result = await module.execute_tool("endless", timeout=10)
    assert result.is_cut
    assert len(result.output) == 100_000


async def test_a_cut_answer_that_a_schema_should_check_is_refused(tmp_path: Path) -> None:
    result, _ = await call(
        tmp_path,
        lambda request: json_reply(["x" * 5000]),
        config={"limits": {"max_output_bytes": 1000}},
        output_schema={"type": "array"},
    )
    assert isinstance(result, ToolAnswerInvalid)
    assert "cut off" in str(result)


async def test_a_packed_answer_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    result, _ = await call(tmp_path, lambda request: reply(200, bomb, Content_Encoding="gzip"))
    assert isinstance(result, ToolAnswerInvalid)
    assert "gzip" in str(result)


async def test_an_answer_that_its_schema_does_not_allow_is_refused(tmp_path: Path) -> None:
    result, _ = await call(
        tmp_path,
        lambda request: json_reply({"degrees": SECRET}),
        output_schema={"type": "object", "properties": {"degrees": {"type": "number"}}},
    )
    assert isinstance(result, ToolAnswerInvalid)
    assert str(result).endswith('$.degrees: must satisfy type "number"')


async def test_a_silent_tool_is_left_after_its_time(tmp_path: Path) -> None:
    async with raw_server(say_nothing) as where, running(tmp_path, {"internal_hosts": [where], **FAST}) as module:
        await module.register_tool("silent", f"http://{where}/", metadata={"method": "GET"})
        began = time.monotonic()
        with pytest.raises(ToolTimedOut, match="did not answer in time"):
            await module.execute_tool("silent", timeout=0.3)
        assert time.monotonic() - began < 1.5


async def test_a_closed_port_is_no_connection_and_tried_again(tmp_path: Path) -> None:
    async with LoopbackServer() as server:
        where = server.where
    heard = Heard(tmp_path)
    async with running(tmp_path, {"internal_hosts": [where], **FAST}, heard) as module:
        await module.register_tool("gone", f"http://{where}/")
        with pytest.raises(ToolUnavailable, match="no connection") as caught:
            await module.execute_tool("gone")
    assert not caught.value.was_sent
    assert heard.of("tool.error")[0]["attempts"] == 3, "nothing had been sent, so even a POST is tried again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "idempotent", "attempts"),
    [("GET", None, 3), ("POST", None, 1), ("POST", True, 3), ("GET", False, 1), ("DELETE", None, 3)],
)
async def test_only_what_may_be_repeated_is_tried_again(
    tmp_path: Path, method: str, idempotent: bool | None, attempts: int
) -> None:
    metadata = {"method": method} | ({} if idempotent is None else {"idempotent": idempotent})
    result, server = await call(tmp_path, lambda request: reply(503), metadata=metadata)
    assert isinstance(result, ToolUnavailable)
    assert server.connections == attempts


async def test_a_call_succeeds_when_a_later_attempt_does(tmp_path: Path) -> None:
    answers = [reply(502), reply(503), json_reply("there")]
    result, _ = await call(tmp_path, lambda request: answers.pop(0), metadata={"method": "GET"})
    assert (result.output, result.attempts) == ("there", 3)


async def test_what_the_tool_refuses_is_not_tried_again_and_says_why(tmp_path: Path) -> None:
    result, server = await call(
        tmp_path, lambda request: reply(422, b"no such\n  city", "text/plain"), metadata={"method": "GET"}
    )
    assert isinstance(result, ToolFailed)
    assert (result.status, str(result)) == (422, "the tool answers 422: no such city")
    assert server.connections == 1


async def test_a_tool_that_asks_to_wait_is_waited_for_within_the_time(tmp_path: Path) -> None:
    answers = [reply(429, Retry_After="0.1"), json_reply(1)]
    result, _ = await call(tmp_path, lambda request: answers.pop(0), timeout=2.0)
    assert (result.output, result.attempts) == (1, 2)
    result, server = await call(tmp_path / "b", lambda request: reply(429, Retry_After="60"), timeout=2.0)
    assert isinstance(result, ToolBusy)
    assert (result.retry_after_s, server.connections) == (60, 1)


async def test_a_redirect_within_the_tool_is_followed(tmp_path: Path) -> None:
    def answer(request: str) -> bytes:
        return json_reply("arrived") if request.startswith("GET /new") else reply(302, Location="/new")

    result, server = await call(tmp_path, answer, metadata={"method": "GET", "headers": {"X-Key": "k"}})
    assert result.output == "arrived"
    assert "x-key: k" in server.requests[1].lower()


async def test_redirects_have_an_end(tmp_path: Path) -> None:
    result, server = await call(
        tmp_path, lambda request: reply(302, Location="/again"), metadata={"method": "GET", "idempotent": False}
    )
    assert isinstance(result, ToolUnavailable)
    assert server.connections == 6


async def test_another_host_gets_neither_headers_nor_what_was_sent(tmp_path: Path) -> None:
    async with LoopbackServer() as other:
        status = 307

        def answer(request: str) -> bytes:
            return reply(status, Location=f"http://{other.where}/")

        config = {"header_variables": ["KEY@HERE"]}
        about = {"method": "POST", "headers": {"X-Api-Key": "${KEY}", "Authorization": "Bearer ${KEY}"}}
        async with LoopbackServer(answer) as gate:
            hosts = {**FAST, "internal_hosts": [gate.where, other.where], "header_variables": ["KEY@127.0.0.1"]}
            async with running(tmp_path, {**config, **hosts}, environ={"KEY": SECRET}) as module:
                await module.register_tool("tool", f"http://{gate.where}/", metadata=about)
                with pytest.raises(AddressRefused, match="another host"):
                    await module.execute_tool("tool", {"private": "words"})
                assert other.connections == 0
                status = 303
                await module.execute_tool("tool", {"private": "words"})
        assert SECRET in gate.requests[0]
        assert SECRET not in other.requests[0]
        assert "words" not in other.requests[0]


async def test_cookies_of_one_call_are_not_sent_with_the_next(tmp_path: Path) -> None:
    async with (
        LoopbackServer(lambda request: reply(200, b"1", Set_Cookie="session=ann; Path=/")) as server,
        running(tmp_path, {"internal_hosts": [server.where]}) as module,
    ):
        await module.register_tool("tool", f"http://{server.where}/", metadata={"method": "GET"})
        await module.execute_tool("tool", user_id="ann")
        await module.execute_tool("tool", user_id="bob")
    assert "cookie" not in server.requests[1].lower()


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_a_secret_goes_to_its_domain_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    heard = Heard(tmp_path)
    async with LoopbackServer(lambda request: reply(500, request.encode())) as server:
        config = {**FAST, "internal_hosts": [server.where], "header_variables": ["KEY@127.0.0.1"]}
        async with running(tmp_path, config, heard, environ={"KEY": SECRET, "OTHER": SECRET}) as module:
            about = {"method": "GET", "headers": {"Authorization": "Bearer ${KEY}"}}
            tool = await module.register_tool("tool", f"http://{server.where}/?token=query", metadata=about)
            with pytest.raises(ToolUnavailable) as caught:
                await module.execute_tool("tool")
            with pytest.raises(ValidationError, match="may not go to evil"):
                await module.register_tool("evil", "https://evil.example.com/", metadata=about)
            with pytest.raises(ValidationError, match="OTHER"):
                await module.register_tool("other", f"http://{server.where}/", metadata={"headers": {"X": "${OTHER}"}})
    assert f"Bearer {SECRET}" in server.requests[0]
    assert SECRET not in str(caught.value) + repr(tool) + repr(heard.events) + caplog.text
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "token=query" not in repr(heard.events) + caplog.text, "addresses are told without their query"
    assert "HTTP Request: GET" in caplog.text, "the library does log"


async def test_a_tool_that_repeats_a_secret_does_not_give_it_away(tmp_path: Path) -> None:
    for status in (200, 400):
        result, server = await call(
            tmp_path / str(status),
            lambda request, status=status: reply(status, request.encode(), "text/plain"),  # type: ignore[misc]
            config={"header_variables": ["KEY@HERE"]},
            environ={"KEY": SECRET},
            metadata={"headers": {"X-Key": "${KEY}"}},
        )
        assert SECRET in server.requests[0]
        assert SECRET not in (str(result) if status == 400 else result.output)


async def test_a_secret_that_is_not_set_is_the_operators_mistake(tmp_path: Path) -> None:
    result, server = await call(
        tmp_path,
        lambda request: json_reply(1),
        config={"header_variables": ["KEY@HERE"]},
        metadata={"headers": {"X-Key": "${KEY}"}},
    )
    assert isinstance(result, ConfigurationError)
    assert "${KEY} is not set" in str(result)
    assert server.connections == 0
