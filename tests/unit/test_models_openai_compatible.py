"""Models on a server, against one in this process that speaks enough of the OpenAI API, and fails on demand."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from modules.core.errors import ValidationError
from modules.models.errors import (
    ContextTooLong,
    ModelAnswerInvalid,
    ModelBusy,
    ModelCancelled,
    ModelError,
    ModelInterrupted,
    ModelMisconfigured,
    ModelRefused,
    ModelUnavailable,
)
from modules.models.openai_compatible import ServedChat, ServedEmbedding, Server
from modules.models.protocols import Delta, PromptMessage, Tool, ToolCall, Usage

pytest.importorskip("openai", reason="models on a server need the extra local-llm")

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeModelServer:
    """Gives its *replies* in order, the last one again and again. What was asked is in ``requests``."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.address = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.headers.append(dict(request.headers))
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        return await reply(request)


@asynccontextmanager
async def running(*replies: Reply) -> AsyncIterator[FakeModelServer]:
    server = FakeModelServer(*replies)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    app.router.add_post("/v1/embeddings", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.address = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def text_chunk(text: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}


def finish_chunk(reason: str = "stop") -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage_chunk(prompt: int, completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}}


def streams(*chunks: dict[str, Any] | str | float, done: bool = True, dies: bool = False) -> Reply:
    """Sends dictionaries as events and texts as they are, and sleeps for numbers."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            elif isinstance(chunk, str):
                await response.write(chunk.encode())
            else:
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if dies:
            assert request.transport is not None
            request.transport.abort()
        elif done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return reply


def says(*texts: str) -> Reply:
    return streams(*map(text_chunk, texts), finish_chunk(), usage_chunk(7, len(texts)))


def fails(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **error: Any) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": message, **error}}, status=status, headers=headers)

    return reply


def hangs_up() -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return reply


def gives(body: dict[str, Any]) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return reply


SAID = [PromptMessage("system", "Be brief."), PromptMessage("user", "Hello?")]
KEY = "sk-very-secret"


class Naps:
    """Sleeps that take no time and are remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
def naps() -> Naps:
    return Naps()


@asynccontextmanager
async def chat(server: FakeModelServer, naps: Naps | None = None, **of_server: Any) -> AsyncIterator[ServedChat]:
    model = ServedChat(Server(server.address, "tiny", **of_server), sleep=naps or Naps())
    try:
        yield model
    finally:
        await model.close()


async def answer(model: ServedChat, **request: Any) -> list[Delta]:
    async with aclosing(model.stream(SAID, max_tokens=50, **request)) as deltas:
        return [delta async for delta in deltas]


async def failure(model: ServedChat, given: list[Delta] | None = None) -> ModelError:
    """What an answer fails with; *given* gets what came before."""
    try:
        async with aclosing(model.stream(SAID, max_tokens=50)) as deltas:
            async for delta in deltas:
                if given is not None:
                    given.append(delta)
    except ModelError as error:
        return error
    raise AssertionError("the answer did not fail")


# -- answers -------------------------------------------------------------------------------------------------------


async def test_an_answer_comes_in_pieces_and_ends_with_its_reason_and_usage() -> None:
    async with running(says("Good ", "day")) as server, chat(server) as model:
        deltas = await answer(model)
    assert deltas == [Delta("Good "), Delta("day"), Delta(finish_reason="stop", usage=Usage(7, 2))]


async def test_the_first_piece_is_given_before_the_second_exists() -> None:
    slow = streams(text_chunk("now"), 30.0, text_chunk("later"))
    async with running(slow) as server, chat(server) as model, aclosing(model.stream(SAID, max_tokens=9)) as deltas:
        async with asyncio.timeout(5):
            assert await anext(deltas) == Delta("now")


async def test_closing_the_generator_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(f"data: {json.dumps(text_chunk('on and '))}\n\n".encode())
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with running(endless) as server, chat(server) as model:
        async with aclosing(model.stream(SAID, max_tokens=9)) as deltas:
            await anext(deltas)
        async with asyncio.timeout(5):
            await gone.wait()


async def test_what_was_asked_is_what_the_server_gets() -> None:
    tool = Tool("clock", "tells the time", {"type": "object", "properties": {}})
    async with running(says("x")) as server, chat(server) as model:
        await answer(model, temperature=0.5, stop=["END"], seed=3, tools=[tool])
    assert server.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 50,
            "temperature": 0.5,
            "stop": ["END"],
            "seed": 3,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "clock",
                        "description": "tells the time",
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
        }
    ]


async def test_nothing_is_sent_that_was_not_given() -> None:
    async with running(says("x")) as server, chat(server) as model:
        await answer(model)
    assert not {"temperature", "stop", "seed", "tools"} & server.requests[0].keys()


async def test_a_prompt_with_tool_calls_and_their_results_is_sent_as_the_api_has_it() -> None:
    call = ToolCall("c1", "clock", "{}")
    prompt = [
        PromptMessage("user", "Time?"),
        PromptMessage("assistant", "", tool_calls=(call,)),
        PromptMessage("tool", "noon", tool_call_id="c1"),
    ]
    async with running(says("x")) as server, chat(server) as model:
        assert [delta.text async for delta in model.stream(prompt, max_tokens=5)] == ["x", ""]
    assert server.requests[0]["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
    ]


