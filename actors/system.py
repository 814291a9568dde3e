"""A platform: its modules started, found, watched and stopped.

One base has one platform. Who starts it holds the base's lock alone until the hosts hold it together; so a second
start is refused while any host lives, and a host of a platform that was stopped cannot come back beside a new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from modules.core.bus import Envelope, MessageBus
from modules.core.clock import IdMaker, new_hex
from modules.core.errors import ConfigurationError, ModuleNotFound, PlatformError, Unavailable
from modules.core.loader import build
from modules.core.tracing import Tracer

from . import topology as notes
from .errors import Unreachable
from .events import OutboxCounts
from .hosting import HostHealth, HostSpec
from .limits import RuntimeLimits
from .locks import FileLock, claim, platform_lock
from .manifest import Manifest, info_of
from .module_ref import ModuleRef, Refs
from .ref import Connector
from .router import EventRouter
from .span_sender import TRACE_LOGGER, SpanSender
from .start_order import start_order
from .topology import Placed, Topology, namespace_of
from .wire import Codec

log = logging.getLogger(__name__)

_HEALTH_TIMEOUT_S = 2.0
_END_TIMEOUT_S = 20.0
_GRACE_S = 5.0
_CLIENT = "client"

LIVE, RESTARTING, UNRESPONSIVE, DEAD = "live", "restarting", "unresponsive", "dead"


class Runtime(Protocol):
    """Where hosts live. ``address``: how another program reaches them; empty when it cannot."""

    @property
    def address(self) -> str: ...

    @property
    def codec(self) -> Codec: ...

    async def start(self, namespace: str, spec: HostSpec) -> None:
        """Start a host and wait until its module is ready. Raises what starting it raised."""
        ...

    def connector(self, namespace: str) -> Connector: ...


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One host. ``report`` is its own account, when it is live; ``reason`` says why there is none."""

    module: str
    shard: int
    state: str
    report: HostHealth | None = None
    reason: str = ""

    @property
    def is_healthy(self) -> bool:
        return self.report is not None and self.report.is_healthy


@dataclass(frozen=True, slots=True)
class PlatformHealth:
    parts: tuple[PartHealth, ...]
    absent: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        return all(part.is_healthy for part in self.parts)


