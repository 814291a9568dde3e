"""How often tools may be called, and what all calls of a day may cost.

Rates are counted in this process. Costs are written down before the call is made, by day (UTC), so that a restart does
not start the day anew; what a call that never left would have cost is given back.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import NotFound, StorageError
from modules.core.storage import FlatFiles

from .errors import ToolBusy
from .installed import imported

_SECONDS_A_DAY = 86_400


class CallRates:
    """So many calls of one tool in any sixty seconds."""

    def __init__(self, calls_per_minute: int) -> None:
        self._limit: Any = None
        self._calls_per_minute = calls_per_minute
        self._storage: Any = None

    async def admit(self, tool: str) -> None:
        """Raises ToolBusy."""
        if self._limit is None:
            limits = imported("limits")
            self._storage = imported("limits.aio.storage").MemoryStorage()
            self._window = imported("limits.aio.strategies").MovingWindowRateLimiter(self._storage)
            self._limit = limits.RateLimitItemPerMinute(self._calls_per_minute)
        if not await self._window.hit(self._limit, tool):
            stats = await self._window.get_window_stats(self._limit, tool)
            raise ToolBusy(
                f"{tool.rpartition('/')[2]} was called {self._calls_per_minute} times in a minute, which is its limit",
                retry_after_s=max(0.1, stats.reset_time - time.time()),
            )

    async def close(self) -> None:
        # The library tidies up in a task, which must not outlive its loop.
        if self._storage is not None and self._storage.timer is not None:
            await self._storage.timer


class DayCosts:
    """*most* is for one day; None sets no limit, and the costs are still counted. One writer."""

    def __init__(self, files: FlatFiles, clock: Clock, most: float | None) -> None:
        self._files = files
        self._clock = clock
        self._most = most
        self._day = ""
        self._spent = 0.0
        self._lock = asyncio.Lock()

    async def spend(self, cost: float) -> None:
        """Raises ToolBusy when the day's costs would be exceeded, StorageError when it cannot be written down."""
        if not cost:
            return
        async with self._lock:
            await self._turn_to_today()
            if self._most is not None and self._spent + cost > self._most:
                now = self._clock.now()
                left_s = _SECONDS_A_DAY - (now.hour * 3600 + now.minute * 60 + now.second)
                raise ToolBusy(
                    f"the tools of this day have cost {self._spent:g} of {self._most:g}, and the call costs {cost:g}",
                    retry_after_s=float(left_s),
                )
            await self._set(self._spent + cost)

    async def give_back(self, cost: float) -> None:
        if not cost:
            return
        async with self._lock:
            await self._turn_to_today()
            await self._set(max(0.0, self._spent - cost))

    async def today(self) -> float:
        async with self._lock:
            await self._turn_to_today()
            return self._spent

    async def _turn_to_today(self) -> None:
        day = self._clock.now().date().isoformat()
        if day != self._day:
            self._spent = await asyncio.to_thread(self._read, day)
            self._day = day

    async def _set(self, spent: float) -> None:
        data = json.dumps({"day": self._day, "spent": spent}).encode() + b"\n"
        await asyncio.to_thread(self._files.write, _key(self._day), data)
        self._spent = spent

    def _read(self, day: str) -> float:
        try:
            spent = json.loads(self._files.read(_key(day)))["spent"]
        except NotFound:
            return 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{_key(day)} is damaged: {error!r}", key=_key(day)) from error
        return float(spent)


def _key(day: str) -> str:
    return f"tool_use/costs/{day}.json"
