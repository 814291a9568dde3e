"""Requests a second and the first word of a stream: modchat, Serve in its default mode, and plain FastAPI.

    python -m benchmarks.bench_http [--rounds 5] [--seconds 5] [--connections 32] [--json FILE] [--into FILE]
    python -m benchmarks.bench_http --health [--seconds 30] [--streams 64] [--uploads 2] [--upload-mb 300]

Each round starts every server in turn, with an empty store, measures it and stops it; the middle of the rounds counts.
Needs wrk. A figure of a run in which a request failed, or a stored message is missing, is not shown: the run ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wrk
from benchmarks.health_under_load import health_under_load
from benchmarks.http_servers import Serving, ceiling, modchat
from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown, with_section

Start = Callable[[str], AbstractContextManager[Serving]]

OURS, DEFAULT = "modchat", "modchat, Serve's default mode"
PLAIN, CEILING = "FastAPI alone, one process", "the same, without uvicorn's log of requests"
SERVERS: dict[str, Start] = {
    OURS: modchat,
    DEFAULT: lambda parent: modchat(parent, high_throughput=False),
    PLAIN: lambda parent: ceiling(parent, access_log=True),
    CEILING: ceiling,
}
STORE, HISTORY, HEALTH, FIRST, FIRST_MANY = (
    "store a message",
    "history of 100",
    "/health",
    "first word, one client",
    "first word, all clients",
)
_CONTENT = "Hello, this is a message of an everyday length, as people write them."
_WARM_UP_S = 1.0
_STREAMS_MEASURED = 100


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    seconds: float
    connections: int


@dataclass(frozen=True, slots=True)
class Found:
    """Of one server in one round: requests a second, and milliseconds."""

    rates: dict[str, float]
    p99_ms: dict[str, float]
    first_ms: dict[str, float]


def measured(serving: Serving, plan: Plan) -> Found:
    """Raises RuntimeError when a request failed or a message that was acknowledged is not there."""
    sessions = serving.sessions(plan.connections)
    script = wrk.posts(
        [f"/v1/sessions/{session_id}/messages" for session_id in sessions],
        [json.dumps({"user_id": f"user{n}", "content": _CONTENT, "reply": False}) for n in range(len(sessions))],
    )
    rates, p99_ms = {}, {}

    def load(name: str, path: str = "/", script: str = "") -> int:
        warm = wrk.run(serving.port, path, connections=plan.connections, seconds=_WARM_UP_S, script=script)
        hot = wrk.run(serving.port, path, connections=plan.connections, seconds=plan.seconds, script=script)
        rates[name], p99_ms[name] = hot.per_second, hot.p99_us / 1e3
        return warm.requests + hot.requests

    acknowledged = load(STORE, script=script)
    stored = wrk.lines_below(serving.directory)
    if stored < acknowledged:
        raise RuntimeError(f"{acknowledged} messages were acknowledged and {stored} are stored")
    [history] = serving.sessions(1)
    for number in range(100):
        serving.store(history, "user0", f"{number}: {_CONTENT}")
    load(HISTORY, f"/v1/sessions/{history}/messages?user_id=user0&limit=100")
    load(HEALTH, "/health")
    first_ms = {
        FIRST: asyncio.run(first_words(serving, sessions[:1])),
        FIRST_MANY: asyncio.run(first_words(serving, sessions)),
    }
    return Found(rates, p99_ms, first_ms)


async def first_words(serving: Serving, sessions: Sequence[str]) -> float:
    """Milliseconds from asking to the first word of the answer, the median of many streams; as many at a time as there
    are sessions. Every stream is read to its end."""
    times: list[float] = []

    async def client(number: int, session_id: str) -> None:
        for _ in range(streams_each(len(sessions))):
            times.append(await _first_word(serving.port, session_id, f"user{number}"))

    await asyncio.gather(*(client(number, session_id) for number, session_id in enumerate(sessions)))
    return statistics.median(times) * 1e3


def streams_each(clients: int) -> int:
    """How many streams each of so many clients reads in `first_words`."""
    return max(3, _STREAMS_MEASURED // clients)


async def _first_word(port: int, session_id: str, user_id: str) -> float:
    body = json.dumps({"user_id": user_id, "content": "Go on.", "stream": True}).encode()
    head = f"POST /v1/sessions/{session_id}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = b""
        while b"event: delta" not in answer:
            piece = await reader.read(65_536)
            if not piece:
                raise RuntimeError(f"a stream without a word: {answer[:300]!r}")
            answer += piece
        taken = time.perf_counter() - began
        answer += await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    if b"event: ended" not in answer:
        raise RuntimeError(f"a stream without an end: {answer[-300:]!r}")
    return taken


def compared(parent: str, plan: Plan, servers: dict[str, Start]) -> list[Table]:
    found: dict[str, list[Found]] = {name: [] for name in servers}
    for number in range(1, plan.rounds + 1):
        for name, start in servers.items():
            with start(parent) as serving:
                found[name].append(measured(serving, plan))
            rates = ", ".join(f"{what} {rate:,.0f}/s" for what, rate in found[name][-1].rates.items())
            print(f"round {number}: {name}: {rates}", file=sys.stderr, flush=True)
    return [_rates(found, plan), _latencies(found, plan), _firsts(found), *_ratios(found)]


def _median(found: Sequence[Found], part: Callable[[Found], dict[str, float]], what: str) -> float:
    return statistics.median(part(one)[what] for one in found)


def _table(name: str, title: str, found: dict[str, list[Found]], part: Callable[[Found], dict[str, float]]) -> Table:
    whats = list(part(next(iter(found.values()))[0]))
    rows = tuple((server, *(_median(rounds, part, what) for what in whats)) for server, rounds in found.items())
    return Table(name, title, ("server", *whats), rows)


def _rates(found: dict[str, list[Found]], plan: Plan) -> Table:
    title = f"Requests a second, {plan.connections} connections, medians of {plan.rounds}"
    return _table("http_rates", title, found, lambda one: one.rates)


def _latencies(found: dict[str, list[Found]], plan: Plan) -> Table:
    title = f"99th percentile, ms, {plan.connections} connections at full rate"
    return _table("http_p99", title, found, lambda one: one.p99_ms)


def _firsts(found: dict[str, list[Found]]) -> Table:
    return _table("http_first_word", "First word of a streamed answer, ms", found, lambda one: one.first_ms)


def _ratios(found: dict[str, list[Found]]) -> list[Table]:
    """Round by round, so that a slow minute of the machine falls on both sides."""
    others = [name for name in found if name != OURS]
    if OURS not in found or not others:
        return []
    whats = list(found[OURS][0].rates)
    rows = tuple(
        (
            other,
            *(
                statistics.median(
                    ours.rates[what] / theirs.rates[what]
                    for ours, theirs in zip(found[OURS], found[other], strict=True)
                )
                for what in whats
            ),
        )
        for other in others
    )
    return [Table("http_ratios", "modchat's rate, times that of", ("server", *whats), rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="length of one measurement; 5, and 30 with --health")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", choices=list(SERVERS), action="append", help="this server; repeatable")
    parser.add_argument("--health", action="store_true", help="how fast /health is beside uploads and streams")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--uploads", type=int, default=2, help="uploads at a time")
    parser.add_argument("--upload-mb", type=int, default=300)
    parser.add_argument("--dir", default="/tmp", help="where the stores stand while it runs")
    parser.add_argument("--json", metavar="FILE", help="write each row as a JSON object a line")
    parser.add_argument("--into", metavar="FILE", help="put the tables into their section of a document")
    args = parser.parse_args()
    with scratch(args.dir) as parent:
        tables = [Machine.here(parent).table()]
        if args.health:
            seconds = args.seconds or 30.0
            tables.append(health_under_load(parent, args.streams, args.uploads, args.upload_mb << 20, seconds))
        else:
            plan = Plan(args.rounds, args.seconds or 5.0, args.connections)
            servers = {name: start for name, start in SERVERS.items() if not args.only or name in args.only}
            tables += compared(parent, plan, servers)
    print(as_markdown(tables))
    if args.json:
        Path(args.json).write_text("".join(table.to_json_lines() for table in tables), "utf-8")
    if args.into:
        document, section = Path(args.into), "bench_http --health" if args.health else "bench_http"
        document.write_text(with_section(document.read_text("utf-8"), section, as_markdown(tables)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
