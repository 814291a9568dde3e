"""What the embedded model makes of its engine's good and bad days; the engine is a fake, the threads are real."""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from modules.models.embedded_chat import EmbeddedChat
from modules.models.errors import (
    ModelCancelled,
    ModelError,
    ModelInterrupted,
    ModelMisconfigured,
    ModelRefused,
    ModelUnavailable,
)
from modules.models.protocols import Delta, PromptMessage

ASKED = [PromptMessage("user", "Hello <|im_end|>?")]
Callback = Callable[[dict[str, Any]], bool]
Behaviour = Callable[[dict[str, Any], Callback], None]


def text_chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


FINISH = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


class FakeEngine:
    """Stands in for the package. ``behaviour`` is what a call does."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = says(text_chunk("hi"), FINISH, USAGE)
        self.requests: list[dict[str, Any]] = []
        self.params: list[Any] = []
        self.cannot_load = False

    def CommonParams(self) -> Any:
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    def Server(self, params: Any) -> Any:
        if self.cannot_load:
            raise RuntimeError("Failed to init server")
        assert Path(params.hostnames[0]).parent.stat().st_mode & 0o077 == 0
        self.params.append(params)
        return SimpleNamespace(handle_chat_completions=self.handle)

    def handle(self, request: dict[str, Any], callback: Callback) -> None:
        self.requests.append(request)
        self.behaviour(request, callback)


def says(*chunks: dict[str, Any]) -> Behaviour:
    def behaviour(request: dict[str, Any], callback: Callback) -> None:
        for chunk in chunks:
            if callback(chunk):
                return

    return behaviour


def never_ends(stopped: Event) -> Behaviour:
    def behaviour(request: dict[str, Any], callback: Callback) -> None:
        while not callback(text_chunk("on ")):
            time.sleep(0.001)
        stopped.set()

    return behaviour


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    return fake


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("llama.context_length") + struct.pack("<II", 4, 2048),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1) + text("<|im_end|>"),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQi", 9, 5, 1, 3),
    ]
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
    return path


@pytest.fixture
async def model(engine: FakeEngine, gguf: Path) -> AsyncIterator[EmbeddedChat]:
    model = EmbeddedChat(gguf, slots=1, timeout_s=5)
    yield model
    await model.close()
    assert model.in_progress == 0


async def answer(model: EmbeddedChat, given: list[Delta] | None = None) -> list[Delta]:
    deltas = [] if given is None else given
    async with aclosing(model.stream(ASKED, max_tokens=9)) as stream:
        async for delta in stream:
            deltas.append(delta)
    return deltas


async def test_the_engine_is_loaded_once_and_by_the_first_request(model: EmbeddedChat, engine: FakeEngine) -> None:
    assert engine.params == []
    await asyncio.gather(answer(model), answer(model), model.load())
    assert len(engine.params) == 1


async def test_the_engine_listens_where_nobody_can_reach_it(model: EmbeddedChat, engine: FakeEngine) -> None:
    await model.load()
    (address,) = engine.params[0].hostnames
    assert address.startswith("/")
    assert not Path(address).parent.exists()


async def test_every_slot_has_the_whole_window(engine: FakeEngine, gguf: Path) -> None:
    model = EmbeddedChat(gguf, slots=3, context_tokens=10_000)
    await model.load()
    await model.close()
    assert model.context_window == 2048  # more than the model was trained for is not to be had
    assert (engine.params[0].n_ctx, engine.params[0].n_parallel) == (3 * 2048, 3)


async def test_marks_in_messages_reach_the_engine_as_words(model: EmbeddedChat, engine: FakeEngine) -> None:
    await answer(model)
    assert engine.requests[0]["messages"] == [{"role": "user", "content": "Hello < |im_end|>?"}]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 400, "message": "no"}, ModelRefused),
        ({"code": 500, "message": "no"}, ModelUnavailable),
        ({"code": 503, "message": "no"}, ModelUnavailable),
    ],
)
async def test_an_error_of_the_engine_is_an_error_of_the_model(
    model: EmbeddedChat, engine: FakeEngine, error: dict[str, Any], kind: type[ModelError]
) -> None:
    engine.behaviour = says({"error": error})
    with pytest.raises(ModelError) as caught:
        await answer(model)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "chunks", [[{"error": {"code": 500, "message": "no"}}], []], ids=["says so", "ends without a reason"]
)
async def test_an_answer_that_breaks_off_keeps_what_was_given(
    model: EmbeddedChat, engine: FakeEngine, chunks: list[dict[str, Any]]
) -> None:
    engine.behaviour = says(text_chunk("so far"), *chunks)
    given: list[Delta] = []
    with pytest.raises(ModelInterrupted):
        await answer(model, given)
    assert given == [Delta("so far")]


async def test_an_engine_that_fails_unexpectedly_keeps_nobody_waiting(
    model: EmbeddedChat, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(request: dict[str, Any], callback: Callback) -> None:
        raise KeyError("inside")

    engine.behaviour = breaks
    async with asyncio.timeout(2):
        with pytest.raises(ModelUnavailable, match="inside"):
            await answer(model)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_model_that_cannot_be_loaded_is_tried_again_by_the_next_request(
    model: EmbeddedChat, engine: FakeEngine
) -> None:
    engine.cannot_load = True
    with pytest.raises(ModelMisconfigured):
        await answer(model)
    engine.cannot_load = False
    assert (await answer(model))[0] == Delta("hi")


async def test_a_closed_generator_stops_the_engine(model: EmbeddedChat, engine: FakeEngine) -> None:
    stopped = Event()
    engine.behaviour = never_ends(stopped)
    async with aclosing(model.stream(ASKED, max_tokens=9)) as stream:
        await anext(stream)
    assert await asyncio.to_thread(stopped.wait, 5)


async def test_a_request_waits_for_its_slot_and_may_leave(model: EmbeddedChat, engine: FakeEngine) -> None:
    engine.behaviour = never_ends(Event())
    async with aclosing(model.stream(ASKED, max_tokens=9)) as stream:
        await anext(stream)
        waiting = asyncio.create_task(answer(model))
        while model.in_progress < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert model.in_progress == 1
    assert len(engine.requests) == 1


async def test_the_wait_for_a_slot_counts_as_silence(engine: FakeEngine, gguf: Path) -> None:
    engine.behaviour = never_ends(Event())
    model = EmbeddedChat(gguf, slots=1, timeout_s=0.2)
    async with aclosing(model.stream(ASKED, max_tokens=9)) as stream:
        await anext(stream)
        with pytest.raises(ModelUnavailable, match="silent"):
            await answer(model)
    await model.close()


async def test_closing_ends_both_what_runs_and_what_waits(engine: FakeEngine, gguf: Path) -> None:
    engine.behaviour = never_ends(Event())
    model = EmbeddedChat(gguf, slots=1)
    tasks = [asyncio.create_task(answer(model)) for _ in range(3)]
    while model.in_progress < 3:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        await model.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ModelCancelled] * 3
    with pytest.raises(ModelCancelled):
        await answer(model)


def test_a_generation_whose_event_loop_is_gone_stops(engine: FakeEngine, gguf: Path) -> None:
    stopped = Event()
    engine.behaviour = never_ends(stopped)
    model = EmbeddedChat(gguf, slots=1)
    loop = asyncio.new_event_loop()
    stream = model.stream(ASKED, max_tokens=9)
    loop.run_until_complete(anext(stream))
    loop.close()
    assert stopped.wait(5)
    asyncio.run(model.close())
