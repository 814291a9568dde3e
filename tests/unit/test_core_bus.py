"""Events reach all who listen, and no failure hides."""

import asyncio
import json
import logging

import pytest

from modules.core.bus import DEAD_LETTERS, MessageBus
from modules.core.errors import ConfigurationError, ValidationError
from modules.core.storage import FlatFileStorage


async def test_a_handler_gets_the_data_as_the_guide_has_it():
    bus = MessageBus()
    heard = []

    @bus.on("chat.message.send")
    async def handle(data):
        heard.append(data)

    delivery = await bus.emit("chat.message.send", {"content": "hi"})

    assert heard == [{"content": "hi"}]
    assert (delivery.handled, delivery.failed) == (1, ())


async def test_a_star_handler_hears_everything_and_may_ask_for_the_envelope():
    bus = MessageBus(new_id=iter("abcdef").__next__)
    heard = []

    @bus.on("*", envelope=True)
    async def hear(envelope):
        heard.append(envelope)

    await bus.emit("chat.session.created", {"n": 1})
    await bus.emit("memory.stored", {"n": 2}, source_module="memory", trace_id="t")

    first, second = heard
    assert (first.event, first.source_module, dict(first.data)) == ("chat.session.created", "chat", {"n": 1})
    assert (first.event_id, first.trace_id) == ("evt_a", "b")
    assert first.timestamp.endswith("+00:00")
    assert (second.event, second.source_module, second.trace_id) == ("memory.stored", "memory", "t")


async def test_middleware_changes_the_data_in_order():
    bus = MessageBus()
    heard = []

    async def first(event, data):
        return {**data, "seen": [event]}

    async def second(event, data):
        return {**data, "seen": [*data["seen"], "second"]}

    async def handle(data):
        heard.append(data)

    bus.middleware += [first, second]
    bus.on("a.b")(handle)
    await bus.emit("a.b", {"n": 1})

    assert heard == [{"n": 1, "seen": ["a.b", "second"]}]


async def test_handlers_run_at_the_same_time():
    bus = MessageBus()
    meeting = asyncio.Barrier(2)

    for _ in range(2):

        @bus.on("a.b")
        async def meet(data):
            await meeting.wait()

    delivery = await asyncio.wait_for(bus.emit("a.b", {}), 5)
    assert delivery.handled == 2


async def test_a_failing_handler_is_logged_counted_and_dead_lettered_and_the_others_go_on(tmp_path, caplog):
    bus = MessageBus(dead_letters=FlatFileStorage(tmp_path))
    heard = []

    @bus.on("a.b")
    async def broken(data):
        raise KeyError("session_id")

    @bus.on("a.b")
    async def sound(data):
        heard.append(data)

    with caplog.at_level(logging.ERROR):
        delivery = await bus.emit("a.b", {"content": "é"})

    assert heard == [{"content": "é"}]
    assert bus.failures == {"a.b": 1}
    assert len(delivery.failed) == 1
    assert "broken failed on a.b" in caplog.text
    (letter,) = map(json.loads, (tmp_path / DEAD_LETTERS).read_bytes().splitlines())
    assert letter["handler"].endswith("broken")
    assert letter["error"] == "KeyError: 'session_id'"
    assert letter["data"] == {"content": "é"}
    assert letter["event"] == "a.b"


async def test_a_handler_out_of_time_counts_as_failed(tmp_path):
    bus = MessageBus(dead_letters=FlatFileStorage(tmp_path), handler_timeout_s=0.01)

    @bus.on("a.b")
    async def slow(data):
        await asyncio.sleep(60)

    delivery = await bus.emit("a.b", {})

    assert delivery.handled == 0
    assert b"TimeoutError" in (tmp_path / DEAD_LETTERS).read_bytes()


async def test_without_a_dead_letter_file_the_letter_is_in_the_log(caplog):
    bus = MessageBus()

    @bus.on("a.b")
    async def broken(data):
        raise RuntimeError("no")

    await bus.emit("a.b", {"content": "precious"})
    assert "precious" in caplog.text


async def test_a_dead_letter_that_cannot_be_written_is_in_the_log(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    bus = MessageBus(dead_letters=FlatFileStorage(tmp_path / "file"))

    @bus.on("a.b")
    async def broken(data):
        raise RuntimeError("no")

    await bus.emit("a.b", {"content": "precious"})
    assert "precious" in caplog.text


@pytest.mark.parametrize("gives", [RuntimeError("no"), None, ["a"]])
async def test_middleware_that_raises_or_gives_no_data_stops_the_event_and_is_reported(gives):
    bus = MessageBus()
    heard = []

    async def veto(event, data):
        if isinstance(gives, Exception):
            raise gives
        return gives

    async def handle(data):
        heard.append(data)

    bus.middleware.append(veto)
    bus.on("a.b")(handle)
    delivery = await bus.emit("a.b", {})

    assert heard == []
    assert "veto" in delivery.failed[0]
    assert bus.failures["a.b"] == 1


async def test_what_a_handler_emits_belongs_to_the_same_trace():
    bus = MessageBus()
    traces = []

    @bus.on("a.b")
    async def pass_on(data):
        await bus.emit("c.d", {})

    @bus.on("*", envelope=True)
    async def hear(envelope):
        traces.append(envelope.trace_id)

    await bus.emit("a.b", {})
    await bus.emit("a.b", {})

    assert len(traces) == 4
    assert len(set(traces)) == 2


@pytest.mark.parametrize("name", ["", "chat", "Chat.Message", "chat..send", "*"])
async def test_what_is_no_event_name_cannot_be_emitted(name):
    with pytest.raises(ValidationError):
        await MessageBus().emit(name, {})


def test_a_handler_must_be_asynchronous_and_not_one_too_many():
    bus = MessageBus(max_handlers_per_event=1)

    async def handle(data): ...

    with pytest.raises(ConfigurationError, match="async"):
        bus.on("a.b")(lambda data: None)
    with pytest.raises(ValidationError):
        bus.on("nonsense")
    bus.on("a.b")(handle)
    with pytest.raises(ConfigurationError, match="one too many"):
        bus.on("a.b")(handle)


async def test_a_handler_that_was_taken_off_hears_no_more():
    bus = MessageBus()
    heard = []

    async def handle(data):
        heard.append(data)

    bus.on("a.b")(handle)
    bus.off("a.b", handle)
    assert (await bus.emit("a.b", {})).handled == 0
    assert heard == []
