from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from modules.core.coalesce import Coalescer, NoAnswer


class Line:
    """Sends batches that return when they are let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gates: list[asyncio.Event] = []

    async def send(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self.gates.append(gate := asyncio.Event())
        await gate.wait()
        return [-number for number in batch]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_call_leaves_at_once() -> None:
    line = Line()
    call = asyncio.create_task(Coalescer(line.send, at_most=8, hold_s=60).submit(1))
    await settle()
    assert line.batches == [[1]]
    line.gates[0].set()
    assert await call == -1


async def test_calls_of_the_same_moment_leave_together() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    calls = [asyncio.create_task(coalescer.submit(number)) for number in range(3)]
    await settle()
    assert line.batches == [[0, 1, 2]]
    line.gates[0].set()
    assert await asyncio.gather(*calls) == [0, -1, -2]


async def test_what_comes_during_a_flight_leaves_together_when_it_is_back() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    calls = [asyncio.create_task(coalescer.submit(0))]
    await settle()
    calls += [asyncio.create_task(coalescer.submit(number)) for number in range(1, 5)]
    await settle()
    assert line.batches == [[0]]
    line.gates[0].set()
    await settle()
    assert line.batches == [[0], [1, 2, 3, 4]]
    line.gates[1].set()
    assert await asyncio.gather(*calls) == [0, -1, -2, -3, -4]


async def test_a_batch_has_at_most_so_many_calls_and_order_is_kept() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=2, hold_s=60)
    calls = [asyncio.create_task(coalescer.submit(number)) for number in range(5)]
    for flight in range(3):
        await settle()
        line.gates[flight].set()
    assert await asyncio.gather(*calls) == [0, -1, -2, -3, -4]
    assert line.batches == [[0, 1], [2, 3], [4]]


async def test_a_slow_flight_is_not_waited_for() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=0.01)
    slow = asyncio.create_task(coalescer.submit(1))
    await settle()
    quick = asyncio.create_task(coalescer.submit(2))
    await asyncio.sleep(0.05)
    assert line.batches == [[1], [2]]
    line.gates[1].set()
    assert await quick == -2
    assert not slow.done()
    line.gates[0].set()
    assert await slow == -1


async def test_a_flight_that_fails_fails_its_calls_and_no_later_one() -> None:
    async def send(batch: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        if 0 in batch:
            raise ConnectionError("lost")
        return list(batch)

    coalescer = Coalescer(send, at_most=2)
    answers = await asyncio.gather(*(coalescer.submit(number) for number in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError, int]


async def test_a_caller_that_leaves_before_departure_takes_its_call_back() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    first = asyncio.create_task(coalescer.submit(0))
    await settle()
    second, third = (asyncio.create_task(coalescer.submit(number)) for number in (1, 2))
    await settle()
    second.cancel()
    await settle()
    line.gates[0].set()
    await settle()
    assert line.batches == [[0], [2]]
    line.gates[1].set()
    assert await asyncio.gather(first, third) == [0, -2]


async def test_a_caller_that_leaves_in_the_moment_of_departure_holds_up_nobody() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    leaving = asyncio.create_task(coalescer.submit(0))
    await asyncio.sleep(0)
    leaving.cancel()
    await settle()
    assert line.batches == []
    later = asyncio.create_task(coalescer.submit(1))
    await settle()
    line.gates[0].set()
    assert await later == -1


async def test_who_has_no_answer_in_time_is_told_and_the_others_of_the_flight_go_on() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    by = asyncio.get_running_loop().time() + 0.02
    hasty, patient = (asyncio.create_task(coalescer.submit(number, by=by if number else None)) for number in (1, 0))
    with pytest.raises(NoAnswer):
        await hasty
    assert line.batches == [[1, 0]]
    line.gates[0].set()
    assert await patient == 0


async def test_an_answer_for_a_caller_that_left_disturbs_nobody() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=60)
    leaving = asyncio.create_task(coalescer.submit(1))
    await settle()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    line.gates[0].set()
    await settle()
    later = asyncio.create_task(coalescer.submit(2))
    await settle()
    line.gates[1].set()
    assert await later == -2


@pytest.mark.slow
async def test_where_flights_take_long_they_become_larger_and_not_more() -> None:
    under_way, sizes, at_once = 0, [], []

    async def send(batch: Sequence[int]) -> list[int]:
        nonlocal under_way
        under_way += 1
        sizes.append(len(batch))
        at_once.append(under_way)
        await asyncio.sleep(0.03)
        under_way -= 1
        return list(batch)

    coalescer = Coalescer(send, at_most=64, hold_s=0.002)

    async def caller(number: int) -> None:
        for _ in range(30):
            assert await coalescer.submit(number) == number

    await asyncio.gather(*(caller(number) for number in range(16)))
    settled = len(sizes) // 2
    assert max(at_once[settled:]) <= 3
    assert sum(sizes[settled:]) / len(sizes[settled:]) > 4


async def test_a_slow_lone_call_does_not_make_others_wait_longer() -> None:
    line = Line()
    coalescer = Coalescer(line.send, at_most=8, hold_s=0.005)
    for number in range(5):
        slow = asyncio.create_task(coalescer.submit(number))
        await asyncio.sleep(0.03)
        line.gates[-1].set()
        await slow
    slow = asyncio.create_task(coalescer.submit(8))
    await settle()
    began = asyncio.get_running_loop().time()
    quick = asyncio.create_task(coalescer.submit(9))
    while len(line.batches) < 7:
        await asyncio.sleep(0.001)
    assert asyncio.get_running_loop().time() - began < 0.04
    for gate in line.gates:
        gate.set()
    assert await asyncio.gather(slow, quick) == [-8, -9]
