"""Flights of one caller begin in the order in which they left.

Ray starts the calls of an asynchronous actor in any order; a caller that sends two messages without waiting between
them wants them stored in the order in which it sent them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

_CALLERS_REMEMBERED = 10_000


class Turns:
    """*patience_s*: how long a flight waits for an earlier one, which may have been lost on its way."""

    def __init__(self, *, patience_s: float = 2.0) -> None:
        self._patience_s = patience_s
        self._next: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[tuple[str, int], asyncio.Event] = {}

    async def await_turn(self, caller: str, place: int) -> None:
        """Return when all earlier flights of the caller have begun, or must be taken for lost."""
        if place > self._next.get(caller, 0):
            called = self._waiting.setdefault((caller, place), asyncio.Event())
            try:
                async with asyncio.timeout(self._patience_s):
                    await called.wait()
            except TimeoutError:
                pass  # lost, and its sender knows: see the promise above
            finally:
                del self._waiting[caller, place]
        self._next[caller] = max(place + 1, self._next.get(caller, 0))
        self._next.move_to_end(caller)
        if len(self._next) > _CALLERS_REMEMBERED:
            self._next.popitem(last=False)
        following = self._waiting.get((caller, self._next[caller]))
        if following is not None:
            following.set()
