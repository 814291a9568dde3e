"""The benchmark of the migration, side by side with ``cp -a`` and with the guide's own mapper.

    python -m benchmarks.bench_migration [--users 1000 --sessions 20 --messages 20] [--repeat 5] [--workers 2]
    python -m benchmarks.bench_migration --large      what grows with the store: this size, and ten times the users
    python -m benchmarks.bench_migration --profile    where the time of a run in one process goes

Standard output is Markdown, standard error tells how it is coming on. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from benchmarks.bulk_store import BulkStore, missing_room, wait_until_settled
from benchmarks.machine import Machine, free_room, highest_peak
from benchmarks.migration_runs import (
    BenchmarkError,
    MigrationRuns,
    Outcome,
    directory_of,
    growth_tables,
    run_module,
)
from benchmarks.scratch import remove, scratch
from benchmarks.side_by_side import in_turns
from benchmarks.tables import Table, as_markdown, with_section
from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.run import ClusterError, RayBackend, RayCluster, RayFanOut, default_shards
from migration.state import RefusedError

_ROUNDS, _ROUNDS_LARGE, _WORKERS, _GROWTH = 5, 3, 2, 10
_PROFILED = 25


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all was measured, 1 when something did not do its work, 2 for wrong use."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.profile:
        idle = [name for name in ("repeat", "workers", "json", "into") if getattr(args, name) is not None]
        if idle:
            parser.error(f"--profile measures no rounds; it goes without --{', --'.join(idle)}")
    section = "bench_migration --large" if args.large else "bench_migration"
    try:
        if args.into:  # a mistake there must not cost a whole run
            with_section(args.into.read_text(encoding="utf-8"), section, "")
        with ExitStack() as stack:
            rows: TextIO | None = None
            if args.json:
                rows = stack.enter_context(open(args.json, "w", encoding="utf-8"))
            directory = stack.enter_context(scratch(args.dir))
            if args.profile:
                _profile(args, directory)
                return 0
            tables = _measure(args, directory)
            if rows is not None:
                rows.writelines(table.to_json_lines() for table in tables)
        text = as_markdown(tables)
        print(text)
        if args.into:
            document = args.into.read_text(encoding="utf-8")
            args.into.write_text(with_section(document, section, text), encoding="utf-8")
    except (BenchmarkError, ClusterError, RefusedError, OSError, ValueError) as error:
        sys.stderr.write(f"bench_migration: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("bench_migration: interrupted; every tree is removed\n")
        return 130
    return 0


def _measure(args: argparse.Namespace, directory: str) -> tuple[Table, ...]:
    rounds = args.repeat or (_ROUNDS_LARGE if args.large else _ROUNDS)
    machine = Machine.here(directory)
    with RayCluster(workers=args.workers or _WORKERS) as cluster:
        outcome = _outcome(args, directory, args.users, rounds, cluster.worker_count())
        if not args.large:
            return machine.table(), *outcome.tables()
        larger = _outcome(args, directory, args.users * _GROWTH, rounds, cluster.worker_count())
    return machine.table(), *outcome.tables(), *larger.tables(), *growth_tables(outcome, larger)


def _outcome(args: argparse.Namespace, directory: str, users: int, rounds: int, workers: int) -> Outcome:
    store = _written(args, directory, users)
    backend = RayBackend(workers, default_shards(workers))  # new coordinators, whose memory is of this store alone
    backend.warm()
    coordinators = [backend.actor(shard) for shard in range(backend.shards)]
    runs = MigrationRuns(store, directory, backend, RayFanOut(workers), lambda: highest_peak(coordinators))
    contestants = runs.contestants()
    timings = in_turns(
        contestants, rounds, lambda name, number, seconds: _say(f"{number}/{rounds} {name}: {seconds:.3f} s")
    )
    remove(f"{directory}/new")
    remove(store.path)
    return Outcome(store.sessions, contestants, timings, runs.peaks, backend.shards)


def _written(args: argparse.Namespace, directory: str, users: int) -> BulkStore:
    path = directory_of(directory, users)
    sizes = (str(users), str(args.sessions), str(args.messages))
    _say(f"writing {users:,} users x {args.sessions} sessions x {args.messages} messages to {path}")
    store = BulkStore(**run_module("benchmarks.bulk_store", str(path), *sizes))
    _say(json.dumps(asdict(store)))
    free_bytes, free_inodes = free_room(directory)
    lacking = missing_room(store, free_bytes=free_bytes, free_inodes=free_inodes)
    if lacking is not None:
        raise BenchmarkError(f"{directory} has no room for a second tree: {lacking}; choose another with --dir")
    wait_until_settled(store)
    return store


def _profile(args: argparse.Namespace, directory: str) -> None:
    store = _written(args, directory, args.users)
    engine = Engine(RunSettings(store.path, f"{directory}/new"), LocalBackend())
    profile = cProfile.Profile()
    report = profile.runcall(engine.run)
    print(f"{report.counts['sessions']:,} sessions in one process, {report.elapsed_s:.2f} s under the profiler\n")
    pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(_PROFILED)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench_migration", description="Times the migration side by side with cp -a and with the guide's mapper."
    )
    parser.add_argument("--users", type=_positive, default=1000, metavar="N")
    parser.add_argument("--sessions", type=_positive, default=20, metavar="N", help="of each user")
    parser.add_argument("--messages", type=_positive, default=20, metavar="N", help="of each session")
    parser.add_argument("--repeat", type=_positive, metavar="N", help=f"rounds ({_ROUNDS}; large: {_ROUNDS_LARGE})")
    parser.add_argument("--workers", type=_positive, metavar="N", help=f"workers on Ray (default: {_WORKERS})")
    parser.add_argument("--dir", default="/dev/shm", metavar="DIR", help="where the trees stand while this runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each row of each table as a JSON object")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables into their section of a document")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--large", action="store_true", help=f"also measure {_GROWTH} times the users, and memory")
    mode.add_argument("--profile", action="store_true", help=f"profile one run without Ray, top {_PROFILED}")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
