"""Work goes on to its end when its caller goes away; what became of it then is logged."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial

import pytest

from modules.core.finishing import Finishing


async def test_the_caller_gets_the_result_or_the_failure() -> None:
    finishing = Finishing("work")

    async def give(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    assert await finishing.finish(give(1)) == 1
    with pytest.raises(ValueError, match="-1"):
        await finishing.finish(give(-1))


async def test_work_whose_caller_goes_away_is_finished_and_waited_for() -> None:
    finishing, go, done = Finishing("work"), asyncio.Event(), []

    async def work() -> None:
        await go.wait()
        done.append(1)

    caller = asyncio.create_task(finishing.finish(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == []
    go.set()
    await finishing.wait()
    assert done == [1]


async def test_a_failure_that_nobody_is_left_to_hear_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    finishing, go = Finishing("a write"), asyncio.Event()

    async def work() -> None:
        await go.wait()
        raise ValueError("lost")

    caller = asyncio.create_task(finishing.finish(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    with caplog.at_level(logging.ERROR):
        await finishing.wait()
        await asyncio.sleep(0)
    assert "a write whose caller had gone away failed" in caplog.text
    assert "lost" in caplog.text


async def test_what_is_done_alone_is_done_one_after_the_other_and_in_turn() -> None:
    finishing, running, most, order = Finishing("work"), [], [], []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        time.sleep(0.005)
        running.remove(number)
        order.append(number)
        return number

    assert await asyncio.gather(*(finishing.alone(partial(work, number)) for number in range(5))) == [0, 1, 2, 3, 4]
    assert (order, max(most)) == ([0, 1, 2, 3, 4], 1)


async def test_what_waits_for_its_turn_is_done_when_its_caller_goes_away() -> None:
    finishing, go, done = Finishing("work"), threading.Event(), []
    first = asyncio.create_task(finishing.alone(go.wait))
    waiting = asyncio.create_task(finishing.alone(lambda: done.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == []
    go.set()
    await finishing.wait()
    assert (await first, done) == (True, [1])
