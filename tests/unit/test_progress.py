"""How a run is coming on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migration.progress import Progress

HALF = Progress(
    phase="migrate",
    elapsed_s=10.0,
    users=50,
    users_total=100,
    sessions=400,
    messages=4000,
    bytes=20_000_000,
    quarantined=3,
    in_flight=2,
    paused=False,
    throttle_mb_s=None,
    workers=2,
)


def test_rates_are_over_the_whole_run() -> None:
    assert (HALF.bytes_per_s, HALF.sessions_per_s) == (2_000_000, 40)
    assert (replace(HALF, elapsed_s=0.0).bytes_per_s, replace(HALF, elapsed_s=0.0).sessions_per_s) == (0, 0)


def test_the_time_left_is_a_range_between_the_two_rates() -> None:
    assert HALF.remaining_s() == pytest.approx((8.0, 12.0))
    slower = replace(HALF, recent_users_per_s=1.0).remaining_s()
    assert slower == pytest.approx((8.0, 60.0))


@pytest.mark.parametrize("change", [{"users_total": None}, {"users": 0}, {"paused": True}, {"elapsed_s": 0.0}])
def test_nothing_is_said_when_nothing_can_be_known(change: dict[str, object]) -> None:
    assert replace(HALF, **change).remaining_s() is None  # type: ignore[arg-type]


def test_more_users_than_were_counted_leave_no_negative_time() -> None:
    assert replace(HALF, users=120).remaining_s() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "migrate: 50/100 users, 400 sessions, 20.0 MB, 40 sessions/s, 2.0 MB/s, 8 s to 12 s left"),
        ({"users_total": None}, "50 users"),
        ({"users_total": None}, "time left unknown"),
        ({"paused": True}, "paused"),
        ({"throttle_mb_s": 1.5}, "throttled to 1.5 MB/s (set by control)"),
        ({"users_total": 5000}, "13 min to 20 min left"),
        ({"users_total": 500_000}, "22.2 h to 33.3 h left"),
        ({}, "3 quarantined, 2 in flight"),
    ],
)
def test_one_line_says_it_all(change: dict[str, object], said: str) -> None:
    assert said in replace(HALF, **change).line()  # type: ignore[arg-type]
