"""A backup is whole or absent, and says so of itself."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from migration.backup_manifest import BackupDamaged, BackupError, Changing, UnknownBackup, Unreadable
from migration.durable import Busy
from migration.rollback import RollbackManager
from migration.tree_swap import RecoveryNeeded
from tests.backup_trees import Killed, Steps, contents, snapshot, write_tree

NOON = datetime(2024, 1, 15, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data")


@pytest.fixture
def backups(tmp_path: Path) -> RollbackManager:
    return RollbackManager(tmp_path / "backups", clock=lambda: NOON)


def names_beside(target: Path) -> set[str]:
    return {entry.name for entry in target.parent.iterdir()} - {target.name, "backups", "data"}


# --- making one


def test_a_backup_holds_every_entry_of_its_source_and_a_manifest(source: Path, backups: RollbackManager) -> None:
    made = backups.create_backup(source)

    assert made == backups.backup_path / "backup_20240115_120000"
    copy = contents(made)
    assert copy.pop(b"MANIFEST.json") is not None
    assert copy == contents(source)


def test_making_a_backup_leaves_its_source_as_it_was(source: Path, backups: RollbackManager) -> None:
    before = snapshot(source)
    backups.create_backup(source)

    assert snapshot(source) == before


def test_a_backup_shares_no_file_with_its_source(source: Path, backups: RollbackManager) -> None:
    made = backups.create_backup(source)
    with open(source / "users/alice/messages.jsonl", "ab") as file:
        file.write(b"later\n")

    assert (made / "users/alice/messages.jsonl").read_bytes() == b'{"id": 1}\n' * 3


def test_the_manifest_is_one_json_document_with_kind_mode_time_size_and_digest(
    source: Path, backups: RollbackManager
) -> None:
    manifest = json.loads((backups.create_backup(source) / "MANIFEST.json").read_bytes())

    (entry,) = (e for e in manifest["entries"] if e["path"] == "users/alice/messages.jsonl")
    assert entry.pop("uid") == os.getuid()
    assert entry.pop("gid") == os.getgid()
    assert entry == {
        "path": "users/alice/messages.jsonl",
        "kind": "file",
        "mode": "0640",
        "mtime_ns": 1_600_000_000_123_456_789,
        "size": 30,
        "sha256": sha256(b'{"id": 1}\n' * 3).hexdigest(),
    }
    assert manifest["count"] == len(manifest["entries"])


def test_two_backups_of_one_second_get_two_names(source: Path, backups: RollbackManager) -> None:
    names = [backups.create_backup(source).name for _ in range(3)]

    assert names == ["backup_20240115_120000", "backup_20240115_120000_2", "backup_20240115_120000_3"]
    assert backups.list_backups() == names


def test_special_files_are_listed_and_not_opened(source: Path, backups: RollbackManager) -> None:
    os.mkfifo(source / "users" / "pipe")

    made = backups.create_backup(source)

    assert not (made / "users" / "pipe").exists()
    assert backups.verify(made.name).special == ("users/pipe",)


def test_a_source_file_called_like_the_manifest_comes_back_under_its_name(
    source: Path, backups: RollbackManager, tmp_path: Path
) -> None:
    (source / "MANIFEST.json").write_text("mine")
    (source / "MANIFEST.json.source").write_text("also mine")
    before = snapshot(source)

    made = backups.create_backup(source)
    backups.rollback(made.name, tmp_path / "target")

    assert snapshot(tmp_path / "target") == before


def test_an_unreadable_file_is_named_and_no_backup_is_left(
    source: Path, backups: RollbackManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = source / "users/alice/messages.jsonl"
    really_open = os.open

    def refusing_open(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing_open)

    with pytest.raises(Unreadable, match="Permission denied") as caught:
        backups.create_backup(source)

    assert caught.value.path == str(refused)
    assert backups.list_backups() == []
    assert [p.name for p in backups.backup_path.iterdir()] == [".lock"]


def test_a_directory_that_cannot_be_listed_is_no_empty_directory(
    source: Path, backups: RollbackManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_list = os.listdir

    def failing_list(path: Any = ".") -> list[str]:
        if path == source / "users/alice":
            raise OSError(errno.EIO, "Input/output error", str(path))
        listed: list[str] = really_list(path)
        return listed

    monkeypatch.setattr(os, "listdir", failing_list)

    with pytest.raises(Unreadable, match="Input/output error"):
        backups.create_backup(source)
    assert backups.list_backups() == []


def test_a_source_that_does_not_exist_is_an_error(backups: RollbackManager, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        backups.create_backup(tmp_path / "typo")


def test_a_file_that_never_holds_still_fails_the_backup(source: Path, tmp_path: Path) -> None:
    def write_on(source_fd: int, target_fd: int) -> bool:
        with open(source / "users/alice/messages.jsonl", "ab") as file:
            file.write(b"more\n")
        return False

    with pytest.raises(Changing, match=r"changed during each of 3 attempts"):
        RollbackManager(tmp_path / "backups", clone=write_on).create_backup(source)


def test_a_file_that_changes_once_is_copied_in_its_new_state(source: Path, tmp_path: Path) -> None:
    path = source / "users/alice/messages.jsonl"
    calls: list[int] = []

    def write_once(source_fd: int, target_fd: int) -> bool:
        if os.path.samestat(os.fstat(source_fd), path.stat()) and not calls:
            calls.append(source_fd)
            path.write_bytes(b"new, and longer than it was, by some bytes\n")
            os.write(target_fd, b"a mix of both" * 10)
            return True
        return False

    manager = RollbackManager(tmp_path / "backups", clone=write_once)
    made = manager.create_backup(source)

    assert calls
    assert (made / "users/alice/messages.jsonl").read_bytes() == path.read_bytes()
    assert manager.verify(made.name).files == 4


def test_a_clone_by_the_file_system_is_used_where_it_succeeds(source: Path, tmp_path: Path) -> None:
    cloned: list[int] = []

    def clone(source_fd: int, target_fd: int) -> bool:
        cloned.append(os.write(target_fd, os.pread(source_fd, 1000, 0)))
        return True

    manager = RollbackManager(tmp_path / "backups", clone=clone)
    made = manager.create_backup(source)

    assert sum(cloned) == manager.verify(made.name).bytes
    assert contents(made).items() >= contents(source).items()


def test_backups_inside_their_source_are_refused(source: Path) -> None:
    with pytest.raises(ValueError, match="lie inside"):
        RollbackManager(source / "backups").create_backup(source)


def test_a_crash_at_any_step_leaves_a_whole_backup_or_none(source: Path, tmp_path: Path) -> None:
    heard = Steps()
    RollbackManager(tmp_path / "dry", steps=heard).create_backup(source)

    for fatal in range(len(heard.names)):
        where = tmp_path / f"backups{fatal}"
        with pytest.raises(Killed):
            RollbackManager(where, steps=Steps(fatal), clock=lambda: NOON).create_backup(source)

        after = RollbackManager(where, clock=lambda: NOON)
        whole = after.list_backups()
        assert whole == (["backup_20240115_120000"] if heard.names[fatal] == "sync the name" else [])
        for name in [*whole, after.create_backup(source).name]:
            assert after.verify(name).files == 4
        after.prune(keep=9)
        assert {p.name for p in where.iterdir()} == set(after.list_backups())


# --- verifying one


def _flip_byte(made: Path) -> None:
    path = made / "users/alice/messages.jsonl"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def _shift_digest(made: Path) -> None:
    manifest = made / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"size": 30', b'"size": 31'))


def _retarget(made: Path) -> None:
    (made / "dangling").unlink()
    os.symlink("/etc", made / "dangling")


def _file_for_directory(made: Path) -> None:
    (made / "users/alice/empty").rmdir()
    (made / "users/alice/empty").write_text("")


def _cut_manifest(made: Path) -> None:
    manifest = made / "MANIFEST.json"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))


def _escape(made: Path) -> None:
    manifest = made / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"users/alice/none"', b'"users/alice/../x"'))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped byte": (_flip_byte, "users/alice/messages.jsonl has another content"),
    "a file cut short": (lambda b: os.truncate(b / "users/alice/messages.jsonl", 5), "has 5 bytes, not 30"),
    "a file too many": (lambda b: (b / "users/extra").write_text(""), "users/extra is not in the manifest"),
    "a last file too many": (lambda b: (b / "zzz").write_text(""), "zzz is not in the manifest"),
    "a file too few": (lambda b: (b / "users/alice/none").unlink(), "users/alice/none is missing"),
    "an empty directory too few": (lambda b: (b / "users/alice/empty").rmdir(), "users/alice/empty is missing"),
    "a link that points elsewhere": (_retarget, "dangling points elsewhere"),
    "a file for a directory": (_file_for_directory, "users/alice/empty is a file, not a directory"),
    "a manifest that was edited": (_shift_digest, "digest differs"),
    "a manifest that was cut off": (_cut_manifest, "cut off"),
    "a manifest that leaves the tree": (_escape, "holds the path 'users/alice/../x'"),
    "a manifest that is none": (lambda b: (b / "MANIFEST.json").write_text("{}"), "not that of a manifest"),
}


def test_a_sound_backup_is_summed_up(source: Path, backups: RollbackManager) -> None:
    summary = backups.verify(backups.create_backup(source).name)

    assert (summary.files, summary.directories, summary.links) == (4, 4, 2)
    assert summary.bytes == 30 + 0 + 33 + 5
    assert summary.source == str(source)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_not_restored(damage: str, source: Path, backups: RollbackManager, tmp_path: Path) -> None:
    made = backups.create_backup(source)
    inflict, named = DAMAGES[damage]
    inflict(made)
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    before = snapshot(target)

    for refuse in (lambda: backups.verify(made.name), lambda: backups.rollback(made.name, target)):
        with pytest.raises(BackupDamaged, match=named):
            refuse()

    assert snapshot(target) == before
    assert names_beside(target) == set()


def test_errors_survive_being_sent_between_processes() -> None:
    for error in (BackupDamaged("b", ("x is missing",)), Unreadable("p", "EIO"), RecoveryNeeded("t"), Busy("l")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


def test_errors_of_backups_are_told_from_errors_of_the_system() -> None:
    assert issubclass(UnknownBackup, ValueError)
    assert all(issubclass(kind, BackupError) for kind in (UnknownBackup, Unreadable, BackupDamaged, RecoveryNeeded))


# --- listing and pruning them


def test_backups_are_listed_by_age_and_only_when_whole(source: Path, tmp_path: Path) -> None:
    hours = iter([datetime(2024, 1, 15, hour, tzinfo=UTC) for hour in (9, 9, 10, 10)])
    manager = RollbackManager(tmp_path / "backups", clock=lambda: next(hours))
    manager.create_backup(source)
    manager.create_backup(source)
    (tmp_path / "backups" / "backup_20240115_080000").mkdir()
    (tmp_path / "backups" / "notes.txt").write_text("")

    assert manager.list_backups() == ["backup_20240115_090000", "backup_20240115_100000"]


def test_no_backups_yet_is_an_empty_list(tmp_path: Path) -> None:
    assert RollbackManager(tmp_path / "none").list_backups() == []


def test_pruning_keeps_the_newest_and_what_was_named_by_hand(source: Path, backups: RollbackManager) -> None:
    made = [backups.create_backup(source) for _ in range(12)]
    made[0].rename(backups.backup_path / "before-the-upgrade")

    removed = backups.prune(keep=2)

    assert removed == [path.name for path in made[1:10]]
    assert backups.list_backups() == ["before-the-upgrade", made[10].name, made[11].name]
    assert {p.name for p in backups.backup_path.iterdir()} == set(backups.list_backups())


def test_pruning_by_age_leaves_the_younger_ones(source: Path, tmp_path: Path) -> None:
    clock = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    now = [clock[0]]
    manager = RollbackManager(tmp_path / "backups", clock=lambda: now[0])
    made = []
    for day in clock:
        now[0] = day
        made.append(manager.create_backup(source).name)

    assert manager.prune(keep=1, older_than=timedelta(days=1, hours=12)) == made[:2]
    assert manager.list_backups() == made[2:]
    assert manager.prune(keep=2, older_than=timedelta(0)) == []


def test_a_crash_while_pruning_leaves_no_half_backup(source: Path, backups: RollbackManager) -> None:
    for _ in range(3):
        backups.create_backup(source)
    with pytest.raises(Killed):
        RollbackManager(backups.backup_path, steps=Steps(1)).prune(keep=1)

    assert [backups.verify(name).files for name in backups.list_backups()] == [4, 4]
    backups.prune(keep=1)
    assert {p.name for p in backups.backup_path.iterdir()} == set(backups.list_backups())


def test_pruning_everything_is_refused(backups: RollbackManager) -> None:
    with pytest.raises(ValueError, match="at least one"):
        backups.prune(keep=0)


def test_nothing_is_pruned_while_a_backup_is_made(source: Path, backups: RollbackManager) -> None:
    refused: list[str] = []

    def prune_meanwhile(step: str) -> None:
        with pytest.raises(Busy):
            backups.prune(keep=1)
        refused.append(step)

    RollbackManager(backups.backup_path, steps=prune_meanwhile).create_backup(source)

    assert refused
