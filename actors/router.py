"""Takes events to the shards that are to hear them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modules.core.bus import Envelope
from modules.core.errors import Conflict, NotFound, ValidationError

from .events import PROMPT, Lane, Outbox, OutboxCounts, Subscriptions, chains
from .limits import RuntimeLimits
from .module_ref import Refs
from .sharding import Rule, given_key, rules_of, shard_of
from .topology import Topology
from .wire import Codec

# Who hears everything need not hear it at once: a request for many events costs about as much as one for one.
_UNHURRIED = Lane(linger_s=0.1)
_CERTAIN = Lane(is_certain=True)
_NEVER_DROPPED = frozenset({"audit.log"})


class Destination(NamedTuple):
    """``shard`` None: the event names no key, and it must be asked whose it is."""

    module: str
    shard: int | None
    lane: Lane = PROMPT

    def __str__(self) -> str:
        return f"{self.module}[{'?' if self.shard is None else self.shard}]"


@dataclass(frozen=True, slots=True)
class Letter:
    """``chain``: letters with the same one are handled in their order."""

    envelope: Envelope
    chain: str
    packed: Any


class EventRouter:
    """For one emitter: a host (*module*, *shard*), or a program that is none (no *module*)."""

    def __init__(
        self, refs: Refs, codec: Codec, limits: RuntimeLimits, *, module: str | None = None, shard: int = 0
    ) -> None:
        self._refs = refs
        self._codec = codec
        self._module = module
        self._shard = shard
        self._subscriptions = Subscriptions({})
        self._outbox: Outbox[Destination, Letter] = Outbox(
            self._send,
            max_queued=limits.max_queued_events,
            max_batch=limits.max_events_per_batch,
            lane_of=lambda destination: destination.lane,
        )
        self.know(refs.topology)

    def know(self, topology: Topology) -> None:
        """Take *topology* for what is true from now on."""
        self._subscriptions = Subscriptions.of(topology)

    def forward(self, envelope: Envelope) -> None:
        """Queue an event for its listeners elsewhere. Raises ValidationError when its data cannot cross."""
        destinations = self.destinations(envelope)
        if destinations:
            packed = self._codec.pack(envelope)
            for destination in destinations:
                self._outbox.post(destination, Letter(envelope, _chain(destination.module, envelope), packed))

    def destinations(self, envelope: Envelope) -> list[Destination]:
        """The shards elsewhere that are to hear an event."""
        found = []
        for module in self._subscriptions.modules(envelope.event):
            if module != self._module or self.is_elsewhere(envelope.event, envelope.data):
                found.append(self._destination(module, envelope))
        return found

    def is_elsewhere(self, event: str, data: Mapping[str, Any]) -> bool:
        """Whether an event that the emitter's own module listens to is for another of its shards."""
        placed = self._refs.topology.find(self._module) if self._module is not None else None
        if placed is None or placed.shards == 1:
            return False
        rule = _rule(placed.name, event)
        if rule is None:
            return False
        key = given_key(rule, (), (), data)
        return key is None or shard_of(key, placed.shards) != self._shard

    def counts(self) -> OutboxCounts:
        return self._outbox.counts()

    async def close(self, *, grace_s: float) -> list[Envelope]:
        """Let what is queued leave. Returns the events that were to arrive for certain and did not."""
        return [letter.envelope for letter in await self._outbox.close(grace_s=grace_s)]

    def _destination(self, module: str, envelope: Envelope) -> Destination:
        placed = self._refs.topology.find(module)
        lane = self._lane(module, envelope.event)
        if placed is None or placed.shards == 1:
            return Destination(module, 0, lane)
        rule = _rule(module, envelope.event)
        # Who hears all events hears those of one trace on one shard.
        key = envelope.trace_id if rule is None else given_key(rule, (), (), envelope.data)
        return Destination(module, None if key is None else shard_of(key, placed.shards), lane)

    def _lane(self, module: str, event: str) -> Lane:
        if not self._subscriptions.is_named(event, module):
            return _UNHURRIED
        return _CERTAIN if event in _NEVER_DROPPED else PROMPT

    async def _send(self, destination: Destination, letters: Sequence[Letter]) -> None:
        if destination.shard is None:
            await self._send_on(destination, letters)
            return
        channel = self._refs.get(destination.module).channels[destination.shard]
        batch = [[letter.packed for letter in chain] for chain in chains(letters, lambda letter: letter.chain)]
        await channel.request_when_back("events", batch)

    async def _send_on(self, destination: Destination, letters: Sequence[Letter]) -> None:
        module = destination.module
        ref = self._refs.get(module)
        for letter in letters:
            rule = _rule(module, letter.envelope.event) or Rule()
            try:
                shard = await ref.shard_for(rule, letter.envelope.data)
            except (NotFound, Conflict, ValidationError):
                shard = 0  # nobody's: whoever handles it finds the same and says so
            self._outbox.post(Destination(module, shard, destination.lane), letter)


def _rule(module: str, event: str) -> Rule | None:
    return rules_of(module).events.get(event)


def _chain(module: str, envelope: Envelope) -> str:
    rule = _rule(module, envelope.event)
    key = given_key(rule, (), (), envelope.data) if rule is not None else None
    return key if key is not None else envelope.trace_id
