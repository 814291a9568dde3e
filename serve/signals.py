"""What an operator tells a running server by signals.

Ctrl-C and SIGTERM: the first one asks for an end in order, the second one for an end at once. SIGHUP: read the settings
again.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

_POLL_S = 0.5


class Signals:
    """Heard from when it is made, in the running loop, which must be the main thread's."""

    def __init__(self) -> None:
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        self._hang_up = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.hear)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up.set)

    @property
    def is_asked(self) -> bool:
        return self._first.is_set()

    def hear(self) -> None:
        (self._second if self._first.is_set() else self._first).set()

    async def pause(self) -> None:
        """A moment; less when an end is asked for."""
        try:
            async with asyncio.timeout(_POLL_S):
                await self._first.wait()
        except TimeoutError:
            return

    def take_hang_up(self) -> bool:
        """Whether SIGHUP came since the last time."""
        came = self._hang_up.is_set()
        self._hang_up.clear()
        return came

    async def until_first(self, task: asyncio.Task[Any]) -> None:
        """Returns when *task* is done or an end was asked for. Raises what the task raises."""
        await _either(task, self._first)

    async def until_second(self, task: asyncio.Task[Any]) -> None:
        """The same for an end at once."""
        await _either(task, self._second)


async def _either(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()
