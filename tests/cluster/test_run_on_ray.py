"""A run on Ray gives the tree of a run in one process, however it is cut and wherever it was interrupted."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.ledger import Entry, entries
from migration.progress import Progress
from migration.report import RunReport
from migration.run import RayCluster, default_shards, migrate, share_tasks
from migration.sample import SampleCounts, write_bulk, write_sample
from migration.state import Control, State
from tests.cluster.conftest import ROOT, Snapshot, differences, snapshot, stamps

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]

_OF_ONE_RUN = ("target", "run", "elapsed_s", "tasks", "work_s", "workers", "shards", "notices")


class Interrupted(Exception):
    """Stands for whatever ends a run in the middle."""


def settings_of(source: Path, target: Path) -> RunSettings:
    return RunSettings(os.fspath(source), os.fspath(target))


def figures(report: RunReport) -> dict[str, Any]:
    """What a report says of the store, without what differs from run to run."""
    return {key: value for key, value in report.to_json().items() if key not in _OF_ONE_RUN}


def ledger_of(target: Path) -> list[Entry]:
    return list(entries(State(os.fspath(target)).ledger))


def interrupt_after_sessions(seen: list[int]) -> Callable[[Progress], None]:
    def receive(progress: Progress) -> None:
        seen.append(progress.sessions)
        if progress.sessions:
            raise Interrupted

    return receive


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "v2"
    write_sample(path, users=12)
    return path


@pytest.fixture(scope="module")
def in_one_process(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunReport, Snapshot]:
    target = tmp_path_factory.mktemp("local") / "new"
    return Engine(settings_of(source, target), LocalBackend()).run(), snapshot(target)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_run_on_ray_gives_the_tree_and_the_figures_of_one_in_this_process(
    shards: int, source: Path, in_one_process: tuple[RunReport, Snapshot], tmp_path: Path
) -> None:
    expected, tree = in_one_process
    report = migrate(settings_of(source, tmp_path / "new"), workers=2, shards=shards)
    assert differences(snapshot(tmp_path / "new"), tree) == []
    assert figures(report) == figures(expected)
    assert (report.workers, report.shards) == (2, shards)


def test_more_shards_than_users_leave_some_without_work_and_nothing_undone(tmp_path: Path) -> None:
    counts = write_bulk(tmp_path / "v2", users=2, sessions=3, messages=4)
    settings = settings_of(tmp_path / "v2", tmp_path / "new")
    report = migrate(settings, workers=2, shards=9)
    assert (report.users, report.counts["sessions"], report.counts["messages"]) == (2, 6, counts.messages)
    Engine(settings_of(tmp_path / "v2", tmp_path / "local"), LocalBackend()).run()
    assert differences(snapshot(tmp_path / "new"), snapshot(tmp_path / "local")) == []


def test_a_second_run_writes_nothing_anew(source: Path, tmp_path: Path) -> None:
    settings = settings_of(source, tmp_path / "new")
    first = migrate(settings, workers=2, shards=2)
    before = stamps(tmp_path / "new")
    tasks_of_first = len(ledger_of(tmp_path / "new"))
    again = migrate(settings, workers=2, shards=5)
    assert stamps(tmp_path / "new") == before
    assert again.resumed == again.counts["sessions"] == first.counts["sessions"] > 0
    assert first.resumed == 0
    assert len(ledger_of(tmp_path / "new")) == tasks_of_first
    assert figures(again) | {"resumed": 0} == figures(first)


def test_an_interrupted_run_is_gone_on_with_by_other_shards(
    source: Path, in_one_process: tuple[RunReport, Snapshot], tmp_path: Path
) -> None:
    settings = settings_of(source, tmp_path / "new")
    state = State(settings.target)
    state.make()
    state.set_control(Control(throttle_mb_s=0.1))
    seen: list[int] = []
    with pytest.raises(Interrupted):
        migrate(settings, workers=2, shards=2, on_progress=interrupt_after_sessions(seen))
    noted = state.read("run.json")
    assert noted is not None
    assert noted["outcome"] == "interrupted"
    assert not state.is_active()

    state.set_control(Control())
    report = migrate(settings, workers=2, shards=3)

    expected, tree = in_one_process
    assert 0 < seen[-1] <= report.resumed < report.counts["sessions"]
    assert differences(snapshot(tmp_path / "new"), tree) == []
    assert figures(report) | {"resumed": 0} == figures(expected)


@pytest.mark.slow
def test_a_user_of_thousands_of_sessions_is_cut_into_ranges_and_each_session_done_once(tmp_path: Path) -> None:
    counts = write_bulk(tmp_path / "v2", users=1, sessions=3000, messages=3)
    for messages in (tmp_path / "v2").glob("users/*/*/messages.jsonl"):
        messages.with_name("situational_context.json").write_text('{"mood": "calm"}')  # not the short way of plain ones
    report = migrate(settings_of(tmp_path / "v2", tmp_path / "new"), workers=2, shards=2)
    of_user = [entry for entry in ledger_of(tmp_path / "new") if entry.span.kind == "user"]
    done = Counter(unit.name for entry in of_user for unit in entry.units)
    assert len({(entry.span.low, entry.span.high) for entry in of_user}) > 2
    assert set(done.values()) == {1}
    assert (report.users, report.counts["sessions"], report.counts["messages"]) == (1, 3000, counts.messages)
    assert report.counts["contexts"] == 3000
    assert sum(1 for _ in (tmp_path / "new/text_chat/sessions").glob("*/*/metadata.json")) == 3000


def test_halves_of_sessions_and_vector_sets_are_done_in_later_phases_on_ray(
    source: Path, in_one_process: tuple[RunReport, Snapshot], tmp_path: Path
) -> None:
    migrate(settings_of(source, tmp_path / "new"), workers=2, shards=2)
    kinds = {(entry.phase, entry.span.kind) for entry in ledger_of(tmp_path / "new")}
    assert {phase for phase, _ in kinds} == {1, 3, 4}
    assert (4, "vectors") in kinds
    vectors = {path for path in in_one_process[1] if path.endswith("vectors.npy")}
    assert len(vectors) == in_one_process[0].counts["vector_sets"] > 0
    assert vectors <= snapshot(tmp_path / "new").keys()


def test_the_figures_are_those_of_the_store(tmp_path: Path) -> None:
    counts: SampleCounts = write_sample(tmp_path / "v2", users=3)
    report = migrate(settings_of(tmp_path / "v2", tmp_path / "new"), workers=2).to_json()
    for figure in ("sessions", "messages", "archived_messages", "panel_messages", "salvaged", "quarantined"):
        assert report[figure] == getattr(counts, figure), figure
    ended = report["messages"] + report["archived_messages"] + report["panel_messages"]
    assert report["lines"] == ended + report["quarantined"] + report["blank"]
    assert report["migrated_files"] + report["attic"] + report["ignored"] + report["unread"] == counts.source_files


def test_a_task_and_an_actor_have_the_packages_of_this_project(cluster: RayCluster) -> None:
    packages = ("config", "modules", "actors", "migration", "serve")

    def places() -> list[str | None]:
        return [import_module(package).__file__ for package in packages]

    class Place:
        def of_packages(self) -> list[str | None]:
            return places()

    in_task = ray.get(ray.remote(num_cpus=1)(places).remote())
    in_actor = ray.get(ray.remote(num_cpus=0)(Place).remote().of_packages.remote())
    assert in_task == in_actor == [str(ROOT / package / "__init__.py") for package in packages]
    assert cluster.worker_count() == 2


def test_nothing_is_written_to_the_source(source: Path, tmp_path: Path) -> None:
    before = stamps(source)
    migrate(settings_of(source, tmp_path / "new"), workers=2, shards=2)
    assert stamps(source) == before


def test_progress_arrives_while_the_run_is_under_way(source: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = migrate(settings_of(source, tmp_path / "new"), workers=2, on_progress=seen.append)
    assert [one.phase for one in seen if not one.in_flight][-1] == "vectors"
    first = [one for one in seen if one.phase == "migrate"][-1]
    assert (first.users, first.workers) == (report.users, 2)
    noted = State(os.fspath(tmp_path / "new")).read("status.json")
    assert noted is not None
    assert noted["at"] <= time.time()
    assert noted["phase"] == "vectors"


@pytest.mark.parametrize(
    ("workers", "open_shards", "spare", "shares"),
    [
        (2, [True, True], 0, [1, 1]),
        (5, [True, False, True], 0, [3, 0, 2]),
        (1, [True, True], 0, [1, 0]),
        (1, [False, True], 1, [0, 2]),
        (0, [True, True], 1, [0, 0]),
        (4, [False, False], 1, [0, 0]),
    ],
)
def test_workers_are_shared_evenly_over_the_shards_still_open(
    workers: int, open_shards: list[bool], spare: int, shares: list[int]
) -> None:
    assert share_tasks(workers, open_shards, spare) == shares


@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (2, 1), (8, 2), (64, 16), (1000, 16)])
def test_one_coordinator_serves_four_workers(workers: int, shards: int) -> None:
    assert default_shards(workers) == shards
