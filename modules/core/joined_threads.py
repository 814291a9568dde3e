"""Short blocking work off the event loop, many pieces at one hand-over.

Handing a piece to a thread and taking its result back costs more than many a piece itself, above all where thread and
loop run on two cores and take the interpreter's lock from each other at each system call: storing a short message
took 0.5 ms of processor time that way, and takes 0.1 ms joined (``benchmarks/bench_chat.py``). Pieces of one moment go
together, one after the other, as do those that gather while others are under way; a slow one delays those that come
after it by *hold_s* at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .coalesce import Coalescer

P = ParamSpec("P")
T = TypeVar("T")

_AT_MOST = 64


class JoinedThreads:
    """For one event loop. Unlike `asyncio.to_thread`, work whose caller goes away before it has begun is not done."""

    def __init__(self, *, hold_s: float = 0.005) -> None:
        self._joined: Coalescer[Callable[[], Any], _Outcome] = Coalescer(_in_a_thread, at_most=_AT_MOST, hold_s=hold_s)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns. Raises what it raises. It sees the context variables of its caller."""
        outcome = await self._joined.submit(partial(copy_context().run, function, *args, **kwargs))
        value: T = outcome.value()
        return value


class _Outcome:
    __slots__ = ("_error", "_value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self._value = value
        self._error = error

    def value(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


async def _in_a_thread(works: Sequence[Callable[[], Any]]) -> Sequence[_Outcome]:
    return await asyncio.to_thread(_all_done, works)


def _all_done(works: Sequence[Callable[[], Any]]) -> list[_Outcome]:
    return [_done(work) for work in works]


def _done(work: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(work(), None)
    except BaseException as error:  # noqa: BLE001 - its caller's, and none of the others'
        return _Outcome(None, error)
