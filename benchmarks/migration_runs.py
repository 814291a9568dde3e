"""What the benchmark of the migration runs, each on the same store, and what it makes of the times.

A run that did not do its whole work has no time: each one is checked by its own account before its figure counts.
Trees are removed before a run and outside its time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bulk_store import BulkStore
from benchmarks.machine import peak_rss
from benchmarks.scratch import remove
from benchmarks.side_by_side import Contestant, Timings, median_of_ratios, ratio_of_medians
from benchmarks.tables import Table
from migration.engine import Backend, Engine
from migration.fanout import FanOut
from migration.job import RunSettings
from migration.report import RunReport
from migration.validate import MigrationValidator

COPY, GUIDE, MIGRATE, AGAIN, VALIDATE = "cp -a", "guide's mapper", "migration", "migration again", "validation"

_ROOT = Path(__file__).resolve().parent.parent


class BenchmarkError(Exception):
    """Something that was to be timed did not do its work, or cannot be done here; there is no figure."""


def run_module(module: str, *arguments: str) -> dict[str, Any]:
    """Runs a module in a process of its own; the JSON object that it prints. Raises `BenchmarkError`."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{module} ended with {done.returncode}")
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@dataclass(slots=True)
class Peaks:
    """Peak memory in bytes. A process's peak never sinks, so the driver's is taken the first time both migrations are
    done, before any validation of this store."""

    coordinators: int = 0
    driver: int = 0
    driver_validating: int = 0


@dataclass(slots=True)
class MigrationRuns:
    """The five runs on one store. *scratch* is where their trees go, *backend* and *fan_out* do the work, and
    *coordinator_peak* tells the highest peak of memory among the coordinators, in bytes."""

    store: BulkStore
    scratch: str
    backend: Backend
    fan_out: FanOut
    coordinator_peak: Callable[[], int]
    peaks: Peaks = field(default_factory=Peaks)

    def contestants(self) -> tuple[Contestant, ...]:
        """In the order in which they must run: each of the last two needs the one before it."""
        store = self.store
        return (
            Contestant(COPY, self._copy, store.sessions, store.bytes),
            Contestant(GUIDE, self._guide, store.guide_sessions, store.guide_bytes),
            Contestant(MIGRATE, self._migrate, store.sessions, store.bytes),
            Contestant(AGAIN, self._migrate_again, store.sessions, 0),
            Contestant(VALIDATE, self._validate, store.sessions, store.bytes),
        )

    @property
    def _settings(self) -> RunSettings:
        return RunSettings(self.store.path, f"{self.scratch}/new")

    def _copy(self) -> float:
        remove(self._settings.target)
        to = f"{self.scratch}/copy"
        started = time.perf_counter()
        done = subprocess.run(["cp", "-a", self.store.path, to], check=False)
        seconds = time.perf_counter() - started
        remove(to)
        if done.returncode != 0:
            raise BenchmarkError(f"cp ended with {done.returncode}")
        return seconds

    def _guide(self) -> float:
        to = f"{self.scratch}/guide"
        done = run_module("benchmarks.guide_mapper", self.store.path, to)
        remove(to)
        _expect(GUIDE, "sessions", done["sessions"], self.store.guide_sessions)
        return float(done["seconds"])

    def _migrate(self) -> float:
        remove(self._settings.target)
        report = self._run()
        _expect(MIGRATE, "sessions migrated before", report.resumed, 0)
        return report.elapsed_s

    def _migrate_again(self) -> float:
        report = self._run()
        _expect(AGAIN, "sessions migrated before", report.resumed, self.store.sessions)
        if not self.peaks.driver:
            self.peaks.driver = peak_rss()
        return report.elapsed_s

    def _validate(self) -> float:
        settings = self._settings
        started = time.perf_counter()
        report = MigrationValidator(settings.source, settings.target, fan_out=self.fan_out).report()
        seconds = time.perf_counter() - started
        if not report.equal:
            raise BenchmarkError(f"the migrated tree is not equal to its source:\n{report.to_text()}")
        _expect(VALIDATE, "sessions compared", sum(report.counts.get("session", {}).values()), self.store.sessions)
        self.peaks.coordinators = self.coordinator_peak()
        self.peaks.driver_validating = peak_rss()
        return seconds

    def _run(self) -> RunReport:
        report = Engine(self._settings, self.backend).run()
        _expect("a migration", "sessions", report.counts["sessions"], self.store.sessions)
        _expect("a migration", "messages", report.counts["messages"], self.store.messages)
        _expect("a migration", "findings", sum(report.issues.values()), 0)
        return report


