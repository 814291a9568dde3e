"""How the modules are, asked every few seconds beside all requests, so that no probe ever waits for a module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.system import PartHealth, Platform
from modules.core.clock import Clock
from modules.core.errors import PlatformError

from .metrics import Metrics

log = logging.getLogger(__name__)

HEALTHY, UNHEALTHY, NOT_LOADED, ERROR = "healthy", "unhealthy", "not_loaded", "error"

_EVERY_S = 2.0
_STALE_S = 10.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What was known at ``taken_at`` (monotonic seconds): for each module its state, and each host's own account."""

    taken_at: float
    states: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[PartHealth, ...]] = field(default_factory=dict)

    def missing(self, needed: Collection[str]) -> list[str]:
        """Those of the *needed* modules that are not healthy."""
        return sorted(name for name in needed if self.states.get(name) != HEALTHY)


class Heartbeats:
    """*known*: the modules to tell of, running or not."""

    def __init__(self, platform: Platform, metrics: Metrics, clock: Clock, known: Collection[str]) -> None:
        self._platform = platform
        self._metrics = metrics
        self._clock = clock
        self._known = known
        self._latest: Heartbeat | None = None

    @property
    def latest(self) -> Heartbeat | None:
        """None before the first one, and when the last one is too old to be told."""
        latest = self._latest
        if latest is None or self._clock.monotonic() - latest.taken_at > _STALE_S:
            return None
        return latest

    async def take(self) -> Heartbeat:
        """Ask all modules now. Raises PlatformError."""
        health = await self._platform.health()
        parts: dict[str, tuple[PartHealth, ...]] = {}
        for part in health.parts:
            parts[part.module] = (*parts.get(part.module, ()), part)
        states = {name: state_of(parts.get(name, ())) for name in dict.fromkeys((*parts, *self._known))}
        self._latest = Heartbeat(self._clock.monotonic(), states, parts)
        self._metrics.note_modules({name: states[name] == HEALTHY for name in parts})
        return self._latest

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.take()
            except PlatformError as error:
                log.warning("the modules could not be asked how they are: %s", error)
            await asyncio.sleep(_EVERY_S)


def state_of(parts: Collection[PartHealth]) -> str:
    """A module's state from those of its hosts: as good as the worst of them."""
    if not parts:
        return NOT_LOADED
    if any(part.report is None for part in parts):
        return ERROR
    return HEALTHY if all(part.is_healthy for part in parts) else UNHEALTHY


def shown(part: PartHealth) -> dict[str, Any]:
    return {"shard": part.shard, "state": part.state, "healthy": part.is_healthy, "reason": part.reason or None}
