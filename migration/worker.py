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
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from migration.issues import Issue
from migration.job import Job, RunSettings
from migration.ledger import Place, Span, encode_record, units_at
from migration.merges import UserMerge
from migration.panels import migrate_global_personas, migrate_panel
from migration.strays import migrate_strays
from migration.target import Target
from migration.unit import COUNTS, ELSEWHERE, Unit
from migration.users import UserDirectory, UserMigration, UserRoot
from migration.v2.read import SourceError, is_g1_user
from migration.vectors import VectorSet, migrate_vector_set

MAX_TASK_BYTES = 256 << 20
_RANGE = 256
_SESSIONS = COUNTS.index("sessions")


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of the source. *kind* decides how it is migrated and what *name* is:

    user: directory of a user, its children in ``low < name <= high``; panel: ``<panels dir>/<panel>``; personas,
    files, strays: a directory relative to the source (files: only what stands directly in it); merge: a user id, put
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
        kind = "user" if self.kind == "split" else self.kind  # a split redoes a unit of the user
        # A merge is named by a user id, which may hold any surrogate; everything else by a path.
        name = self.name.encode("utf-8", "surrogatepass") if kind == "merge" else os.fsencode(self.name)
        return Span(kind, name, low, high)


@dataclass(frozen=True, slots=True)
class Task:
    """Items to do, where the ledger has something about them, and how much of it at most."""

    settings: RunSettings
    run: int
    phase: int
    items: Sequence[Item]
    places: Sequence[Sequence[Place]]
    fence: str
    attempts: int = 0
    seconds: float = 0.5
    max_bytes: int = MAX_TASK_BYTES


@dataclass(slots=True)
class Result:
    """What a task did. *records* is for the ledger; the counts are of everything visited, done now or before, but
    *read*: the bytes of what was done now."""

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

    def add(self, units: Sequence[tuple[Unit, bool]]) -> None:
        """Counts units; those marked were done before."""
        self.units += len(units)
        self.counts = [sum(column) for column in zip(self.counts, *(unit.counts for unit, _ in units), strict=True)]
        files = self.files
        for unit, reused in units:
            if reused:
                self.resumed += unit.counts[_SESSIONS]
            for _, size, _, disposition in unit.files:
                if disposition != ELSEWHERE:
                    files[disposition] = files.get(disposition, 0) + 1
                    self.bytes += size
                    self.read += 0 if reused else size
            if unit.issues:
                self.issues += unit.issues
            if unit.facts:
                self.facts += unit.facts


Done = tuple[list[tuple[Unit, bool]], list[Item]]


def process(task: Task) -> Result:
    """Does a task. Raises `TargetError` when the target cannot be written, `LedgerError` when the ledger is damaged,
    `SourceError` when a part of the source that cannot be left out is out of reach."""
    started = time.perf_counter()
    deadline = started + task.seconds
    result = Result()
    with _inside(task.fence), _without_gc():
        job = Job(task.settings, Target(task.settings.target), time.time_ns())
        try:
            for position, item in enumerate(task.items):
                over = time.perf_counter() > deadline or result.bytes > task.max_bytes
                if position and over:
                    result.left += task.items[position:]
                    break
                span = item.span
                known = units_at(task.places[position], span.low, span.high) if task.places[position] else {}
                try:
                    units, left = _HANDLERS[item.kind](job, item, known, deadline, task.max_bytes - result.bytes)
                except OSError as error:  # what is written raises TargetError
                    raise SourceError.of(error.filename or item.name, error) from error
                if item.kind != "split":
                    result.add(units)
                else:  # counted where it stands; only what could not be read now is news, and is tried again next time
                    unread = [[issue for issue in unit.issues if issue.kind == "unread"] for unit, _ in units]
                    result.issues += chain.from_iterable(unread)
                    units = [one for one, missing in zip(units, unread, strict=True) if not missing]
                new = [unit for unit, reused in units if not reused]
                if new:
                    done = span._replace(high=left[0].span.low) if left and item.kind == "user" else span
                    result.records += encode_record(done, task.run, task.phase, new)
                result.users += item.kind == "user" and item.low is None and bool(units)
                result.left += left
            if result.records:
                job.target.sync()
        finally:
            job.target.close()
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


def _user(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    progress = UserMigration(job, user_directory(job, item.name), known).run(item.low, item.high, deadline, budget)
    if not progress.left:
        return progress.units, []
    # The children that are left, cut into ranges: (the last one done, 256 on], (256, 512], ... up to the item's end.
    ends = [progress.last, *progress.left[_RANGE - 1 : -1 : _RANGE], item.high]
    return progress.units, [Item("user", item.name, low, high) for low, high in pairwise(ends)]


def _split(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    child, splits = item.extra
    return [UserMigration(job, user_directory(job, item.name), known, splits=splits).again(child)], []


def _panel(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    return [migrate_panel(job, f"{job.settings.source}/{item.name}", known.get(""))], []


def _personas(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    path = f"{job.settings.source}/{item.name}"
    return [migrate_global_personas(job, path, known.get(""))], []


def _strays(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    unit, reused, below = migrate_strays(job, f"{job.settings.source}/{item.name}".rstrip("/"), known.get(""))
    deeper = [Item("strays", f"{item.name}/{name}") for name in below] if item.kind == "strays" else []
    return [(unit, reused)], deeper


def _merge(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    home, names, home_redone = item.extra
    directories = [user_directory(job, name) for name in dict.fromkeys([*([home] if home else []), *names])]
    return UserMerge(job, item.name, directories, known, home, home_redone).run(), []


def _vectors(job: Job, item: Item, known: Mapping[str, Unit], deadline: float, budget: int) -> Done:
    found: VectorSet = item.extra
    return [migrate_vector_set(job, found, known.get(""))], []


_HANDLERS: dict[str, Callable[[Job, Item, Mapping[str, Unit], float, int], Done]] = {
    "user": _user,
    "split": _split,
    "panel": _panel,
    "personas": _personas,
    "files": _strays,
    "strays": _strays,
    "merge": _merge,
    "vectors": _vectors,
}