async def test_tool_calls_come_whole_with_the_last_delta() -> None:
    def part(**call: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}

    reply = streams(
        part(id="c1", type="function", function={"name": "clock", "arguments": ""}),
        part(function={"arguments": '{"zone"'}),
        part(function={"arguments": ': "UTC"}'}),
        finish_chunk("tool_calls"),
        usage_chunk(1, 2),
    )
    async with running(reply) as server, chat(server) as model:
        (last,) = await answer(model)
    assert last.finish_reason == "tool_calls"
    assert last.tool_calls == (ToolCall("c1", "clock", '{"zone": "UTC"}'),)


async def test_usage_is_estimated_and_marked_so_where_the_server_counts_nothing() -> None:
    uncounted = streams(text_chunk("four token answer"), finish_chunk("length"))
    async with running(uncounted) as server, chat(server) as model:
        *_, last = await answer(model)
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.estimated
    assert last.usage.completion_tokens == 5


# -- keys ----------------------------------------------------------------------------------------------------------


async def test_the_key_goes_to_the_server_and_into_no_repr() -> None:
    async with running(says("x")) as server, chat(server, api_key=KEY) as model:
        await answer(model)
        assert KEY not in repr(model)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_without_a_key_none_is_sent_whatever_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    async with running(says("x")) as server, chat(server) as model:
        await answer(model)
    assert KEY not in str(server.headers[0])


async def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_error() -> None:
    async with running(fails(401, f"wrong key {KEY}")) as server, chat(server, api_key=KEY) as model:
        error = await failure(model)
    assert isinstance(error, ModelMisconfigured)
    shown = "".join(traceback.format_exception(error))
    assert "wrong key ***" in shown
    assert KEY not in shown.replace("KEY", "")


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {}, ModelRefused),
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (401, {}, ModelMisconfigured),
        (403, {}, ModelMisconfigured),
        (404, {}, ModelMisconfigured),
        (422, {}, ModelRefused),
        (429, {"code": "insufficient_quota"}, ModelMisconfigured),
    ],
)
async def test_what_no_second_attempt_cures_is_raised_at_once(
    status: int, error: dict[str, Any], kind: type[ModelError], naps: Naps
) -> None:
    async with running(fails(status, **error), says("never")) as server, chat(server, naps) as model:
        assert type(await failure(model)) is kind
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", [fails(500), fails(503), fails(429), hangs_up(), streams(done=False)])
async def test_what_may_pass_is_tried_again(trouble: Reply, naps: Naps) -> None:
    async with running(trouble, trouble, says("at last")) as server, chat(server, naps) as model:
        deltas = await answer(model)
    assert deltas[0] == Delta("at last")
    assert len(server.requests) == 3
    assert len(naps.taken) == 2


async def test_attempts_end(naps: Naps) -> None:
    async with running(fails(500, "broken")) as server, chat(server, naps) as model:
        error = await failure(model)
    assert isinstance(error, ModelUnavailable)
    assert error.retryable
    assert len(server.requests) == 3
    assert naps.taken == [0.5, 1.0]


async def test_a_busy_server_says_how_long_to_wait(naps: Naps) -> None:
    busy = fails(429, headers={"Retry-After": "3"})
    async with running(busy, says("x")) as server, chat(server, naps) as model:
        await answer(model)
    assert naps.taken == [3.0]


async def test_a_wait_beyond_the_time_limit_is_left_to_the_caller(naps: Naps) -> None:
    async with running(fails(429, headers={"Retry-After": "3600"})) as server, chat(server, naps) as model:
        error = await failure(model)
    assert isinstance(error, ModelBusy)
    assert error.retry_after_s == 3600
    assert naps.taken == []


async def test_a_server_that_stalls_before_the_answer_is_unavailable() -> None:
    async with running(streams(30.0)) as server, chat(server, timeout_s=0.2) as model:
        error = await failure(model)
    assert type(error) is ModelUnavailable
    assert "silent for 0.2 s" in error.message


async def test_a_server_that_stalls_in_the_answer_breaks_it_off() -> None:
    given: list[Delta] = []
    async with running(streams(text_chunk("so far"), 30.0)) as server, chat(server, timeout_s=0.2) as model:
        error = await failure(model, given)
    assert type(error) is ModelInterrupted
    assert given == [Delta("so far")]


async def test_a_server_that_only_sends_comments_is_silent() -> None:
    pings = [part for _ in range(40) for part in (": ping\n\n", 0.05)]
    async with running(streams(*pings)) as server, chat(server, timeout_s=0.3) as model:
        assert type(await failure(model)) is ModelUnavailable


async def test_a_long_answer_that_keeps_coming_outlasts_the_time_limit() -> None:
    parts = [part for _ in range(10) for part in (text_chunk("x"), 0.1)]
    async with running(streams(*parts, finish_chunk())) as server, chat(server, timeout_s=0.5) as model:
        assert len(await answer(model)) == 11


