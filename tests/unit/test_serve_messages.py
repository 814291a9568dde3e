"""Messages over HTTP: stored, answered, streamed, left in the middle, sent twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modules.models.extractive import ExtractiveChat
from modules.models.protocols import Delta, Usage
from tests.served import Served, events_of, served, settings_of


class Slow(ExtractiveChat):
    """A model that gives a word whenever it is told to, and knows when it was stopped."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | None] = asyncio.Queue()
        self.asked = 0
        self.was_stopped = asyncio.Event()

    async def stream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        try:
            while (word := await self.words.get()) is not None:
                yield Delta(word)
        except (asyncio.CancelledError, GeneratorExit):
            self.was_stopped.set()
            raise
        yield Delta(finish_reason="stop", usage=Usage(1, 2))

    def say(self, *words: str | None) -> None:
        for word in words:
            self.words.put_nowait(word)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    model = Slow()
    monkeypatch.setattr("modules.models.choose.ExtractiveChat", lambda: model)
    return model


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


def path_of(session: str) -> str:
    return f"/v1/sessions/{session}/messages"


async def stored(here: Served, session: str) -> list[dict[str, Any]]:
    page = (await here.client.get(path_of(session), params={"user_id": "ada"})).json()
    found: list[dict[str, Any]] = page["data"]
    return found


async def test_a_message_is_stored_and_answered(here: Served) -> None:
    session = await here.session()
    await here.store(session, "A shard is a part of a whole.")
    answer = await here.client.post(path_of(session), json={"user_id": "ada", "content": "What is a shard?"})
    assert answer.status_code == 201
    message, reply = answer.json()["message"], answer.json()["reply"]
    assert message["content"] == "What is a shard?"
    assert "A shard is a part of a whole." in reply["content"]
    assert (reply["role"], reply["parent_id"], reply["status"]) == ("assistant", message["id"], "complete")
    assert [one["id"] for one in await stored(here, session)][1:] == [message["id"], reply["id"]]


async def test_a_message_that_is_only_to_be_stored_gets_no_reply(here: Served) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "noted", "reply": False, "metadata": {"a": [1]}, "parent_id": "m0"}
    answer = await here.client.post(path_of(session), json=body)
    assert (answer.status_code, answer.json()["reply"]) == (201, None)
    assert answer.json()["message"]["metadata"] == {"a": [1]}
    assert answer.json()["message"]["parent_id"] == "m0"


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
async def test_messages_of_others_than_the_user_are_stored_and_not_answered(here: Served, role: str) -> None:
    session = await here.session()
    answer = await here.client.post(path_of(session), json={"user_id": "ada", "content": "x", "role": role})
    assert (answer.status_code, answer.json()["message"]["role"], answer.json()["reply"]) == (201, role, None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"content": "x", "role": "assistant", "reply": True}, "reply"),
        ({"content": "x", "reply": False, "stream": True}, "stream"),
        ({"content": "x", "reply": False, "seed": 1}, "seed"),
        ({"content": "x", "reply": False, "if_busy": "reject"}, "if_busy"),
        ({"content": "x", "parent_id": "m0"}, "parent_id"),
        ({"content": ""}, "content"),
        ({"content": "x" * 70_000}, "content"),
        ({"content": "x", "colour": "red"}, "colour"),
        ({"content": "x", "if_busy": "panic"}, "if_busy"),
        ({"content": "x", "metadata": {"n": "\ud800"}}, "message"),
    ],
)
async def test_what_would_do_nothing_or_cannot_be_is_refused(here: Served, body: dict[str, Any], param: str) -> None:
    session = await here.session()
    data = json.dumps({"user_id": "ada", **body})
    answer = await here.client.post(path_of(session), content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert param in (answer.json()["error"]["param"] or answer.json()["error"]["message"])
    assert await stored(here, session) == []


async def test_a_stream_gives_the_message_the_pieces_and_the_answer(here: Served) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "anything?", "stream": True}
    answer = await here.client.post(path_of(session), json=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    names = [name for name, _ in events_of(answer.content)]
    assert (names[0], set(names[1:-1]), names[-1]) == ("started", {"delta"}, "ended")
    text = "".join(data["text"] for name, data in events_of(answer.content) if name == "delta")
    assert text == events_of(answer.content)[-1][1]["message"]["content"]


async def test_the_first_piece_comes_before_the_second_is_there(here: Served, slow: Slow) -> None:
    session = await here.session()
    stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
    assert await stream.status() == 200
    slow.say("one")
    assert b'"one"' in await stream.until(b"event: delta")
    slow.say("two", None)
    assert b'"two"' in await stream.until(b"event: ended")
    await stream.ended()


async def test_a_reader_that_goes_away_stops_the_model_and_what_there_is_is_kept(here: Served, slow: Slow) -> None:
    session = await here.session()
    stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
    await stream.status()
    slow.say("half an")
    await stream.until(b"half an")
    stream.leave()
    await stream.ended()
    assert slow.was_stopped.is_set()
    last = (await stored(here, session))[-1]
    assert (last["content"], last["status"], last["metadata"]["finish_reason"]) == ("half an", "partial", "cancelled")


async def test_a_caller_of_a_whole_answer_that_goes_away_stops_the_model_too(here: Served, slow: Slow) -> None:
    session = await here.session()
    waiting = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?"})
    slow.say("half an")
    while not slow.asked:
        await asyncio.sleep(0.01)
    waiting.leave()
    await waiting.ended()
    assert slow.was_stopped.is_set()
    assert (await stored(here, session))[-1]["status"] == "partial"


async def test_an_answer_that_can_be_asked_for_again_goes_on_without_its_caller(here: Served, slow: Slow) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "?"}
    first = here.begin("POST", path_of(session), body, {"Idempotency-Key": "k1"})
    while not slow.asked:
        await asyncio.sleep(0.01)
    first.leave()
    second = here.begin("POST", path_of(session), body, {"Idempotency-Key": "k1"})
    slow.say("whole", None)
    assert await second.status() == 201
    assert json.loads(await second.part())["reply"]["content"] == "whole"
    await first.ended()
    assert slow.asked == 1


