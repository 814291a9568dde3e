"""Models on a server: what is asked of it, and what it answers."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from modules.core.errors import ValidationError
from modules.models.errors import (
    ModelAnswerInvalid,
    ModelMisconfigured,
)
from modules.models.openai_compatible import ServedEmbedding, Server
from modules.models.protocols import Delta, PromptMessage, Tool, ToolCall, Usage
from tests.model_server import (
    KEY,
    SAID,
    FakeModelServer,
    Naps,
    answer,
    chat,
    fails,
    failure,
    finish_chunk,
    gives,
    running,
    says,
    streams,
    text_chunk,
    usage_chunk,
)

pytest.importorskip("openai", reason="models on a server need the extra local-llm")


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
