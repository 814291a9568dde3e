"""Several ways of doing the same work, timed in turns: A B C, A B C, ...

A machine is not equally fast from one minute to the next. Done in turns, a slow minute falls on all contestants and
not on one; medians leave out the odd slow round. Two figures compare two contestants: the ratio of their medians, and
the median of the ratios of each round. Where the two differ much, the machine was not quiet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one contestant took, round by round. Raises `ValueError` when there are none, or one is not > 0."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError("no round was timed")
        if not all(second > 0 for second in self.seconds):
            raise ValueError(f"a round takes more than 0 s, found {min(self.seconds)}")

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def shortest(self) -> float:
        return min(self.seconds)

    @property
    def longest(self) -> float:
        return max(self.seconds)

    def per(self, units: int) -> Timings:
        """The time for each of *units* pieces of work."""
        if units < 1:
            raise ValueError(f"time is shared by at least one unit, found {units}")
        return Timings(tuple(second / units for second in self.seconds))


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of doing the work: *run* does it once and returns the seconds it took; *sessions* are those that it
    goes through and *bytes* what it reads of the source each time."""

    name: str
    run: Callable[[], float]
    sessions: int
    bytes: int


def in_turns(
    contestants: Sequence[Contestant], rounds: int, announce: Callable[[str, int, float], None]
) -> dict[str, Timings]:
    """Runs every contestant once a round, in the order given; timings by name.

    *announce* hears of each run: contestant, number of the round from 1, seconds. Raises what a run raises, and
    `ValueError` for less than one round or for two contestants of one name.
    """
    if rounds < 1:
        raise ValueError(f"at least one round, found {rounds}")
    taken: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    if len(taken) < len(contestants):
        raise ValueError("two contestants have the same name")
    for number in range(1, rounds + 1):
        for contestant in contestants:
            seconds = contestant.run()
            taken[contestant.name].append(seconds)
            announce(contestant.name, number, seconds)
    return {name: Timings(tuple(seconds)) for name, seconds in taken.items()}


def ratio_of_medians(above: Timings, below: Timings) -> float:
    """How many times as long the typical round of *above* took as the typical round of *below*."""
    return above.median / below.median


def median_of_ratios(above: Timings, below: Timings) -> float:
    """The typical ratio within a round. Raises `ValueError` when the two did not run in the same rounds."""
    return median(a / b for a, b in zip(above.seconds, below.seconds, strict=True))
