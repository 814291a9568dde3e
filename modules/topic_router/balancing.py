"""Who gets the next message, among those who answer for its topic: by health and by load.

`chosen` decides, from values. `Loads` knows how much each specialist has to do: a route counts from when it is given
until its outcome is told, or until nobody tells it for too long. Who fails several times in a row gets nothing for a
while; then it gets one message, and what becomes of that decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .classification import Label, ends_of
from .specialists import Specialist

_MOST_UNDER_WAY = 100_000
_MOST_SPECIALISTS = 10_000  # callers may bring their own


@dataclass(frozen=True, slots=True)
class Load:
    """``active``: routes under way. ``last_at``: when it got the last one; before all others where it never did."""

    active: int = 0
    last_at: float = float("-inf")
    is_healthy: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """``label`` is what decided. ``passed_over``: who would have answered and is not healthy."""

    specialist: Specialist
    label: Label
    passed_over: tuple[str, ...] = ()


def chosen(labels: Sequence[Label], specialists: Iterable[Specialist], loads: Mapping[str, Load]) -> Choice | None:
    """The specialist for the surest of the most particular labels that a healthy one answers for: the one whose own
    topic is the closest; of these the one with the least to do for its capacity, then who waited longest."""
    able = list(specialists)
    passed_over: list[str] = []
    for label in ends_of(labels):
        covering = [one for one in able if one.cover(label.topic)]
        healthy = [one for one in covering if loads.get(one.id, Load()).is_healthy]
        passed_over += [one.id for one in covering if one not in healthy and one.id not in passed_over]
        if healthy:
            closest = max(one.cover(label.topic) for one in healthy)
            equal = [one for one in healthy if one.cover(label.topic) == closest]
            return Choice(min(equal, key=lambda one: _burden(one, loads)), label, tuple(passed_over))
    return None


def _burden(specialist: Specialist, loads: Mapping[str, Load]) -> tuple[float, float, str]:
    load = loads.get(specialist.id, Load())
    # One more than it has: an idle one of great capacity comes before an idle one of little.
    return (load.active + 1) / specialist.capacity, load.last_at, specialist.id


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A route whose outcome is not known."""

    route_id: str
    specialist_id: str
    user_id: str
    since: float


@dataclass(slots=True)
class _Record:
    active: int = 0
    last_at: float = float("-inf")
    failures: int = 0
    failed_at: float = 0.0
    on_trial: bool = False


class Loads:
    """*now* is in seconds, of a clock that does not go back."""

    def __init__(self, *, failures: int, recover_s: float, timeout_s: float) -> None:
        self._most_failures = failures
        self._recover_s = recover_s
        self._timeout_s = timeout_s
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._under_way: OrderedDict[str, UnderWay] = OrderedDict()

    def now(self, now: float) -> dict[str, Load]:
        """Of every specialist that ever got something."""
        self._let_go(now)
        return {name: Load(one.active, one.last_at, self._is_healthy(one, now)) for name, one in self._records.items()}

    def begin(self, route: UnderWay) -> None:
        record = self._records.setdefault(route.specialist_id, _Record())
        self._records.move_to_end(route.specialist_id)
        record.active += 1
        record.last_at = route.since
        record.on_trial = record.failures >= self._most_failures
        self._under_way[route.route_id] = route
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._end(next(iter(self._under_way.values())))
        if len(self._records) > _MOST_SPECIALISTS:
            idle = (name for name, one in self._records.items() if not one.active)
            self._records.pop(next(idle, ""), None)

    def get(self, route_id: str) -> UnderWay | None:
        return self._under_way.get(route_id)

    def end(self, route_id: str, *, succeeded: bool, now: float) -> UnderWay | None:
        """The route that has ended; None for one that is not under way."""
        route = self._under_way.get(route_id)
        if route is None:
            return None
        self._end(route)
        record = self._records[route.specialist_id]
        record.on_trial = False
        record.failures = 0 if succeeded else record.failures + 1
        if not succeeded:
            record.failed_at = now
        return route

    def _is_healthy(self, record: _Record, now: float) -> bool:
        if record.failures < self._most_failures:
            return True
        return now >= record.failed_at + self._recover_s and not record.on_trial

    def _end(self, route: UnderWay) -> None:
        del self._under_way[route.route_id]
        self._records[route.specialist_id].active -= 1

    def _let_go(self, now: float) -> None:
        """Nobody told their outcome: they count as work no longer, and as a failure neither."""
        while self._under_way:
            oldest = next(iter(self._under_way.values()))
            if oldest.since + self._timeout_s > now:
                return
            self._end(oldest)
            self._records[oldest.specialist_id].on_trial = False
