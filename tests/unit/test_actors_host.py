from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import actors.host as host_module
from actors.errors import Unreachable
from actors.host import ModuleHost
from actors.hosted_bus import HostedBus
from actors.limits import RuntimeLimits
from actors.turns import Turns
from actors.wire import Call, Flight, Lost, Pickled, Reply
from modules.core.bus import Envelope
from modules.core.errors import Unavailable, ValidationError

CODEC = Pickled()


class Worker:
    """Works until the gate is opened."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[int] = []
        self.running = 0
        self.most_running = 0
        self.stopped: list[str] = []

    async def work(self, number: int) -> int:
        self.begun.append(number)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return number

    async def quick(self, number: int) -> int:
        self.begun.append(number)
        return number

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(10_000):
                self.begun.append(number)
                yield number
                await asyncio.sleep(0)
        finally:
            self.stopped.append("numbers")

    async def close(self) -> None:
        self.stopped.append("close")


def forward(envelope: Envelope) -> None:
    raise AssertionError("nothing is emitted here")


def host(worker: Worker, **limits: Any) -> ModuleHost:
    bus = HostedBus(forward, is_elsewhere=lambda event, data: False)
    return ModuleHost("worker", worker, bus, codec=CODEC, limits=RuntimeLimits(**limits))


def flight(*calls: tuple[str, int], place: int = 0) -> Flight:
    packed = tuple((f"id{n}", CODEC.pack(Call(method, (n,), {}, 5.0))) for method, n in calls)
    return Flight("caller", place, packed)


def value(reply: Reply) -> Any:
    return CODEC.unpack(reply.packed)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a flight are waited for, on a busy machine too."""
    monkeypatch.setattr(host_module, "_FLIGHT_PATIENCE_S", 30.0)
    monkeypatch.setattr(host_module, "_FLIGHT_MOST_S", 30.0)


