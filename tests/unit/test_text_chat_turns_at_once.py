"""The same request again, and a second one during the first: no two answers cross."""

from __future__ import annotations

import asyncio

import pytest

from modules.core.errors import Conflict, RateLimited, Unavailable
from modules.text_chat.answer_chunks import TextDelta, TurnEnded, TurnStarted
from tests.text_chat_turns import FakeModel, contents, read, start, text_of, until

__all__ = ["start"]  # fixtures


# -- the same request again ----------------------------------------------------------------------------------


async def test_a_finished_turn_is_replayed_also_after_a_restart(start):
    running = await start()
    session = await running.chat.create_session("ann")
    first = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    await running.chat.close()
    again = await start()
    second = await read(again.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert second[0] == TurnStarted(first[0].message, is_replay=True)
    assert text_of(second) == text_of(first)
    assert second[-1] == first[-1]
    assert again.model.prompts == []
    assert len(await again.chat.get_messages(session.id)) == 2


async def test_a_running_turn_is_joined_and_read_from_its_beginning(start):
    gate = asyncio.Event()
    running = await start(FakeModel(["Once", gate, " more"]))
    session = await running.chat.create_session("ann")
    ask = {"idempotency_key": "k"}
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "Hi", **ask)))
    await until(lambda: running.events("chat.stream.chunk"))
    joined = running.chat.stream_response(session.id, "Hi", **ask)
    assert [await anext(joined) for _ in range(2)][1] == TextDelta("Once")
    # The first reader goes away: the turn is the other's now.
    first.cancel()
    gate.set()
    rest = await read(joined)
    assert text_of(rest) == " more"
    assert rest[-1].message.status == "complete"
    assert len(running.model.prompts) == 1
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_the_same_request_ten_times_at_once_is_one_turn(start):
    running = await start()
    session = await running.chat.create_session("ann")
    all_chunks = await asyncio.gather(
        *(read(running.chat.stream_response(session.id, "Hi", idempotency_key="k")) for _ in range(10))
    )
    assert {chunks[-1].message.id for chunks in all_chunks} == {all_chunks[0][-1].message.id}
    assert len(running.model.prompts) == 1
    assert len(await running.chat.get_messages(session.id)) == 2


async def test_a_key_that_was_used_for_another_message_is_a_conflict(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "x"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "Hi", idempotency_key="k")))
    await until(lambda: running.model.prompts)
    with pytest.raises(Conflict):
        await read(running.chat.stream_response(session.id, "Bye", idempotency_key="k"))
    gate.set()
    await first
    with pytest.raises(Conflict):
        await read(running.chat.stream_response(session.id, "Bye", idempotency_key="k"))


async def test_a_message_that_was_only_stored_is_answered_under_its_key(start):
    running = await start()
    session = await running.chat.create_session("ann")
    message = await running.chat.send_message(session.id, "Hi", idempotency_key="k")
    await running.chat.send_message(session.id, "later")
    chunks = await read(running.chat.stream_response(session.id, "Hi", idempotency_key="k"))
    assert chunks[0] == TurnStarted(message)
    assert chunks[-1].message.parent_id == message.id
    assert [one.content for one in running.model.prompts[0][1:]] == ["Hi"]


# -- a second message during the first -----------------------------------------------------------------------


async def test_turns_of_a_session_are_answered_one_after_the_other_in_order(start):
    running = await start()
    session = await running.chat.create_session("ann")
    await asyncio.gather(*(read(running.chat.stream_response(session.id, f"q{n}")) for n in range(8)))
    stored = await running.chat.get_messages(session.id)
    assert [one.content for one in stored[::2]] == [f"q{n}" for n in range(8)]
    assert {one.role for one in stored[1::2]} == {"assistant"}
    assert [answer.parent_id for answer in stored[1::2]] == [question.id for question in stored[::2]]
    assert running.model.most_running == 1


async def test_a_turn_in_line_that_nobody_wants_any_more_goes_without_holding_up_others(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "a"], ["c"]))
    session = await running.chat.create_session("ann")
    first, second, third = (
        asyncio.create_task(read(running.chat.stream_response(session.id, f"q{n}"))) for n in range(3)
    )
    await until(lambda: running.model.prompts)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(await running.chat.get_messages(session.id)) == 1
    gate.set()
    await first
    await third
    assert [one.content for one in await running.chat.get_messages(session.id)] == ["q0", "a", "q2", "c"]
    assert running.model.most_running == 1


async def test_reject_refuses_while_an_answer_is_under_way(start):
    gate = asyncio.Event()
    running = await start(FakeModel([gate, "a"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "q0")))
    await until(lambda: running.model.prompts)
    with pytest.raises(Conflict, match="is being answered"):
        await read(running.chat.stream_response(session.id, "q1", if_busy="reject"))
    gate.set()
    await first
    assert text_of(await read(running.chat.stream_response(session.id, "q1", if_busy="reject"))) == "a"


async def test_interrupt_cuts_the_answer_off_and_goes_next(start):
    running = await start(FakeModel(["slow", asyncio.Event()], ["quick"]))
    session = await running.chat.create_session("ann")
    first = asyncio.create_task(read(running.chat.stream_response(session.id, "q0")))
    await until(lambda: running.events("chat.stream.chunk"))
    assert text_of(await read(running.chat.stream_response(session.id, "q1", if_busy="interrupt"))) == "quick"
    chunks = await first
    assert (chunks[-1].finish_reason, chunks[-1].message.content) == ("interrupted", "slow")
    assert contents(await running.chat.get_messages(session.id)) == [
        ("user", "q0", "complete"),
        ("assistant", "slow", "partial"),
        ("user", "q1", "complete"),
        ("assistant", "quick", "complete"),
    ]


async def test_a_line_has_an_end(start):
    running = await start(FakeModel([asyncio.Event()]))
    session = await running.chat.create_session("ann")
    waiting = [asyncio.create_task(read(running.chat.stream_response(session.id, f"q{n}"))) for n in range(17)]
    await until(lambda: running.model.prompts)
    with pytest.raises(RateLimited):
        await read(running.chat.stream_response(session.id, "one too many"))
    await running.chat.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[0][-1] == TurnEnded(None, "closed")
    assert {type(one) for one in outcomes[1:]} == {Unavailable}
