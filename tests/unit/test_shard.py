"""A shard gives out each item once, takes back what was left or lost, and believes a result when it is durable."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.issues import Issue
from migration.items import shard_of
from migration.job import RunSettings
from migration.ledger import Span, encode_record, entries
from migration.shard import Shard, ShardPlan, Totals, WorkError
from migration.target import TargetError
from migration.unit import COUNTS
from migration.worker import Item, Result, Task
from tests.examples import examples


def plan(folder: Path, items: tuple[Item, ...] | None, shard: int = 0, shards: int = 1, source: str = "") -> ShardPlan:
    (folder / "ledger").mkdir(parents=True, exist_ok=True)
    return ShardPlan(
        settings=RunSettings(source or os.fspath(folder / "v2"), os.fspath(folder / "new")),
        run=1,
        phase=1,
        shard=shard,
        shards=shards,
        ledger=os.fspath(folder / "ledger"),
        journal=os.fspath(folder / f"ledger/000001-1-{shard:04d}-000.journal"),
        fence=os.fspath(folder / "fence"),
        items=items,
    )


def users(count: int) -> tuple[Item, ...]:
    return tuple(Item("user", f"u{number:03d}") for number in range(count))


def result(*, left: list[Item] | None = None, seconds: float = 0.0, records: bytes = b"") -> Result:
    return Result(records=records, left=left or [], seconds=seconds)


def all_tasks(shard: Shard) -> list[Task]:
    tasks = []
    while (task := shard.next_task()) is not None:
        tasks.append(task)
        shard.record([(task, result())])
    return tasks


@pytest.mark.parametrize("count", [0, 1, 4, 5, 700])
def test_every_item_is_given_out_once(tmp_path: Path, count: int) -> None:
    shard = Shard(plan(tmp_path, users(count)))
    given = [item for task in all_tasks(shard) for item in task.items]
    assert given == list(users(count))
    assert shard.exhausted


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_shards_of_a_run_share_the_items_without_gap_or_overlap(tmp_path: Path, shards: int) -> None:
    parts = [Shard(plan(tmp_path, users(100), number, shards)) for number in range(shards)]
    given = [item for shard in parts for task in all_tasks(shard) for item in task.items]
    assert sorted(item.name for item in given) == [item.name for item in users(100)]


def test_the_children_of_a_user_stay_in_one_shard_whatever_their_range() -> None:
    ranges = [Item("user", "ada"), Item("user", "ada", "a", "b"), Item("split", "ada", extra=("child", {}))]
    assert len({shard_of(item, 1000) for item in ranges}) == 1


class Lot:
    """What a task of the test ends with."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw

    def __call__(self, shard: Shard, task: Task, done: list[Item]) -> None:
        kind = self._draw(st.sampled_from(["all", "all", "some", "ranges", "died"]))
        if kind == "died":
            if task.attempts < 6:
                shard.failed(task, "the worker died")
                return
            kind = "all"
        count = self._draw(st.integers(1, len(task.items))) if kind == "some" else len(task.items)
        left = list(task.items[count:])
        finished = list(task.items[:count])
        if kind == "ranges" and finished[-1].high is None:
            last = finished.pop()
            low = last.low or ""
            finished.append(Item("user", last.name, last.low, low + "m"))
            left += [Item("user", last.name, low + "m", low + "p"), Item("user", last.name, low + "p", low + "pz")]
        done += finished
        shard.record([(task, result(left=left, seconds=self._draw(st.sampled_from([0.0, 0.05, 3.0]))))])


@given(st.data(), st.integers(0, 12))
@settings(max_examples=examples(150), deadline=None)
def test_what_is_left_or_lost_is_done_in_the_end_and_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int
) -> None:
    shard = Shard(plan(tmp_path_factory.mktemp("shard"), users(count)))
    lot = Lot(data)
    done: list[Item] = []
    rounds = 0
    while (task := shard.next_task()) is not None:
        lot(shard, task, done)
        rounds += 1
        assert rounds < 2000
    assert shard.exhausted
    spans = [(item.name, item.low, item.high) for item in done]
    assert len(set(spans)) == len(spans)
    assert {item.name for item in done} == {item.name for item in users(count)}
    for item in done:  # of each range that was begun, the next one was done too
        if item.high is not None and item.high.endswith("m"):
            assert any(other.name == item.name and other.low == item.high for other in done)