async def test_a_host_begins_only_so_many_calls_at_a_time_and_in_their_order(patience: None) -> None:
    worker = Worker()
    here = host(worker, max_running=2)
    asked = asyncio.create_task(here.serve("calls", flight(*(("work", n) for n in range(5)))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (here.counts.running, here.counts.waiting) == (2, 3)
    worker.gate.set()
    replies = await asked
    assert [value(reply) for reply in replies] == [0, 1, 2, 3, 4]
    assert (worker.most_running, worker.begun) == (2, [0, 1, 2, 3, 4])


async def test_a_host_with_too_many_waiting_takes_no_more_and_says_so(patience: None) -> None:
    worker = Worker()
    here = host(worker, max_running=1, max_waiting=1)
    asked = asyncio.create_task(here.serve("calls", flight(*(("work", n) for n in range(3)))))
    await asyncio.sleep(0.005)
    worker.gate.set()
    first, second, third = await asked
    assert (first.ok, second.ok, third.ok) == (True, True, False)
    assert isinstance(value(third), Unavailable)
    assert here.counts.refused == 1


async def test_finished_calls_go_back_without_the_slow_ones_of_their_flight() -> None:
    worker = Worker()
    here = host(worker)
    quick, slow = await here.serve("calls", flight(("quick", 0), ("work", 1)))
    assert value(quick) == 0
    assert slow is None
    fetched = asyncio.create_task(here.serve("outcomes", ["id1"]))
    worker.gate.set()
    [late] = await fetched
    assert value(late) == 1


async def test_calls_that_end_one_after_the_other_go_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is waited for since the one before: all of them take longer than any is waited for."""
    monkeypatch.setattr(host_module, "_FLIGHT_PATIENCE_S", 0.4)
    monkeypatch.setattr(host_module, "_FLIGHT_MOST_S", 60.0)

    class Steady(Worker):
        async def work(self, number: int) -> int:
            await asyncio.sleep(number * 0.11)
            return number

    replies = await host(Steady()).serve("calls", flight(*(("work", number) for number in range(5))))
    assert [value(reply) for reply in replies] == [0, 1, 2, 3, 4]


async def test_late_replies_go_back_as_soon_as_there_is_one() -> None:
    worker = Worker()
    here = host(worker)
    await here.serve("calls", flight(("quick", 0), ("work", 1)))
    hanging = Worker()
    here.module = hanging
    first, second = await here.serve("calls", flight(("work", 2), ("quick", 3), place=1))
    assert (first, value(second)) == (None, 3)
    fetched = asyncio.create_task(here.serve("outcomes", ["id1", "id2"]))
    worker.gate.set()
    done, under_way = await fetched
    assert value(done) == 1
    assert under_way is None
    hanging.gate.set()
    assert [value(reply) for reply in await here.serve("outcomes", ["id2"])] == [2]


async def test_the_answer_of_a_call_that_this_host_never_had_is_unknown() -> None:
    assert await host(Worker()).serve("outcomes", ["no-such-call"]) == [Lost()]


async def test_flights_begin_in_the_order_in_which_they_left() -> None:
    worker = Worker()
    here = host(worker)
    late = asyncio.create_task(here.serve("calls", flight(("quick", 2), place=1)))
    await asyncio.sleep(0.01)
    assert worker.begun == []
    await here.serve("calls", flight(("quick", 1), place=0))
    await late
    assert worker.begun == [1, 2]


async def test_a_flight_does_not_wait_for_ever_for_one_that_was_lost() -> None:
    turns = Turns(patience_s=0.05)
    async with asyncio.timeout(1):
        await turns.await_turn("caller", 3)
        await turns.await_turn("caller", 4)
        await turns.await_turn("another", 0)


async def test_a_host_runs_ahead_of_its_reader_only_so_far() -> None:
    worker = Worker()
    here = host(worker)
    part = await here.serve("open", ("s", CODEC.pack(Call("numbers", (), {}, 5.0))))
    assert [CODEC.unpack(item) for item in part.items] == [0], "the first one at once"
    await asyncio.sleep(0.05)
    assert 256 <= len(worker.begun) <= 260
    await here.serve("shut", "s")
    assert worker.stopped == ["numbers"]


async def test_a_stream_that_nobody_reads_is_given_up_and_is_no_end_for_its_reader() -> None:
    worker = Worker()
    here = host(worker, stream_idle_s=0.05)
    await here.serve("open", ("s", CODEC.pack(Call("numbers", (), {}, 5.0))))
    await asyncio.sleep(0.15)
    assert worker.stopped == ["numbers"]
    assert here.counts.streams == 0
    part = await here.serve("pull", "s")
    assert isinstance(CODEC.unpack(part.error), Unavailable)


async def test_a_stream_that_is_shut_before_it_is_opened_does_not_run() -> None:
    worker = Worker()
    here = host(worker)
    await here.serve("shut", "s")
    part = await here.serve("open", ("s", CODEC.pack(Call("numbers", (), {}, 5.0))))
    assert part.has_ended
    assert worker.begun == []


async def test_only_so_many_streams_are_open_at_a_time() -> None:
    here = host(Worker(), max_streams=1)
    await here.serve("open", ("a", CODEC.pack(Call("numbers", (), {}, 5.0))))
    part = await here.serve("open", ("b", CODEC.pack(Call("numbers", (), {}, 5.0))))
    assert "opens no more" in str(CODEC.unpack(part.error))
    await here.serve("shut", "a")


async def test_a_host_that_stops_lets_calls_finish_and_then_closes_the_module() -> None:
    worker = Worker()
    here = host(worker)
    asked = asyncio.create_task(here.serve("calls", flight(("work", 1))))
    await asyncio.sleep(0.005)
    stopping = asyncio.create_task(here.stop(grace_s=5))
    await asyncio.sleep(0.005)
    assert worker.stopped == []
    with pytest.raises(Unreachable, match="is stopping"):
        await here.serve("calls", flight(("quick", 2), place=1))
    worker.gate.set()
    await stopping
    (reply,) = await asked
    assert value(reply) == 1
    assert worker.stopped == ["close"]


async def test_a_call_that_does_not_finish_in_time_is_told_that_it_was_cut_off() -> None:
    worker = Worker()
    here = host(worker)
    asked = asyncio.create_task(here.serve("calls", flight(("work", 1))))
    await asyncio.sleep(0.005)
    await here.stop(grace_s=0.01)
    (reply,) = await asked
    assert "stopped before this was done" in str(value(reply))


async def test_an_operation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="no operation"):
        await host(Worker()).serve("eval", "1+1")