async def test_the_same_key_gives_the_same_message_and_answer(here: Served) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "once"}
    first = await here.client.post(path_of(session), json=body, headers={"Idempotency-Key": "k1"})
    again = await here.client.post(path_of(session), json=body, headers={"Idempotency-Key": "k1"})
    assert first.json() == again.json()
    assert len(await stored(here, session)) == 2
    other = await here.client.post(
        path_of(session), json={**body, "content": "another"}, headers={"Idempotency-Key": "k1"}
    )
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")


async def test_a_silent_stream_has_heartbeats(tmp_path: Path, slow: Slow) -> None:
    async with served(tmp_path, settings_of({"heartbeat_seconds": 0.05})) as here:
        session = await here.session()
        stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
        await stream.status()
        await stream.until(b": heartbeat\n\n")
        slow.say(None)
        await stream.until(b"event: ended")


async def test_what_fails_before_the_first_event_has_a_status_of_its_own(here: Served) -> None:
    body = {"user_id": "ada", "content": "?", "stream": True}
    answer = await here.client.post(path_of("none"), json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_what_fails_later_is_the_last_event(here: Served, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(messages: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        yield Delta("half")
        raise KeyError("the inside of the model")

    monkeypatch.setattr(slow, "stream", broken)
    session = await here.session()
    answer = await here.client.post(path_of(session), json={"user_id": "ada", "content": "?", "stream": True})
    name, data = events_of(answer.content)[-1]
    assert (name, data["error"]["code"]) == ("error", "internal_error")
    assert data["error"]["request_id"] == answer.headers["x-request-id"]
    assert b"inside" not in answer.content


async def test_a_stream_lasts_no_longer_than_the_settings_say(tmp_path: Path, slow: Slow) -> None:
    async with served(tmp_path, settings_of({"max_stream_seconds": 0.2, "heartbeat_seconds": 0.05})) as here:
        session = await here.session()
        stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
        await stream.status()
        slow.say("half")
        body = await stream.until(b"event: error")
        await stream.ended()
        assert events_of(body)[-1][1]["error"]["code"] in ("timeout", "unavailable")
        assert (await stored(here, session))[-1]["status"] == "partial"


async def test_a_server_that_stops_ends_its_streams_and_keeps_what_there_is(here: Served, slow: Slow) -> None:
    session = await here.session()
    stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
    await stream.status()
    slow.say("half")
    await stream.until(b"half")
    here.app.state.drain()
    assert b'"unavailable"' in await stream.until(b"event: error")
    await stream.ended()
    assert (await stored(here, session))[-1]["status"] == "partial"


async def test_a_cancelled_request_stops_the_model(here: Served, slow: Slow) -> None:
    session = await here.session()
    stream = here.begin("POST", path_of(session), {"user_id": "ada", "content": "?", "stream": True})
    await stream.status()
    slow.say("half")
    await stream.until(b"half")
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert slow.was_stopped.is_set()
    assert (await stored(here, session))[-1]["status"] == "partial"


async def test_a_second_message_waits_is_refused_or_interrupts(here: Served, slow: Slow) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "first", "stream": True}
    first = here.begin("POST", path_of(session), body)
    await first.status()
    slow.say("half")
    await first.until(b"half")
    refused = await here.client.post(path_of(session), json={**body, "content": "second", "if_busy": "reject"})
    assert refused.status_code == 409
    third = here.begin("POST", path_of(session), {**body, "content": "third", "if_busy": "interrupt"})
    assert await third.status() == 200
    assert b'"interrupted"' in await first.until(b"event: ended")
    fourth = here.begin("POST", path_of(session), {**body, "content": "fourth"})
    slow.say("for the third", None, "for the fourth", None)
    assert b"for the third" in await third.until(b"event: ended")
    assert await fourth.status() == 200
    assert b"for the fourth" in await fourth.until(b"event: ended")
    said = [one["content"] for one in await stored(here, session)]
    assert said == ["first", "half", "third", "for the third", "fourth", "for the fourth"]


async def test_a_user_over_the_limit_is_told_when_to_come_back(tmp_path: Path) -> None:
    settings = settings_of(
        modules={"text_chat": {"rate_limit": {"messages_per_minute": 1}, "model": {"provider": "extractive"}}}
    )
    async with served(tmp_path, settings) as here:
        session = await here.session()
        await here.store(session, "one")
        answer = await here.client.post(path_of(session), json={"user_id": "ada", "content": "two", "reply": False})
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_pages_go_both_ways_and_say_whether_there_is_more(here: Served) -> None:
    session = await here.session()
    ids = [(await here.store(session, f"message {number}"))["id"] for number in range(5)]

    async def page(**query: Any) -> tuple[list[str], bool]:
        answer = await here.client.get(path_of(session), params={"user_id": "ada", **query})
        found = answer.json()
        got = [one["id"] for one in found["data"]]
        assert (found["object"], found["first_id"], found["last_id"]) == (
            "list",
            got[0] if got else None,
            got[-1] if got else None,
        )
        return got, found["has_more"]

    assert await page() == (ids, False)
    assert await page(limit=5) == (ids, False)
    assert await page(limit=2) == (ids[:2], True)
    assert await page(limit=2, after=ids[1]) == (ids[2:4], True)
    assert await page(limit=2, after=ids[3]) == (ids[4:], False)
    assert await page(limit=2, before=ids[4]) == (ids[2:4], True)
    assert await page(limit=4, before=ids[4]) == (ids[:4], False)
    assert await page(limit=2, order="desc") == ([ids[4], ids[3]], True)
    assert await page(limit=2, order="desc", after=ids[1]) == ([ids[0]], False)
    assert await page(after=ids[0], before=ids[3]) == (ids[1:3], False)


async def test_a_page_as_long_as_may_be_still_knows_whether_there_is_more(here: Served) -> None:
    session = await here.session()
    log = next(here.platform.base.glob(f"text_chat/sessions/ada/{session}")) / "messages.jsonl"
    log.write_text("".join(json.dumps({"id": f"m{n}", "role": "user", "content": "x"}) + "\n" for n in range(1001)))
    for query, more in (({}, True), ({"before": "m1000"}, False), ({"after": "m0"}, False)):
        answer = await here.client.get(path_of(session), params={"user_id": "ada", "limit": 1000, **query})
        assert (len(answer.json()["data"]), answer.json()["has_more"]) == (1000, more)


async def test_limits_of_pages_are_the_settings_own(tmp_path: Path) -> None:
    async with served(tmp_path, settings_of({"pages": {"default_limit": 2, "max_limit": 3}})) as here:
        session = await here.session()
        for number in range(4):
            await here.store(session, str(number))
        assert len(await stored(here, session)) == 2
        too_many = await here.client.get(path_of(session), params={"user_id": "ada", "limit": 4})
        assert (too_many.status_code, too_many.json()["error"]["param"]) == (400, "limit")


async def test_migrated_values_that_json_lacks_are_shown_all_the_same(here: Served) -> None:
    session = await here.session()
    log = next(here.platform.base.glob(f"text_chat/sessions/ada/{session}")) / "messages.jsonl"
    log.write_bytes(
        b'{"id": "m1", "role": "user", "content": "a \\ud83d b", "metadata": {"x": NaN, "y": 1%s}}\n' % (b"0" * 30)
    )
    answer = await here.client.get(path_of(session), params={"user_id": "ada"})
    message = answer.json()["data"][0]
    assert (message["id"], message["metadata"]["x"], message["metadata"]["y"]) == ("m1", "nan", 10**30)
