"""Short blocking work, joined into few hand-overs to threads."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest

from modules.core.joined_threads import JoinedThreads

WHOSE: ContextVar[str] = ContextVar("whose")


async def test_each_caller_gets_what_its_own_work_gives_or_raises() -> None:
    threads = JoinedThreads()

    def work(number: int) -> int:
        if number % 3 == 0:
            raise KeyError(number)
        return number * 10

    results = await asyncio.gather(*(threads.run(work, number) for number in range(9)), return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [10, 20, 40, 50, 70, 80]
    assert [error.args for error in results if isinstance(error, KeyError)] == [(0,), (3,), (6,)]


async def test_work_is_done_off_the_loop_and_many_pieces_at_one_hand_over() -> None:
    threads = JoinedThreads()
    here, seen = threading.get_ident(), []
    begun, gate = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        gate.wait(5)

    slow = asyncio.create_task(threads.run(first))
    await asyncio.to_thread(begun.wait, 5)
    others = [asyncio.create_task(threads.run(lambda: seen.append(threading.get_ident()))) for _ in range(20)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(slow, *others)
    assert len(seen) == 20
    assert here not in seen
    assert len(set(seen)) == 1


async def test_a_slow_piece_does_not_hold_up_those_that_come_after_it() -> None:
    threads = JoinedThreads(hold_s=0.005)
    begun, gate = threading.Event(), threading.Event()

    def piece() -> bool:
        begun.set()
        return gate.wait(10)

    slow = asyncio.create_task(threads.run(piece))
    await asyncio.to_thread(begun.wait, 5)
    began = time.monotonic()
    assert await threads.run(lambda: "quick") == "quick"
    assert time.monotonic() - began < 5
    assert not slow.done()
    gate.set()
    assert await slow


async def test_work_sees_the_context_of_its_caller() -> None:
    threads = JoinedThreads()

    async def caller(name: str) -> str:
        WHOSE.set(name)
        return await threads.run(WHOSE.get)

    names = [f"caller {number}" for number in range(5)]
    assert await asyncio.gather(*(caller(name) for name in names)) == names


async def test_arguments_are_passed_on() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await JoinedThreads().run(int, "x", base=10)
    assert await JoinedThreads().run(int, "11", base=2) == 3
