"""Memory of proxy, replicas and actors under load that goes on: ``python -m benchmarks.soak_http [--minutes 10]``.

The load comes in rounds: messages stored, histories read, streams read to their end. After each round the memory that
every process has for itself is looked at (anonymous pages, ``RssAnon``). It must not grow: the last third of the run
is compared with the third before it, since at first every process fills what it keeps. Needs wrk. Ends with 1 when a
process grew by more than is allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import wrk
from benchmarks.bench_http import first_words, streams_each
from benchmarks.http_servers import Serving, modchat
from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown

_CONNECTIONS, _STREAMS = 32, 8
_CONTENT = "Hello, this is a message of an everyday length, as people write them."
# What a process may gain from one third of the run to the next and still be called flat: allocators keep some.
_ALLOWED_SHARE, _ALLOWED_BYTES = 0.05, 8 << 20

_ROLES = {
    "ray::ServeReplica": "replica",
    "ray::_ModuleActor": "module",
    "ray::HAProxyManager": "HAProxy's manager",
    "ray::ProxyActor": "fallback proxy",
    "ray::ServeController": "controller",
    "bin/haproxy": "HAProxy",
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "modchat": "command",
}


@dataclass(slots=True)
class Soaked:
    """``bytes``: by role, one sum over the processes of that role for each round."""

    seconds: float = 0.0
    requests: int = 0
    streams: int = 0
    bytes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def grown(self) -> dict[str, tuple[float, float]]:
        """By role, the medians of the middle and of the last third."""
        found = {}
        for role, samples in self.bytes.items():
            third = max(1, len(samples) // 3)
            middle, last = samples[-2 * third : -third] or samples, samples[-third:]
            found[role] = (statistics.median(middle), statistics.median(last))
        return found

    def too_much(self) -> list[str]:
        """The roles that grew by more than is allowed."""
        return [
            role
            for role, (before, after) in self.grown().items()
            if after - before > max(_ALLOWED_SHARE * before, _ALLOWED_BYTES)
        ]

    def table(self) -> Table:
        rows = tuple(
            (role, len(self.bytes[role]), before / 1e6, after / 1e6, (after - before) / 1e6)
            for role, (before, after) in self.grown().items()
        )
        title = f"Memory, MB: {self.requests:,} requests and {self.streams:,} streams in {self.seconds:,.0f} s"
        return Table("http_soak", title, ("process", "samples", "middle third", "last third", "growth"), rows)


def soak(serving: Serving, seconds: float, *, slice_s: float = 5.0) -> Soaked:
    """Raises RuntimeError when a request fails."""
    sessions = serving.sessions(_CONNECTIONS)
    body = [json.dumps({"user_id": f"user{n}", "content": _CONTENT, "reply": False}) for n in range(len(sessions))]
    paths = [f"/v1/sessions/{session_id}/messages" for session_id in sessions]
    store = wrk.posts(paths, body)
    found, began = Soaked(), time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        stored = wrk.run(serving.port, connections=_CONNECTIONS, seconds=slice_s, script=store)
        history = f"{paths[0]}?user_id=user0&limit=100&order=desc"
        read = wrk.run(serving.port, history, connections=_CONNECTIONS, seconds=slice_s / 2)
        asyncio.run(first_words(serving, sessions[:_STREAMS]))
        found.requests += stored.requests + read.requests
        found.streams += _STREAMS * streams_each(_STREAMS)
        for role, memory in sorted(_memory(serving.pid).items()):
            found.bytes[role].append(memory)
        print(f"{elapsed:6.0f} s: {found.requests:,} requests", file=sys.stderr, flush=True)
    found.seconds = time.monotonic() - began
    return found


def _memory(pid: int) -> dict[str, int]:
    """Anonymous memory by role, of the process and all below it."""
    found: dict[str, int] = defaultdict(int)
    for one in _family(pid):
        try:
            title = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            status = Path(f"/proc/{one}/status").read_text("utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        role = next((name for part, name in _ROLES.items() if part in title), None)
        memory = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
        if role is not None and memory is not None:
            found[role] += int(memory[1]) * 1024
    return found


def _family(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children[parent].append(int(path.name))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += children[one]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dir", default="/tmp", help="where the store stands while it runs")
    args = parser.parse_args()
    with scratch(args.dir) as parent:
        machine = Machine.here(parent)
        with modchat(parent) as serving:
            found = soak(serving, args.minutes * 60)
    print(as_markdown((machine.table(), found.table())))
    for role in found.too_much():
        print(f"{role} grew", file=sys.stderr)
    return 1 if found.too_much() else 0


if __name__ == "__main__":
    sys.exit(main())
