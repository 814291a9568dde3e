"""One task: a bounded piece of a run, done in one process, made durable, and reported.

A task does at least one item, stops after its time or bytes, and gives back what is left. So the coordinator need
not know how large anything is: a giant user comes back as ranges of its sessions, and those run in parallel.
"""

from __future__ import annotations

import fcntl
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from migration.embed import display_name
from migration.issues import Issue
from migration.job import Job, RunSettings
from migration.ledger import LedgerReader, Place, Span, encode_record
from migration.merges import UserMerge
from migration.panels import migrate_global_personas, migrate_panel
from migration.retire import retire
from migration.strays import migrate_strays
from migration.target import PutOff, Target, UnwrittenTarget
from migration.unit import COUNTS, ELSEWHERE, TRANSFORM_VERSION, Unit, ledger_path, printable, removed_unit
from migration.user_directory import UserDirectory, UserRoot
from migration.users import UserMigration
from migration.v2.read import SourceError, is_g1_user
from migration.vectors import VectorSet, migrate_vector_set

MAX_TASK_BYTES = 256 << 20
_RANGE = 256
_SESSIONS = COUNTS.index("sessions")


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of the source. *kind* decides how it is migrated and what *name* is:

    user: directory of a user, its children in ``low < name <= high``; panel: ``<panels dir>/<panel>``; personas,
    files, strays: a directory relative to the source (files: only what stands directly in it); children: a user
    directory, of which those in *extra*; removed: a span of the ledger whose kind, and units (None: all), are in
    *extra*, and which v2 no longer has; merge: a user id, put
    together from the directories in *extra* (home or None; all; whether home was redone since); split: a user
    directory's child, with the other halves in *extra*; vectors: the path of a set, with its owner in *extra*.
    """

    kind: str
    name: str
    low: str | None = None
    high: str | None = None
    extra: Any = None

    @property
    def span(self) -> Span:
        low = None if self.low is None else os.fsencode(self.low)
        high = None if self.high is None else os.fsencode(self.high)
        # A split redoes a unit of the user.
        kind = self.extra[0] if self.kind == "removed" else "user" if self.kind in {"split", "children"} else self.kind
        # A merge is named by a user id, which may hold any surrogate; everything else by a path.
        name = self.name.encode("utf-8", "surrogatepass") if kind == "merge" else os.fsencode(self.name)
        return Span(kind, name, low, high)


@dataclass(frozen=True, slots=True)
class Task:
    """Items to do, where the ledger has something about them, and how much of it at most.

    A *survey* looks at the items and writes nothing to the target; what is to be written is put off.
    """

    settings: RunSettings
    run: int
    phase: int
    items: Sequence[Item]
    places: Sequence[Sequence[Place]]
    fence: str
    attempts: int = 0
    seconds: float = 0.5
    max_bytes: int = MAX_TASK_BYTES
    survey: bool = False


@dataclass(slots=True)
class Changes:
    """What a survey found that is to be done, and how much that is, in sessions: *known* were migrated before; of
    these *changed* have changed and *gone* are no longer in v2; *added* are new. *deleted* were put away now.
    later: what the ledger has of the kinds that are looked at when all else was."""

    put_off: list[Item] = field(default_factory=list)
    gone_items: list[Item] = field(default_factory=list)
    later: list[tuple[str, bytes]] = field(default_factory=list)
    known: int = 0
    changed: int = 0
    gone: int = 0
    added: int = 0
    deleted: int = 0

    def merge(self, other: Changes) -> None:
        self.put_off += other.put_off
        self.gone_items += other.gone_items
        self.later += other.later
        self.known += other.known
        self.changed += other.changed
        self.gone += other.gone
        self.added += other.added
        self.deleted += other.deleted

    def put_off_units(self, item: Item, units: Sequence[tuple[str, Unit | None]]) -> None:
        """Puts off children of a user directory; each is of one session, unless it is known to hold other numbers."""
        for child, known in units:
            if known is None:
                self.added += bool(child)
            else:
                self.known += known.counts[_SESSIONS]
                # What another version of the program migrated is done again, and has not changed.
                self.changed += known.counts[_SESSIONS] if known.version == TRANSFORM_VERSION else 0
        if units:
            self.put_off.append(Item("children", item.name, extra=tuple(child for child, _ in units)))

    def units_gone(self, item: Item, units: Sequence[Unit]) -> None:
        count = sum(unit.counts[_SESSIONS] for unit in units)
        self.known += count
        self.gone += count
        if units:
            self.gone_items.append(Item("removed", item.name, extra=("user", tuple(unit.name for unit in units))))


@dataclass(slots=True)
class Result:
    """What a task did. *records* is for the ledger; the counts are of everything visited, done now or before, but
    *read*: the bytes that were read now."""

    records: bytes = b""
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    files: dict[str, int] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)
    facts: list[list[str]] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)
    bytes: int = 0
    read: int = 0
    users: int = 0
    units: int = 0
    resumed: int = 0
    seconds: float = 0.0
    changes: Changes = field(default_factory=Changes)
    newest_ns: int = 0

    def add(self, units: Sequence[tuple[Unit, bool]]) -> None:
        """Counts units; those marked were done before."""
        self.units += len(units)
        self.counts = [sum(column) for column in zip(self.counts, *(unit.counts for unit, _ in units), strict=True)]
        files, newest_ns = self.files, self.newest_ns
        for unit, reused in units:
            size_in_all = 0
            for _, size, mtime_ns, disposition in unit.files:
                if disposition != ELSEWHERE:
                    files[disposition] = files.get(disposition, 0) + 1
                    size_in_all += size
                if mtime_ns > newest_ns:
                    newest_ns = mtime_ns
            self.bytes += size_in_all
            if reused:
                self.resumed += unit.counts[_SESSIONS]
            if not reused or unit.racy:  # which shows only by its content whether it is the same
                self.read += size_in_all
            if unit.issues:
                self.issues += unit.issues
            if unit.facts:
                self.facts += unit.facts
        self.newest_ns = newest_ns


Done = tuple[list[tuple[Unit, bool]], list[Item]]
Known = Mapping[str, Unit]


def process(task: Task) -> Result:
    """Does a task. Raises `TargetError` when the target cannot be written, `LedgerError` when the ledger is damaged,
    `SourceError` when a part of the source that cannot be left out is out of reach."""
    started = time.perf_counter()
    deadline = started + task.seconds
    result = Result()
    records: list[bytes] = []
    with _inside(task.fence), _without_gc(), closing(LedgerReader()) as ledger:
        make = UnwrittenTarget if task.survey else Target
        job = Job(task.settings, make(task.settings.target, task.settings.between_ns), time.time_ns())
        try:
            for position, item in enumerate(task.items):
                over = time.perf_counter() > deadline or result.read > task.max_bytes
                if position and over:
                    result.left += task.items[position:]
                    break
                span = item.span
                places = task.places[position]
                known = ledger.units_at(places, span.low, span.high) if places else {}
                budget = task.max_bytes - result.read
                try:
                    units, left = _HANDLERS[item.kind](job, item, known, deadline, budget, result.changes)
                    if not task.survey and known and item.kind != "removed":
                        _retire_leftovers(job, item, known, units)
                except PutOff:
                    job.target.take_outputs()
                    result.changes.put_off.append(item)
                    continue
                except OSError as error:  # what is written raises TargetError
                    raise SourceError.of(error.filename or item.name, error) from error
                if item.kind != "split":
                    result.add(units)
                else:  # counted where it stands; only what could not be read now is news, and is tried again next time
                    unread = [[issue for issue in unit.issues if issue.kind == "unread"] for unit, _ in units]
                    result.issues += chain.from_iterable(unread)
                    splits = [issue for unit, reused in units if not reused for issue in unit.issues]
                    result.issues += [issue for issue in splits if issue.kind == "split"]
                    units = [one for one, missing in zip(units, unread, strict=True) if not missing]
                new = [unit for unit, reused in units if not reused]
                if new:
                    done = span._replace(high=left[0].span.low) if left and item.kind == "user" else span
                    records.append(encode_record(done, task.run, task.phase, new))
                result.users += item.kind == "user" and item.low is None and bool(units)
                if task.survey:
                    result.changes.known += sum(unit.counts[_SESSIONS] for unit, reused in units if reused)
                result.left += left
            if records:
                job.target.sync()
        finally:
            job.target.close()
    result.records = b"".join(records)
    result.seconds = time.perf_counter() - started
    return result


@contextmanager
def _inside(fence: str) -> Any:
    """Holds a shared lock while the target is written: a new owner of the same work waits for it."""
    fd = os.open(fence, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Spares the collector: a task makes many small objects without cycles, and ends soon."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def user_directory(job: Job, name: str) -> UserDirectory:
    """A user directory by its name, in every place where it may stand."""
    source, names = job.settings.source, job.names
    roots = [UserRoot(f"{source}/{users}", True) for users in names.users_dirs]
    if job.has_strangers and name not in names.reserved_top_level() and is_g1_user(f"{source}/{name}", names):
        roots.append(UserRoot(source, False))
    return UserDirectory(job, name, roots)


def _user(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    progress = UserMigration(job, user_directory(job, item.name), known).run(item.low, item.high, deadline, budget)
    changes.put_off_units(item, progress.put_off)
    changes.units_gone(item, progress.gone)
    if not progress.left:
        return progress.units, []
    # The children that are left, cut into ranges: (the last one done, 256 on], (256, 512], ... up to the item's end.
    ends = [progress.last, *progress.left[_RANGE - 1 : -1 : _RANGE], item.high]
    return progress.units, [Item("user", item.name, low, high) for low, high in pairwise(ends)]


def _some_children(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    progress = UserMigration(job, user_directory(job, item.name), known).some(item.extra, deadline, budget)
    return progress.units, [Item("children", item.name, extra=tuple(progress.left))] if progress.left else []


def _removed(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    kind, names = item.extra
    done: list[tuple[Unit, bool]] = []
    for name in known if names is None else names:
        unit = known.get(name)
        if unit is None or (names is not None and _is_back(job, item, name)):
            continue
        archived = retire(job, unit.all_outputs)
        job.target.take_outputs()
        changes.deleted += archived
        gone = removed_unit(name)
        if kind in {"user", "panel", "vectors"}:
            gone.issues.append(Issue("deleted", printable(f"{display_name(item.name)}/{name}".rstrip("/"))))
        done.append((gone, False))
    return done, []


def _is_back(job: Job, item: Item, name: str) -> bool:
    """Whether a child of a user directory stands there again."""
    directory = user_directory(job, item.name)
    return any(os.path.isdir(f"{place.path}/{directory.name}/{ledger_path(name)}") for place in directory.places)


def _retire_leftovers(job: Job, item: Item, known: Known, units: Sequence[tuple[Unit, bool]]) -> None:
    """Puts away what units wrote before, and did not write again."""
    for unit, reused in units:
        before = known.get(unit.name)
        left = set() if reused or before is None else before.all_outputs - unit.all_outputs
        if left:
            retire(job, left, _own_paths(job, item, unit.name))
            job.target.take_outputs()


def _own_paths(job: Job, item: Item, name: str) -> tuple[str, ...]:
    """The v2 paths of a unit, as they are recorded."""
    if item.kind not in {"user", "children", "split"}:
        return ()
    below = name or job.names.profile
    directories = (*(f"{users}/{display_name(item.name)}" for users in job.names.users_dirs), display_name(item.name))
    return tuple(f"{directory}/{below}" for directory in directories)


def _split(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    child, splits = item.extra
    return [UserMigration(job, user_directory(job, item.name), known, splits=splits).again(child)], []


def _panel(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    return [migrate_panel(job, f"{job.settings.source}/{item.name}", known.get(""))], []


def _personas(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    path = f"{job.settings.source}/{item.name}"
    return [migrate_global_personas(job, path, known.get(""))], []


def _strays(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    unit, reused, below = migrate_strays(job, f"{job.settings.source}/{item.name}".rstrip("/"), known.get(""))
    deeper = [Item("strays", f"{item.name}/{name}") for name in below] if item.kind == "strays" else []
    return [(unit, reused)], deeper


def _merge(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    home, names, home_redone = item.extra
    directories = [user_directory(job, name) for name in dict.fromkeys([*([home] if home else []), *names])]
    units = UserMerge(job, item.name, directories, known, home, home_redone).run()
    if not any(issue.kind == "unread" for unit, _ in units for issue in unit.issues):
        made = {unit.name for unit, _ in units}
        for name in known.keys() - made:
            changes.deleted += retire(job, known[name].all_outputs)
            units.append((removed_unit(name), False))
    return units, []


def _vectors(job: Job, item: Item, known: Known, deadline: float, budget: int, changes: Changes) -> Done:
    found: VectorSet = item.extra
    return [migrate_vector_set(job, found, known.get(""))], []


_HANDLERS: dict[str, Callable[[Job, Item, Known, float, int, Changes], Done]] = {
    "user": _user,
    "children": _some_children,
    "removed": _removed,
    "split": _split,
    "panel": _panel,
    "personas": _personas,
    "files": _strays,
    "strays": _strays,
    "merge": _merge,
    "vectors": _vectors,
}
