"""Whatever of a run is killed, and whenever: what stands in the target in the end is what an undisturbed run writes.

Kills of workers and coordinators end no run; after a kill of the driver the same command goes on where it was.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.sample import SampleCounts, write_bulk, write_sample
from migration.state import Control, State
from migration.validate import MigrationValidator
from tests.cluster.conftest import (
    Command,
    CommandLine,
    Process,
    Snapshot,
    differences,
    eventually,
    progress,
    report_of,
    snapshot,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_SLOW_MB_S = 0.25
_FAST_MB_S = 2.0  # without any limit the rest would be done before five kills
_SLOW_KILLS = {"driver": 2, "worker": 7, "coordinator": 6}
_FAST_KILLS = ("worker", "coordinator", "driver", "worker", "coordinator")
_SEED = 20


@dataclass
class Siege:
    """One migration, started again and again, and what is killed of it."""

    modchat: CommandLine
    source: Path
    target: Path
    rng: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    run: Command | None = None

    def throttle(self, megabytes_per_s: float | None) -> None:
        State(os.fspath(self.target)).set_control(Control(throttle_mb_s=megabytes_per_s))

    def at_work(self) -> Command:
        """The run under way, a new one when there is none, once it has shown that it is."""
        if self.run is None or self.run.ended:
            assert self.run is None or self.run.process.returncode == -signal.SIGKILL, self.run.stderr
            self.run = start(self.modchat, self.source, self.target)
        run = self.run
        noted = progress(self.target)
        since = max(run.started, noted["at"] if noted else 0.0)
        eventually(lambda: run.ended or progress(self.target, since), "the run is up and goes on")
        assert not run.ended, f"the run ended under the kills {dict(self.killed)}: {run.stderr}"
        return run

    def kill(self, what: str) -> None:
        run = self.at_work()
        if what == "driver":
            time.sleep(self.rng.uniform(0, 1.5))
            assert not run.ended, run.stderr
            run.kill()
        else:
            time.sleep(self.rng.uniform(0, 0.4))
            kill_one(run, _PREFERRED[what], self.rng)
        self.killed[what] += 1


def one_at_a_task(processes: Iterable[Process]) -> list[Process]:
    return [process for process in processes if process.is_at_a_task]


def a_coordinator(processes: Iterable[Process]) -> list[Process]:
    return [process for process in processes if process.is_coordinator]


_PREFERRED: dict[str, Callable[[Iterable[Process]], list[Process]]] = {
    "worker": one_at_a_task,
    "coordinator": a_coordinator,
}


def kill_one(run: Command, choose: Callable[[Iterable[Process]], list[Process]], rng: random.Random) -> Process:
    """SIGKILL for one process of a run, as soon as there is one such."""

    def found() -> list[Process]:
        assert not run.ended, run.stderr
        return choose(run.processes())

    chosen: Process = rng.choice(eventually(found, "there is a process to kill"))
    os.kill(chosen.pid, signal.SIGKILL)
    return chosen


def start(modchat: CommandLine, source: Path, target: Path) -> Command:
    arguments = ("--from", source, "--to", target, "--execute", "--workers", 2, "--shards", 2, "--json")
    return modchat.start("migrate", "run", *arguments)


def undisturbed(source: Path, target: Path) -> Snapshot:
    """The tree that a run in one process writes."""
    Engine(RunSettings(os.fspath(source), os.fspath(target)), LocalBackend()).run()
    return snapshot(target)


def new_coordinators_at_work(target: Path) -> int:
    """How many journals were written by coordinators that took the place of a dead one (the last number of a name)."""
    return sum(path.stem.split("-")[-1] != "000" for path in (target / ".migration/ledger").glob("*.journal"))


def temporary_files(target: Path) -> list[str]:
    return [path for path in snapshot(target) if Path(path).name.startswith(".tmp-")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleCounts]:
    path = tmp_path_factory.mktemp("sample") / "v2"
    return path, write_sample(path, users=400, sessions=10, messages=10)


@pytest.mark.timeout(600)
def test_twenty_kills_leave_the_tree_of_an_undisturbed_run(
    store: tuple[Path, SampleCounts], modchat: CommandLine, tmp_path: Path
) -> None:
    source, counts = store
    target = tmp_path / "new"
    State(os.fspath(target)).make()
    rng = random.Random(_SEED)
    siege = Siege(modchat, source, target, rng)

    slow = [what for what, times in _SLOW_KILLS.items() for _ in range(times)]
    rng.shuffle(slow)
    siege.throttle(_SLOW_MB_S)
    for what in slow:
        siege.kill(what)
    siege.at_work()
    siege.throttle(_FAST_MB_S)
    for what in _FAST_KILLS:
        siege.kill(what)
    assert siege.killed == {"driver": 3, "worker": 9, "coordinator": 8}

    if siege.run is None or siege.run.ended:
        siege.run = start(modchat, source, target)
    assert siege.run.wait() == 0, siege.run.stderr

    assert differences(snapshot(target), undisturbed(source, tmp_path / "undisturbed")) == []
    assert temporary_files(target) == []
    assert MigrationValidator(source, target).validate_all() == (True, [], [])
    report = report_of(siege.run)
    for figure in ("sessions", "messages", "archived_messages", "panel_messages", "salvaged", "quarantined"):
        assert report[figure] == getattr(counts, figure), figure
    assert report["migrated_files"] + report["attic"] + report["ignored"] + report["unread"] == counts.source_files
    assert "unbalanced" not in report["issues"]
    assert report["run"] == 1 + siege.killed["driver"], "no run was begun but after a kill of the driver"
    assert report["resumed"] > 0
    assert new_coordinators_at_work(target) > 0
    eventually(lambda: not modchat.at_work(), "nothing that was started is left at work")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_bulk(tmp_path / "v2", users=30, sessions=4, messages=4)
    return tmp_path / "v2"


def test_a_run_waits_for_what_an_earlier_one_still_writes(modchat: CommandLine, small: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    state = State(os.fspath(target))
    state.make()
    task_of_earlier_run = os.open(state.fence(1), os.O_RDONLY)
    try:
        fcntl.flock(task_of_earlier_run, fcntl.LOCK_SH)
        run = start(modchat, small, target)
        eventually(state.is_active, "the run is up")
        time.sleep(1.5)
        assert not run.ended
        assert snapshot(target) == {}
        assert state.read("run.json") is None
    finally:
        os.close(task_of_earlier_run)
    let_go = time.monotonic()
    assert run.wait() == 0, run.stderr
    assert time.monotonic() - let_go < 15
    assert report_of(run)["sessions"] == 120


def test_after_a_killed_driver_its_ray_ends_and_the_next_run_starts_at_once(
    modchat: CommandLine, small: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new"
    state = State(os.fspath(target))
    state.make()
    state.set_control(Control(throttle_mb_s=0.05))
    first = start(modchat, small, target)
    eventually(lambda: (progress(target) or {}).get("sessions"), "the first run migrates")
    first.kill()
    assert not state.is_active(), "the lock went with the driver"
    state.set_control(Control())
    second = start(modchat, small, target)
    assert second.wait() == 0, second.stderr
    report = report_of(second)
    assert 0 < report["resumed"] < report["sessions"] == 120
    eventually(lambda: not modchat.at_work(), "the Ray of both has ended")
    assert differences(snapshot(target), undisturbed(small, tmp_path / "undisturbed")) == []
