"""Puts a host together from its specification, and keeps what is around it: locks, neighbours, events, chores.

The same in every process: what differs is the connector, which finds the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modules.core.clock import Clock, SystemClock
from modules.core.context import ModuleContext
from modules.core.errors import NotFound, Unavailable
from modules.core.loader import build
from modules.core.storage import FlatFileStorage
from modules.core.tracing import Tracer
from modules.core.workers import Workers

from . import topology as notes
from .events import OutboxCounts
from .host import CallCounts, ModuleHost
from .hosted_bus import HostedBus
from .limits import RuntimeLimits
from .locks import FileLock, platform_lock, shard_lock
from .module_ref import Neighbour, Refs
from .ref import Connector
from .router import EventRouter
from .sharding import shard_of
from .span_sender import TRACE_LOGGER, SpanSender
from .topology import Topology
from .wire import Codec

log = logging.getLogger(__name__)

_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Chore:
    """A function of a module that is to be called every so often."""

    method: str
    every_s: float


CHORES: Mapping[str, tuple[Chore, ...]] = {
    "rag": (Chore("save_registry", 5.0), Chore("index_waiting", 15.0), Chore("tidy_spool", 600.0)),
    "multimodal": (Chore("tidy_spool", 600.0),),
    "trace_logger": (Chore("tidy", 600.0),),
    "multi_agent": (Chore("resume_interrupted", 5.0),),
    "text_chat": (Chore("end_idle", 60.0),),
    "topic_router": (Chore("prune_log", 3600.0),),
    "tool_use": (Chore("close_idle", 60.0), Chore("list_servers", 600.0)),
}


@dataclass(frozen=True, slots=True)
class HostSpec:
    """All that a process needs to host a module, now and after every restart. ``settings`` are those of all modules,
    by name."""

    module: str
    shard: int
    shards: int
    base: str
    incarnation: str
    settings: Mapping[str, Mapping[str, Any]]
    limits: RuntimeLimits

    @property
    def name(self) -> str:
        return host_name(self.module, self.shard)


@dataclass(frozen=True, slots=True)
class HostHealth:
    """``handlers_failed``: by event. ``chores_failed``: by function."""

    module: str
    shard: int
    is_healthy: bool
    pid: int
    started_at: str
    calls: CallCounts
    events: OutboxCounts
    handlers_failed: Mapping[str, int] = field(default_factory=dict)
    records_dropped: int = 0
    chores_failed: Mapping[str, int] = field(default_factory=dict)


def host_name(module: str, shard: int) -> str:
    return f"{module}-{shard}"


class Hosting:
    """A running host. Made by `start`."""

    def __init__(
        self,
        spec: HostSpec,
        host: ModuleHost,
        bus: HostedBus,
        router: EventRouter,
        refs: Refs,
        clock: Clock,
        tracer: Tracer,
        spans: SpanSender | None,
    ) -> None:
        self.spec = spec
        self.host = host
        self._bus = bus
        self._router = router
        self._refs = refs
        self._tracer = tracer
        self._spans = spans
        self._locks: tuple[FileLock, ...] = ()
        self._started_at = clock.now().isoformat()
        self._is_stopped = False
        self._chores_failed: Counter[str] = Counter()
        self._chores = [asyncio.create_task(self._keep_doing(chore)) for chore in CHORES.get(spec.module, ())]

    @classmethod
    async def start(
        cls,
        spec: HostSpec,
        connector: Connector,
        codec: Codec,
        clock: Clock | None = None,
        workers: Workers | None = None,
    ) -> Hosting:
        """Wait until the host before this one is gone, then bring the module to life. It may use *workers*.

        Raises Unavailable when the other one does not go, or when the platform that this host belongs to does not
        run any more; and what the module raises.
        """
        clock = clock or SystemClock()
        locks = await _locked(spec)
        try:
            topology = _known(spec)
            refs = Refs(topology, connector, codec, spec.limits)
            router = EventRouter(refs, codec, spec.limits, module=spec.module, shard=spec.shard)
            storage = FlatFileStorage(Path(spec.base))
            tracer = Tracer()
            tracer.hears_events = True
            bus = HostedBus(
                router.forward,
                is_elsewhere=router.is_elsewhere,
                tracer=tracer,
                dead_letters=storage,
                handler_timeout_s=spec.limits.handler_timeout_s,
                max_handlers_per_event=spec.limits.max_handlers_per_event,
                clock=clock,
            )

            async def neighbour(name: str) -> Neighbour | None:
                ref = refs.find(name)
                return None if ref is None else Neighbour(ref)

            context = ModuleContext(
                bus=bus,
                settings=spec.settings,
                storage=storage,
                resolve=neighbour,
                clock=clock,
                module_name=spec.module,
                tracer=tracer,
                owns=lambda key: shard_of(key, spec.shards) == spec.shard,
                workers=workers,
            )
            module = build(spec.module, spec.settings.get(spec.module, {}))
            await module.initialize(context)
        except BaseException:
            _release(locks)
            raise
        host = ModuleHost(
            spec.module,
            module,
            bus,
            codec=codec,
            shard=spec.shard,
            shards=spec.shards,
            limits=spec.limits,
            tracer=tracer,
        )
        # The module that collects spans takes those of its own host itself.
        spans = None if spec.module == TRACE_LOGGER else SpanSender(spec.name, tracer, refs, codec, clock=clock)
        hosting = cls(spec, host, bus, router, refs, clock, tracer, spans)
        hosting._locks = locks
        return hosting

    async def serve(self, operation: str, payload: Any = None) -> Any:
        """What the host answers to one request. Raises as `ModuleHost.serve` does."""
        match operation:
            case "ping":
                return None
            case "describe":
                return self.host.manifest
            case "health":
                return await self.health()
            case "wire":
                self._refs.know(payload)
                self._router.know(payload)
                if self._spans is not None:
                    self._spans.know(payload)
                return None
            case "stop":
                return await self.stop()
            case _:
                return await self.host.serve(operation, payload)

    async def health(self) -> HostHealth:
        return HostHealth(
            module=self.spec.module,
            shard=self.spec.shard,
            is_healthy=await self.host.is_healthy(),
            pid=os.getpid(),
            started_at=self._started_at,
            calls=replace(self.host.counts),
            events=self._router.counts(),
            handlers_failed=dict(self._bus.failures),
            records_dropped=self._tracer.dropped + (self._spans.lost if self._spans is not None else 0),
            chores_failed=dict(self._chores_failed),
        )

    async def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Finish, close the module, let its events leave, give back the locks; once. Raises what closing raises."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for chore in self._chores:
            chore.cancel()
        try:
            await self.host.stop(grace_s=grace_s)
            for envelope in await self._router.close(grace_s=grace_s):
                await self._bus.report(envelope, self.spec.name, Unavailable("its listener was not reached in time"))
            if self._spans is not None:
                await self._spans.close(grace_s=grace_s)
        finally:
            _release(self._locks)

    async def _keep_doing(self, chore: Chore) -> None:
        while True:
            await asyncio.sleep(chore.every_s)
            try:
                await getattr(self.host.module, chore.method)()
            except Exception:  # the loop that owns the chore: it is logged, counted and tried again
                self._chores_failed[chore.method] += 1
                log.exception("%s.%s failed", self.spec.name, chore.method)


async def _locked(spec: HostSpec) -> tuple[FileLock, ...]:
    together, alone = platform_lock(spec.base), shard_lock(spec.base, spec.module, spec.shard)
    try:
        await together.wait(spec.limits.restart_wait_s, shared=True)
        await alone.wait(spec.limits.restart_wait_s)
    except BaseException:
        _release((together, alone))
        raise
    return together, alone


def _release(locks: tuple[FileLock, ...]) -> None:
    for lock in reversed(locks):
        lock.release()


def _known(spec: HostSpec) -> Topology:
    # Read under the platform's lock: no other platform can start between this and the first write.
    try:
        topology = notes.load(spec.base)
    except NotFound:
        raise Unavailable(f"the platform of {spec.name} does not run any more") from None
    if topology.incarnation != spec.incarnation:
        raise Unavailable(f"{spec.name} belongs to a platform that was stopped; another one runs on {spec.base}")
    return topology
