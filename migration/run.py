"""A run on Ray: brings Ray up, makes the coordinators, gives each its turns, and replaces the ones that die."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

from actors.ray_runtime import is_here_alone, listen_on_loopback
from migration.coordinator import Allowance, Coordinator, Turn
from migration.engine import Engine, OnProgress, Phase, ignore_progress
from migration.guards import ChangeLimits
from migration.items import count_users
from migration.job import RunSettings
from migration.progress import Progress
from migration.report import RunReport
from migration.shard import Totals

T = TypeVar("T")
R = TypeVar("R")

_RESTARTS_WITHOUT_PROGRESS = 20
_RECENT_S = 10.0
_RESULT_BYTES = 4 << 20  # several times what a task of plain sessions reports
_HOME = Path(__file__).resolve().parents[1]


class ClusterError(ConnectionError):
    """Ray could not be started or reached, or its workers keep dying; another try may help."""


@dataclass(slots=True)
class RayCluster:
    """Ray for the length of a command: a local one of its own, or an existing cluster that it connects to."""

    address: str | None = None
    workers: int | None = None
    _owned: bool = False

    def __enter__(self) -> RayCluster:
        if not ray.is_initialized():
            self._connect()
            self._owned = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            ray.shutdown()

    def worker_count(self) -> int:
        """The workers asked for, else the CPUs of the cluster."""
        return self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _connect(self) -> None:
        # Nothing of a migration is reported to anybody, and the cluster's own logs stay in its session directory.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")  # a record of every task, that nobody reads
        if self.address is None:
            # What a task reports comes with the answer, not by way of the object store.
            os.environ.setdefault("RAY_max_direct_call_object_size", str(_RESULT_BYTES))
            for name in ("RAY_enable_metrics_collection", "RAY_event_stats"):  # which nobody reads either
                os.environ.setdefault(name, "0")
        listen_on_loopback(self.address is None or is_here_alone(self.address))
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if self.address is None:
            cpus = self.workers or os.cpu_count() or 1
            options |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
            options |= {"object_store_memory": 256 << 20}
        else:
            options["address"] = self.address
            # Ray sends the token of this user by itself only to a cluster that it starts.
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        try:
            # Ray puts the current directory first in the search path of its workers, before the directory that this
            # program came from: a `config` or `migration` of the operator's would be imported in place of ours.
            with chdir(_HOME):
                ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = self.address or "this machine"
            raise ClusterError(f"Ray could not be reached at {where}: {error}") from error


def share_tasks(workers: int, open_shards: Sequence[bool], spare: int = 0) -> list[int]:
    """How many tasks each shard may have under way: *workers* in all, spread evenly over the shards still open.

    With fewer workers than open shards the first ones go first. *spare* more for each that has any.
    """
    count = sum(open_shards)
    shares = []
    given = 0
    for is_open in open_shards:
        share = 0
        if is_open:
            share = workers // count + (1 if given < workers % count else 0)
            share += spare if share else 0
            given += 1
        shares.append(share)
    return shares


def default_shards(workers: int) -> int:
    """One coordinator can keep several workers busy; more than a few only help when there are many."""
    return max(1, min(16, workers // 4))


@dataclass(slots=True)
class Throttle:
    """Bytes that may be read, at the rate that an operator set; what is not used of one second is not kept longer.

    So neither a pause nor the time before the rate was set counts, and what one task read too much is waited for.
    """

    at: float
    bytes: float = 0.0

    def allowance(self, megabytes_per_s: float | None, now: float) -> int | None:
        """How many bytes may be read now; None when there is no limit."""
        passed, self.at = now - self.at, now
        if megabytes_per_s is None:
            self.bytes = 0.0
            return None
        rate = megabytes_per_s * 1e6
        self.bytes = min(rate, self.bytes + rate * passed)
        return max(0, int(self.bytes))

    def spend(self, count: int) -> None:
        """Takes off what was read."""
        self.bytes -= count


@dataclass(slots=True)
class _Seat:
    """A shard's coordinator and the turn it is taking."""

    shard: int
    actor: Any
    turn: Any = None
    begun: bool = False
    incarnation: int = 0
    last: Turn | None = None
    read: int = 0
    closed: bool = False


