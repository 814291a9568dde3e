"""Many independent calls with a bounded number of them under way.

Validation, the way back and index building are such calls. They are written against this protocol: `LocalFanOut`
runs them one after the other in this process, `ProcessFanOut` in processes of this machine, and
`migration.run.RayFanOut` spreads them over a Ray cluster.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class FanOut(Protocol):
    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results of *function* for every item, in any order; *items* is drawn lazily.

        *function* must be importable (a module-level function or a `functools.partial` of one). An exception in a
        call is raised here, and no further call is begun.
        """
        ...


class LocalFanOut:
    """Runs every call in this process."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for item in items:
            yield function(item)


class ProcessFanOut:
    """Runs the calls in a number of processes of this machine (default: one for each CPU), made for each `map`.

    A process that dies raises `concurrent.futures.process.BrokenProcessPool`.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        context = multiprocessing.get_context("forkserver")
        pending: set[Future[Any]] = set()
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            try:
                for item in items:
                    pending.add(pool.submit(function, item))
                    if len(pending) > 2 * self.workers:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        yield from (one.result() for one in done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in done)
            finally:
                for one in pending:
                    one.cancel()
