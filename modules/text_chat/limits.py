"""How much a user may send in a minute: a sliding window, exact to the moment, with the clock handed in."""

from __future__ import annotations

import threading
from collections import deque

from modules.core.clock import Clock
from modules.core.errors import RateLimited

WINDOW_S = 60.0
_USERS_BEFORE_SWEEP = 10_000


class SlidingWindow:
    """Amounts of the last minute. One that alone exceeds the limit is let through when the window is empty."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def wait_s(self, now: float, amount: int) -> float:
        """Seconds until *amount* fits; 0 when it fits now."""
        self._forget(now)
        over = self._total + amount - self.limit
        for moment, size in self._entries:
            if over <= 0:
                return 0.0
            over -= size
            if over <= 0:
                return moment + WINDOW_S - now
        return self._entries[-1][0] + WINDOW_S - now if self._entries else 0.0

    def add(self, now: float, amount: int) -> None:
        self._entries.append((now, amount))
        self._total += amount

    def is_empty(self, now: float) -> bool:
        self._forget(now)
        return not self._entries

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now - WINDOW_S:
            self._total -= self._entries.popleft()[1]


class RateLimits:
    """Messages and tokens a minute, by user; None is no limit. Safe for use from several threads."""

    def __init__(self, messages_per_minute: int | None, tokens_per_minute: int | None, clock: Clock) -> None:
        self._limits = {"messages": messages_per_minute, "tokens": tokens_per_minute}
        self._clock = clock
        self._users: dict[str, dict[str, SlidingWindow]] = {}
        self._lock = threading.Lock()

    def admit(self, user_id: str, tokens: int) -> None:
        """Count one message of *tokens* tokens, or raise RateLimited and count nothing."""
        amounts = {"messages": 1, "tokens": tokens}
        with self._lock:
            now = self._clock.monotonic()
            windows = self._windows(user_id, now)
            waits = {name: window.wait_s(now, amounts[name]) for name, window in windows.items()}
            slowest = max(waits, key=lambda name: waits[name], default=None)
            if slowest is not None and waits[slowest] > 0:
                limit = windows[slowest].limit
                raise RateLimited(f"user {user_id!r} is over {limit} {slowest} a minute", retry_after_s=waits[slowest])
            for name, window in windows.items():
                window.add(now, amounts[name])

    def note_tokens(self, user_id: str, tokens: int) -> None:
        """Count tokens that were spent on the user's behalf. Never refuses: an answer that exists is stored."""
        with self._lock:
            now = self._clock.monotonic()
            windows = self._windows(user_id, now)
            if "tokens" in windows:
                windows["tokens"].add(now, tokens)

    def _windows(self, user_id: str, now: float) -> dict[str, SlidingWindow]:
        if user_id not in self._users:
            if len(self._users) >= _USERS_BEFORE_SWEEP:
                self._users = {
                    user: windows
                    for user, windows in self._users.items()
                    if not all(window.is_empty(now) for window in windows.values())
                }
            self._users[user_id] = {
                name: SlidingWindow(limit) for name, limit in self._limits.items() if limit is not None
            }
        return self._users[user_id]
