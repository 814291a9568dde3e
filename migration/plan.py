"""What a run would do with a source, what stands in its way, and what an operator should know before it.

A plan is also the preflight: the checklist of a migration (back-up, configuration, integrations, breaking changes,
test environment, way back), answered with facts about this store and this machine. It writes nothing anywhere.
Files are sorted by the rules of the run (`migration.look`), so a count that both give is the same in both, unless the
source changes in between.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from migration import plan_text
from migration.dependency_check import check_dependencies
from migration.fanout import FanOut, LocalFanOut
from migration.findings import FINDINGS
from migration.issues import Severity
from migration.job import RunSettings
from migration.look_source import SourceLook
from migration.preflight import Space, Surroundings, refusals, space_at, surroundings, writability_problem
from migration.report import NOT_ON_DISK
from migration.state import State
from migration.survey import Survey
from migration.unit import printable

SESSIONS_PER_S = 8000.0  # of one worker, measured on one core with sessions of a few messages on a local disk
_SLOWEST = 4.0  # how much longer a run may take than at that rate: long sessions, many small files, slow disks


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run takes, at best and when things are slow; a guess from one rate, not a measurement here."""

    workers: int
    sessions_per_s: float
    low_s: float
    high_s: float

    @classmethod
    def of(cls, sessions: int, sessions_per_s: float, workers: int) -> Estimate:
        low = sessions / (sessions_per_s * workers)
        return cls(workers, sessions_per_s, low, low * _SLOWEST)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found. `survey` holds the sums over the source; `refusals` is why a run would not begin."""

    source: str
    target: str
    survey: Survey
    refusals: tuple[str, ...]
    missing_dependencies: tuple[str, ...]
    space: Space
    unwritable: str | None
    resumes: bool
    surroundings: Surroundings
    estimate: Estimate
    elapsed_s: float

    @property
    def needs_attention(self) -> list[str]:
        """What a person should look at before a run, a sentence each."""
        found = [f"{name} is missing or too old" for name in self.missing_dependencies]
        if not self.space.is_enough and not self.resumes:
            found.append(f"{self.space.at}: not enough free space or inodes")
        if self.unwritable is not None:
            found.append(self.unwritable)
        for kind, (severity, title, meaning) in FINDINGS.items():
            if severity is Severity.ATTENTION and kind in self.survey.findings:
                found.append(f"{title} ({self.survey.findings[kind].count}): {meaning}")
        return found

    @property
    def exit_code(self) -> int:
        """0: nothing stands in the way; 1: a person should look at something; 4: a run would refuse."""
        return 4 if self.refusals else int(bool(self.needs_attention))

    def to_json(self) -> dict[str, Any]:
        """The object that ``modchat migrate plan --json`` prints. Counts that a run gives too have the run's names."""
        survey = self.survey
        found = {kind: survey.findings[kind] for kind in FINDINGS if kind in survey.findings}
        return {
            "source": printable(self.source),
            "target": printable(self.target),
            **survey.figures(),
            "largest_user": survey.largest_user._asdict(),
            "largest_session": survey.largest_session._asdict(),
            "generations": dict(sorted(survey.generations.items())),
            "layouts": dict(sorted(survey.layouts.items())),
            "findings": {kind: finding.count for kind, finding in found.items()},
            "examples": {kind: [list(issue[1:]) for issue in finding.examples] for kind, finding in found.items()},
            "missing_dependencies": list(self.missing_dependencies),
            "space": {**asdict(self.space), "is_enough": self.space.is_enough},
            "unwritable": self.unwritable,
            "resumes": self.resumes,
            "surroundings": asdict(self.surroundings),
            "checklist": plan_text.checklist(self),
            "not_on_disk": NOT_ON_DISK,
            "estimate": asdict(self.estimate),
            "elapsed_s": round(self.elapsed_s, 6),
            "refusals": list(self.refusals),
            "needs_attention": self.needs_attention,
            "exit_code": self.exit_code,
        }

    def text(self) -> str:
        """The plan for a person."""
        return plan_text.text(self)


def make_plan(
    settings: RunSettings,
    *,
    fan_out: FanOut | None = None,
    sessions_per_s: float = SESSIONS_PER_S,
    workers: int = 1,
    now_ns: int | None = None,
) -> Plan:
    """Looks at source and target and says what a run would do. Writes nothing.

    *fan_out* spreads the reading (without it, this process reads); *sessions_per_s* and *workers* are for the
    estimate of time. Raises `SourceError` when there is no source, ValueError when a rate is not positive.
    """
    if sessions_per_s <= 0 or workers < 1:
        raise ValueError(f"an estimate needs a positive rate and a worker, not {sessions_per_s} and {workers}")
    started = time.perf_counter()
    refused = refusals(settings)
    survey = SourceLook(settings, fan_out or LocalFanOut(), time.time_ns() if now_ns is None else now_ns).survey()
    return Plan(
        source=settings.source,
        target=settings.target,
        survey=survey,
        refusals=tuple(refused),
        missing_dependencies=tuple(check_dependencies()),
        space=space_at(settings.target, survey),
        unwritable=writability_problem(settings.target),
        resumes=State(settings.target).exists(),
        surroundings=surroundings(settings),
        estimate=Estimate.of(survey.counts["sessions"], sessions_per_s, workers),
        elapsed_s=time.perf_counter() - started,
    )
