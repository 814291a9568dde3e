"""One shard of a run: which task comes next, what becomes of its result. No Ray, no clock of its own, no waiting.

A coordinator (`migration.coordinator`) or a run in this process (`migration.engine.LocalBackend`) asks for tasks,
has them done somehow, and hands the results in. A result is recorded in the ledger before its counts are believed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from migration.issues import Issue
from migration.items import LATER_KINDS, is_in_source, shard_of, shard_of_span, source_items
from migration.job import RunSettings
from migration.ledger import Journal, LedgerReader, Place, index
from migration.unit import COUNTS, counts_named
from migration.worker import MAX_TASK_BYTES, Changes, Item, Result, Task

# Of items of which nothing is known yet. To look at one again takes about a tenth of what it takes to migrate it.
_FIRST_BATCH, _FIRST_BATCH_OF_SURVEY = 96, 256
_LARGEST_BATCH = 512
_AIM_S = 0.3
_LOOKAHEAD = 2048  # items that are drawn at most before they are given out, to see the end coming
_ATTEMPTS = 8
_ISSUES_KEPT = 200


class WorkError(Exception):
    """An item that could not be done although it was tried again alone."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(item, reason)
        self.item = item
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.item}: {self.reason}"


@dataclass(slots=True)
class Totals:
    """Sums over results, of one shard or of a whole run."""

    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    files: dict[str, int] = field(default_factory=dict)
    issues: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Issue]] = field(default_factory=dict)
    facts: list[list[str]] = field(default_factory=list)
    bytes: int = 0
    read: int = 0
    users: int = 0
    units: int = 0
    resumed: int = 0
    tasks: int = 0
    work_s: float = 0.0
    changes: Changes = field(default_factory=Changes)
    newest_ns: int = 0

    def add(self, result: Result) -> None:
        self._sum(result)
        self.tasks += 1
        self.work_s += result.seconds
        self.facts += result.facts
        for issue in result.issues:
            self.note(issue)

    def note(self, issue: Issue) -> None:
        self.issues[issue.kind] = self.issues.get(issue.kind, 0) + 1
        examples = self.examples.setdefault(issue.kind, [])
        if len(examples) < _ISSUES_KEPT:
            examples.append(issue)

    def merge(self, other: Totals) -> None:
        self._sum(other)
        self.tasks += other.tasks
        self.work_s += other.work_s
        self.facts += other.facts
        for kind, count in other.issues.items():
            self.issues[kind] = self.issues.get(kind, 0) + count
            examples = self.examples.setdefault(kind, [])
            examples += other.examples[kind][: _ISSUES_KEPT - len(examples)]

    def named(self) -> dict[str, int]:
        return counts_named(self.counts)

    def _sum(self, other: Result | Totals) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        for disposition, count in other.files.items():
            self.files[disposition] = self.files.get(disposition, 0) + count
        self.bytes += other.bytes
        self.read += other.read
        self.users += other.users
        self.units += other.units
        self.resumed += other.resumed
        self.newest_ns = max(self.newest_ns, other.newest_ns)
        self.changes.merge(other.changes)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What one shard is to do: its part of the source (items None), or given items.

    A *survey* writes nothing to the target: it finds what is to be done.
    """

    settings: RunSettings
    run: int
    phase: int
    shard: int
    shards: int
    ledger: str
    journal: str
    fence: str
    items: tuple[Item, ...] | None = None
    survey: bool = False


class Shard:
    """The state of one shard while its items are done."""

    def __init__(self, plan: ShardPlan) -> None:
        self.plan = plan
        self.totals = Totals()
        self._journal = Journal(plan.journal)
        self._places: dict[tuple[str, bytes], list[Place]] = index(plan.ledger, self._is_mine)
        self._fresh: Iterator[Item] = self._items()
        self._again: deque[tuple[tuple[Item, ...], int]] = deque()
        self._ahead: deque[Item] = deque()
        self._exhausted = self._at_end = False
        self._batch = _FIRST_BATCH_OF_SURVEY if plan.survey else _FIRST_BATCH
        self._seen: set[tuple[str, bytes]] = set()

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to begin."""
        return self._exhausted and not self._again

    def next_task(self, parallel: int = 1, max_bytes: int = MAX_TASK_BYTES) -> Task | None:
        """The next task, or None when nothing is left to begin. What came back goes first.

        *parallel* tasks are under way at most: towards the end batches shrink, so that all end at about one time.
        The task gives back what is left when it has gone through *max_bytes*.
        """
        if self._again:
            items, attempts = self._again.popleft()
        else:
            items, attempts = tuple(self._draw(parallel)), 0
            self._exhausted = not items or (not self._ahead and self._at_end)
        if not items:
            return None
        plan = self.plan
        keys = [item.span[:2] for item in items]
        if plan.survey:
            self._seen.update(keys)
        places = [self._places.get(key, ()) for key in keys]
        return Task(
            plan.settings,
            plan.run,
            plan.phase,
            items,
            places,
            plan.fence,
            attempts,
            max_bytes=max_bytes,
            survey=plan.survey,
        )

    def finish_survey(self) -> None:
        """When everything was seen: notes what the ledger knows of, and v2 no longer has at all."""
        if not self.plan.survey:
            return
        changes = self.totals.changes
        with closing(LedgerReader()) as ledger:
            for (kind, name), places in self._places.items():
                if kind in LATER_KINDS:
                    changes.later.append((kind, name))
                elif (kind, name) not in self._seen and not is_in_source(self.plan.settings, kind, os.fsdecode(name)):
                    units = ledger.units_at(places)
                    if units:
                        count = sum(unit.counts[COUNTS.index("sessions")] for unit in units.values())
                        changes.known += count
                        changes.gone += count
                        changes.gone_items.append(Item("removed", os.fsdecode(name), extra=(kind, None)))

    def record(self, results: Iterable[tuple[Task, Result]]) -> None:
        """Makes what the results say durable, then counts it."""
        done = list(results)
        records = b"".join(result.records for _, result in done)
        if records:
            self._journal.append(records)
        for task, result in done:
            self.totals.add(result)
            ranges = [item for item in result.left if item.low is not None]
            rest = tuple(item for item in result.left if item.low is None)
            self._again.extend(((item,), 0) for item in ranges)
            if rest:
                self._again.append((rest, 0))
            self._adapt(max(1, len(task.items) - len(rest)), result.seconds)

    def failed(self, task: Task, reason: str) -> None:
        """Takes back a task whose worker died: its items are tried again one by one, a few times each."""
        if len(task.items) == 1 and task.attempts + 1 >= _ATTEMPTS:
            raise WorkError(f"{task.items[0].kind} {task.items[0].name}", reason)
        self._again.extend(((item,), task.attempts + 1) for item in task.items)

    def close(self) -> None:
        self._journal.close()

    def _draw(self, parallel: int) -> Iterator[Item]:
        size = self._batch
        wanted = min(_LOOKAHEAD, 2 * parallel * size + 1)
        self._ahead.extend(islice(self._fresh, max(0, wanted - len(self._ahead))))
        self._at_end = len(self._ahead) < wanted
        if self._at_end:
            share = -(-len(self._ahead) // parallel)
            size = max(1, min(size, max(share, size // 6)))
        for _ in range(min(size, len(self._ahead))):
            yield self._ahead.popleft()

    def _adapt(self, items: int, seconds: float) -> None:
        """Batches grow until one takes about the time that hides what a task costs, and shrink when it takes longer."""
        fitting = int(_AIM_S * items / max(seconds, 1e-6))
        self._batch = max(1, min(_LARGEST_BATCH, 4 * self._batch, fitting))

    def _items(self) -> Iterator[Item]:
        plan = self.plan
        items = source_items(plan.settings) if plan.items is None else iter(plan.items)
        return (item for item in items if shard_of(item, plan.shards) == plan.shard)

    def _is_mine(self, kind: str, name: bytes) -> bool:
        return shard_of_span(kind, name, self.plan.shards) == self.plan.shard