@pytest.mark.parametrize(
    "dying",
    [
        streams(text_chunk("so far"), dies=True),
        streams(text_chunk("so far"), done=False),
        streams(text_chunk("so far"), done=True),
        streams(text_chunk("so far"), {"error": {"message": "out of memory", "type": "server_error"}}),
    ],
    ids=["connection lost", "ends without a reason", "done without a reason", "says so"],
)
async def test_an_answer_that_breaks_off_is_an_error_and_is_not_tried_again(dying: Reply, naps: Naps) -> None:
    given: list[Delta] = []
    async with running(dying, says("again")) as server, chat(server, naps) as model:
        error = await failure(model, given)
    assert type(error) is ModelInterrupted
    assert given == [Delta("so far")]
    assert len(server.requests) == 1


async def test_what_is_no_json_is_an_invalid_answer() -> None:
    async with running(streams("data: {nonsense\n\n")) as server, chat(server) as model:
        assert type(await failure(model)) is ModelAnswerInvalid


async def test_no_server_is_unavailable(naps: Naps) -> None:
    async with running(says("x")) as server:
        pass
    async with chat(server, naps) as model:
        assert type(await failure(model)) is ModelUnavailable


async def test_closing_the_model_ends_its_answers() -> None:
    async with running(streams(text_chunk("so far"), 30.0)) as server:
        model = ServedChat(Server(server.address, "tiny"))
        async with aclosing(model.stream(SAID, max_tokens=9)) as deltas:
            await anext(deltas)
            await model.close()
            with pytest.raises(ModelCancelled):
                async with asyncio.timeout(5):
                    await anext(deltas)


async def test_a_wrong_request_is_refused_before_it_is_sent() -> None:
    async with running(says("x")) as server, chat(server) as model:
        for wrong in ({"max_tokens": 0}, {"max_tokens": 1, "temperature": 3}, {"max_tokens": 1, "stop": "END"}):
            with pytest.raises(ValidationError):
                await anext(model.stream(SAID, **wrong))
    assert server.requests == []


# -- embeddings ----------------------------------------------------------------------------------------------------


def vectors(*rows: list[float]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


@asynccontextmanager
async def embedding(server: FakeModelServer, **given: Any) -> AsyncIterator[ServedEmbedding]:
    model = ServedEmbedding(Server(server.address, "small"), sleep=Naps(), **given)
    try:
        yield model
    finally:
        await model.close()


async def test_vectors_are_float32_of_unit_norm_in_the_order_of_the_texts() -> None:
    answer = vectors([3.0, 4.0], [0.0, 2.0])
    answer["data"].reverse()
    async with running(gives(answer)) as server, embedding(server) as model:
        assert model.dimension is None
        rows = await model.embed(["a", "b"])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)
    assert model.dimension == 2


async def test_texts_are_sent_in_batches() -> None:
    one = gives(vectors([1.0, 0.0], [1.0, 0.0]))
    async with running(one, gives(vectors([0.0, 1.0]))) as server, embedding(server, batch_size=2) as model:
        rows = await model.embed(["a", "b", "c"])
    assert [request["input"] for request in server.requests] == [["a", "b"], ["c"]]
    assert rows.tolist() == [[1, 0], [1, 0], [0, 1]]


async def test_a_text_without_words_is_like_nothing_and_is_not_sent() -> None:
    async with running(gives(vectors([1.0, 0.0]))) as server, embedding(server) as model:
        rows = await model.embed(["", "word", " \n"])
    assert server.requests[0]["input"] == ["word"]
    assert rows.tolist() == [[0, 0], [1, 0], [0, 0]]


async def test_a_dimension_that_is_set_is_asked_for() -> None:
    async with running(gives(vectors([1.0, 0.0]))) as server, embedding(server, dimension=2) as model:
        await model.embed(["a"])
    assert server.requests[0]["dimensions"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        vectors([1.0, 0.0], [1.0, 0.0]),
        vectors([1.0, 0.0, 0.0]),
        vectors([float("nan"), 0.0]),
        {"object": "list", "data": [{"index": 0}]},
        {"object": "list"},
    ],
    ids=["too many", "other dimension", "not finite", "no vector", "no data"],
)
async def test_what_are_no_vectors_of_these_texts_is_an_invalid_answer(wrong: dict[str, Any]) -> None:
    async with running(gives(wrong)) as server, embedding(server, dimension=2) as model:
        with pytest.raises(ModelAnswerInvalid):
            await model.embed(["a"])


async def test_embedding_is_tried_again_as_chat_is() -> None:
    async with running(fails(500), gives(vectors([1.0, 0.0]))) as server, embedding(server) as model:
        assert (await model.embed(["a"])).tolist() == [[1, 0]]


async def test_one_text_in_place_of_a_list_is_refused() -> None:
    async with running(gives(vectors([1.0]))) as server, embedding(server) as model:
        with pytest.raises(ValidationError):
            await model.embed("abc")
