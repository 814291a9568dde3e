"""The runs that are under way in this process: one for a conversation at most.

A run belongs to no caller: it goes on when whoever started it has gone. When the process ends in order it is left as it
stands, and goes on with the next one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from modules.core.clock import Clock
from modules.core.errors import PlatformError

from .conductor import Conductor
from .steps import CANCELLED, FAILED, Stop

log = logging.getLogger(__name__)

_PAUSE_AFTER_FAILURE_S = 30.0
_TELLING_S = 5.0


@dataclass(slots=True)
class _Run:
    conductor: Conductor
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conversation that is to be gone on with, from when on (monotonic) it may be tried."""

    user_id: str
    not_before: float


class Runs:
    """``waiting``: by conversation, those that an earlier process left, and those that could not be kept."""

    def __init__(self, clock: Clock) -> None:
        self.waiting: dict[str, Waiting] = {}
        self._clock = clock
        self._running: dict[str, _Run] = {}

    def begin(self, conductor: Conductor) -> None:
        """Carry it out in the background; nothing happens when the conversation is under way already."""
        conversation_id = conductor.conversation_id
        if self.of(conversation_id) is not None:
            return
        self.waiting.pop(conversation_id, None)
        task = asyncio.create_task(self._carry_out(conductor), name=f"conversation {conversation_id}")
        self._running[conversation_id] = _Run(conductor, task)
        # Not in the task itself: one that is cancelled before it begins never gets there.
        task.add_done_callback(lambda _: self._forget(conductor))

    def of(self, conversation_id: str) -> Conductor | None:
        """The one who carries it out; None when it has ended, also while that is still being told."""
        run = self._running.get(conversation_id)
        return run.conductor if run is not None and not run.conductor.concluded.is_set() else None

    def of_user(self, user_id: str) -> int:
        """How many are under way for the user."""
        conductors = [run.conductor for run in self._running.values()]
        return sum(one.user_id == user_id and not one.concluded.is_set() for one in conductors)

    async def settle(self, conversation_id: str) -> None:
        """For whoever has read that it has ended: return when that is known here too."""
        run = self._running.get(conversation_id)
        if run is not None:
            concluded = asyncio.create_task(run.conductor.concluded.wait())
            await asyncio.wait({run.task, concluded}, return_when=asyncio.FIRST_COMPLETED)
            concluded.cancel()

    def put_off(self, conversation_id: str, user_id: str, *, pause_s: float = _PAUSE_AFTER_FAILURE_S) -> None:
        """Have it gone on with later."""
        self.waiting[conversation_id] = Waiting(user_id, self._clock.monotonic() + pause_s)

    def due(self) -> list[tuple[str, str]]:
        """User and id of the conversations that wait and may be tried now."""
        now = self._clock.monotonic()
        return [
            (one.user_id, conversation_id) for conversation_id, one in self.waiting.items() if one.not_before <= now
        ]

    async def wait(self, conversation_id: str, timeout_s: float | None) -> None:
        """Return when the run is over, or after so long (None: however long)."""
        run = self._running.get(conversation_id)
        if run is not None:
            await asyncio.wait([run.task], timeout=timeout_s)

    async def cancel(self, conversation_id: str) -> bool:
        """End the run as cancelled; what was said stays. False when there was none, or it ended by itself."""
        self.waiting.pop(conversation_id, None)
        run = self._running.get(conversation_id)
        if run is None or run.conductor.concluded.is_set():
            return False
        await _broken_off(run)
        if run.conductor.concluded.is_set():
            return False
        await run.conductor.stop(Stop(CANCELLED, "cancelled"))
        return True

    async def close(self) -> None:
        """Leave all runs as they stand; those that have ended get a moment to tell so."""
        telling = [run.task for run in self._running.values() if run.conductor.concluded.is_set()]
        if telling:
            await asyncio.wait(telling, timeout=_TELLING_S)
        for run in list(self._running.values()):
            await _broken_off(run)

    def _forget(self, conductor: Conductor) -> None:
        run = self._running.get(conductor.conversation_id)
        if run is not None and run.conductor is conductor:
            del self._running[conductor.conversation_id]

    async def _carry_out(self, conductor: Conductor) -> None:
        conversation_id = conductor.conversation_id
        try:
            await conductor.run()
        except PlatformError:
            log.exception("conversation %r cannot go on for now", conversation_id)
            self.put_off(conversation_id, conductor.user_id)
        except Exception:
            # The loop that owns the run: a mistake in here must end it, or it would be made again at every start.
            log.exception("conversation %r ended by an error of its own", conversation_id)
            await self._fail(conductor)

    async def _fail(self, conductor: Conductor) -> None:
        try:
            await conductor.stop(Stop(FAILED, "internal_error"))
        except PlatformError:
            log.exception("that conversation %r failed could not be kept", conductor.conversation_id)


async def _broken_off(run: _Run) -> None:
    run.task.cancel()
    await asyncio.wait([run.task])
