"""Backups of a data directory, and the way back to one of them.

A rollback verifies the backup, restores it beside the target, and only then changes names (see `tree_swap`): the
target is never deleted, and the tree that it held is kept. After a crash `recover` ends what was cut short.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from migration.backup import BackupSummary, manifest_draft_of, restore_backup, verify_backup, write_backup
from migration.backup_manifest import NAME as MANIFEST
from migration.backup_manifest import BackupError, Manifest, UnknownBackup
from migration.durable import exchange, held, sync_directory, sync_filesystem
from migration.tree_copy import Clone, reflink, remove_tree
from migration.tree_swap import Outcome, Replacement, real

log = logging.getLogger(__name__)

_STAMP = "%Y%m%d_%H%M%S"
_OWN_NAME = re.compile(r"backup_(\d{8}_\d{6})(?:_(\d+))?")
_PARTIAL = ".partial"
_REMOVED = ".removed"


@dataclass(frozen=True, slots=True)
class Restored:
    """A target that now holds what the backup holds."""

    target: Path
    backup: BackupSummary
    previous: Path | None
    """Where the tree is that the target held before; None when it held none."""
    owners_lost: int
    """Entries that could not be given the owner they had, because this process is not root's."""


@dataclass(frozen=True, slots=True)
class Recovered:
    target: Path
    outcome: Outcome
    previous: Path | None
    """Where the tree is that the restored one replaced, if it did."""


