"""The servers that are measured, each started for one round, with a store of its own, and stopped again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from benchmarks.scratch import remove
from serve.addresses import free_port

_UP_S = 120.0
_DOWN_S = 60.0
_MANY = 1_000_000_000
_OTHERS = ("rag", "multi_agent", "tool_use", "persona", "topic_router", "trace_logger")


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers at ``port``; *pid* is its first process."""

    port: int
    pid: int
    directory: Path

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON. Raises RuntimeError for one that is an error."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def sessions(self, count: int) -> list[str]:
        """New sessions, one for each of as many users: ``user0``, ``user1``, ..."""
        return [str(self.ask("POST", "/v1/sessions", {"user_id": f"user{n}"})["id"]) for n in range(count)]

    def store(self, session_id: str, user_id: str, content: str) -> None:
        body = {"user_id": user_id, "content": content, "reply": False}
        self.ask("POST", f"/v1/sessions/{session_id}/messages", body)


@contextmanager
def modchat(parent: str, *, high_throughput: bool = True, **settings: Any) -> Iterator[Serving]:
    """`modchat serve`, with no limits on how often, and answers that are quoted at once. *settings* are laid over:
    ``http``, ``text_chat``, ``multimodal``."""
    directory = Path(tempfile.mkdtemp(prefix="modchat-bench-", dir=parent))
    base, configuration, port = directory / "base", directory / "configuration", free_port()
    base.mkdir()
    configuration.mkdir()
    (configuration / "default.json").write_text(json.dumps(_settings(high_throughput, settings)), "utf-8")
    words = ["serve", "--base", str(base), "--config-dir", str(configuration), "--port", str(port)]
    command = [str(Path(sys.executable).with_name("modchat")), *words]
    with _process(command, directory, port, os.environ) as serving:
        yield serving


@contextmanager
def ceiling(parent: str, *, access_log: bool = False) -> Iterator[Serving]:
    """FastAPI on uvicorn, one process. With the *access_log*, as uvicorn comes: a line for each request, which modchat
    writes as well."""
    directory = Path(tempfile.mkdtemp(prefix="modchat-bench-", dir=parent))
    port = free_port()
    words = ["--factory", "benchmarks.http_ceiling:app", "--port", str(port)]
    if not access_log:
        words += ["--no-access-log", "--log-level", "error"]
    environ = {**os.environ, "CEILING_DIR": str(directory)}
    with _process([sys.executable, "-m", "uvicorn", *words], directory, port, environ) as serving:
        yield serving


def _settings(high_throughput: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    limits = {"messages_per_minute": _MANY, "tokens_per_minute": _MANY}
    chat = {"model": {"provider": "extractive"}, "rate_limit": limits, "max_messages_per_session": _MANY}
    modules: dict[str, Any] = {name: {"enabled": False} for name in _OTHERS}
    modules["multimodal"] = given.get("multimodal", {"enabled": False})
    modules["text_chat"] = chat | given.get("text_chat", {})
    http = {"requests_per_minute": _MANY, "high_throughput": high_throughput, "shutdown_seconds": 5}
    return {"http": http | given.get("http", {}), "modules": modules}


@contextmanager
def _process(command: list[str], directory: Path, port: int, environ: Mapping[str, str]) -> Iterator[Serving]:
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(environ))
    try:
        _until_up(process, port, directory / "output")
        yield Serving(port, process.pid, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        remove(str(directory))


def _until_up(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    end = time.monotonic() + _UP_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {output.read_text('utf-8')[-2000:]}")
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"the server did not come up: {output.read_text('utf-8')[-2000:]}")
