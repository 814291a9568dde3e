"""Putting one tree in the place of another, so that a crash at any point leaves one of them there, whole.

    target <-> .target.restore-PID            one step where the system can exchange two names; else
    target -> target.before-rollback-STAMP    these two, with the target away in between
    .target.restore-PID -> target
    (old tree) -> target.before-rollback-STAMP

A journal beside the target, ``.target.rollback.json``, holds the names in play and the inode numbers of both trees,
which they keep under whatever name. What is to be done next follows from which tree is found under which name: one
table for going forward, the same table but for two lines for recovery.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from migration.backup_manifest import BackupError
from migration.durable import draft_of, exchange, held, replace_file, sync_directory, sync_filesystem
from migration.tree_copy import remove_tree


class RollbackError(BackupError):
    """The target was not rolled back."""


class RecoveryNeeded(RollbackError):
    """An earlier rollback of this target was cut short. Recover it, then decide again."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target

    def __str__(self) -> str:
        return f"an earlier rollback of {self.target} was cut short: recover it first"


class Unrecoverable(RollbackError):
    """What is there fits no point of a swap; nothing was touched. A person has to look at the names given."""


class Outcome(Enum):
    NOTHING_TO_DO = "no rollback had been cut short"
    OLD_KEPT = "the target is as it was before the rollback"
    NEW_IN_PLACE = "the target is the restored tree"


class Place(Enum):
    """What stands under one of the names of a swap."""

    OLD = "the old tree"
    NEW = "the restored tree"
    ABSENT = "nothing"
    OTHER = "something else"
    UNUSED = "not in use, since there was no old tree"


class Move(Enum):
    """A change of names, called as it is announced."""

    SWAP = "take the old tree away"
    KEEP_OLD = "name the old tree"
    PUT_IN_PLACE = "put the restored tree in place"
    DISCARD = "remove the restored tree"


State = tuple[Place, Place, Place]
"""What stands at the target, beside it, and under the name that the old tree is to get."""

FORWARD: Mapping[State, Move | Outcome] = {
    (Place.OLD, Place.NEW, Place.ABSENT): Move.SWAP,
    (Place.NEW, Place.OLD, Place.ABSENT): Move.KEEP_OLD,
    (Place.ABSENT, Place.NEW, Place.OLD): Move.PUT_IN_PLACE,
    (Place.ABSENT, Place.NEW, Place.UNUSED): Move.PUT_IN_PLACE,
    (Place.NEW, Place.ABSENT, Place.OLD): Outcome.NEW_IN_PLACE,
    (Place.NEW, Place.ABSENT, Place.UNUSED): Outcome.NEW_IN_PLACE,
}

# As long as the target is the old tree somebody may be using it again, so recovery does not take it away.
RECOVERY: Mapping[State, Move | Outcome] = {
    **FORWARD,
    (Place.OLD, Place.NEW, Place.ABSENT): Move.DISCARD,
    (Place.OLD, Place.ABSENT, Place.ABSENT): Outcome.OLD_KEPT,
}


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """The names of one swap and the inode numbers of its trees, as the journal keeps them."""

    target: Path
    staged: str
    previous: str
    old: int | None
    """None when there was nothing at the target."""
    new: int | None = None
    """None until the restored tree is whole and on disk."""

    @classmethod
    def of(cls, target: Path, stamp: str) -> SwapPlan:
        wanted = f"{target.name}.before-rollback-{stamp}"
        previous, number = wanted, 1
        while os.path.lexists(target.with_name(previous)):
            number += 1
            previous = f"{wanted}_{number}"
        return cls(target, f".{target.name}.restore-{os.getpid()}", previous, inode_of(target))

    @property
    def staged_path(self) -> Path:
        return self.target.with_name(self.staged)

    @property
    def previous_path(self) -> Path:
        return self.target.with_name(self.previous)

    @property
    def kept(self) -> Path | None:
        """Where the old tree is after the swap."""
        return None if self.old is None else self.previous_path

    def save(self) -> None:
        members = {name: value for name, value in asdict(self).items() if name != "target"}
        replace_file(journal_of(self.target), json.dumps(members).encode())

    @classmethod
    def load(cls, target: Path) -> SwapPlan:
        """Raises Unrecoverable when the journal is not one."""
        journal = journal_of(target)
        try:
            return cls(target, **json.loads(journal.read_bytes()))
        except (ValueError, TypeError) as error:
            raise Unrecoverable(f"{journal} is not the journal of a rollback") from error

    def state(self) -> State:
        previous = Place.UNUSED if self.old is None else self._at(self.previous_path)
        return self._at(self.target), self._at(self.staged_path), previous

    def describe(self, state: State) -> str:
        names = (self.target, self.staged_path, self.previous_path)
        found = "; ".join(f"{name}: {place.value}" for name, place in zip(names, state, strict=True))
        return f"the rollback of {self.target} cannot be ended: {found}"

    def _at(self, path: Path) -> Place:
        inode = inode_of(path)
        if inode is None:
            return Place.ABSENT
        return {self.old: Place.OLD, self.new: Place.NEW}.get(inode, Place.OTHER)


