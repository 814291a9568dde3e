"""Concurrent calls become one.

Nothing in flight: a call leaves at once, with those of the same moment. Something in flight: calls gather, and leave
together when it is back, or when it has been out for long: a slow call delays nobody. So an idle caller loses no time,
and the more callers there are, the fewer requests each one costs.

What is long follows from how long flights of several calls take: on a busy machine all take longer, and to send more
of them instead of larger ones would make it busier still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


# The latest flight's share in what flights are taken to take; and the most that anybody is held.
_SHARE = 0.2
_MOST_HELD_S = 0.05


class NoAnswer(Exception):
    """There was none in time."""


class Coalescer(Generic[Q, A]):
    """*send* takes questions in their order and gives one answer for each; what it raises, all of them get. *hold_s* is
    the least time for which a flight holds up those that gather behind it."""

    def __init__(
        self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, at_most: int, hold_s: float = 0.005
    ) -> None:
        self._send = send
        self._at_most = at_most
        self._least_held_s = self._held_s = hold_s
        self._gathered: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._holding: object | None = None
        self._flights: set[asyncio.Task[None]] = set()

    async def submit(self, question: Q, *, by: float | None = None) -> A:
        """The answer. A caller that goes away before its question has left takes it back. Raises NoAnswer where it is
        not there *by* that time of the loop's clock."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._gathered.append((question, answer))
        if self._holding is None:
            self._depart()
        if by is None:
            return await answer
        # One timer: `asyncio.timeout` would interrupt the caller, who waits for nothing else, at five times the cost.
        giving_up = loop.call_at(by, _give_up, answer)
        try:
            return await answer
        finally:
            giving_up.cancel()

    def _depart(self) -> None:
        flight = object()
        self._holding = flight
        task = asyncio.create_task(self._fly(flight))
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)

    def _boarded(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._gathered and len(batch) < self._at_most:
            question, answer = self._gathered.popleft()
            if not answer.done():  # a cancelled caller wants nothing any more
                batch.append((question, answer))
        return batch

    async def _fly(self, flight: object) -> None:
        # Only now, when the loop has come round to this task: whoever else asked in the same round is there too.
        batch = self._boarded()
        if not batch:
            self._release(flight)
            return
        loop = asyncio.get_running_loop()
        left = loop.time()
        held = loop.call_later(self._held_s, self._release, flight)
        try:
            answers = await self._send([question for question, _ in batch])
            if len(batch) > 1:  # one alone may be a slow one
                self._note(loop.time() - left)
            # Before anybody gets an answer: what they do with it would hold up the next flight.
            self._release(flight)
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
        except asyncio.CancelledError:
            for _, waiting in batch:
                waiting.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the callers' to handle, each gets it
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
        finally:
            held.cancel()
            self._release(flight)

    def _note(self, taken_s: float) -> None:
        usual = self._held_s + _SHARE * (taken_s - self._held_s)
        self._held_s = min(max(usual, self._least_held_s), max(_MOST_HELD_S, self._least_held_s))

    def _release(self, flight: object) -> None:
        if self._holding is flight:
            self._holding = None
            if self._gathered:
                self._depart()


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(NoAnswer)
