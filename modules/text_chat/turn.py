"""Turns: one question and its answer, read by any number of readers, one at a time in each session.

A turn runs in a task of its own. Who asks for the same one again, by its idempotency key, reads it from its first
chunk; when the last reader goes away, the turn is stopped, and what there is of the answer is stored. Turns of one
session wait for each other in the order in which they were asked for.

A turn that is stopped says why, as the finish reason of what there is of its answer:

==================  ===========================================================
``cancelled``       its readers went away
``interrupted``     another message came that was to be answered in its place
``session_ended``   the session was ended or deleted
``closed``          the module was closed
==================  ===========================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from modules.core.errors import Conflict, PlatformError, RateLimited, Unavailable, ValidationError

from .answer_chunks import Chunk, TurnEnded
from .answer_events import Emit, TurnEvents, error_data
from .open_session import Draft

log = logging.getLogger(__name__)
T = TypeVar("T")

StopReason = Literal["cancelled", "interrupted", "session_ended", "closed"]
IF_BUSY = ("enqueue", "reject", "interrupt")

_MOST_WAITING = 16
_RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What is asked for; ``question`` is the user's message, whose idempotency key is the turn's."""

    user_id: str
    session_id: str
    question: Draft
    max_tokens: int
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def place(self) -> tuple[str, str]:
        return self.user_id, self.session_id


class Stopped(Exception):
    """Somebody stopped the turn. Within this package only: readers get a chunk or an error of the platform."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Turn:
    """Made and run by `Turns`; needs a running loop."""

    def __init__(self, request: TurnRequest, events: TurnEvents) -> None:
        self.request = request
        self.events = events
        self.stop_reason: StopReason | None = None
        self._chunks: list[Chunk] = []
        self._error: Exception | None = None
        self._ended = asyncio.Event()
        self._news = asyncio.Event()
        self._readers = 0
        self._stoppable: asyncio.Task[Any] | None = None

    async def follow(self) -> AsyncGenerator[Chunk, None]:
        """All chunks from the first on. Raises what the turn failed with. Closing it, as its last reader, stops the
        turn, and returns when what there is of the answer has been stored."""
        self._readers += 1
        try:
            place = 0
            while True:
                news = self._news
                while place < len(self._chunks):
                    yield self._chunks[place]
                    place += 1
                if self._ended.is_set():
                    break
                await news.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._readers -= 1
            if not self._readers and not self._ended.is_set():
                self.stop("cancelled")
                await self._ended.wait()

    def publish(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        if isinstance(chunk, TurnEnded):
            self._ended.set()
        self._wake_readers()

    def fail(self, error: Exception) -> None:
        """End with *error*, unless the turn has ended already."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()
            self._wake_readers()

    def stop(self, reason: StopReason) -> None:
        """Stop as soon as what must be finished is. The first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if self._stoppable is not None:
                self._stoppable.cancel()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """What *work* gives. Raises Stopped when the turn is stopped before it has ended, and what it raises."""
        if self.stop_reason is not None:
            work.close()
            raise Stopped(self.stop_reason)
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._stoppable = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # the loop itself is ending: there is still time to store what there is
            self.stop("closed")
            await asyncio.wait([task])
        finally:
            self._stoppable = None
        if not task.cancelled():
            return task.result()
        raise Stopped(self.stop_reason or "closed")

    async def ended(self) -> None:
        """Return when nothing more comes: what there is of the answer is stored."""
        await self._ended.wait()

    def _wake_readers(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(slots=True)
class _Line:
    """The turns of one session, first asked first; whoever holds the lock is being answered."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: list[Turn] = field(default_factory=list)


class Turns:
    """*answer* publishes a turn's chunks, up to and with `TurnEnded`, or raises; *emit* tells its events."""

    def __init__(
        self, answer: Callable[[Turn], Awaitable[None]], emit: Emit, *, at_most_waiting: int = _MOST_WAITING
    ) -> None:
        self._answer = answer
        self._emit = emit
        self._at_most_waiting = at_most_waiting
        self._lines: dict[tuple[str, str], _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def take(self, request: TurnRequest, if_busy: str = "enqueue") -> Turn:
        """The turn of *request*: the one under way or in line that has its key, else a new one.

        While another is under way, a new one waits for it (``enqueue``), is refused with Conflict (``reject``), or
        stops it and is next after those in line (``interrupt``). Raises RateLimited when the line is long, Conflict
        when the key was used for something else, Unavailable once closed.
        """
        if if_busy not in IF_BUSY:
            raise ValidationError(f"if_busy must be one of {', '.join(IF_BUSY)}; not {if_busy!r}", param="if_busy")
        if self._is_closed:
            raise Unavailable("the chat is closing and answers no more")
        line = self._lines.get(request.place) or _Line()
        same = _same(line, request)
        if same is not None:
            return same
        if line.turns and if_busy == "reject":
            raise Conflict(f"session {request.session_id!r} is being answered; wait for that answer, or interrupt it")
        if len(line.turns) > self._at_most_waiting:
            raise RateLimited(
                f"session {request.session_id!r} has {self._at_most_waiting} messages waiting to be answered",
                retry_after_s=_RETRY_AFTER_S,
            )
        if line.turns and if_busy == "interrupt":
            line.turns[0].stop("interrupted")
        about = {"user_id": request.user_id, "session_id": request.session_id}
        turn = Turn(request, TurnEvents(self._emit, about))
        line.turns.append(turn)
        self._lines[request.place] = line
        task = asyncio.create_task(self._run(line, turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return turn

    async def stop(self, user_id: str, session_id: str, reason: StopReason) -> None:
        """Stop all turns of a session; returns when what there is of their answers is stored."""
        line = self._lines.get((user_id, session_id))
        turns = list(line.turns) if line else []
        for turn in turns:
            turn.stop(reason)
        for turn in turns:
            await turn.ended()

    async def close(self) -> None:
        """Stop all turns and take no more."""
        self._is_closed = True
        for place in list(self._lines):
            await self.stop(*place, "closed")
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, line: _Line, turn: Turn) -> None:
        try:
            await turn.unless_stopped(line.lock.acquire())
            try:
                await self._answer(turn)
            finally:
                line.lock.release()
        except Stopped as stopped:
            turn.fail(Unavailable(f"{stopped.reason} before its turn came; nothing was stored"))
        except Exception as error:  # the readers' to hear, and told by an event
            turn.fail(error)
            turn.events.tell("chat.error", error_data(error))
            if not isinstance(error, PlatformError):
                log.error("a turn of session %r failed", turn.request.session_id, exc_info=error)
        finally:
            turn.fail(Unavailable("the turn was broken off"))  # of no effect on one that has ended
            line.turns.remove(turn)
            if not line.turns:
                del self._lines[turn.request.place]
        # Only now: a listener may ask for the next turn of this session, and wait for it.
        await turn.events.end()


def _same(line: _Line, request: TurnRequest) -> Turn | None:
    key = request.question.idempotency_key
    for turn in line.turns:
        if key is not None and turn.request.question.idempotency_key == key:
            if turn.request.question.content != request.question.content:
                raise Conflict(f"idempotency key {key!r} is in use for another message")
            return turn
    return None
