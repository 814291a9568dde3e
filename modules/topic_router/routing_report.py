"""How well routing goes: figures from the log of routes. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from modules.core.clock import moment_of
from modules.core.errors import ValidationError

from .route import FALLBACK, MATCHED, NO_MATCH

_PERIOD = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_S = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class TopicShare:
    """``mean_score`` of the routes of this topic. ``right`` of those of which it was told whether they were right."""

    topic: str
    routes: int
    mean_score: float
    judged: int
    right: int


@dataclass(frozen=True, slots=True)
class SpecialistShare:
    """``ended`` routes are those whose outcome was told; ``failed`` of these. Latencies are of these too, in
    seconds, None where none was told."""

    specialist_id: str
    routes: int
    ended: int
    failed: int
    mean_latency_s: float | None
    p95_latency_s: float | None


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """``balance``: Jain's index of fairness over the specialists' routes, 1 where all got as many. ``took_ms``: what
    classifying and choosing took, median and 95th percentile; None without routes."""

    start: str
    end: str
    routes: int
    matched: int
    fallback: int
    no_match: int
    carried: int
    judged: int
    right: int
    mean_score: float
    balance: float | None
    median_took_ms: float | None
    p95_took_ms: float | None
    topics: tuple[TopicShare, ...]
    specialists: tuple[SpecialistShare, ...]

    @property
    def share_matched(self) -> float:
        return self.matched / self.routes if self.routes else 0.0

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["topics"] = [asdict(one) for one in self.topics]
        values["specialists"] = [asdict(one) for one in self.specialists]
        return {**values, "share_matched": self.share_matched}


def period_of(time_period: object, now: datetime) -> tuple[datetime, datetime]:
    """Start and end of a period: seconds or ``"24h"`` (s, m, h, d, w) back from *now*, or two moments (ISO 8601).

    Raises ValidationError.
    """
    seconds: float | None = None
    if isinstance(time_period, int | float) and not isinstance(time_period, bool):
        seconds = float(time_period)
    elif isinstance(time_period, str) and (match := _PERIOD.fullmatch(time_period.strip())):
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(time_period, list | tuple) and len(time_period) == 2:
        start, end = (moment_of(one) if isinstance(one, str) else None for one in time_period)
        if start is not None and end is not None and start < end:
            return start, end
    if seconds is None or not 0 < seconds <= _LONGEST_S:
        raise ValidationError(
            "time_period must be seconds, a text such as '24h' or '7d', or two moments, the earlier first",
            param="time_period",
        )
    # What is logged in this very moment belongs to the period.
    return now - timedelta(seconds=seconds), now + timedelta(microseconds=1)


def report_of(records: Iterable[Mapping[str, Any]], start: datetime, end: datetime) -> RoutingReport:
    """*records* as the log has them: routes, their outcomes, and verdicts on them. An outcome whose route
    lies before the period is counted with its specialist, not with a topic."""
    routes: dict[str, Mapping[str, Any]] = {}
    outcomes: list[Mapping[str, Any]] = []
    verdicts: dict[str, bool] = {}
    for record in records:
        if record.get("kind") == "route":
            routes[str(record.get("route_id"))] = record
        elif record.get("kind") == "outcome":
            outcomes.append(record)
        elif record.get("kind") == "verdict" and isinstance(record.get("was_right"), bool):
            verdicts[str(record.get("route_id"))] = record["was_right"]
    kinds = Counter(one.get("outcome") for one in routes.values())
    took = [float(one["took_ms"]) for one in routes.values() if isinstance(one.get("took_ms"), int | float)]
    specialists = _specialists(routes.values(), outcomes)
    return RoutingReport(
        start=start.isoformat(),
        end=end.isoformat(),
        routes=len(routes),
        matched=kinds[MATCHED],
        fallback=kinds[FALLBACK],
        no_match=kinds[NO_MATCH],
        carried=sum(one.get("is_carried") is True for one in routes.values()),
        judged=len(verdicts.keys() & routes.keys()),
        right=sum(verdicts[one] for one in verdicts.keys() & routes.keys()),
        mean_score=round(_mean([_score(one) for one in routes.values()]), 4),
        balance=fairness([one.routes for one in specialists]),
        median_took_ms=percentile(took, 50),
        p95_took_ms=percentile(took, 95),
        topics=_topics(routes, verdicts),
        specialists=specialists,
    )


def fairness(counts: Sequence[int]) -> float | None:
    """Jain, Chiu and Hawe, 1984: 1 for equal shares, 1/n when one of n has all. None where nothing is shared."""
    squares = sum(count * count for count in counts)
    return round(sum(counts) ** 2 / (len(counts) * squares), 4) if squares else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, math.ceil(share / 100 * len(ranked)) - 1))]


def _topics(routes: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, bool]) -> tuple[TopicShare, ...]:
    of_topic: defaultdict[str, list[str]] = defaultdict(list)
    for route_id, route in routes.items():
        if isinstance(route.get("topic"), str):
            of_topic[route["topic"]].append(route_id)
    shares = []
    for topic, ids in of_topic.items():
        judged = [verdicts[one] for one in ids if one in verdicts]
        score = round(_mean([_score(routes[one]) for one in ids]), 4)
        shares.append(TopicShare(topic, len(ids), score, len(judged), sum(judged)))
    return tuple(sorted(shares, key=lambda one: (-one.routes, one.topic)))


def _specialists(
    routes: Iterable[Mapping[str, Any]], outcomes: Iterable[Mapping[str, Any]]
) -> tuple[SpecialistShare, ...]:
    given = Counter(one["specialist_id"] for one in routes if isinstance(one.get("specialist_id"), str))
    ended: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        if isinstance(outcome.get("specialist_id"), str) and isinstance(outcome.get("succeeded"), bool):
            ended[outcome["specialist_id"]].append(outcome)
    shares = []
    for name in given.keys() | ended.keys():
        latencies = [float(one["latency_s"]) for one in ended[name] if isinstance(one.get("latency_s"), int | float)]
        shares.append(
            SpecialistShare(
                specialist_id=name,
                routes=given[name],
                ended=len(ended[name]),
                failed=sum(not one["succeeded"] for one in ended[name]),
                mean_latency_s=round(_mean(latencies), 4) if latencies else None,
                p95_latency_s=percentile(latencies, 95),
            )
        )
    return tuple(sorted(shares, key=lambda one: (-one.routes, one.specialist_id)))


def _score(route: Mapping[str, Any]) -> float:
    score = route.get("score")
    return float(score) if isinstance(score, int | float) else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