def test_what_came_back_goes_first_ranges_one_by_one(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, users(10)))
    task = shard.next_task()
    assert task is not None
    ranges = [Item("user", "u000", "a", "b"), Item("user", "u000", "b", None)]
    shard.record([(task, result(left=[*ranges, *task.items[1:]]))])
    again = [shard.next_task() for _ in range(3)]
    assert [list(task.items) for task in again if task] == [[ranges[0]], [ranges[1]], list(task.items[1:])]


def test_the_items_of_a_dead_task_are_tried_alone_and_given_up_after_some_attempts(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, users(2)))
    task = shard.next_task()
    assert task is not None
    shard.failed(task, "killed")

    def until_given_up() -> None:
        for _ in range(20):
            again = shard.next_task()
            assert again is not None
            assert len(again.items) == 1
            shard.failed(again, "killed")

    with pytest.raises(WorkError, match="user u00"):
        until_given_up()


def test_a_task_that_worked_in_the_end_counts_once(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, users(1)))
    first = shard.next_task()
    assert first is not None
    shard.failed(first, "killed")
    (task,) = all_tasks(shard)
    assert (task.items, task.attempts, shard.totals.tasks) == (first.items, 1, 1)


def test_batches_grow_while_tasks_are_short_and_shrink_when_they_are_long(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, users(6000)))
    sizes = []
    for seconds in (0.0, 0.0, 0.0, 0.0, 600.0, 600.0):
        task = shard.next_task()
        assert task is not None
        sizes.append(len(task.items))
        shard.record([(task, result(seconds=seconds))])
    assert sizes == [*sorted(sizes[:5]), 1]
    assert sizes[0] < sizes[4] <= 512


def test_batches_shrink_towards_the_end_so_that_all_workers_end_together(tmp_path: Path) -> None:
    shard = Shard(plan(tmp_path, users(1000)))
    sizes = []
    while (task := shard.next_task(parallel=2)) is not None:
        sizes.append(len(task.items))
        shard.record([(task, result(seconds=0.003 * len(task.items)))])
    assert sum(sizes) == 1000
    largest = sizes.index(max(sizes))
    assert sizes[largest:] == sorted(sizes[largest:], reverse=True)
    assert sizes[-1] < max(sizes) / 2


def test_counts_are_believed_only_when_the_journal_holds_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(plan(tmp_path, users(1)))
    task = shard.next_task()
    assert task is not None
    records = encode_record(Span("user", b"u000"), 1, 1, [])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(TargetError):
            shard.record([(task, result(records=records))])
    assert shard.totals.tasks == 0


def test_a_task_knows_where_the_ledger_has_something_about_its_items(tmp_path: Path) -> None:
    first = Shard(plan(tmp_path, users(1)))
    task = first.next_task()
    assert task is not None
    assert list(task.places) == [()]
    first.record([(task, result(records=encode_record(task.items[0].span, 1, 1, [])))])
    first.close()
    assert [entry.span for entry in entries(first.plan.ledger)] == [task.items[0].span]
    second = Shard(plan(tmp_path, users(1)))
    again = second.next_task()
    assert again is not None
    assert [place.order for place in again.places[0]] == [(1, 1)]


def test_an_error_of_listing_the_source_is_not_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / "v2/users" / name).mkdir(parents=True)
    shard = Shard(plan(tmp_path, None))
    monkeypatch.setattr(os, "scandir", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        all_tasks(shard)
    assert not shard.exhausted


def totals_of(*kinds: str) -> Totals:
    totals = Totals()
    totals.add(Result(issues=[Issue(kind, str(number)) for number, kind in enumerate(kinds)], files={"m": 1}, users=1))
    return totals


def test_sums_of_shards_add_up() -> None:
    totals = totals_of("attic", "link")
    totals.merge(totals_of("attic"))
    assert totals.issues == {"attic": 2, "link": 1}
    assert [issue.path for issue in totals.examples["attic"]] == ["0", "0"]
    assert (totals.files, totals.users, totals.tasks) == ({"m": 2}, 2, 2)
    assert totals.counts == [0] * len(COUNTS)


def test_examples_are_bounded_and_counts_are_not() -> None:
    totals = totals_of(*["attic"] * 300)
    totals.merge(totals_of(*["attic"] * 300))
    assert totals.issues == {"attic": 600}
    assert len(totals.examples["attic"]) == 200


def test_the_error_travels_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(WorkError("user ada", "killed")))) == "user ada: killed"
