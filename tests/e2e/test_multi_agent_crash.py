"""A process that is killed, again and again, in the middle of conversations: they end as if it had not been."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="models on a server need the extra local-llm")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, sys
from actors.local import LocalRuntime
from actors.system import Platform

AGENTS = ["ada", "ben", "cleo"]

async def main(base, server):
    model = {"provider": "openai", "model": "m", "base_url": server}
    settings = {"modules": {"multi_agent": {"enabled": True}, "text_chat": {"enabled": True, "model": model}}}
    platform = await Platform.start(settings, base=base, runtime=LocalRuntime())
    agents = platform.ref("multi_agent")
    for name in AGENTS:
        await agents.ask("register_agent", name, "assistant")
    await agents.ask("resume_interrupted")
    ids = []
    for key, options in (
        ("talk", {"max_turns": 30}),
        ("vote", {"strategy": "consensus", "options": ["yes", "no", "perhaps"]}),
    ):
        made = await agents.ask("start_conversation", key, AGENTS, idempotency_key=key, user_id="u", **options)
        ids.append(made.id)
    print("under way", flush=True)
    for conversation_id in ids:
        ended = await agents.ask("wait_for_conversation", conversation_id, 60.0, timeout_s=70.0)
        print(conversation_id, ended.status, ended.reason, flush=True)
    await platform.stop()

asyncio.run(main(*sys.argv[1:]))
"""


class ModelServer(BaseHTTPRequestHandler):
    """Votes so that nobody agrees; takes its time over every answer."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        system, question = request["messages"][0]["content"], request["messages"][-1]["content"]
        time.sleep(0.03)
        answer = "word"
        if question.endswith("Reply with the number only."):
            answer = {"ada": "1", "ben": "2", "cleo": "3"}[system.removeprefix("You are ").partition(".")[0]]
        chunk = {"choices": [{"index": 0, "delta": {"content": answer}, "finish_reason": "stop"}]}
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        except OSError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Nothing: the test's output is not the place."""


@pytest.fixture
def model_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ModelServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def begun(base: Path, server: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(base), server]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    return process


def lines_of(base: Path) -> dict[str, list[bytes]]:
    """The whole lines of each transcript, by its conversation."""
    found = {}
    for path in sorted((base / "multi_agent/conversations").glob("*/transcript.jsonl")):
        found[path.parent.name] = path.read_bytes().split(b"\n")[:-1]
    return found


@pytest.mark.timeout(240)
def test_killed_again_and_again_no_turn_is_lost_or_taken_twice(tmp_path: Path, model_server: str) -> None:
    chance = random.Random(7)
    kills, before = 0, {}
    for _ in range(6):
        with begun(tmp_path, model_server) as process:
            time.sleep(chance.uniform(0.05, 0.5))
            still_runs = process.poll() is None
            process.send_signal(signal.SIGKILL)
            kills += still_runs
        now = lines_of(tmp_path)
        for conversation_id, lines in before.items():
            assert now[conversation_id][: len(lines)] == lines, "what was kept stays"
        before = now
    with begun(tmp_path, model_server) as process:
        out, _ = process.communicate(timeout=150)
        assert process.returncode == 0
    assert kills >= 3
    reasons = {line.split()[2] for line in out.splitlines()}
    assert reasons == {"turns", "tie_break"}

    talk, vote = {}, {}
    for lines in lines_of(tmp_path).values():
        records = [json.loads(line) for line in lines]
        (talk if records[0]["content"] == "talk" else vote)["records"] = records
    speakers = [record["persona_id"] for record in talk["records"]]
    assert speakers == [None, *["ada", "ben", "cleo"] * 10], "in turn, thirty times, none left out and none twice"
    turns = [(record["persona_id"], record["metadata"]["turn"]) for record in vote["records"][1:]]
    taken = Counter((agent, turn["kind"], turn["round"]) for agent, turn in turns)
    assert set(taken.values()) == {1}
    assert len(taken) == 3 * 2 * 5, "three agents answered and voted in five rounds"
    assert not list((tmp_path / "multi_agent").glob("**/.tmp-*"))
