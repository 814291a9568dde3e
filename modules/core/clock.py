"""Time and fresh names, handed to whoever needs them so that a test can decide both."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

IdMaker = Callable[[], str]


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, with its offset (never naive)."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For measuring spans."""
        ...


class SystemClock:
    """The machine's own clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def new_hex() -> str:
    """32 hex digits that nobody has had before."""
    return secrets.token_hex(16)


def moment_of(text: str) -> datetime | None:
    """The moment an ISO 8601 string means, or None when it is not one. A naive time is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