class RollbackManager:
    """Makes, checks, restores and prunes the backups in one directory.

    *steps* is called with a name before each step that changes what a crash would leave behind. *clock* gives the
    time that names are made of. *clone* and *swap* are the file system's short cuts; each may return False.
    """

    def __init__(
        self,
        backup_path: Path | str,
        *,
        steps: Callable[[str], None] = lambda step: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clone: Clone = reflink,
        swap: Callable[[Path, Path], bool] = exchange,
    ) -> None:
        self.backup_path = Path(backup_path)
        self._steps = steps
        self._clock = clock
        self._clone = clone
        self._replacement = Replacement(steps=steps, clock=clock, swap=swap)

    # --- backups -----------------------------------------------------------------------------------------------------

    def create_backup(self, source_path: Path | str) -> Path:
        """Backs up the tree at *source_path* as ``backup_<timestamp>``; the directory that holds it.

        When this returns, the backup is whole and on disk; nothing less ever has a backup's name. Raises Unreadable
        naming the path of what cannot be read, Changing when a file does not hold still, ValueError when the backups
        lie inside the source, Busy while `prune` runs.
        """
        source = real(source_path)
        self._refuse_overlap(source)
        self.backup_path.mkdir(parents=True, exist_ok=True)
        with held(self._lock, shared=True):
            name, partial = self._reserve()
            try:
                self._steps("copy the tree")
                write_backup(source, partial, created_at=self._clock().isoformat(), clone=self._clone)
                self._steps("sync the copy")
                sync_filesystem(partial)
                self._steps("publish the backup")
                partial.rename(self.backup_path / name)
            except (OSError, BackupError):
                _remove_partial(partial)
                raise
            self._steps("sync the name")
            sync_directory(self.backup_path)
        log.info("backed up %s as %s", source, self.backup_path / name)
        return self.backup_path / name

    def verify(self, backup_name: str) -> BackupSummary:
        """Reads every byte of the backup. Raises BackupDamaged naming what is not as it was written; UnknownBackup."""
        return verify_backup(self._find(backup_name))

    def list_backups(self) -> list[str]:
        """Names of the whole backups, oldest first; those that carry no timestamp come before."""
        if not self.backup_path.is_dir():
            return []
        names = (entry.name for entry in self.backup_path.iterdir() if (entry / MANIFEST).is_file())
        return sorted((name for name in names if not name.startswith(".")), key=_age)

    def prune(self, keep: int, older_than: timedelta | None = None) -> list[str]:
        """Removes all but the newest *keep* backups, and what killed processes left half-made; with *older_than*, only
        backups of more than that age.

        Only names of the form that `create_backup` gives are counted and removed. Returns those removed. Raises
        ValueError when *keep* is below 1, Busy while a backup is being made.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least one backup has to stay")
        if not self.backup_path.is_dir():
            return []
        with held(self._lock):
            doomed = [name for name in self.list_backups() if _OWN_NAME.fullmatch(name)][:-keep]
            if older_than is not None:
                doomed = [name for name in doomed if self._clock() - self._made_at(name) > older_than]
            for name in doomed:
                # Under another name first: a backup half removed must not look like one.
                self._steps(f"remove {name}")
                (self.backup_path / name).rename(self.backup_path / f".{name}{_REMOVED}")
            sync_directory(self.backup_path)
            for left in [*self.backup_path.glob(f".*{_PARTIAL}"), *self.backup_path.glob(f".*{_REMOVED}")]:
                _remove_partial(left)
            for draft in self.backup_path.glob(f".*{_PARTIAL}.manifest"):
                draft.unlink()
        return doomed

    # --- the way back ------------------------------------------------------------------------------------------------

    def rollback(self, backup_name: str, target_path: Path | str) -> Restored:
        """Makes *target_path* hold what the backup holds; the tree that it held is kept beside it.

        At every moment the target is the old tree or the new one, whole (or, where names cannot be exchanged, briefly
        absent: `recover` ends that). An error that is raised carries a note of which it is, and leaves nothing
        half-made beside it.

        Raises UnknownBackup (a ValueError naming the backups there are), BackupDamaged, RecoveryNeeded after a crash,
        ValueError for a target that cannot be swapped, Busy while another process rolls it back or recovers it.
        """
        backup = self._find(backup_name)
        target = real(target_path)
        self._refuse_overlap(target)
        found: list[BackupSummary] = []
        lost: list[int] = []
        previous = self._replacement.replace(
            target,
            lambda directory: lost.append(restore_backup(backup, directory, clone=self._clone)),
            lambda: found.append(verify_backup(backup)),
        )
        log.info("rolled %s back to %s; what it held is %s", target, backup, previous)
        return Restored(target, found[0], previous, lost[0])

    def recover(self, target_path: Path | str) -> Recovered:
        """Ends a rollback of *target_path* that was cut short, whoever began it and wherever it stood.

        Afterwards the target is the old tree if it had not been touched, else the new one; nothing else is left beside
        it but the old tree of the latter case. Raises Unrecoverable when somebody has moved the trees meanwhile, Busy
        while the rollback still runs.
        """
        target = real(target_path)
        return Recovered(target, *self._replacement.recover(target))

    def _made_at(self, name: str) -> datetime:
        return datetime.fromisoformat(Manifest(self.backup_path / name).head.created_at)

    # --- names -------------------------------------------------------------------------------------------------------

    @property
    def _lock(self) -> Path:
        return self.backup_path / ".lock"

    def _find(self, name: str) -> Path:
        names = self.list_backups()
        if name not in names:
            there = ", ".join(names) or "none"
            raise UnknownBackup(f"no backup {name!r} in {self.backup_path}; there are: {there}")
        return self.backup_path / name

    def _reserve(self) -> tuple[str, Path]:
        """A name that no backup has, and a directory of our own to make it in."""
        wanted = f"backup_{self._clock().strftime(_STAMP)}"
        name, number = wanted, 1
        while True:
            partial = self.backup_path / f".{name}{_PARTIAL}"
            if not (self.backup_path / name).exists():
                try:
                    partial.mkdir(0o700)
                except FileExistsError:
                    pass
                else:
                    return name, partial
            number += 1
            name = f"{wanted}_{number}"

    def _refuse_overlap(self, tree: Path) -> None:
        backups = real(self.backup_path)
        if backups == tree or tree in backups.parents:
            raise ValueError(f"the backups in {backups} lie inside {tree}: keep them elsewhere")


def _remove_partial(partial: Path) -> None:
    manifest_draft_of(partial).unlink(missing_ok=True)
    if partial.exists():
        remove_tree(partial)


def _age(name: str) -> tuple[str, int, str]:
    match = _OWN_NAME.fullmatch(name)
    return (match[1], int(match[2] or 1), name) if match else ("", 0, name)
