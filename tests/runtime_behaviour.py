"""What every runtime promises: one suite, run against the local runtime and against Ray.

A test file that runs it defines the fixture ``platform``: a platform with `SETTINGS`, with `PROBE_PACKAGE` installed.
The data of earlier tests may still be there, so each test has users of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from actors.errors import TimedOut
from actors.sharding import shard_of
from actors.system import LIVE, Platform
from modules.core.context import ModuleContext
from modules.core.errors import Conflict, NotFound, ValidationError
from modules.core.types import ModuleInfo

SETTINGS: dict[str, Any] = {
    "modules": {
        "hearer": {"enabled": True},
        "probe": {"enabled": True},
        "text_chat": {"enabled": True, "shards": 2, "rate_limit": {"messages_per_minute": None}},
        "memory": {"enabled": True, "shards": 2},
        "not_installed_here": {"enabled": True},
        "not_wanted": {"enabled": False},
    },
    "runtime": {"restart_wait_seconds": 60.0},
}

SENDERS = 64


class Probe:
    """A third party's module, with something of everything that can be called."""

    info = ModuleInfo(name="probe", version="1.2")
    secret = "not to be had"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._begun: list[int] = []
        self._cleaned_up: list[str] = []

    async def initialize(self, context: ModuleContext) -> None:
        self._context = context

    async def echo(self, value: Any) -> Any:
        return value

    async def append_to(self, items: list[int]) -> list[int]:
        items.append(1)
        return items

    async def fail_with(self, kind: str) -> None:
        if kind == "platform":
            raise Conflict("two of them", candidates=("a", "b"))
        if kind == "plain":
            raise KeyError("nothing here")
        raise Stubborn(lambda: None)

    async def give_a_function(self) -> Any:
        return lambda: None

    async def sleep(self, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._cleaned_up.append("sleep")
            raise
        return "slept"

    async def begin(self, number: int) -> None:
        self._begun.append(number)

    async def begun(self) -> list[int]:
        return self._begun

    async def count(self, name: str, upto: int, pause_s: float = 0.0) -> AsyncIterator[int]:
        try:
            for number in range(upto):
                yield number
                await asyncio.sleep(pause_s)
        finally:
            self._cleaned_up.append(name)

    async def break_off(self, after: int) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise NotFound("the rest is missing")

    async def cleaned_up(self) -> list[str]:
        return self._cleaned_up

    async def emit(self, event: str, data: dict[str, Any]) -> str:
        return (await self._context.emit(event, data)).envelope.event_id

    async def ask_neighbour(self, name: str, method: str, *args: Any) -> Any:
        neighbour = await self._context.get_module(name)
        return None if neighbour is None else await getattr(neighbour, method)(*args)

    async def _private(self) -> str:
        return "not to be had"

    def synchronous(self) -> str:
        return "not to be had"


class Stubborn(Exception):
    """Does not pickle."""

    def __init__(self, what: Any) -> None:
        super().__init__(what)


class Hearer:
    """Hears everything."""

    info = ModuleInfo(name="hearer", version="1.0", dependencies=("probe",))

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._heard: list[tuple[str, str, dict[str, Any]]] = []

    async def initialize(self, context: ModuleContext) -> None:
        self._probe_was_there = await context.get_module("probe") is not None
        context.bus.on("*", envelope=True)(self._hear)

    async def _hear(self, envelope: Any) -> None:
        self._heard.append((envelope.event, envelope.event_id, dict(envelope.data)))

    async def heard(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        return [(event_id, data) for name, event_id, data in self._heard if name == event]

    async def probe_was_there(self) -> bool:
        return self._probe_was_there


def install_probes(directory: Path) -> None:
    """Make *directory* a place of installed packages that offers `Probe` and `Hearer` to the module loader."""
    package = directory / "probes-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: probes\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[modchat.modules]\nprobe = tests.runtime_behaviour:Probe\nhearer = tests.runtime_behaviour:Hearer\n"
    )
    importlib.invalidate_caches()


async def until(ready: Any, *, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not await ready():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)


def new_user() -> str:
    return f"user-{uuid4().hex[:8]}"


def assert_stored_as_acknowledged(stored_ids: list[str], times: Mapping[str, tuple[float, float]]) -> None:
    """*times*: message -> when it was sent and when acknowledged. A message that was acknowledged before another one
    was sent must stand before it."""
    assert sorted(stored_ids) == sorted(times), "all of them, and each once"
    latest_sent = 0.0
    for message_id in stored_ids:
        sent, acknowledged = times[message_id]
        assert acknowledged >= latest_sent, "it stands after a message that was sent when this one was stored"
        latest_sent = max(latest_sent, sent)


# -- ask ---------------------------------------------------------------------------------------------------------------


async def test_ask_gives_the_result_with_its_types(platform: Platform) -> None:
    value = {"text": "é\ud800", "numbers": (1, 2.5), "bytes": b"\0", "nothing": None}
    assert await platform.ref("probe").ask("echo", value) == value


async def test_arguments_and_results_are_copies(platform: Platform) -> None:
    mine: list[int] = []
    assert await platform.ref("probe").ask("append_to", mine) == [1]
    assert mine == []


async def test_the_platforms_errors_arrive_as_themselves(platform: Platform) -> None:
    with pytest.raises(Conflict, match="two of them") as caught:
        await platform.ref("probe").ask("fail_with", "platform")
    assert caught.value.candidates == ("a", "b")


async def test_other_errors_arrive_as_themselves_and_say_where_they_were_raised(platform: Platform) -> None:
    with pytest.raises(KeyError, match="nothing here") as caught:
        await platform.ref("probe").ask("fail_with", "plain")
    assert any("fail_with" in note for note in caught.value.__notes__)


async def test_an_error_that_cannot_cross_still_says_what_it_was(platform: Platform) -> None:
    with pytest.raises(Exception, match="Stubborn"):
        await platform.ref("probe").ask("fail_with", "stubborn")


async def test_a_result_that_cannot_cross_fails_its_call_alone(platform: Platform) -> None:
    probe = platform.ref("probe")
    odd, *even = await asyncio.gather(
        probe.ask("give_a_function"), *(probe.ask("echo", n) for n in range(20)), return_exceptions=True
    )
    assert isinstance(odd, ValidationError)
    assert even == list(range(20))


async def test_an_argument_that_cannot_cross_is_refused_before_it_leaves(platform: Platform) -> None:
    with pytest.raises(ValidationError, match="cannot be sent"):
        await platform.ref("probe").ask("echo", lambda: None)


@pytest.mark.parametrize(
    "name", ["_private", "synchronous", "secret", "initialize", "close", "__class__", "no_such", "info"]
)
async def test_only_public_functions_can_be_called(platform: Platform, name: str) -> None:
    with pytest.raises(ValidationError, match="no public function"):
        await platform.ref("probe").ask(name)


async def test_wrong_arguments_are_the_callers_mistake(platform: Platform) -> None:
    with pytest.raises(ValidationError, match="unexpected keyword"):
        await platform.ref("probe").ask("echo", 1, colour="blue")


async def test_a_stream_cannot_be_asked_nor_a_function_streamed(platform: Platform) -> None:
    with pytest.raises(ValidationError, match=r"stream\(\)"):
        await platform.ref("probe").ask("count", "x", 1)
    with pytest.raises(ValidationError, match=r"ask\(\)"):
        await anext(platform.ref("probe").stream("echo", 1))


async def test_a_call_that_takes_too_long_is_ended_on_both_sides(platform: Platform) -> None:
    probe = platform.ref("probe")
    before = (await probe.ask("cleaned_up")).count("sleep")
    with pytest.raises(TimedOut, match=r"sleep.* longer than 0.1 s"):
        await probe.ask("sleep", 30, timeout_s=0.1)
    assert (await probe.ask("cleaned_up")).count("sleep") == before + 1


async def test_a_slow_call_does_not_hold_up_those_that_travel_with_it(platform: Platform) -> None:
    probe = platform.ref("probe")
    await probe.ask("echo", 0)
    slow = [asyncio.create_task(probe.ask("sleep", 1.5)) for _ in range(4)]
    start = time.monotonic()
    assert await asyncio.gather(*(probe.ask("echo", n) for n in range(200))) == list(range(200))
    assert time.monotonic() - start < 1.2
    assert await asyncio.gather(*slow) == ["slept"] * 4


async def test_calls_begin_in_the_order_in_which_one_caller_makes_them(platform: Platform) -> None:
    probe = platform.ref("probe")
    before = len(await probe.ask("begun"))
    slow = asyncio.create_task(probe.ask("sleep", 0.3))  # so that several flights are out at a time
    calls = []
    for number in range(500):
        calls.append(asyncio.create_task(probe.ask("begin", number)))
        if number % 50 == 0:
            await asyncio.sleep(0.006)
    await asyncio.gather(*calls, slow)
    assert (await probe.ask("begun"))[before:] == list(range(500))


# -- tell --------------------------------------------------------------------------------------------------------------


async def test_what_is_told_is_done(platform: Platform) -> None:
    marker = uuid4().int
    platform.ref("probe").tell("begin", marker)

    async def is_done() -> bool:
        return marker in await platform.ref("probe").ask("begun")

    await until(is_done)


async def test_what_is_told_in_vain_is_counted_and_logged(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    probe = platform.ref("probe")
    probe.tell("fail_with", "platform")

    async def is_counted() -> bool:
        return probe.told_failed["fail_with"] == 1

    await until(is_counted)
    assert "two of them" in caplog.text


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_all_items_in_order(platform: Platform) -> None:
    items = [item async for item in platform.ref("probe").stream("count", "all", 2000)]
    assert items == list(range(2000))


async def test_the_first_item_does_not_wait_for_the_second(platform: Platform) -> None:
    stream = platform.ref("probe").stream("count", "first", 2, 3.0)
    async with asyncio.timeout(1.5):
        assert await anext(stream) == 0
    await stream.aclose()


async def test_an_error_in_a_stream_comes_after_the_items_before_it(platform: Platform) -> None:
    stream = platform.ref("probe").stream("break_off", 3)
    assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(NotFound, match="the rest is missing"):
        await anext(stream)


async def test_closing_a_stream_stops_the_modules_generator(platform: Platform) -> None:
    probe, name = platform.ref("probe"), uuid4().hex
    stream = probe.stream("count", name, 1000, 0.05)
    assert await anext(stream) == 0
    assert name not in await probe.ask("cleaned_up")
    await stream.aclose()
    assert name in await probe.ask("cleaned_up")


async def test_cancelling_a_reader_stops_the_modules_generator(platform: Platform) -> None:
    probe, name = platform.ref("probe"), uuid4().hex

    async def read() -> None:
        async for _ in probe.stream("count", name, 1000, 0.05):
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.2)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    async def is_cleaned_up() -> bool:
        return name in await probe.ask("cleaned_up")

    await until(is_cleaned_up)


# -- modules, shards ---------------------------------------------------------------------------------------------------


async def test_modules_start_after_what_they_stand_on(platform: Platform) -> None:
    order = list(platform.refs)
    assert order.index("probe") < order.index("hearer")
    assert order.index("memory") < order.index("text_chat")
    assert await platform.ref("hearer").ask("probe_was_there")


async def test_what_is_not_installed_or_not_enabled_does_not_run(platform: Platform) -> None:
    assert platform.topology.absent == ("not_installed_here",)
    for name in ("not_installed_here", "not_wanted"):
        with pytest.raises(NotFound, match="not running"):
            platform.ref(name)


async def test_a_module_uses_its_neighbours(platform: Platform) -> None:
    user = new_user()
    probe = platform.ref("probe")
    session = await probe.ask("ask_neighbour", "text_chat", "create_session", user)
    assert session.user_id == user
    assert await probe.ask("ask_neighbour", "not_wanted", "echo", 1) is None


async def test_calls_of_one_user_reach_one_shard_with_or_without_the_users_name(platform: Platform) -> None:
    chat, user = platform.ref("text_chat"), new_user()
    session = await chat.ask("create_session", user)
    home, other = shard_of(user, 2), 1 - shard_of(user, 2)
    await asyncio.gather(*(chat.ask("send_message", session.id, f"{n}", user_id=user) for n in range(5)))
    await asyncio.gather(*(chat.ask("send_message", session.id, f"{n}") for n in range(5, 10)))
    stored = [message.content for message in await chat.ask("get_messages", session.id)]
    assert sorted(stored) == [str(n) for n in range(10)]
    # Both shards are alive; the other one refuses what is not its own.
    with pytest.raises(Exception, match="not this shard's"):
        await chat.channels[other].call("get_messages", (session.id,), {"user_id": user}, key=user)
    assert len(await chat.channels[home].call("get_messages", (session.id,), {"user_id": user}, key=user)) == 10


async def test_a_call_for_nobody_in_particular_is_refused_where_there_are_several_shards(platform: Platform) -> None:
    with pytest.raises(ValidationError, match="2 shards: say user_id"):
        await platform.ref("memory").ask("get_context_window", "some-session")


async def test_messages_of_many_senders_are_stored_once_and_in_the_order_acknowledged(platform: Platform) -> None:
    chat, user = platform.ref("text_chat"), new_user()
    session = await chat.ask("create_session", user)
    times: dict[str, tuple[float, float]] = {}

    async def sender(number: int) -> None:
        for turn in range(4):
            sent = time.monotonic()
            message = await chat.ask("send_message", session.id, f"{number}:{turn}", user_id=user)
            times[message.id] = (sent, time.monotonic())

    await asyncio.gather(*(sender(number) for number in range(SENDERS)))
    stored = await chat.ask("get_messages", session.id, 1000, user_id=user)
    assert_stored_as_acknowledged([message.id for message in stored], times)


async def test_one_idempotency_key_ten_times_is_one_message(platform: Platform) -> None:
    chat, user = platform.ref("text_chat"), new_user()
    session = await chat.ask("create_session", user)
    sends = [chat.ask("send_message", session.id, "once", user_id=user, idempotency_key="k") for _ in range(10)]
    assert len({message.id for message in await asyncio.gather(*sends)}) == 1
    assert len(await chat.ask("get_messages", session.id, user_id=user)) == 1


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_reaches_those_that_listen_with_its_envelope(platform: Platform) -> None:
    marker = uuid4().hex
    event_id = await platform.ref("probe").ask("emit", "probe.thing.happened", {"marker": marker})

    async def is_heard() -> bool:
        return (event_id, {"marker": marker}) in await platform.ref("hearer").ask("heard", "probe.thing.happened")

    await until(is_heard)


async def test_events_of_one_key_are_handled_in_order_on_its_shard(platform: Platform) -> None:
    user, memory = new_user(), platform.ref("memory")
    for number in range(50):
        await platform.emit("memory.store", {"user_id": user, "key": "k", "content": number})

    async def is_last() -> bool:
        item = await memory.ask("recall_memory", "k", user_id=user)
        return item is not None and item.content == 49

    await until(is_last)


async def test_an_event_that_names_only_the_session_finds_its_shard(platform: Platform) -> None:
    chat, user = platform.ref("text_chat"), new_user()
    session = await chat.ask("create_session", user)
    await platform.emit("chat.message.send", {"session_id": session.id, "content": "by event"})

    async def is_stored() -> bool:
        return [one.content for one in await chat.ask("get_messages", session.id)] == ["by event"]

    await until(is_stored)


async def test_what_text_chat_emits_reaches_the_hearer(platform: Platform) -> None:
    user = new_user()
    session = await platform.ref("text_chat").ask("create_session", user)

    async def is_heard() -> bool:
        heard = await platform.ref("hearer").ask("heard", "chat.session.created")
        return session.id in [data["session"]["id"] for _, data in heard]

    await until(is_heard)


# -- the whole ---------------------------------------------------------------------------------------------------------


async def test_every_host_reports_its_health(platform: Platform) -> None:
    health = await platform.health()
    assert health.is_healthy
    assert [(part.module, part.shard) for part in health.parts if part.module in ("text_chat", "memory")] == [
        ("memory", 0),
        ("memory", 1),
        ("text_chat", 0),
        ("text_chat", 1),
    ]
    assert {part.state for part in health.parts} == {LIVE}
    assert all(part.report is not None and part.report.calls.running == 0 for part in health.parts)


async def test_a_second_platform_on_the_same_base_is_refused(platform: Platform, runtime: Any) -> None:
    with pytest.raises(Conflict, match="another platform runs"):
        await Platform.start(SETTINGS, base=platform.base, runtime=runtime)
    assert (await platform.health()).is_healthy, "and the first one is left alone"


async def test_another_client_finds_the_platform_by_its_base(platform: Platform, runtime: Any) -> None:
    other = await Platform.connect(os.path.relpath(platform.base), runtime=runtime)
    assert await other.ref("probe").ask("echo", 7) == 7
    await other.close()
    assert await platform.ref("probe").ask("echo", 8) == 8
