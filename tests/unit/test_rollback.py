"""A target is the old tree or the restored one, wherever the way back is cut short."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from migration.backup_manifest import UnknownBackup
from migration.durable import Busy, exchange
from migration.rollback import RollbackManager
from migration.tree_swap import Outcome, RecoveryNeeded, Unrecoverable, journal_of
from tests.backup_trees import Killed, Steps, contents, snapshot, write_tree

NOON = datetime(2024, 1, 15, 12, 0, 0, tzinfo=UTC)


def no_exchange(first: Path, second: Path) -> bool:
    return False


Swap = Callable[[Path, Path], bool]


@pytest.fixture(params=[exchange, no_exchange], ids=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest) -> Swap:
    chosen: Swap = request.param
    return chosen


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data")


@pytest.fixture
def backups(tmp_path: Path) -> RollbackManager:
    return RollbackManager(tmp_path / "backups", clock=lambda: NOON)


def names_beside(target: Path) -> set[str]:
    return {entry.name for entry in target.parent.iterdir()} - {target.name, "backups", "data"}


def test_a_rollback_restores_contents_modes_and_times(
    source: Path, backups: RollbackManager, swap: Swap, tmp_path: Path
) -> None:
    before = snapshot(source)
    name = backups.create_backup(source).name
    manager = RollbackManager(backups.backup_path, swap=swap, clock=lambda: NOON)
    (source / "users/alice/messages.jsonl").write_text("spoilt")
    (source / "users/alice/later").write_text("later")

    restored = manager.rollback(name, source)

    assert snapshot(source) == before
    assert restored.backup.files == 4
    assert restored.owners_lost == 0
    assert names_beside(source) == {"data.before-rollback-20240115_120000"}


def test_the_tree_of_before_is_kept_whole(source: Path, backups: RollbackManager, swap: Swap) -> None:
    name = backups.create_backup(source).name
    (source / "users/alice/later").write_text("later")
    spoilt = snapshot(source)

    restored = RollbackManager(backups.backup_path, swap=swap).rollback(name, source)

    assert restored.previous is not None
    assert snapshot(restored.previous) == spoilt


def test_a_target_that_does_not_exist_is_made(source: Path, backups: RollbackManager, tmp_path: Path) -> None:
    name = backups.create_backup(source).name

    restored = backups.rollback(name, tmp_path / "new" / "place")

    assert restored.previous is None
    assert snapshot(tmp_path / "new" / "place") == snapshot(source)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["place"]


def test_two_rollbacks_of_one_second_keep_both_trees(source: Path, backups: RollbackManager) -> None:
    name = backups.create_backup(source).name
    kept = [backups.rollback(name, source).previous for _ in range(2)]

    assert [path.name for path in kept if path] == [
        "data.before-rollback-20240115_120000",
        "data.before-rollback-20240115_120000_2",
    ]


def test_a_linked_target_stays_a_link_and_its_directory_is_swapped(
    source: Path, backups: RollbackManager, tmp_path: Path
) -> None:
    name = backups.create_backup(source).name
    before = contents(source)
    (source / "users/alice/later").write_text("later")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(source)

    backups.rollback(name, link)

    assert link.is_symlink()
    assert contents(source) == before


def test_an_unknown_backup_is_refused_with_the_names_there_are(source: Path, backups: RollbackManager) -> None:
    backups.create_backup(source)

    with pytest.raises(ValueError, match=r"no backup 'backup_1999'.*there are: backup_20240115_120000"):
        backups.rollback("backup_1999", source)


@pytest.mark.parametrize("name", ["../data", "backup_20240115_120000/users", ".", "", ".backup_x.partial", "/"])
def test_a_backup_name_cannot_lead_elsewhere(name: str, source: Path, backups: RollbackManager) -> None:
    backups.create_backup(source)
    (source / "MANIFEST.json").write_text("{}")

    with pytest.raises(UnknownBackup):
        backups.verify(name)


def test_a_target_that_is_a_file_is_refused(source: Path, backups: RollbackManager, tmp_path: Path) -> None:
    name = backups.create_backup(source).name
    (tmp_path / "file").write_text("x")

    with pytest.raises(ValueError, match="no directory"):
        backups.rollback(name, tmp_path / "file")


def test_a_target_that_is_a_mount_point_is_refused(source: Path, backups: RollbackManager) -> None:
    name = backups.create_backup(source).name

    with pytest.raises(ValueError, match="mount point"):
        backups.rollback(name, "/proc")


def test_an_error_while_restoring_leaves_the_old_tree_and_nothing_beside_it(
    source: Path, backups: RollbackManager
) -> None:
    name = backups.create_backup(source).name
    (source / "users/alice/later").write_text("later")
    before = snapshot(source)

    def full_disk(source_fd: int, target_fd: int) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        RollbackManager(backups.backup_path, clone=full_disk).rollback(name, source)

    assert caught.value.__notes__ == ["the target is as it was before the rollback"]
    assert snapshot(source) == before
    assert names_beside(source) == set()


def test_an_error_of_the_swap_itself_leaves_the_old_tree(source: Path, backups: RollbackManager) -> None:
    name = backups.create_backup(source).name
    before = snapshot(source)

    def busy(first: Path, second: Path) -> bool:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with pytest.raises(OSError, match="busy"):
        RollbackManager(backups.backup_path, swap=busy).rollback(name, source)

    assert snapshot(source) == before
    assert names_beside(source) == set()


def test_directories_that_nobody_may_write_are_restored_and_removed(
    source: Path, backups: RollbackManager, tmp_path: Path
) -> None:
    os.chmod(source / "users/alice", 0o500)
    before = snapshot(source)
    made = backups.create_backup(source)
    backups.rollback(made.name, tmp_path / "target")

    assert snapshot(tmp_path / "target") == before
    assert stat.S_IMODE((made / "users/alice").stat().st_mode) == 0o700


# --- crashes


@contextmanager
def spoilt(source: Path) -> Iterator[tuple[dict[bytes, object], dict[bytes, object]]]:
    """What the tree held when backed up, and what it holds after something went wrong."""
    good = contents(source)
    (source / "users/alice/later").write_text("later")
    (source / "users/alice/messages.jsonl").unlink()
    yield good, contents(source)


def steps_of_rollback(source: Path, tmp_path: Path, swap: Swap) -> list[str]:
    manager = RollbackManager(tmp_path / "dry")
    name = manager.create_backup(source).name
    (tmp_path / "rehearsal" / "data").mkdir(parents=True)
    heard = Steps()
    RollbackManager(tmp_path / "dry", swap=swap, steps=heard).rollback(name, tmp_path / "rehearsal" / "data")
    return heard.names


def test_the_steps_of_a_rollback_are_announced(source: Path, tmp_path: Path) -> None:
    before_swap = [
        "announce the restored tree",
        "restore beside the target",
        "sync the restored tree",
        "announce the swap",
        "take the old tree away",
    ]
    assert steps_of_rollback(source, tmp_path / "1", exchange) == [
        *before_swap,
        "name the old tree",
        "close the journal",
    ]
    assert steps_of_rollback(source, tmp_path / "2", no_exchange) == [
        *before_swap,
        "put the restored tree in place",
        "close the journal",
    ]


def test_after_a_crash_at_any_step_recovery_leaves_one_whole_tree(
    source: Path, backups: RollbackManager, swap: Swap, tmp_path: Path
) -> None:
    steps = steps_of_rollback(source, tmp_path, swap)
    name = backups.create_backup(source).name
    outcomes = []
    for fatal in range(len(steps)):
        with spoilt(source) as (good, bad):
            with pytest.raises(Killed):
                RollbackManager(backups.backup_path, swap=swap, steps=Steps(fatal)).rollback(name, source)
            if source.exists():
                assert contents(source) in (good, bad)
            elif swap is exchange:
                pytest.fail("the target was away although names can be exchanged")

            recovered = backups.recover(source)

        outcomes.append(recovered.outcome)
        whole = {Outcome.NEW_IN_PLACE: good, Outcome.OLD_KEPT: bad, Outcome.NOTHING_TO_DO: bad}
        assert contents(source) == whole[recovered.outcome]
        if recovered.outcome is Outcome.NEW_IN_PLACE:
            assert recovered.previous is not None
            assert contents(recovered.previous) == bad
        rest = names_beside(source) - {"dry", "rehearsal"}
        assert all(".before-rollback-" in left for left in rest)
        backups.rollback(name, source)
        assert contents(source) == good

    assert outcomes[0] is Outcome.NOTHING_TO_DO
    assert set(outcomes[1:5]) == {Outcome.OLD_KEPT}
    assert set(outcomes[5:]) == {Outcome.NEW_IN_PLACE}


def test_recovery_can_itself_be_cut_short_at_any_step(
    source: Path, backups: RollbackManager, swap: Swap, tmp_path: Path
) -> None:
    steps = steps_of_rollback(source, tmp_path, swap)
    name = backups.create_backup(source).name
    cut_short = 0
    for fatal in range(len(steps)):
        for fatal_again in range(4):
            with spoilt(source) as (good, bad):
                with pytest.raises(Killed):
                    RollbackManager(backups.backup_path, swap=swap, steps=Steps(fatal)).rollback(name, source)
                try:
                    RollbackManager(backups.backup_path, swap=swap, steps=Steps(fatal_again)).recover(source)
                except Killed:
                    cut_short += 1

                backups.recover(source)

            assert contents(source) in (good, bad)
            assert not journal_of(source).exists()
            backups.rollback(name, source)
    assert cut_short >= len(steps)


def test_a_crash_while_a_new_target_is_put_in_place_is_carried_on(
    source: Path, backups: RollbackManager, tmp_path: Path
) -> None:
    name = backups.create_backup(source).name
    target = tmp_path / "target"
    with pytest.raises(Killed):
        RollbackManager(backups.backup_path, steps=Steps(4)).rollback(name, target)
    assert not target.exists()

    recovered = backups.recover(target)

    assert (recovered.outcome, recovered.previous) == (Outcome.NEW_IN_PLACE, None)
    assert contents(target) == contents(source)


def test_a_rollback_waits_for_the_recovery_of_the_one_before(source: Path, backups: RollbackManager) -> None:
    name = backups.create_backup(source).name
    with pytest.raises(Killed):
        RollbackManager(backups.backup_path, steps=Steps(5)).rollback(name, source)

    with pytest.raises(RecoveryNeeded, match="recover it first"):
        backups.rollback(name, source)


def test_recovery_touches_nothing_when_somebody_has_moved_the_trees(
    source: Path, backups: RollbackManager, tmp_path: Path
) -> None:
    name = backups.create_backup(source).name
    with pytest.raises(Killed):
        RollbackManager(backups.backup_path, steps=Steps(4)).rollback(name, source)
    source.rename(tmp_path / "moved")
    source.mkdir()

    with pytest.raises(Unrecoverable, match=r"data: something else; .*restore-\d+: the restored tree"):
        backups.recover(source)

    assert journal_of(source).exists()
    assert contents(source) == {b".": None}


def test_a_journal_that_is_none_is_reported_not_obeyed(source: Path, backups: RollbackManager) -> None:
    journal_of(source).write_text('{"staged": "users"')

    with pytest.raises(Unrecoverable, match="not the journal"):
        backups.recover(source)


def test_recovery_with_nothing_to_recover_says_so(source: Path, backups: RollbackManager) -> None:
    before = snapshot(source)

    assert backups.recover(source).outcome is Outcome.NOTHING_TO_DO
    assert backups.recover(source / "no" / "such").outcome is Outcome.NOTHING_TO_DO
    assert snapshot(source) == before


def test_a_rollback_that_runs_is_not_recovered_by_another_process(source: Path, backups: RollbackManager) -> None:
    name = backups.create_backup(source).name
    refused: list[str] = []

    def recover_meanwhile(step: str) -> None:
        with pytest.raises(Busy):
            backups.recover(source)
        refused.append(step)

    RollbackManager(backups.backup_path, steps=recover_meanwhile).rollback(name, source)

    assert len(refused) == 7
