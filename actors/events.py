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


class Subscriptions:
    """Event -> modules that listen to it."""

    def __init__(self, listeners: Mapping[str, Sequence[str]]) -> None:
        self._listeners = {event: tuple(modules) for event, modules in listeners.items()}

    @classmethod
    def of(cls, topology: Topology) -> Subscriptions:
        listeners: dict[str, list[str]] = {}
        for placed in topology.modules:
            for event in placed.manifest.listens:
                listeners.setdefault(event, []).append(placed.name)
        return cls(listeners)

    def modules(self, event: str) -> tuple[str, ...]:
        """Who listens to *event*, each once, in the order of their start; those that hear all events come last."""
        named, all_hearing = self._listeners.get(event, ()), self._listeners.get(ALL_EVENTS, ())
        return (*named, *(one for one in all_hearing if one not in named))


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """By listener. ``dropped``: its queue was full. ``failed``: it could not be reached, or refused."""

    queued: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


class Outbox(Generic[D, L]):
    """A bounded queue for each destination, emptied in batches, in order. *send* returns when a batch was handled; the
    next one waits for that."""

    def __init__(self, send: Callable[[D, Sequence[L]], Awaitable[None]], *, max_queued: int, max_batch: int) -> None:
        self._send = send
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
        if len(queue) >= self._max_queued:
            if not self._dropped[str(destination)]:
                log.warning("events for %s are dropped: %d wait already", destination, len(queue))
            self._dropped[str(destination)] += 1
            return False
        queue.append(letter)
        if destination not in self._senders:
            sender = asyncio.create_task(self._empty(destination, queue))
            self._senders[destination] = sender
            sender.add_done_callback(lambda _: self._senders.pop(destination, None))
        return True

    def counts(self) -> OutboxCounts:
        queued = {str(destination): len(queue) for destination, queue in self._queues.items() if queue}
        return OutboxCounts(queued, dict(self._sent), dict(self._dropped), dict(self._failed))

    async def close(self, *, grace_s: float) -> None:
        """Give what is queued that much time to leave; what then remains counts as dropped."""
        if self._senders:
            await asyncio.wait(list(self._senders.values()), timeout=grace_s)
        for sender in list(self._senders.values()):
            sender.cancel()
        for destination, queue in self._queues.items():
            if queue:
                log.warning("%d events for %s were dropped at the end", len(queue), destination)
                self._dropped[str(destination)] += len(queue)
                queue.clear()

    async def _empty(self, destination: D, queue: deque[L]) -> None:
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
            try:
                await self._send(destination, batch)
            except PlatformError as error:
                self._failed[str(destination)] += len(batch)
                log.error("%d events did not reach %s: %s", len(batch), destination, error)
            else:
                self._sent[str(destination)] += len(batch)


def chains(letters: Sequence[L], key_of: Callable[[L], Hashable]) -> list[list[L]]:
    """Letters with the same key together, in their order: those that must be handled one after the other."""
    by_key: dict[Hashable, list[L]] = {}
    for letter in letters:
        by_key.setdefault(key_of(letter), []).append(letter)
    return list(by_key.values())
