"""How long the final sync takes, by how much has changed: ``python -m benchmarks.bench_final_sync``.

A store is migrated; then a share of its sessions gets a message each, and the run behind the fence is measured
(``migrate run --final``: survey, carrying over, report), beside the validation that follows it in a cut-over. Each
share is measured on the tree that the one before has left, so every row carries over what changed since.

    python -m benchmarks.bench_final_sync [--users 1000 --sessions 20 --messages 20]
        [--rounds 3] [--workers 2] [--local]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bulk_store import SETTLED_S
from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown
from migration.cutover_sync import LocalSyncer, RaySyncer, Syncer
from migration.guards import ChangeLimits
from migration.job import RunSettings
from migration.sample import write_bulk

_SHARES = (0.0, 0.01, 0.1, 1.0)
_ANY_CHANGE = ChangeLimits(deletes=1.0, all_changed=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_final_sync", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=20, help="of each user")
    parser.add_argument("--messages", type=int, default=20, help="of each session")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--local", action="store_true", help="in one process, without Ray")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the trees are written")
    args = parser.parse_args(argv)
    with scratch(args.dir) as directory:
        machine = Machine.here(directory)
        syncer: Syncer = LocalSyncer(args.workers) if args.local else RaySyncer(args.workers, None)
        try:
            table = measured(args, Path(directory), syncer)
        finally:
            syncer.close()
    print(as_markdown((machine.table(), table)))
    return 0


def measured(args: argparse.Namespace, directory: Path, syncer: Syncer) -> Table:
    source, target = directory / "v2", directory / "new"
    write_bulk(source, users=args.users, sessions=args.sessions, messages=args.messages)
    sessions = sorted(source.glob("users/*/*/messages.jsonl"))
    settings = RunSettings(os.fspath(source), os.fspath(target))
    time.sleep(SETTLED_S)
    _say("the first run")
    first = syncer.sync(settings, _ANY_CHANGE, final=False)
    rows: list[tuple[str | int | float | None, ...]] = []
    for share in _SHARES:
        taken, checked, found = [], [], 0
        for number in range(args.rounds):
            _say(f"{share:.0%} changed, round {number + 1}")
            _change(sessions, share, f"{share}-{number}")
            time.sleep(SETTLED_S)
            begun = time.perf_counter()
            report = syncer.sync(settings, _ANY_CHANGE, final=True)
            taken.append(time.perf_counter() - begun)
            found = report.changed
            begun = time.perf_counter()
            compared = syncer.validate(settings, None)
            checked.append(time.perf_counter() - begun)
            if report.exit_code or not compared.equal or found != round(share * len(sessions)):
                raise AssertionError(f"{found} sessions were found changed; equal: {compared.equal}; {report.issues}")
        rows.append((f"{share:.0%}", found, statistics.median(taken), statistics.median(checked), max(taken)))
    title = f"Final sync of {len(sessions):,} sessions (first run: {first.elapsed_s:.2f} s)"
    headings = ("changed", "sessions", "final sync, s", "validation, s", "slowest sync, s")
    return Table("final_sync", title, headings, tuple(rows))


def _change(sessions: Sequence[Path], share: float, mark: str) -> None:
    """Appends a message to that share of the sessions, spread evenly."""
    count = round(share * len(sessions))
    for number in range(count):
        path = sessions[number * len(sessions) // count]
        line = f'{{"message_id": "late_{mark}_{number}", "role": "user", "content": "late", "metadata": {{}}}}\n'
        with path.open("ab") as file:
            file.write(line.encode())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
