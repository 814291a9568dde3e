"""A turn that does not go well: what cuts an answer off, and what is tried again."""

from __future__ import annotations

import asyncio

import pytest

from modules.models.errors import (
    ModelBusy,
    ModelInterrupted,
    ModelMisconfigured,
    ModelNotInstalled,
    ModelUnavailable,
)
from modules.text_chat.answer_chunks import TextDelta, TurnStarted
from modules.text_chat.answer_model import pause_before_retry_s
from tests.text_chat_turns import FakeModel, contents, read, start, text_of, until

__all__ = ["start"]  # fixtures


# -- what cuts an answer off ---------------------------------------------------------------------------------


async def test_closing_the_stream_stops_the_model_and_keeps_what_was_said(start):
    running = await start(FakeModel(["Once upon", asyncio.Event(), " a time"]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [type(await anext(stream)) for _ in range(2)] == [TurnStarted, TextDelta]
    await stream.aclose()

    question, answer = await running.chat.get_messages(session.id)
    assert (answer.content, answer.status, answer.parent_id) == ("Once upon", "partial", question.id)
    assert answer.metadata["finish_reason"] == "cancelled"
    assert answer.tokens == 3
    assert running.model.abandoned == 1


async def test_cancelling_the_reader_keeps_what_was_said(start):
    running = await start(FakeModel(["Once upon", asyncio.Event()]))
    session = await running.chat.create_session("ann")
    reading = asyncio.create_task(read(running.chat.stream_response(session.id, "Tell")))
    await until(lambda: running.events("chat.stream.chunk"))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once upon", "partial")


async def test_of_an_answer_without_a_word_nothing_is_stored(start):
    running = await start(FakeModel([asyncio.Event()]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    await anext(stream)
    await until(lambda: running.model.prompts)
    await stream.aclose()
    assert contents(await running.chat.get_messages(session.id)) == [("user", "Tell", "complete")]


async def test_a_model_that_fails_in_mid_answer_leaves_what_it_said(start):
    running = await start(FakeModel(["Once", ModelInterrupted("it died")]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [await anext(stream) for _ in range(2)][1] == TextDelta("Once")
    with pytest.raises(ModelInterrupted):
        await anext(stream)
    assert len(running.model.prompts) == 1
    _, answer = await running.chat.get_messages(session.id)
    assert (answer.content, answer.status) == ("Once", "partial")
    assert answer.metadata["finish_reason"] == "error"
    assert answer.metadata["error"] == {"code": "model_interrupted", "message": "it died"}
    await until(lambda: running.events("chat.error"))
    (error,) = running.events("chat.error")
    assert (error["code"], error["retryable"], error["session_id"]) == ("model_interrupted", True, session.id)


async def test_a_fault_of_the_model_s_own_code_leaves_what_it_said_and_is_raised(start):
    running = await start(FakeModel(["Once", KeyError("oops")]))
    session = await running.chat.create_session("ann")
    with pytest.raises(KeyError):
        await read(running.chat.stream_response(session.id, "Tell"))
    assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once", "partial")
    await until(lambda: running.events("chat.error"))
    assert running.events("chat.error")[0]["code"] == "internal_error"


@pytest.mark.parametrize("end", ["end_session", "delete_session", "close"])
async def test_what_ends_the_session_ends_the_answer_first(start, end):
    running = await start(FakeModel(["Once", asyncio.Event()]))
    session = await running.chat.create_session("ann")
    stream = running.chat.stream_response(session.id, "Tell")
    assert [await anext(stream) for _ in range(2)][1] == TextDelta("Once")
    await (running.chat.close() if end == "close" else getattr(running.chat, end)(session.id))
    (ended,) = await read(stream)
    assert ended.finish_reason == ("closed" if end == "close" else "session_ended")
    assert ended.message.content == "Once"
    if end == "end_session":
        assert contents(await running.chat.get_messages(session.id))[1] == ("assistant", "Once", "partial")


async def test_the_session_takes_the_next_turn_after_one_that_failed(start):
    running = await start(FakeModel([ModelMisconfigured("no key")], ["fine"]))
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelMisconfigured):
        await read(running.chat.stream_response(session.id, "a"))
    assert text_of(await read(running.chat.stream_response(session.id, "b"))) == "fine"
    assert len(running.model.prompts) == 2


# -- trying again --------------------------------------------------------------------------------------------


async def test_a_failure_before_the_first_word_is_tried_again(start, monkeypatch):
    monkeypatch.setattr("modules.text_chat.answer_model._FIRST_PAUSE_S", 0.001)
    running = await start(FakeModel([ModelUnavailable("away")], [ModelUnavailable("away")], ["back"]))
    session = await running.chat.create_session("ann")
    chunks = await read(running.chat.stream_response(session.id, "Hi"))
    assert text_of(chunks) == "back"
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_a_model_that_stays_away_is_given_up(start, monkeypatch):
    monkeypatch.setattr("modules.text_chat.answer_model._FIRST_PAUSE_S", 0.001)
    running = await start(FakeModel([ModelUnavailable("away")]))
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelUnavailable):
        await read(running.chat.stream_response(session.id, "Hi"))
    assert len(running.model.prompts) == 3
    assert contents(await running.chat.get_messages(session.id)) == [("user", "Hi", "complete")]


def test_only_what_may_pass_is_tried_again_and_only_while_there_is_time():
    away, busy = ModelUnavailable("away"), ModelBusy("busy", retry_after_s=4)
    assert pause_before_retry_s(away, 1, 30) == 0.5
    assert pause_before_retry_s(away, 2, 30) == 1.0
    assert pause_before_retry_s(away, 3, 30) is None
    assert pause_before_retry_s(busy, 1, 30) == 4
    assert pause_before_retry_s(busy, 1, 3) is None
    assert pause_before_retry_s(ModelMisconfigured("key"), 1, 30) is None


async def test_a_model_that_could_not_be_made_is_made_by_a_later_turn(start):
    model = FakeModel()
    made = []

    def make(settings):
        made.append(1)
        if len(made) == 1:
            raise ModelNotInstalled("no weights", extra="local-llm")
        return model

    running = await start(make_model=make)
    session = await running.chat.create_session("ann")
    with pytest.raises(ModelNotInstalled):
        await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    chunks = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert text_of(chunks) == "Hello there"
    assert len(await running.chat.get_messages(session.id)) == 2
