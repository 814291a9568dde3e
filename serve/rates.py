"""How often a caller may ask: a sliding window, counted by `limits` in this process."""

from __future__ import annotations

from threading import Timer

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from modules.core.clock import Clock
from modules.core.errors import RateLimited

_PRUNED_EVERY_S = 60.0


class Rates:
    """Requests a minute, by caller; a sliding window. Each replica counts for itself: this protects it. What a user
    may send in all is text_chat's to say, where every user has one writer."""

    def __init__(self, requests_per_minute: int, clock: Clock) -> None:
        self._limit = RateLimitItemPerMinute(requests_per_minute)
        self._limit_header = (b"x-ratelimit-limit", b"%d" % requests_per_minute)
        self._storage = _without_timer(MemoryStorage())
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._clock = clock
        self._pruned_at = clock.monotonic()

    def admit(self, who: str) -> list[tuple[bytes, bytes]]:
        """Headers that say what is left. Raises RateLimited."""
        if self._clock.monotonic() - self._pruned_at > _PRUNED_EVERY_S:
            self.prune()
        is_admitted = self._limiter.hit(self._limit, who)
        stats = self._limiter.get_window_stats(self._limit, who)
        if not is_admitted:
            wait_s = max(1.0, stats.reset_time - self._clock.now().timestamp())
            raise RateLimited(f"over {self._limit.amount} requests a minute", retry_after_s=wait_s)
        return self.headers(max(0, stats.remaining), stats.reset_time)

    def headers(self, remaining: int, reset_at: float) -> list[tuple[bytes, bytes]]:
        return [
            self._limit_header,
            (b"x-ratelimit-remaining", b"%d" % remaining),
            (b"x-ratelimit-reset", b"%d" % round(reset_at)),
        ]

    def exhausted(self, who: str) -> list[tuple[bytes, bytes]]:
        return self.headers(0, self._limiter.get_window_stats(self._limit, who).reset_time)

    def prune(self) -> int:
        """Forget callers whose windows are over. Returns how many windows are left."""
        self._pruned_at = self._clock.monotonic()
        for key in list(self._storage.expirations):
            self._storage.get(key)  # which drops what has expired
        return len(self._storage.expirations)


class _NoTimer(Timer):
    """Stands where the storage looks whether its own pruning is under way."""

    def is_alive(self) -> bool:
        return True


def _without_timer(storage: MemoryStorage) -> MemoryStorage:
    """Its own pruning is a thread, started anew every 10 ms in which there are requests, that looks at all keys."""
    storage.timer.cancel()
    storage.timer = _NoTimer(0.0, storage.check)
    return storage
