"""The short way to the busiest routes: nobody can tell it from the framework's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from serve.app import create_app
from serve.routes import ROUTES, busiest
from serve.shortcut import Shortcut, Way
from tests.served import platform_on, settings_of

BODY = {"user_id": "ada", "content": "Noted.", "reply": False}
JSON = {"Content-Type": "application/json"}
KEY = "Idempotency-Key"
DEEP = b'{"a":' * 20_000 + b"1" + b"}" * 20_000


def body(**more: Any) -> bytes:
    return json.dumps({**BODY, **more}).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in BODY.items() if name not in names}).encode()


ASKED: dict[str, tuple[bytes, dict[str, str]]] = {
    "a message that is stored": (body(), JSON),
    "a message that is answered": (body(reply=True), {**JSON, KEY: "k2"}),
    "one of another role": (body(role="system"), JSON),
    "no owner": (without("user_id"), JSON),
    "another's session": (body(user_id="bob"), JSON),
    "a key": (body(), {**JSON, KEY: "k1"}),
    "the key again, for something else": (body(content="Other."), {**JSON, KEY: "k1"}),
    "an empty key": (body(), {**JSON, KEY: ""}),
    "too long a key": (body(), {**JSON, KEY: "k" * 256}),
    "a key that is wrong, and a body that is": (without("content"), {**JSON, KEY: ""}),
    "attachments": (body(attachments=[{"id": "a", "type": "image", "url": "data/x"}]), JSON),
    "an attachment that is none": (body(attachments=[{"id": 1}, 2]), JSON),
    "metadata of all kinds": (body(metadata={"n": [1, 2.5, None, True, "ß", 1 << 70, -0.0, 1e-7]}), JSON),
    "metadata that is no object": (body(metadata=[]), JSON),
    "no body": (b"", JSON),
    "no body, and no type of one": (b"", {}),
    "no object": (b"[1]", JSON),
    "null": (b"null", JSON),
    "a text": (b'"content"', JSON),
    "half of it": (b'{"content": "x', JSON),
    "more than it": (b'{"content": "x"} x', JSON),
    "no UTF-8": (b'{"content": "\xff"}', JSON),
    "UTF-16": (body().decode().encode("utf-16"), JSON),
    "with a mark of its order": (b"\xef\xbb\xbf" + body(), JSON),
    "blanks around it": (b" \r\n\t" + body() + b" ", JSON),
    "half a character": (b'{"user_id": "ada", "content": "\\ud800", "reply": false}', JSON),
    "no JSON number": (b'{"user_id": "ada", "content": "x", "reply": false, "metadata": {"n": NaN}}', JSON),
    "a number beyond all": (b'{"user_id": "ada", "content": "x", "reply": false, "metadata": {"n": 1e999}}', JSON),
    "a member twice": (b'{"user_id": "bob", "user_id": "ada", "content": "x", "reply": false}', JSON),
    "nested beyond reason": (DEEP, JSON),
    "a member that is not known": (body(contents="x"), JSON),
    "a member of another shape": (body(seed=1), JSON),
    "no content": (without("content"), JSON),
    "an empty content": (body(content=""), JSON),
    "a content that is no text": (body(content=5), JSON),
    "a reply that is no boolean": (body(reply=0), JSON),
    "a role that is none": (body(role="king"), JSON),
    "an answer of no tokens": (body(reply=True, max_tokens=0), JSON),
    "a parent without a name": (body(parent_id=""), JSON),
    "a parent that is not there": (body(parent_id="msg_0"), JSON),
    "another type": (body(), {"Content-Type": "text/plain"}),
    "no type": (body(), {}),
    "a type with a charset": (body(), {"Content-Type": "Application/JSON; charset=latin-1"}),
    "too much": (body(content="x" * 30_000), JSON),
}


class Served:
    """One platform behind two applications; one of them has the framework's way only."""

    def __init__(self, short: httpx.AsyncClient, framework: httpx.AsyncClient, session_id: str) -> None:
        self.short = short
        self.framework = framework
        self.path = f"/v1/sessions/{session_id}/messages"


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Served]:
    settings = settings_of({"max_body_bytes": 20_000})
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(platform_on(tmp_path, settings))

        async def client_of(app: FastAPI) -> httpx.AsyncClient:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("serve.app.busiest", tuple)
            framework = await client_of(create_app(platform, settings))
        short = await client_of(create_app(platform, settings))
        made = await short.post("/v1/sessions", json={"user_id": "ada"})
        yield Served(short, framework, made.json()["id"])