def _expect(who: str, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise BenchmarkError(f"{who}: {what}: {found:,}, expected {expected:,}")


# ---- the figures, from the times


def times_table(contestants: Sequence[Contestant], timings: Mapping[str, Timings]) -> Table:
    """A row for each contestant."""
    rows = []
    for contestant in contestants:
        times = timings[contestant.name]
        rate = contestant.sessions / times.median
        megabytes = contestant.bytes / 1e6 / times.median if contestant.bytes else None
        rows.append(
            (contestant.name, contestant.sessions, times.median, times.shortest, times.longest, rate, megabytes)
        )
    sessions = max(contestant.sessions for contestant in contestants)
    rounds = len(next(iter(timings.values())).seconds)
    return Table(
        "times",
        f"Times for {sessions:,} sessions (rounds: {rounds})",
        ("run", "sessions", "median s", "min s", "max s", "sessions/s", "MB/s"),
        tuple(rows),
    )


RATIOS = ((MIGRATE, COPY), (GUIDE, MIGRATE), (VALIDATE, MIGRATE), (AGAIN, MIGRATE))


def ratios_table(contestants: Sequence[Contestant], timings: Mapping[str, Timings]) -> Table:
    """How the contestants compare: whole runs, and by the session, since the guide's mapper takes only a part."""
    per_session = {one.name: timings[one.name].per(one.sessions) for one in contestants}
    rows = [
        (
            f"{above} / {below}",
            ratio_of_medians(timings[above], timings[below]),
            median_of_ratios(timings[above], timings[below]),
            ratio_of_medians(per_session[above], per_session[below]),
        )
        for above, below in RATIOS
    ]
    sessions = max(contestant.sessions for contestant in contestants)
    return Table(
        "ratios",
        f"Ratios for {sessions:,} sessions",
        ("of", "ratio of the medians", "median of each round's ratio", "ratio of the medians, by the session"),
        tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rounds on one store gave."""

    sessions: int
    contestants: tuple[Contestant, ...]
    timings: Mapping[str, Timings]
    peaks: Peaks
    coordinators: int

    def tables(self) -> tuple[Table, Table]:
        return times_table(self.contestants, self.timings), ratios_table(self.contestants, self.timings)


def growth_tables(small: Outcome, large: Outcome) -> tuple[Table, Table]:
    """What a session costs, and how much memory a run takes, in a small and a large store."""
    sizes = f"{small.sessions:,} sessions (small) and {large.sessions:,} sessions (large)"
    headings = ("small", "large", "large / small")
    costs = []
    for one, other in zip(small.contestants, large.contestants, strict=True):
        here, there = small.timings[one.name].per(one.sessions), large.timings[other.name].per(other.sessions)
        costs.append((one.name, here.median * 1e6, there.median * 1e6, ratio_of_medians(there, here)))
    peaks = (
        (f"coordinator (highest of {small.coordinators})", small.peaks.coordinators, large.peaks.coordinators),
        ("driver, migrating", small.peaks.driver, large.peaks.driver),
        ("driver, also validating", small.peaks.driver_validating, large.peaks.driver_validating),
    )
    return (
        Table("growth", f"Microseconds for each session, medians: {sizes}", ("run", *headings), tuple(costs)),
        Table(
            "memory",
            f"Peak memory in MB: {sizes}",
            ("process", *headings),
            tuple((name, here / 1e6, there / 1e6, there / here) for name, here, there in peaks),
        ),
    )


def directory_of(scratch: str, users: int) -> Path:
    """Where the store of so many users is written."""
    return Path(os.path.join(scratch, f"old-{users}"))