@dataclass(slots=True)
class RayBackend:
    """Carries out phases with coordinators on Ray. Make it (and `warm` it) before the run's time is taken."""

    workers: int
    shards: int
    _actors: list[Any] = field(default_factory=list)

    def warm(self) -> None:
        """Starts the coordinators and as many worker processes as will be used, with the code loaded."""
        self._actors = [Coordinator.remote() for _ in range(self.shards)]
        try:
            ray.get([_warm.remote() for _ in range(min(self.workers, int(ray.cluster_resources().get("CPU", 1))))])
            ray.get([actor.warm.remote(-(-self.workers // self.shards)) for actor in self._actors])
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the workers of the cluster cannot be used: {error}") from error

    def run_phase(self, phase: Phase, on_progress: OnProgress) -> Totals:
        return _PhaseRun(self, phase, on_progress).run()

    def actor(self, shard: int) -> Any:
        while len(self._actors) <= shard:
            self._actors.append(Coordinator.remote())
        return self._actors[shard]

    def replace_actor(self, shard: int) -> Any:
        self._actors[shard] = Coordinator.remote()
        return self._actors[shard]


class _PhaseRun:
    """One phase under way."""

    def __init__(self, backend: RayBackend, phase: Phase, on_progress: OnProgress) -> None:
        self.backend, self.phase, self.on_progress = backend, phase, on_progress
        self.control = phase.state.control()
        self.cpus = int(ray.cluster_resources().get("CPU", 1))
        self.started = time.monotonic()
        self.throttle = Throttle(self.started)
        self.users_total: int | None = None
        self.is_uncounted = phase.items is None  # of the whole source; a phase of given items has no more to count
        self.restarts = 0
        self.recent: deque[tuple[float, int]] = deque()
        self.shown = 0.0

    def run(self) -> Totals:
        shards = range(
            self.backend.shards
            if self.phase.items is None
            else min(self.backend.shards, 1 + len(self.phase.items) // 64)
        )
        seats = [_Seat(shard, self.backend.actor(shard)) for shard in shards]
        totals = Totals()
        while any(not seat.closed for seat in seats):
            self._give_turns(seats)
            for seat in self._finished(seats):
                turn = self._turn_of(seat)
                if turn is None:
                    continue
                seat.last = turn
                if turn.failure is not None:
                    raise turn.failure
                if turn.done and turn.totals is not None:
                    seat.closed = True
                    totals.merge(turn.totals)
            self._show(seats)
        return totals

    def _give_turns(self, seats: Sequence[_Seat]) -> None:
        workers = 0 if self.control.paused else self.control.workers or self.backend.workers
        # With every CPU of the cluster at work, one more task a shard waits at Ray, which bounds what runs, and so no
        # worker idles while a result travels.
        spare = 1 if workers >= self.cpus else 0
        shares = share_tasks(workers, [not seat.closed for seat in seats], spare)
        limit = self.throttle.allowance(self.control.throttle_mb_s, time.monotonic())
        if limit is not None:
            limit //= max(1, sum(not seat.closed for seat in seats))
        for seat, share in zip(seats, shares, strict=True):
            if seat.closed or seat.turn is not None:
                continue
            allowance = Allowance(share, limit)
            if seat.begun:
                seat.turn = seat.actor.advance.remote(allowance)
            else:
                plan = self.phase.shard_plan(seat.shard, len(seats), seat.incarnation)
                seat.turn = seat.actor.begin.remote(plan, allowance)
                seat.begun = True

    def _finished(self, seats: Sequence[_Seat]) -> list[_Seat]:
        waiting = {seat.turn: seat for seat in seats if seat.turn is not None}
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
        return [waiting[reference] for reference in ready]

    def _turn_of(self, seat: _Seat) -> Turn | None:
        reference, seat.turn = seat.turn, None
        try:
            turn: Turn = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._replace(seat, error)
            return None
        if seat.last is not None and turn.sessions > seat.last.sessions:
            self.restarts = 0
        self.throttle.spend(turn.read - seat.read)
        seat.read = turn.read
        return turn

    def _replace(self, seat: _Seat, error: Exception) -> None:
        self.restarts += 1
        if self.restarts > _RESTARTS_WITHOUT_PROGRESS:
            raise ClusterError(f"the coordinator of shard {seat.shard} keeps dying: {error}") from error
        ray.kill(seat.actor)  # one that is only out of reach must not go on beside its successor
        seat.incarnation += 1
        seat.begun = False
        seat.read = 0
        seat.actor = self.backend.replace_actor(seat.shard)

    def _show(self, seats: Sequence[_Seat]) -> None:
        now = time.monotonic()
        if now - self.shown < 0.5 and any(not seat.closed for seat in seats):
            return
        self.shown = now
        self.control = self.phase.state.control()
        if self.is_uncounted and any(not seat.closed for seat in seats):
            self.is_uncounted = False
            threading.Thread(target=self._count_users, daemon=True).start()
        turns = [seat.last for seat in seats if seat.last is not None]
        users = sum(turn.users for turn in turns)
        self.recent.append((now, users))
        while len(self.recent) > 2 and now - self.recent[0][0] > _RECENT_S:
            self.recent.popleft()
        (then, before), span = self.recent[0], now - self.recent[0][0]
        progress = Progress(
            phase=self.phase.name,
            elapsed_s=now - self.started,
            users=users,
            users_total=self.users_total,
            sessions=sum(turn.sessions for turn in turns),
            messages=sum(turn.messages for turn in turns),
            bytes=sum(turn.bytes for turn in turns),
            quarantined=sum(turn.quarantined for turn in turns),
            in_flight=sum(turn.in_flight for turn in turns),
            paused=self.control.paused,
            throttle_mb_s=self.control.throttle_mb_s,
            workers=self.control.workers or self.backend.workers,
            recent_users_per_s=(users - before) / span if now > then and span > 0 else None,
        )
        self.on_progress(progress)
        self.phase.state.write_status(progress)

    def _count_users(self) -> None:
        try:
            self.users_total = count_users(self.phase.settings)
        except OSError:
            return  # the run itself will meet the error and report it


def _wait_a_little() -> None:
    time.sleep(0.05)  # long enough that each call gets a process of its own


def _apply(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


_warm: Any = ray.remote(num_cpus=1)(_wait_a_little)
_call: Any = ray.remote(num_cpus=1, max_retries=3)(_apply)


@dataclass(frozen=True, slots=True)
class RayFanOut:
    """Independent calls on the cluster, a bounded number under way (`migration.fanout.FanOut`)."""

    workers: int

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        pending: list[Any] = []
        try:
            for item in items:
                pending.append(_call.remote(function, item))
                if len(pending) >= self.workers + 1:
                    ready, pending = ray.wait(pending, num_returns=1)
                    yield from _results(ready)
            while pending:
                ready, pending = ray.wait(pending, num_returns=1)
                yield from _results(ready)
        finally:
            if pending and ray.is_initialized():  # after an exception, or when no further result is wanted
                for call in pending:
                    ray.cancel(call)


def _results(ready: list[Any]) -> Iterator[Any]:
    """The results of finished calls; an exception in one is raised as what it was there."""
    try:
        yield from ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


@contextmanager
def cluster_fan_out(address: str | None, workers: int | None) -> Iterator[RayFanOut]:
    """A fan-out over Ray for the length of a command."""
    with RayCluster(address, workers) as cluster:
        yield RayFanOut(cluster.worker_count())


def migrate(
    settings: RunSettings,
    *,
    workers: int | None = None,
    shards: int | None = None,
    address: str | None = None,
    on_progress: OnProgress = ignore_progress,
    limits: ChangeLimits | None = None,
    final: bool = False,
) -> RunReport:
    """Migrates on Ray: a local one for this call, or the cluster at *address*.

    Raises `SourceError`, `RefusedError`, `TargetError`, `LedgerError`, `WorkError` or `ClusterError`.
    """
    with RayCluster(address, workers) as cluster:
        count = cluster.worker_count()
        backend = RayBackend(count, shards or default_shards(count))
        backend.warm()
        return Engine(settings, backend, on_progress, limits or ChangeLimits(), final).run()
