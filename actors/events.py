"""Events from actor to actor: who hears what, and the queues in which events wait for their listeners.

The table is made from the modules' manifests when all have started; there is no broker. A queue never makes its
emitter wait: when it is full the newest event is dropped, which is counted and logged. An event is sent once: when its
listener's process dies while it has it, it counts as failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from modules.core.bus import ALL_EVENTS
from modules.core.errors import PlatformError

from .topology import Topology

log = logging.getLogger(__name__)

D = TypeVar("D", bound=Hashable)
L = TypeVar("L")

_AGAIN_S = 1.0


class Subscriptions:
    """Event -> modules that listen to it."""

    def __init__(self, listeners: Mapping[str, Sequence[str]]) -> None:
        self._listeners = {event: tuple(modules) for event, modules in listeners.items()}
        self._hearing_all = self._listeners.get(ALL_EVENTS, ())
        self._modules = {
            event: (*named, *(one for one in self._hearing_all if one not in named))
            for event, named in self._listeners.items()
        }

    @classmethod
    def of(cls, topology: Topology) -> Subscriptions:
        listeners: dict[str, list[str]] = {}
        for placed in topology.modules:
            for event in placed.manifest.listens:
                listeners.setdefault(event, []).append(placed.name)
        return cls(listeners)

    def is_named(self, event: str, module: str) -> bool:
        """Whether a module listens to *event* itself, and not only because it hears everything."""
        return module in self._listeners.get(event, ())

    def modules(self, event: str) -> tuple[str, ...]:
        """Who listens to *event*, each once, in the order of their start; those that hear all events come last."""
        return self._modules.get(event, self._hearing_all)


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """By listener. ``dropped``: its queue was full. ``failed``: it could not be reached, or refused."""

    queued: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lane:
    """How letters travel. ``linger_s``: how long they wait for company. ``is_certain``: none is dropped for want of
    room, and one that did not arrive is sent again, so that it may arrive twice."""

    linger_s: float = 0.0
    is_certain: bool = False


PROMPT = Lane()


class Outbox(Generic[D, L]):
    """A bounded queue for each destination, emptied in batches, in order. *send* returns when a batch was handled; the
    next one waits for that."""

    def __init__(
        self,
        send: Callable[[D, Sequence[L]], Awaitable[None]],
        *,
        max_queued: int,
        max_batch: int,
        lane_of: Callable[[D], Lane] = lambda _: PROMPT,
    ) -> None:
        self._send = send
        self._lane_of = lane_of
        self._is_closing = asyncio.Event()
        self._max_queued = max_queued
        self._max_batch = max_batch
        self._queues: dict[D, deque[L]] = {}
        self._senders: dict[D, asyncio.Task[None]] = {}
        self._sent: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def post(self, destination: D, letter: L) -> bool:
        """Queue an event; False when there was no room and it was dropped. Never waits."""
        queue = self._queues.setdefault(destination, deque())
        lane = self._lane_of(destination)
        if len(queue) >= self._max_queued and not lane.is_certain:
            if not self._dropped[str(destination)]:
                log.warning("events for %s are dropped: %d wait already", destination, len(queue))
            self._dropped[str(destination)] += 1
            return False
        queue.append(letter)
        if destination not in self._senders:
            self._senders[destination] = asyncio.create_task(self._empty(destination, queue, lane))
        return True

    def counts(self) -> OutboxCounts:
        queued: Counter[str] = Counter()
        for destination, queue in self._queues.items():
            if queue:
                queued[str(destination)] += len(queue)
        return OutboxCounts(dict(queued), dict(self._sent), dict(self._dropped), dict(self._failed))

    async def close(self, *, grace_s: float) -> list[L]:
        """Give what is queued that much time to leave; what then remains counts as dropped. Returns what was to arrive
        for certain and did not."""
        self._is_closing.set()
        if self._senders:
            await asyncio.wait(list(self._senders.values()), timeout=grace_s)
        late = list(self._senders.values())
        for sender in late:
            sender.cancel()
        if late:
            await asyncio.wait(late)
        undelivered: list[L] = []
        for destination, queue in self._queues.items():
            if queue:
                log.warning("%d events for %s were dropped at the end", len(queue), destination)
                self._dropped[str(destination)] += len(queue)
                if self._lane_of(destination).is_certain:
                    undelivered += queue
                queue.clear()
        return undelivered

    async def _empty(self, destination: D, queue: deque[L], lane: Lane) -> None:
        try:
            while queue:
                if lane.linger_s and len(queue) < self._max_batch:
                    await self._pause(lane.linger_s)
                batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
                if not await self._sent_off(destination, batch, lane, queue):
                    if self._is_closing.is_set():
                        break
                    await self._pause(_AGAIN_S)
        finally:
            # Not by a callback, which runs a moment later: what is posted in between would lie there for ever.
            self._senders.pop(destination, None)

    async def _sent_off(self, destination: D, batch: list[L], lane: Lane, queue: deque[L]) -> bool:
        """Whether the sender may go on at once."""
        has_arrived = False
        try:
            await self._send(destination, batch)
            has_arrived = True
        except PlatformError as error:
            self._failed[str(destination)] += len(batch)
            log.error("%d events did not reach %s: %s", len(batch), destination, error)
        finally:
            if lane.is_certain and not has_arrived:  # also when this is cancelled
                queue.extendleft(reversed(batch))
        if has_arrived:
            self._sent[str(destination)] += len(batch)
        return has_arrived or not lane.is_certain

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._is_closing.wait()
        except TimeoutError:
            return


def chains(letters: Sequence[L], key_of: Callable[[L], Hashable]) -> list[list[L]]:
    """Letters with the same key together, in their order: those that must be handled one after the other."""
    by_key: dict[Hashable, list[L]] = {}
    for letter in letters:
        by_key.setdefault(key_of(letter), []).append(letter)
    return list(by_key.values())
