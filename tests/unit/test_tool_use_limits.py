from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modules.core.errors import StorageError
from modules.core.storage import FlatFiles
from modules.tool_use.budget import CallRates, DayCosts
from modules.tool_use.circuit import CLOSED, HALF_OPEN, OPEN, Circuit
from modules.tool_use.errors import CircuitOpen, ToolBusy


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 23, 0, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def circuit(clock: Clock, failures: int = 3) -> Circuit:
    return Circuit("tool", failures, 30.0, clock.monotonic)


def fail(one: Circuit, times: int) -> None:
    for _ in range(times):
        one.admit()
        one.failed()


def test_failures_in_a_row_open_it_and_one_success_counts_anew() -> None:
    one = circuit(Clock())
    fail(one, 2)
    one.admit()
    one.succeeded()
    fail(one, 2)
    assert one.state == CLOSED
    fail(one, 1)
    assert one.state == OPEN
    with pytest.raises(CircuitOpen, match="3 times in a row") as caught:
        one.admit()
    assert caught.value.retry_after_s == 30
    assert caught.value.retryable


def test_after_the_pause_one_call_is_tried_and_no_second_beside_it() -> None:
    clock = Clock()
    one = circuit(clock)
    fail(one, 3)
    clock.seconds = 30.0
    assert one.state == HALF_OPEN
    one.admit()
    with pytest.raises(CircuitOpen):
        one.admit()
    one.succeeded()
    assert one.state == CLOSED
    one.admit()


def test_a_try_that_fails_opens_it_for_another_pause() -> None:
    clock = Clock()
    one = circuit(clock)
    fail(one, 3)
    clock.seconds = 31.0
    one.admit()
    one.failed()
    assert one.state == OPEN
    clock.seconds = 60.0
    assert one.state == OPEN


def test_a_try_that_says_nothing_leaves_room_for_the_next() -> None:
    clock = Clock()
    one = circuit(clock)
    fail(one, 3)
    clock.seconds = 31.0
    one.admit()
    one.abandoned()
    one.admit()


async def test_calls_of_one_tool_are_limited_and_others_are_not() -> None:
    rates = CallRates(3)
    for _ in range(3):
        await rates.admit("/a")
    with pytest.raises(ToolBusy, match="a was called 3 times in a minute") as caught:
        await rates.admit("/a")
    assert 0 < caught.value.retry_after_s <= 60
    await rates.admit("/b")
    await rates.admit("ann/a")
    await rates.close()


async def test_costs_of_a_day_have_a_limit_that_a_restart_does_not_lift(tmp_path: Path) -> None:
    clock = Clock()
    costs = DayCosts(FlatFiles(tmp_path), clock, 1.0)
    await costs.spend(0.6)
    with pytest.raises(ToolBusy, match=r"0\.6 of 1") as caught:
        await costs.spend(0.5)
    assert caught.value.retry_after_s == 3600
    again = DayCosts(FlatFiles(tmp_path), clock, 1.0)
    with pytest.raises(ToolBusy):
        await again.spend(0.5)
    await again.give_back(0.6)
    await again.spend(1.0)
    clock.seconds = 3600.0
    assert await again.today() == 0
    await again.spend(1.0)


async def test_costs_are_counted_also_where_they_have_no_limit(tmp_path: Path) -> None:
    costs = DayCosts(FlatFiles(tmp_path), Clock(), None)
    await costs.spend(5.0)
    await costs.spend(0.0)
    assert await costs.today() == 5.0


async def test_a_damaged_account_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "tool_use/costs").mkdir(parents=True)
    (tmp_path / "tool_use/costs/2026-03-01.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        await DayCosts(FlatFiles(tmp_path), Clock(), 1.0).spend(0.1)
