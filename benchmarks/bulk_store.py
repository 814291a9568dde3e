"""The store that is migrated, and what is known of it.

    python -m benchmarks.bulk_store DIR USERS SESSIONS MESSAGES

writes one and prints what it holds. A process of its own does that, so that the memory it takes is not taken for the
migration's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.guide_mapper import SESSIONS
from migration.sample import write_bulk

SETTLED_S = 2.0
"""Age from which the migration trusts a file after one read; younger ones it reads twice, by design."""


@dataclass(frozen=True, slots=True)
class BulkStore:
    """A written v2 store. Sizes in bytes, *allocated* as the file system counts it; *guide_sessions* and
    *guide_bytes* are the part of it that the guide's mapper looks at."""

    path: str
    sessions: int
    messages: int
    bytes: int
    allocated: int
    inodes: int
    guide_sessions: int
    guide_bytes: int
    newest_mtime_ns: int

    def unsettled_s(self, now_ns: int) -> float:
        """For how long some file is still too young to be measured with; 0 when none is."""
        return max(0.0, SETTLED_S - (now_ns - self.newest_mtime_ns) / 1e9)


def write_store(path: Path, *, users: int, sessions: int, messages: int) -> BulkStore:
    """Writes a store of plain chat and looks it over. Raises as `migration.sample.write_bulk`."""
    counts = write_bulk(path, users=users, sessions=sessions, messages=messages)
    size = allocated = inodes = newest = 0
    for directory, _, names in os.walk(path):
        for status in (os.stat(directory), *(os.stat(os.path.join(directory, name)) for name in names)):
            inodes += 1
            allocated += status.st_blocks * 512
        for name in names:
            status = os.stat(os.path.join(directory, name))
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
    taken = [session.parent for session in path.glob(SESSIONS)]
    read = [session / name for session in taken for name in ("session.json", "messages.jsonl")]
    return BulkStore(
        path=os.fspath(path),
        sessions=counts.sessions,
        messages=counts.messages,
        bytes=size,
        allocated=allocated,
        inodes=inodes,
        guide_sessions=len(taken),
        guide_bytes=sum(file.stat().st_size for file in read if file.exists()),
        newest_mtime_ns=newest,
    )


def wait_until_settled(store: BulkStore) -> None:
    """Returns when every file is old enough. Raises `ValueError` when that would be far off: a clock is wrong."""
    wait_s = store.unsettled_s(time.time_ns())
    if wait_s > 60:
        raise ValueError(f"{store.path}: its newest file is from the future by {wait_s - SETTLED_S:.0f} s")
    time.sleep(wait_s)


def missing_room(store: BulkStore, *, free_bytes: int, free_inodes: int | None) -> str | None:
    """What a file system lacks for one more tree of the store's size, with a third to spare; None when nothing.

    *free_inodes* is None where a file system has no fixed number of them.
    """
    bytes_needed, inodes_needed = store.allocated * 4 // 3, store.inodes * 4 // 3
    if free_bytes < bytes_needed:
        return f"{bytes_needed / 1e9:.2f} GB needed, {free_bytes / 1e9:.2f} GB free"
    if free_inodes is not None and free_inodes < inodes_needed:
        return f"{inodes_needed:,} inodes needed, {free_inodes:,} free"
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a `BulkStore` as JSON."""
    parser = argparse.ArgumentParser(prog="bulk_store", description="Writes a v2 store of plain chat.")
    parser.add_argument("path", metavar="DIR", type=Path)
    for name in ("users", "sessions", "messages"):
        parser.add_argument(name, metavar=name.upper(), type=int)
    args = parser.parse_args(argv)
    store = write_store(args.path, users=args.users, sessions=args.sessions, messages=args.messages)
    print(json.dumps(asdict(store)))


if __name__ == "__main__":
    main()