class Platform:
    """Made by `start` or `connect`, not directly."""

    def __init__(
        self, base: Path, topology: Topology, runtime: Runtime, limits: RuntimeLimits, lock: FileLock | None = None
    ) -> None:
        self.base = base
        self._connector = runtime.connector(topology.namespace)
        self._refs = Refs(topology, self._connector, runtime.codec, limits)
        self._router = EventRouter(self._refs, runtime.codec, limits)
        self.tracer = Tracer()
        self._spans = SpanSender(_CLIENT, self.tracer, self._refs, runtime.codec)
        self._bus = MessageBus()
        self._bus.on("*", envelope=True)(self._forward)
        self._lock = lock

    @classmethod
    async def start(
        cls, settings: Mapping[str, Any], *, base: Path | str, runtime: Runtime, new_id: IdMaker = new_hex
    ) -> Platform:
        """Start the enabled modules of *settings* (``modules``, ``runtime``) on *base*, dependencies first.

        A module that is enabled and not installed is left out, and named in ``topology.absent``. When a start fails,
        what had started is stopped again and the failure raised. Raises Conflict when a platform runs on this base,
        ConfigurationError for settings that cannot be used.
        """
        base = Path(base).resolve()
        limits = RuntimeLimits.read(settings.get("runtime", {}))
        modules = _enabled(settings)
        infos, absent = _infos(modules)
        # Who hears of all the others is there before them, and after them.
        order = start_order(dict(sorted(infos.items(), key=lambda item: item[0] != TRACE_LOGGER)))
        shards = {name: _shards(name, modules[name]) for name in order}
        lock = claim(base)
        topology = Topology(
            incarnation=new_id(),
            namespace=namespace_of(base, prefix=settings.get("runtime", {}).get("namespace", "modchat")),
            address=runtime.address,
            absent=absent,
            runtime=dict(settings.get("runtime", {})),
            tracing=_tracing(modules.get(TRACE_LOGGER, {})),
        )
        platform = cls(base, topology, runtime, limits, lock)
        try:
            notes.save(base, topology)
            if not lock.take(shared=True):
                raise Unavailable(f"another platform was started on {base} at the same moment")
            for name in order:
                await platform._start_module(runtime, modules, name, shards[name], limits)
            for name in order:
                for channel in platform.ref(name).channels:
                    await channel.request("wire", platform.topology)
            platform._refs.know(replace(platform.topology, is_complete=True))
            platform._spans.know(platform.topology)
            notes.save(base, platform.topology)
        except BaseException:
            await platform.stop()
            raise
        return platform

    @classmethod
    async def connect(cls, base: Path | str, *, runtime: Runtime) -> Platform:
        """The platform that runs on *base*, for a program that did not start it. Raises NotFound when none does."""
        base = Path(base).resolve()
        topology = notes.load(base)
        return cls(base, topology, runtime, RuntimeLimits.read(topology.runtime))

    @property
    def topology(self) -> Topology:
        return self._refs.topology

    @property
    def refs(self) -> Mapping[str, ModuleRef]:
        """All running modules, in the order of their start."""
        return {placed.name: self._refs.get(placed.name) for placed in self.topology.modules}

    def ref(self, module: str) -> ModuleRef:
        """Raises NotFound for a module that is not running."""
        return self._refs.get(module)

    async def emit(self, event: str, data: dict[str, Any], *, trace_id: str | None = None) -> Envelope:
        """Queue an event for all that listen to it. Raises ValidationError for what is no event name."""
        delivery = await self._bus.emit(event, data, source_module="", trace_id=trace_id)
        self.tracer.note(delivery.envelope)
        return delivery.envelope

    def event_counts(self) -> OutboxCounts:
        """What became of the events that were emitted through this object."""
        return self._router.counts()

    async def health(self) -> PlatformHealth:
        """Of every host, asked now and all at once; one that does not answer holds up nobody."""
        asked = [
            _part_health(placed.name, shard, self._refs.get(placed.name))
            for placed in self.topology.modules
            for shard in range(placed.shards)
        ]
        return PlatformHealth(tuple(await asyncio.gather(*asked)), self.topology.absent)

    async def stop(self) -> None:
        """End the platform: last started, first stopped. When this returns its processes are gone.

        Every module is asked, also after one that fails. Raises ExceptionGroup with what closing them raised,
        Unavailable when a process does not go.
        """
        await self._end_telling()
        failures: list[Exception] = []
        for placed in reversed(self.topology.modules):
            try:
                await self._refs.get(placed.name).stop()
            except Exception as error:  # noqa: BLE001 - collected and raised below; the others must be stopped too
                error.add_note(f"while stopping module {placed.name}")
                failures.append(error)
        self._let_go()
        notes.remove(self.base, self.topology.incarnation)
        await _gone(self.base)
        if failures:
            raise ExceptionGroup("modules failed to stop", failures)

    async def close(self) -> None:
        """Let go of the platform, which runs on."""
        await self._end_telling()
        self._let_go()

    async def _start_module(
        self, runtime: Runtime, modules: Mapping[str, Mapping[str, Any]], name: str, shards: int, limits: RuntimeLimits
    ) -> None:
        topology = self.topology
        for shard in range(shards):
            spec = HostSpec(name, shard, shards, str(self.base), topology.incarnation, modules, limits)
            try:
                await runtime.start(topology.namespace, spec)
            except BaseException:
                # Not part of the topology yet, so `stop` does not know of them.
                for started in range(shard + 1):
                    await self._connector.end(name, started)
                raise
        manifest: Manifest = await self._connector.transport(name, 0).request("describe")
        self._refs.know(topology.with_module(Placed(shards, manifest)))
        self._router.know(self.topology)
        notes.save(self.base, self.topology)

    async def _end_telling(self) -> None:
        for envelope in await self._router.close(grace_s=_GRACE_S):
            await self._bus.report(envelope, _CLIENT, Unavailable("its listener was not reached in time"))
        await self._spans.close(grace_s=_GRACE_S)

    async def _forward(self, envelope: Envelope) -> None:
        self._router.forward(envelope)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


async def _part_health(module: str, shard: int, ref: ModuleRef) -> PartHealth:
    channel = ref.channels[shard]
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            report: HostHealth = await channel.request("health")
    except Unreachable as error:
        return PartHealth(module, shard, DEAD if error.is_final else RESTARTING, reason=str(error))
    except TimeoutError:
        state = RESTARTING if channel.is_away else UNRESPONSIVE
        return PartHealth(module, shard, state, reason=f"no answer in {_HEALTH_TIMEOUT_S:g} s")
    except PlatformError as error:
        return PartHealth(module, shard, LIVE, reason=str(error))
    return PartHealth(module, shard, LIVE, report)


async def _gone(base: Path) -> None:
    """Wait until no host of the base holds its lock."""
    lock = platform_lock(base)
    try:
        await lock.wait(_END_TIMEOUT_S)
    finally:
        lock.release()


def _enabled(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    modules = settings.get("modules")
    if not isinstance(modules, Mapping):
        raise ConfigurationError("'modules' must be an object of module names")
    for name, own in modules.items():
        if not isinstance(own, Mapping):
            raise ConfigurationError(f"modules.{name} must be an object, not {own!r}")
    return {name: own for name, own in modules.items() if own.get("enabled", False)}


def _infos(modules: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    infos, absent = {}, []
    for name, own in modules.items():
        try:
            infos[name] = info_of(name, build(name, own))
        except ModuleNotFound:
            log.warning("module %s is enabled and not installed; going on without it", name)
            absent.append(name)
    return infos, tuple(absent)


def _tracing(own: Mapping[str, Any]) -> dict[str, Any]:
    return {"sampling_rate": own.get("sampling_rate", 1.0), "max_queued": own.get("max_queued", 10_000)}


def _shards(name: str, own: Mapping[str, Any]) -> int:
    shards = own.get("shards", 1)
    if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
        raise ConfigurationError(f"modules.{name}.shards must be a whole number above 0, not {shards!r}")
    return shards