class TreeSwap:
    """Runs a plan. *steps* is called with a name before each durable step; *exchange* may return False."""

    def __init__(self, *, steps: Callable[[str], None], exchange: Callable[[Path, Path], bool]) -> None:
        self._steps = steps
        self._exchange = exchange

    def run(self, plan: SwapPlan, table: Mapping[State, Move | Outcome]) -> Outcome:
        """Does what *table* says of the state at hand until it says that all is done.

        Raises Unrecoverable for a state that the table does not know.
        """
        while True:
            state = plan.state()
            action = table.get(state)
            if action is None:
                raise Unrecoverable(plan.describe(state))
            if isinstance(action, Outcome):
                self._close(plan)
                return action
            self._steps(action.value)
            self._do(action, plan)
            sync_directory(plan.target.parent)

    def recover(self, target: Path) -> tuple[Outcome, Path | None]:
        """Ends the swap that the journal of *target* tells of; also where the old tree then is, if it was replaced."""
        draft_of(journal_of(target)).unlink(missing_ok=True)
        if not journal_of(target).exists():
            return Outcome.NOTHING_TO_DO, None
        plan = SwapPlan.load(target)
        if plan.new is not None:
            outcome = self.run(plan, RECOVERY)
            return outcome, plan.kept if outcome is Outcome.NEW_IN_PLACE else None
        if plan.staged_path.exists():
            self._steps(Move.DISCARD.value)
            remove_tree(plan.staged_path)
        self._close(plan)
        return Outcome.OLD_KEPT, None

    def _do(self, move: Move, plan: SwapPlan) -> None:
        if move is Move.SWAP:
            if not self._exchange(plan.target, plan.staged_path):
                plan.target.rename(plan.previous_path)
        elif move is Move.KEEP_OLD:
            plan.staged_path.rename(plan.previous_path)
        elif move is Move.PUT_IN_PLACE:
            plan.staged_path.rename(plan.target)
        else:
            remove_tree(plan.staged_path)

    def _close(self, plan: SwapPlan) -> None:
        self._steps("close the journal")
        journal_of(plan.target).unlink()
        sync_directory(plan.target.parent)


class Replacement:
    """Puts a tree that is written beside the target in its place; the tree that stood there is kept.

    *steps* and *exchange* are those of `TreeSwap`; *clock* gives the time that names are made of.
    """

    def __init__(
        self,
        *,
        steps: Callable[[str], None] = lambda step: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        swap: Callable[[Path, Path], bool] = exchange,
    ) -> None:
        self._steps = steps
        self._clock = clock
        self._swap = TreeSwap(steps=steps, exchange=swap)

    def replace(self, target: Path, fill: Callable[[Path], None], check: Callable[[], None]) -> Path | None:
        """Calls *check*, then *fill* with a new and empty directory, and gives that the target's name; where the tree
        is that the target held, None when it held none.

        An error that is raised carries a note of which tree the target is, and leaves nothing half-made beside it.
        Raises what the two raise, RecoveryNeeded after a crash, ValueError for a target that cannot be swapped, Busy
        while another process replaces or recovers it.
        """
        target = real(target)
        _refuse_unswappable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(_lock_of(target)):
            if journal_of(target).exists():
                raise RecoveryNeeded(str(target))
            check()
            plan = SwapPlan.of(target, self._clock().strftime("%Y%m%d_%H%M%S"))
            try:
                plan = self._stage(fill, plan)
                self._swap.run(plan, FORWARD)
            except Exception as error:
                outcome, _ = self._swap.recover(target)
                error.add_note(outcome.value)
                raise
        return plan.kept

    def recover(self, target: Path) -> tuple[Outcome, Path | None]:
        """Ends a replacement that was cut short, whoever began it: what became of it, and where the old tree is if it
        was replaced. Raises Unrecoverable when somebody has moved the trees meanwhile, Busy while it still runs."""
        target = real(target)
        if not target.parent.is_dir():
            return Outcome.NOTHING_TO_DO, None
        with held(_lock_of(target)):
            return self._swap.recover(target)

    def _stage(self, fill: Callable[[Path], None], plan: SwapPlan) -> SwapPlan:
        self._steps("announce the restored tree")
        plan.save()
        self._steps("restore beside the target")
        plan.staged_path.mkdir(0o700)
        fill(plan.staged_path)
        self._steps("sync the restored tree")
        sync_filesystem(plan.staged_path)
        self._steps("announce the swap")
        plan = replace(plan, new=inode_of(plan.staged_path))
        plan.save()
        return plan


def real(path: Path | str) -> Path:
    """The directory itself where *path* is a link to it: it is there that trees change places."""
    return Path(os.path.realpath(path))


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.rollback.lock")


def _refuse_unswappable(target: Path) -> None:
    if os.path.ismount(target):
        raise ValueError(f"{target} is a mount point and cannot be renamed: give a directory below it")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is no directory")


def inode_of(path: Path) -> int | None:
    """The number that a directory keeps under whatever name, or None where there is nothing."""
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def journal_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.rollback.json")
