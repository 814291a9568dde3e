"""Calls a second to one actor, each with its own request and joined: ``python -m benchmarks.bench_calls``.

The actor's module is text_chat, and the call is `get_session` of one session: a real answer, read from the disk. Each
way is measured so many times in turn, and the medians are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from actors.channel import Channel
from actors.limits import RuntimeLimits
from actors.ray_runtime import RayRuntime
from actors.system import Platform
from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown

SETTINGS: dict[str, Any] = {"modules": {"text_chat": {"enabled": True}}}


async def calls_a_second(call: Callable[[], Awaitable[Any]], *, callers: int, seconds: float) -> float:
    """How many calls so many callers, each waiting for its answer, get done in a second."""
    end = time.perf_counter() + seconds

    async def caller() -> int:
        done = 0
        while time.perf_counter() < end:
            await call()
            done += 1
        return done

    start = time.perf_counter()
    done = await asyncio.gather(*(caller() for _ in range(callers)))
    return sum(done) / (time.perf_counter() - start)


async def measure(base: str, runtime: RayRuntime, *, callers: int, seconds: float, rounds: int) -> Table:
    platform = await Platform.start(SETTINGS, base=base, runtime=runtime)
    try:
        session = await platform.ref("text_chat").ask("create_session", "bench")
        connector = runtime.connector(platform.topology.namespace)

        def channel(at_most: int) -> Channel:
            limits = RuntimeLimits(max_calls_per_batch=at_most)
            return Channel("text_chat[0]", connector.transport("text_chat", 0), runtime.codec, limits)

        joined = channel(64)

        async def one_request_each() -> None:
            # A channel of its own has nothing in flight, so nothing to join.
            own = apart.pop()
            await own.call("get_session", (session.id, "bench"))
            apart.append(own)

        apart = [channel(1) for _ in range(callers)]

        async def joined_request() -> None:
            await joined.call("get_session", (session.id, "bench"))

        ways = {
            f"each its own request, {callers} callers": (one_request_each, callers),
            f"joined, {callers} callers": (joined_request, callers),
            "joined, 1 caller": (joined_request, 1),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (call, count) in ways.items():
                found[name].append(await calls_a_second(call, callers=count, seconds=seconds))
    finally:
        await platform.stop()
    rows = tuple((name, statistics.median(rates), min(rates), max(rates)) for name, rates in found.items())
    return Table("calls", "Calls to one actor", ("way", "calls/s", "lowest", "highest"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", default="/tmp", help="where the data may stand")
    args = parser.parse_args()
    with scratch(args.scratch) as parent:
        machine = Machine.here(parent)
        runtime = RayRuntime()
        try:
            table = asyncio.run(
                measure(parent, runtime, callers=args.callers, seconds=args.seconds, rounds=args.rounds)
            )
        finally:
            runtime.close()
    print(as_markdown((machine.table(), table)))


if __name__ == "__main__":
    main()
