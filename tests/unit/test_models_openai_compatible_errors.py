"""Models on a server that fails: what is tried again, and what is said of the rest."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

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
from modules.models.openai_compatible import ServedChat, Server
from modules.models.protocols import Delta
from tests.model_server import (
    SAID,
    Naps,
    Reply,
    answer,
    chat,
    fails,
    failure,
    finish_chunk,
    hangs_up,
    naps,
    running,
    says,
    streams,
    text_chunk,
)

__all__ = ["naps"]  # fixtures

pytest.importorskip("openai", reason="models on a server need the extra local-llm")


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


@pytest.mark.slow
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
