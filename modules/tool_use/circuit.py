"""A circuit breaker: a tool that fails again and again is left alone for a while, then tried with one call.

``closed`` lets calls through and counts failures in a row; ``open`` refuses them; ``half_open``, after the pause, lets
one through, whose outcome closes or opens it. Pattern: Nygard, "Release It!".
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import CircuitOpen

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


class Circuit:
    """Of one tool. *monotonic* gives seconds; *failures* in a row open it for *reset_s*."""

    def __init__(self, name: str, failures: int, reset_s: float, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._limit = failures
        self._reset_s = reset_s
        self._monotonic = monotonic
        self._failed = 0
        self._opened_at: float | None = None
        self._is_trying = False

    @property
    def state(self) -> str:
        if self._opened_at is None:
            return CLOSED
        return OPEN if self._left_s() > 0 else HALF_OPEN

    def admit(self) -> None:
        """Raises CircuitOpen; else what becomes of the call must be told, by one of the next three."""
        if self._opened_at is None:
            return
        left_s = self._left_s()
        if left_s > 0 or self._is_trying:
            raise CircuitOpen(
                f"{self._name} failed {self._failed} times in a row and is left alone for {max(left_s, 0.0):.0f} s",
                retry_after_s=max(left_s, 1.0),
            )
        self._is_trying = True

    def succeeded(self) -> None:
        self._failed, self._opened_at, self._is_trying = 0, None, False

    def failed(self) -> None:
        self._failed += 1
        self._is_trying = False
        if self._failed >= self._limit or self._opened_at is not None:
            self._opened_at = self._monotonic()

    def abandoned(self) -> None:
        """The call's outcome says nothing of the tool: it was cancelled, or its address was refused."""
        self._is_trying = False

    def _left_s(self) -> float:
        assert self._opened_at is not None
        return self._opened_at + self._reset_s - self._monotonic()
