"""How a run is coming on: every figure that is shown comes from one `Progress`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run. *users_total* is None until the users are counted; rates are over the whole run so far and
    over the last seconds."""

    phase: str
    elapsed_s: float
    users: int
    users_total: int | None
    sessions: int
    messages: int
    bytes: int
    quarantined: int
    in_flight: int
    paused: bool
    throttle_mb_s: float | None
    workers: int
    recent_users_per_s: float | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def sessions_per_s(self) -> float:
        return self.sessions / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def remaining_s(self) -> tuple[float, float] | None:
        """Between which times the end is likely, in seconds from now; None when nothing can be said yet.

        From the slower and the faster of the two rates, widened by a fifth: users differ in size, and a tail of large
        ones takes longer than any rate says.
        """
        if self.users_total is None or not self.users or self.paused or self.elapsed_s <= 0:
            return None
        left = max(0, self.users_total - self.users)
        average = self.users / self.elapsed_s
        recent = self.recent_users_per_s or average
        slow, fast = min(average, recent), max(average, recent)
        return 0.8 * left / fast, 1.2 * left / slow

    def line(self) -> str:
        """One line for a log."""
        left = self.remaining_s()
        eta = f"{_span(left[0])} to {_span(left[1])} left" if left else "time left unknown"
        held = ", paused (modchat migrate control --to ... resume)" if self.paused else ""
        held += f", throttled to {self.throttle_mb_s:g} MB/s (set by control)" if self.throttle_mb_s else ""
        users = f"{self.users}/{self.users_total}" if self.users_total is not None else str(self.users)
        return (
            f"{self.phase}: {users} users, {self.sessions} sessions, {self.bytes / 1e6:.1f} MB, "
            f"{self.sessions_per_s:.0f} sessions/s, {self.bytes_per_s / 1e6:.1f} MB/s, {eta}, "
            f"{self.quarantined} quarantined, {self.in_flight} in flight{held}"
        )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