def told(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], Any]:
    """All of an answer but what is new with each."""
    headers = [(n, v) for n, v in answer.headers.multi_items() if not n.startswith("x-ratelimit")]
    content = answer.json()
    if answer.status_code == 201:
        for one in filter(None, content.values()):
            assert one.pop("id")
            assert one.pop("timestamp")
            one.pop("parent_id")
    return answer.status_code, headers, content


@pytest.mark.parametrize("what", ASKED)
async def test_what_is_answered_is_what_the_framework_would_have(both: Served, what: str) -> None:
    content, headers = ASKED[what]
    asked = {**headers, "X-Request-Id": "mine"}
    if what.startswith("the key again"):
        await both.short.post(both.path, content=body(), headers=asked)
    short = await both.short.post(both.path, content=content, headers=asked)
    framework = await both.framework.post(both.path, content=content, headers=asked)
    assert told(short) == told(framework)


@pytest.mark.parametrize("path", ["/v1/sessions/none/messages", f"/v1/sessions/{'s' * 1001}/messages"])
async def test_so_it_is_for_sessions_that_are_not_there(both: Served, path: str) -> None:
    asked = {**JSON, "X-Request-Id": "mine"}
    short = await both.short.post(path, content=body(), headers=asked)
    framework = await both.framework.post(path, content=body(), headers=asked)
    assert short.status_code in (400, 404)
    assert told(short) == told(framework)


QUERIES = [
    "",
    "?user_id=ada",
    "?user_id=ada&limit=1",
    "?user_id=ada&limit=1&order=desc",
    "?user_id=ada&limit=0",
    "?user_id=ada&limit=100000",
    "?limit=one",
    "?limit=",
    "?limit=1&limit=2",
    "?user_id=",
    "?user_id=bob",
    "?user_id=%61da",
    "?user_id=ada&before=msg_0",
    "?order=up",
    "?after",
    "?unknown=1",
    "?&&",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_so_it_is_for_what_is_read_back(both: Served, query: str) -> None:
    for _ in range(2):
        await both.short.post(both.path, content=body(), headers=JSON)
    short = await both.short.get(both.path + query, headers={"X-Request-Id": "mine"})
    framework = await both.framework.get(both.path + query, headers={"X-Request-Id": "mine"})
    assert told(short) == told(framework)


async def test_a_body_that_grows_beyond_its_limit_is_refused_the_same(both: Served) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 1000

    asked = {**JSON, "X-Request-Id": "mine"}
    short = await both.short.post(both.path, content=pieces(), headers=asked)
    framework = await both.framework.post(both.path, content=pieces(), headers=asked)
    assert short.status_code == 413
    assert told(short) == told(framework)


@pytest.fixture
def framework_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the busiest routes the framework was asked for."""
    asked: list[str] = []

    def watched(route: APIRoute) -> None:
        answer = route.app

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(route.path)
            await answer(scope, receive, send)

        monkeypatch.setattr(route, "app", noted)

    for route in busiest():
        watched(route)
    return asked


async def test_the_framework_is_asked_only_for_what_is_wrong(both: Served, framework_asked: list[str]) -> None:
    for content in (body(), body(reply=True), body(role="system", metadata={"a": 1})):
        assert (await both.short.post(both.path, content=content, headers={**JSON, KEY: "k"})).status_code in (201, 409)
    assert framework_asked == []
    assert (await both.short.post(both.path, content=without("content"), headers=JSON)).status_code == 400
    assert framework_asked == ["/v1/sessions/{session_id}/messages"]


async def test_whoever_goes_away_before_the_end_of_a_body_is_not_answered(both: Served) -> None:
    app: Any = both.short._transport.app  # type: ignore[attr-defined]
    sent: list[Message] = []
    here: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"90")]
    scope = {"type": "http", "method": "POST", "path": both.path, "query_string": b"", "headers": headers}

    async def receive() -> Message:
        return here.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent == []


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(JSONS, st.booleans(), st.binary(max_size=3), st.integers(0, 40))
@example(1e308, True, b"0", 1)
def test_what_the_decoder_takes_is_what_the_frameworks_would_have_given(
    value: Any, ascii_only: bool, spoilt_by: bytes, at: int
) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    for text in (written, written[:at] + spoilt_by + written[at:]):
        try:
            taken = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        assert repr(taken) == repr(json.loads(text))


def test_a_route_that_takes_more_has_no_short_way() -> None:
    every = [one for routes in ROUTES for one in routes.router.routes if isinstance(one, APIRoute)]
    others = [one for one in every if one.dependant.dependencies]
    assert others
    for one in others:
        with pytest.raises(ValueError, match="takes what only the framework gives"):
            Way(one)


async def test_what_is_no_request_passes() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await Shortcut(app, routes=busiest())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
