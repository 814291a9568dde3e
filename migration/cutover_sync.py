"""The heavy work of a cut-over, done here or on Ray: carrying over, comparing, writing v2 back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Protocol

from migration.engine import Engine, LocalBackend, OnProgress, ignore_progress
from migration.fanout import FanOut, LocalFanOut, ProcessFanOut
from migration.guards import ChangeLimits, names_of
from migration.job import RunSettings
from migration.report import RunReport
from migration.reverse import ReverseReport, reverse
from migration.state import State
from migration.validate import MigrationValidator
from migration.verify.report import Report


class Syncer(Protocol):
    def sync(self, settings: RunSettings, limits: ChangeLimits, *, final: bool) -> RunReport:
        """One run of the migration (`engine.Engine`). Raises as that does."""
        ...

    def validate(self, settings: RunSettings, sample: float | None) -> Report: ...

    def reverse(self, source: str, target: str) -> ReverseReport: ...

    def close(self) -> None: ...


class LocalSyncer:
    """In this process and, for comparing and writing back, *workers* processes of this machine (1: this one)."""

    def __init__(self, workers: int | None = None, on_progress: OnProgress = ignore_progress) -> None:
        count = workers or os.cpu_count() or 1
        self._fan_out: FanOut = ProcessFanOut(count) if count > 1 else LocalFanOut()
        self._on_progress = on_progress

    def sync(self, settings: RunSettings, limits: ChangeLimits, *, final: bool) -> RunReport:
        return Engine(settings, LocalBackend(), self._on_progress, limits, final).run()

    def validate(self, settings: RunSettings, sample: float | None) -> Report:
        return validated(settings, sample, self._fan_out)

    def reverse(self, source: str, target: str) -> ReverseReport:
        return reverse(source, target, fan_out=self._fan_out)

    def close(self) -> None:
        """Nothing stays open."""


class RaySyncer:
    """On Ray: a cluster of its own, or the one at *address*. It is up from the first piece of work to `close`, so that
    the time between fence and switch pays for no start."""

    def __init__(self, workers: int | None, address: str | None, on_progress: OnProgress = ignore_progress) -> None:
        self._workers, self._address, self._on_progress = workers, address, on_progress
        self._stack = ExitStack()
        self._fan_out: FanOut | None = None

    def sync(self, settings: RunSettings, limits: ChangeLimits, *, final: bool) -> RunReport:
        from migration.run import migrate

        self._cluster()
        return migrate(
            settings,
            workers=self._workers,
            address=self._address,
            on_progress=self._on_progress,
            limits=limits,
            final=final,
        )

    def validate(self, settings: RunSettings, sample: float | None) -> Report:
        return validated(settings, sample, self._cluster())

    def reverse(self, source: str, target: str) -> ReverseReport:
        return reverse(source, target, fan_out=self._cluster())

    def close(self) -> None:
        self._stack.close()

    def _cluster(self) -> FanOut:
        from migration.run import cluster_fan_out

        if self._fan_out is None:
            self._fan_out = self._stack.enter_context(cluster_fan_out(self._address, self._workers))
        return self._fan_out


def validated(settings: RunSettings, sample: float | None, fan_out: FanOut) -> Report:
    """Compares both sides with the names that the target was made with."""
    return MigrationValidator(
        settings.source,
        settings.target,
        names=names_of(State(settings.target)) or settings.names,
        extra_roots=settings.extra_roots,
        source_timezone=settings.source_timezone,
        sample=sample,
        fan_out=fan_out,
    ).report()
