"""What conversing costs beside the model: ``python -m benchmarks.bench_agents``.

The model is a server that answers with a word after a pause, on loopback, so what is measured is the module, its files
(every turn is synced) and the client. *at a time*: a round of so many agents, beside the time that they would take one
after the other. *turns*: turns a second of a conversation with a server that does not pause. *resume*: from a process
without memory of it to the first request of the next turn, by the length of the transcript.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from actors.local import LocalRuntime
from actors.system import Platform
from benchmarks.machine import Machine
from benchmarks.scratch import scratch
from benchmarks.tables import Table, as_markdown


class ModelServer(BaseHTTPRequestHandler):
    """Answers after ``pause_s``; a request beyond ``answers_left`` sets ``has_stopped`` and gets none. ``asked_at``:
    when the last request came."""

    protocol_version = "HTTP/1.1"
    pause_s = 0.0
    answers_left = 1 << 30
    has_stopped = threading.Event()
    asked_at = 0.0

    def do_POST(self) -> None:
        ModelServer.asked_at = time.perf_counter()
        ModelServer.answers_left -= 1
        self.rfile.read(int(self.headers["Content-Length"]))
        if ModelServer.answers_left < 0:
            self.has_stopped.set()
            self.close_connection = True
            self.rfile.read(1)  # until the client goes away
            return
        time.sleep(self.pause_s)
        chunk = {"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": "stop"}]}
        data = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Nothing: the table is what is shown."""


@contextmanager
def model_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ModelServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def started(base: str, server: str, agents: int) -> Platform:
    model = {"provider": "openai", "model": "m", "base_url": server}
    own = {"enabled": True, "model": model, "max_agents_per_conversation": agents, "max_parallel_answers": agents}
    return await Platform.start({"modules": {"multi_agent": own}}, base=base, runtime=LocalRuntime())


async def conversed(platform: Platform, names: list[str], turns: int, **options: Any) -> float:
    """Seconds that a conversation takes."""
    ref = platform.ref("multi_agent")
    for name in names:
        await ref.ask("register_agent", name, "assistant")
    begun = time.perf_counter()
    made = await ref.ask("start_conversation", "t", names, turns, **options)
    ended = await ref.ask("wait_for_conversation", made.id, 600.0, timeout_s=610.0)
    assert ended.turns == turns, ended
    return time.perf_counter() - begun


async def at_a_time(base: str, server: str, counts: list[int], pause_s: float, rounds: int) -> Table:
    platform, rows = await started(base, server, max(counts)), []
    await conversed(platform, ["ada"], 1)  # the client is imported by the first answer
    ModelServer.pause_s = pause_s
    for count in counts:
        names = [f"agent{number}" for number in range(count)]
        taken = [
            await conversed(platform, names, count, strategy="consensus", agreement="likeness") for _ in range(rounds)
        ]
        took_s = statistics.median(taken)
        rows.append((str(count), took_s, count * pause_s, count * pause_s / took_s))
    await platform.stop()
    headings = ("agents", "one round, s", "one after the other, s", "times faster")
    return Table("at_a_time", f"Agents asked at a time, answers of {pause_s:g} s", headings, tuple(rows))


async def turns_a_second(base: str, server: str, turns: int, rounds: int) -> Table:
    platform = await started(base, server, 10)
    ModelServer.pause_s = 0.0
    taken = [await conversed(platform, ["ada", "ben", "cleo"], turns) for _ in range(rounds)]
    await platform.stop()
    took_s = statistics.median(taken)
    row = (str(turns), took_s, turns / took_s, took_s / turns * 1000)
    return Table("turns", "Turns, one after the other", ("turns", "s", "turns/s", "ms a turn"), (row,))


async def resumed(base: str, server: str, lengths: list[int]) -> Table:
    rows = []
    ModelServer.pause_s = 0.0
    for length in lengths:
        platform = await started(base, server, 10)
        ref = platform.ref("multi_agent")
        await ref.ask("register_agent", "ada", "assistant")
        ModelServer.answers_left = length
        ModelServer.has_stopped.clear()
        made = await ref.ask("start_conversation", "t", ["ada"], length + 1)
        await asyncio.to_thread(ModelServer.has_stopped.wait)
        await platform.stop()
        ModelServer.answers_left = 1 << 30
        platform = await started(base, server, 10)
        ref = platform.ref("multi_agent")
        begun = time.perf_counter()
        await ref.ask("resume_interrupted")
        ended = await ref.ask("wait_for_conversation", made.id, 60.0)
        assert ended.turns == length + 1, ended
        rows.append((str(length), (ModelServer.asked_at - begun) * 1000))
        await platform.stop()
    return Table(
        "resume", "Gone on with after an interruption", ("turns so far", "ms to the next request"), tuple(rows)
    )


async def measure(base: str, args: argparse.Namespace) -> list[Table]:
    with model_server() as server:
        return [
            await at_a_time(base, server, args.agents, args.pause, args.rounds),
            await turns_a_second(base, server, args.turns, args.rounds),
            await resumed(base, server, args.lengths),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 3, 10, 30], help="agents of a round")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds that the model takes for an answer")
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 100, 900], help="turns before an interruption")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", default="/tmp", help="where the data may stand")
    args = parser.parse_args()
    with scratch(args.scratch) as parent:
        machine = Machine.here(parent)
        tables = asyncio.run(measure(parent, args))
    print(as_markdown((machine.table(), *tables)))


if __name__ == "__main__":
    main()
