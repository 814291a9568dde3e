"""How often a caller may ask, and what counting costs."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from modules.core.errors import RateLimited
from serve.rates import Rates


class SetClock:
    def __init__(self) -> None:
        self.s = time.time()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.s, UTC)

    def monotonic(self) -> float:
        return self.s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    made = SetClock()
    monkeypatch.setattr("time.time", made.monotonic)
    return made


def test_a_caller_over_his_limit_waits_and_another_does_not(clock: SetClock) -> None:
    rates = Rates(2, clock)
    assert dict(rates.admit("ada"))[b"x-ratelimit-remaining"] == b"1"
    rates.admit("ada")
    with pytest.raises(RateLimited) as refused:
        rates.admit("ada")
    assert refused.value.retry_after_s >= 1
    rates.admit("bob")
    clock.s += timedelta(minutes=2).total_seconds()
    rates.admit("ada")


def test_windows_that_are_over_are_forgotten_once_in_a_while(clock: SetClock) -> None:
    rates = Rates(10, clock)
    for number in range(100):
        rates.admit(f"address:{number}")
    assert rates.prune() == 100
    clock.s += 200
    rates.admit("ada")
    assert rates.prune() == 1


def test_counting_starts_no_threads(clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(1000, clock)
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    for _ in range(5):
        rates.admit("ada")
        time.sleep(0.02)
    assert started == []
