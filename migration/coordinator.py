"""Coordinators on Ray: each holds one shard of a run and keeps a bounded number of tasks under way.

A coordinator does nothing by itself: the driver calls `begin`, then `advance` again and again, each time with the
number of tasks that the shard may have under way. So pausing, throttling and changing the number of workers are
arguments of the next call, and a coordinator or driver that dies leaves nothing behind that goes on by itself. A
coordinator that is made anew for the same shard first waits until the tasks of the one before have ended (they hold the
shard's fence), then finds in the ledger what they did.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray

from migration.ledger import LedgerError
from migration.shard import Shard, ShardPlan, Totals, WorkError
from migration.state import BusyError, wait_for_fence
from migration.target import TargetError
from migration.v2.read import SourceError
from migration.worker import MAX_TASK_BYTES, Result, Task, process

_TURN_S = 0.2
_FENCE_TIMEOUT_S = 60.0

# What Ray reports when a task's process or node is gone, whatever ended it. The task is tried again.
_WORKER_DIED = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)

# Errors that stop a run. They travel as values, so that they arrive as what they are.
Failure = TargetError | LedgerError | WorkError | SourceError | BusyError


@dataclass(frozen=True, slots=True)
class Turn:
    """What a coordinator reports after each call. *totals* come with the last one only."""

    done: bool
    in_flight: int = 0
    users: int = 0
    sessions: int = 0
    messages: int = 0
    bytes: int = 0
    read: int = 0
    quarantined: int = 0
    failure: Failure | None = None
    totals: Totals | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a shard may do in its next turn: tasks under way at most; and once it has read *bytes*, it begins no more in
    this turn (None: no limit)."""

    tasks: int
    bytes: int | None = None


def _run_task(task: Task | None) -> Result | Failure:
    """A task on a worker of the cluster; without one, what a worker needs is loaded."""
    if task is None:
        return Result()
    try:
        return process(task)
    except (TargetError, LedgerError, SourceError) as error:
        return error


run_task: Any = ray.remote(num_cpus=1, max_retries=0)(_run_task)


@dataclass(slots=True)
class _Flight:
    """The tasks under way, by the reference to their result."""

    tasks: dict[Any, Task] = field(default_factory=dict)

    def start(self, task: Task) -> None:
        self.tasks[run_task.remote(task)] = task

    def landed(self, timeout_s: float) -> list[tuple[Task, Any]]:
        """The tasks that have ended, with their results; waits for one, and takes all that are there."""
        if not self.tasks:
            return []
        ready, rest = ray.wait(list(self.tasks), num_returns=1, timeout=timeout_s)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        return [(self.tasks.pop(reference), reference) for reference in ready]


class _Coordinator:
    """The owner of one shard for the length of a phase."""

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._flight = _Flight()

    def warm(self, tasks: int) -> None:
        """Has that many workers load the code that they will run."""
        ray.get([run_task.remote(None) for _ in range(tasks)])

    def begin(self, plan: ShardPlan, allowance: Allowance) -> Turn:
        """Takes over a shard, and its first turn."""
        try:
            wait_for_fence(plan.fence, _FENCE_TIMEOUT_S)
            self._shard = Shard(plan)
        except (BusyError, LedgerError, SourceError, TargetError) as error:
            return Turn(done=True, failure=error)
        return self.advance(allowance)

    def advance(self, allowance: Allowance) -> Turn:
        """Works for a short turn within the allowance."""
        shard = self._shard
        if shard is None:
            raise RuntimeError("a coordinator was advanced before it had a shard")
        end = time.monotonic() + _TURN_S
        read_before = shard.totals.read
        failure: Failure | None = None
        try:
            while True:
                self._start(shard, allowance, read_before)
                failure = self._take(shard, end)
                idle = not self._flight.tasks
                if failure or (idle and shard.exhausted) or time.monotonic() >= end:
                    break
                if idle:  # held back by the allowance
                    time.sleep(max(0.0, end - time.monotonic()))
                    break
        except (WorkError, TargetError, SourceError, LedgerError) as error:
            failure = error
        except OSError as error:
            failure = SourceError.of(str(error.filename or shard.plan.settings.source), error)
        done = failure is not None or (shard.exhausted and not self._flight.tasks)
        if done and failure is None:
            failure = self._finish(shard)
        if done:
            shard.close()
        counts = shard.totals.named()
        return Turn(
            done=done,
            in_flight=len(self._flight.tasks),
            users=shard.totals.users,
            sessions=counts["sessions"],
            messages=counts["messages"],
            bytes=shard.totals.bytes,
            read=shard.totals.read,
            quarantined=counts["quarantined"],
            failure=failure,
            totals=shard.totals if done else None,
        )

    def _finish(self, shard: Shard) -> Failure | None:
        try:
            shard.finish_survey()
        except LedgerError as error:
            return error
        except OSError as error:
            return SourceError.of(str(error.filename or shard.plan.settings.source), error)
        return None

    def _start(self, shard: Shard, allowance: Allowance, read_before: int) -> None:
        while len(self._flight.tasks) < allowance.tasks:
            most = MAX_TASK_BYTES
            if allowance.bytes is not None:
                most = allowance.bytes - (shard.totals.read - read_before)
                if most <= 0:
                    return
            task = shard.next_task(allowance.tasks, most)
            if task is None:
                return
            self._flight.start(task)

    def _take(self, shard: Shard, end: float) -> Failure | None:
        results: list[tuple[Task, Result]] = []
        for task, reference in self._flight.landed(max(0.0, end - time.monotonic())):
            try:
                outcome = ray.get(reference)
            except _WORKER_DIED as error:
                shard.failed(task, str(error).split("\n")[0])
                continue
            if not isinstance(outcome, Result):
                return outcome  # type: ignore[no-any-return]
            results.append((task, outcome))
        if results:
            shard.record(results)
        return None


Coordinator: Any = ray.remote(num_cpus=0, max_restarts=0)(_Coordinator)
