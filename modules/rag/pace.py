"""Whether work is brief enough to be done where it comes up.

To hand a piece of work to a thread and take its result back costs 0.1 to 0.3 ms, most of it for waking the thread on a
core that sleeps: as much as a search among some thousand chunks. So work that has proved brief is done in the event
loop, and goes back to a thread with the first that was not: a disk that has to be waited for, an index that has grown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Monotonic = Callable[[], float]

BRIEF_S = 0.001
_IN_A_ROW = 8


class Pace:
    """How long pieces of work of one kind have taken. *now* gives seconds."""

    __slots__ = ("_brief_ones", "_now")

    def __init__(self, now: Monotonic = time.perf_counter) -> None:
        self._now = now
        self._brief_ones = 0

    @property
    def is_brief(self) -> bool:
        """The last `_IN_A_ROW` pieces took at most `BRIEF_S` each."""
        return self._brief_ones >= _IN_A_ROW

    def timed(self, work: Callable[[], T]) -> T:
        """What *work* returns; one that raises counts as well."""
        began = self._now()
        try:
            return work()
        finally:
            self._brief_ones = self._brief_ones + 1 if self._now() - began <= BRIEF_S else 0
