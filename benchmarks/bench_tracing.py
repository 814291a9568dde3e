"""What tracing costs: `send_message` with it and without, a turn with it and without, and a span by itself.

    python -m benchmarks.bench_tracing [--messages N] [--json] [--dir DIR]

Two platforms in this process, alike but for trace_logger, get the same message one after the other, and take turns at
being the first: whatever the machine is busy with meets both. What a message waits for shows in the medians. What is
done beside it, later and for many at once (packing, taking out secrets, encoding, writing), is measured by itself, and
added: it takes the processor from other messages.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from actors.local import LocalRuntime
from actors.system import Platform
from benchmarks.machine import Machine
from benchmarks.tables import Table
from modules.core.bus import Envelope
from modules.core.clock import SystemClock
from modules.core.storage import FlatFiles
from modules.core.tracing import SERVER, Tracer, current_traceparent
from modules.trace_logger.alerts import AlertWindows
from modules.trace_logger.intake import Intake
from modules.trace_logger.pseudonyms import Pseudonyms
from modules.trace_logger.records import StoredSpan
from modules.trace_logger.settings import TraceSettings
from modules.trace_logger.trace_files import TraceFiles

_CHAT = {
    "enabled": True,
    "rate_limit": {"messages_per_minute": None, "tokens_per_minute": None},
    "max_messages_per_session": 10**9,
    "session": {"max_sessions_per_user": 10**9},
    "model": {"provider": "extractive"},
}
_USER = "ann"
_CONTENT = "x" * 200
_WARM_UP = 50
_TURN_RECORDS = (8, 5)  # spans and events of a turn; of a stored message, one each
_MOST_TURNS_A_SESSION = 50

OFF, ON = "without tracing", "with tracing"

Work = Callable[[Platform, str], Awaitable[object]]


async def started(base: Path, *, is_traced: bool, copies: bool) -> Platform:
    base.mkdir(parents=True)
    modules: dict[str, Any] = {"text_chat": _CHAT, "memory": {"enabled": True}}
    if is_traced:
        modules["trace_logger"] = {"enabled": True}
    return await Platform.start({"modules": modules}, base=base, runtime=LocalRuntime(copies=copies))


async def send(platform: Platform, session_id: str) -> None:
    await platform.ref("text_chat").ask("send_message", session_id, _CONTENT, user_id=_USER)


async def turn(platform: Platform, session_id: str) -> None:
    chunks = platform.ref("text_chat").stream("stream_response", session_id, "And?", user_id=_USER)
    async with aclosing(chunks) as open_chunks:
        async for _ in open_chunks:
            pass


async def compared(
    name: str, title: str, platforms: dict[str, Platform], work: Work, times: int, beside_us: float
) -> Table:
    """*beside_us*: what is done beside the work, later, by the processor."""
    found: dict[str, list[float]] = {way: [] for way in platforms}
    sessions: dict[str, str] = {}
    for number in range(times + _WARM_UP):
        if number % _MOST_TURNS_A_SESSION == 0:  # the same short chat for both
            for way, platform in platforms.items():
                sessions[way] = (await platform.ref("text_chat").ask("create_session", _USER)).id
        for way in list(platforms) if number % 2 else reversed(platforms):
            began = time.perf_counter()
            await work(platforms[way], sessions[way])
            if number >= _WARM_UP:
                found[way].append(time.perf_counter() - began)
    off, on = (statistics.median(found[way]) * 1e6 for way in (OFF, ON))
    rows = (
        (OFF, off, None),
        (ON, on, (on / off - 1) * 100),
        ("done beside it, later", beside_us, beside_us / off * 100),
        ("in all", on + beside_us, ((on + beside_us) / off - 1) * 100),
    )
    return Table(name, title, ("way", "median, us", "more, %"), rows)


async def beside(directory: Path, times: int, *, spans: int, events: int, copies: bool) -> float:
    """Microseconds of the processor for what one piece of work leaves to be done: taken from the tracer, packed and
    unpacked (*copies*), made ready, written."""
    files = FlatFiles(directory)
    alerts = AlertWindows(TraceSettings())
    clock = SystemClock()

    def told(written: list[StoredSpan]) -> None:
        alerts.add(written, clock.monotonic())

    intake = Intake(TraceFiles(files, "day"), Pseudonyms(files), clock, max_queued=10**9, told=told)
    tracer = Tracer()
    tracer.turn_on(max_waiting=10**9)
    taken = []
    for _ in range(5):
        for _ in range(times):
            for _ in range(spans):
                with tracer.span("text_chat.send_message", {"user.id": _USER, "session.id": "s"}, kind=SERVER):
                    traceparent = current_traceparent() or ""
            for _ in range(events):
                tracer.note(_event(traceparent))
        began = time.process_time()
        while records := tracer.drain(1024):
            intake.take("text_chat-0", pickle.loads(pickle.dumps(records, protocol=5)) if copies else records)
            await intake.flush()
        taken.append((time.process_time() - began) / times)
    return min(taken) * 1e6


def _event(traceparent: str) -> Envelope:
    message = {"id": "m", "session_id": "s", "role": "user", "content": _CONTENT, "timestamp": "2024-01-15T12:00:00"}
    message |= {"metadata": {}, "attachments": [], "status": "complete", "tokens": None, "parent_id": None, "extra": {}}
    data = {"user_id": _USER, "message": message}
    at = "2024-01-15T12:00:00+00:00"
    return Envelope("chat.message.received", "evt_1", at, "text_chat", traceparent[3:35], data, traceparent)


async def platforms_compared(directory: Path, *, copies: bool, messages: int) -> list[Table]:
    how, name = ("values copied as between processes", "copied") if copies else ("values shared", "shared")
    spans, events = _TURN_RECORDS
    by_message = await beside(directory / f"beside-{name}", messages, spans=1, events=1, copies=copies)
    by_turn = await beside(directory / f"beside-turn-{name}", messages // 10, spans=spans, events=events, copies=copies)
    platforms = {
        OFF: await started(directory / f"off-{name}", is_traced=False, copies=copies),
        ON: await started(directory / f"on-{name}", is_traced=True, copies=copies),
    }
    try:
        return [
            await compared(f"send_message_{name}", f"send_message, {how}", platforms, send, messages, by_message),
            await compared(f"turn_{name}", f"A turn, {how}", platforms, turn, max(20, messages // 10), by_turn),
        ]
    finally:
        for platform in platforms.values():
            await platform.stop()


def spans(times: int) -> Table:
    """A span with two attributes: off, kept, of a trace that is not kept, and OpenTelemetry's own."""

    def ours(tracer: Tracer) -> Callable[[], None]:
        def once() -> None:
            with tracer.span("operation", {"user.id": _USER, "session.id": "s"}):
                pass

        return once

    off, on, unsampled = Tracer(), Tracer(), Tracer()
    on.turn_on(max_waiting=10 * times)
    unsampled.turn_on(sampling_rate=0.0)
    ways = {"off": ours(off), "kept": ours(on), "of a trace that is not kept": ours(unsampled)}
    theirs = _opentelemetry()
    if theirs is not None:
        ways["OpenTelemetry SDK, kept"] = theirs
    rows = []
    for name, once in ways.items():
        for _ in range(100):
            once()
        seconds = []
        for _ in range(times):
            began = time.perf_counter_ns()
            once()
            seconds.append(time.perf_counter_ns() - began)
        rows.append((name, statistics.median(seconds) / 1e3))
    return Table("span", "Opening and ending a span, median", ("way", "us"), tuple(rows))


def _opentelemetry() -> Callable[[], None] | None:
    try:
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    except ImportError:
        return None
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    tracer = provider.get_tracer("bench")

    def once() -> None:
        with tracer.start_as_current_span("operation", attributes={"user.id": _USER, "session.id": "s"}):
            pass

    return once


async def measured(directory: Path, messages: int) -> list[Table]:
    tables = [Machine.here(str(directory)).table(), spans(5 * messages)]
    for copies in (False, True):
        tables += await platforms_compared(directory, copies=copies, messages=messages)
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=10_000, help="messages of each platform; turns are a tenth")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--dir", help="where the data is written and removed again; a temporary directory by default")
    args = parser.parse_args()
    if args.messages < 10:
        parser.error("--messages must be 10 or more")
    with tempfile.TemporaryDirectory(prefix="modchat-bench-", dir=args.dir) as name:
        for table in asyncio.run(measured(Path(name), args.messages)):
            print(table.to_json_lines() if args.json else table.to_markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
