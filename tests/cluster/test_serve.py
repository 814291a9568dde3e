"""`modchat serve` as an operator and clients see it: one server for all tests of this file, killed part by part."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.locks import is_running
from benchmarks.http_servers import Serving
from benchmarks.soak_http import soak
from serve.addresses import free_port
from tests.cluster.conftest import Command, CommandLine, eventually
from tests.listening import Listener, descendants, listeners
from tests.slow_model import SlowModel, slow_model

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMES = ("rag", "multi_agent", "tool_use", "persona", "multimodal", "topic_router", "trace_logger")
MANY = 1_000_000_000
RETRYABLE = {429, 502, 503, 504}


@dataclass
class Server:
    """A `modchat serve` that runs. Requests go to it without retries, unless a test makes them."""

    command: Command
    base: Path
    port: int
    model: SlowModel
    configuration: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """All that it consists of: Ray puts its processes into sessions of their own, so by descent."""
        return descendants(self.command.process.pid)

    def listeners(self) -> list[Listener]:
        return listeners(self.pids())

    def pid_of(self, title: str) -> int:
        """The youngest process whose title begins so."""
        return max(process for process in self.pids() if _title(process).startswith(title))

    def pid_of_haproxy(self) -> int:
        return next(one.pid for one in self.listeners() if one.port == self.port)

    def host_of(self, module: str) -> int:
        """The process that hosts the module: it holds the module's lock."""
        lock = str(self.base / ".platform" / f"{module}-0.lock")
        for pid in self.pids():
            try:
                held = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if lock in held and _title(pid).startswith("ray::"):
                return pid
        raise AssertionError(f"nobody hosts {module}")

    def stored(self) -> list[str]:
        """The ids of all messages on the disk."""
        files = self.base.glob("text_chat/sessions/*/*/messages.jsonl")
        return [json.loads(line)["id"] for path in files for line in path.read_bytes().splitlines()]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def serving(directory: Path, *, high_throughput: bool = True, **http: Any) -> Iterator[Server]:
    base, configuration = directory / "base", directory / "configuration"
    base.mkdir()
    configuration.mkdir()
    with slow_model() as model:
        write_settings(configuration, model, {"high_throughput": high_throughput, **http})
        port = free_port()
        commands = CommandLine(directory)
        try:
            command = commands.start("serve", "--base", base, "--config-dir", configuration, "--port", port)
            server = Server(command, base, port, model, configuration)
            eventually(lambda: command.ended or "  health" in command.stdout, "the server comes up", 120)
            assert not command.ended, command.stderr
            yield server
        finally:
            for pid in reversed(server.pids()):
                kill(pid)
            commands.clean_up()


def write_settings(configuration: Path, model: SlowModel, http: dict[str, Any]) -> None:
    modules: dict[str, Any] = {name: {"enabled": False} for name in NAMES}
    limits = {"messages_per_minute": MANY, "tokens_per_minute": MANY}
    modules["text_chat"] = {"model": model.settings, "rate_limit": limits, "max_messages_per_session": MANY}
    settings = {"http": {"requests_per_minute": MANY, "shutdown_seconds": 20, **http}, "modules": modules}
    (configuration / "default.json").write_text(json.dumps(settings), "utf-8")


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


async def new_session(client: httpx.AsyncClient, user_id: str) -> str:
    answer = await client.post("/v1/sessions", json={"user_id": user_id})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@dataclass
class Load:
    """Senders that store messages, each with a key of its own, and repeat what failed so that it may be repeated.
    ``acknowledged``: id by key. ``failures``: statuses, 0 for a connection that broke."""

    client: httpx.AsyncClient
    session_id: str
    user_id: str
    acknowledged: dict[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    is_over: bool = False

    async def run(self, senders: int = 8) -> None:
        await asyncio.gather(*(self._send(number) for number in range(senders)))

    async def _send(self, number: int) -> None:
        turn = 0
        while not self.is_over:
            await self._until_stored(f"{number}:{turn}")
            turn += 1

    async def _until_stored(self, key: str) -> None:
        body = {"user_id": self.user_id, "content": key, "reply": False}
        for _ in range(600):
            try:
                answer = await self.client.post(
                    f"/v1/sessions/{self.session_id}/messages", json=body, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                self.failures.append(0)
            else:
                if answer.status_code == 201:
                    self.acknowledged[key] = answer.json()["message"]["id"]
                    return
                self.failures.append(answer.status_code)
                assert answer.json()["error"]["code"], "also a refusal has the shape of all errors"
            await asyncio.sleep(0.1)
        raise AssertionError(f"{key} could not be stored in a minute: {self.failures[-5:]}")


async def under_load(client: httpx.AsyncClient, user_id: str, deed: Any, *, after_s: float = 3.0) -> Load:
    """The load that went on before, during and after *deed*."""
    load = Load(client, await new_session(client, user_id), user_id)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(1.0)
    before = len(load.acknowledged)
    assert before, "nothing was stored before"
    await asyncio.to_thread(deed)
    await asyncio.sleep(after_s)
    during = len(load.acknowledged)
    load.is_over = True
    await running
    assert during > before, "nothing was stored afterwards"
    return load


def assert_kept(server: Server, load: Load) -> None:
    """Nothing acknowledged is lost, nothing is stored twice."""
    stored = server.stored()
    assert len(stored) == len(set(stored))
    assert set(load.acknowledged.values()) <= set(stored)
    path = next(server.base.glob(f"text_chat/sessions/*/{load.session_id}/messages.jsonl"))
    contents = [json.loads(line)["content"] for line in path.read_bytes().splitlines()]
    assert sorted(contents) == sorted(load.acknowledged)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


# -- up -----------------------------------------------------------------------------------------------------


async def test_it_says_where_it_is_and_is_there(server: Server, client: httpx.AsyncClient) -> None:
    assert f"serving {server.base} at {server.url}" in server.command.stdout
    assert (await client.get("/health")).json() == {"status": "ok"}
    ready = await client.get("/ready")
    assert ready.status_code == 200, ready.text
    document = (await client.get("/openapi.json")).json()
    assert "/v1/chat/completions" in document["paths"]


def test_nothing_but_loopback_listens_and_haproxys_own_ports_are_closed(server: Server) -> None:
    found = server.listeners()
    assert [one for one in found if not one.is_loopback] == []
    assert {8404, 9101}.isdisjoint(one.port for one in found)
    at_the_door = [one for one in found if one.port == server.port]
    assert [("haproxy" in one.title) for one in at_the_door] == [True]
    # The parts of which docs/operate.md says why they listen.
    kinds = {kind: any(kind in one.title for one in found) for kind in LISTENING}
    assert all(kinds.values()), kinds
    unknown = [one for one in found if not any(kind in one.title for kind in LISTENING)]
    assert unknown == []


LISTENING = (
    "haproxy -db",
    "ray::ServeReplica",
    "ray::ServeController",
    "ray::ProxyActor",
    "ray::HAProxyManager",
    "ray::_ModuleActor",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "gcs_server",
    "raylet",
    "monitor.py",
    "dashboard.py",
    "modchat serve",
)


def test_its_files_are_its_owners_alone(server: Server) -> None:
    words = _title(server.pid_of_haproxy()).split()
    private = Path(words[words.index("-f") + 1]).parent.parent
    assert private.stat().st_mode & 0o077 == 0


async def test_a_message_is_stored_and_read_back(server: Server, client: httpx.AsyncClient) -> None:
    session_id = await new_session(client, "ann")
    sent = await client.post(
        f"/v1/sessions/{session_id}/messages", json={"user_id": "ann", "content": "Hello.", "reply": False}
    )
    assert sent.status_code == 201
    read = await client.get(f"/v1/sessions/{session_id}/messages", params={"user_id": "ann"})
    assert [message["content"] for message in read.json()["data"]] == ["Hello."]
    assert sent.json()["message"]["id"] in server.stored()


async def test_every_answer_has_one_request_id(client: httpx.AsyncClient) -> None:
    for path, mine in (("/health", "mine-1"), ("/no/such/path", "mine-2"), ("/v1/models", None)):
        answer = await client.get(path, headers={} if mine is None else {"X-Request-Id": mine})
        ids = answer.headers.get_list("x-request-id")
        assert len(ids) == 1
        assert mine in (None, *ids)
        if answer.status_code >= 400:
            assert answer.json()["error"]["request_id"] == ids[0]


# -- streams ------------------------------------------------------------------------------------------------


async def test_the_first_word_is_there_long_before_the_last(server: Server, client: httpx.AsyncClient) -> None:
    session_id = await new_session(client, "ben")
    times: list[float] = []
    text = ""
    body = {"user_id": "ben", "content": "Go on.", "stream": True}
    async with client.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_text():
            times.append(time.monotonic())
            text += piece
    names = [name for name, _ in events(text)]
    assert names[0] == "started"
    assert names[-1] == "ended"
    whole = server.model.words * server.model.pause_s
    assert times[-1] - times[0] > whole / 2, "it came in pieces, as it was made"
    assert len(times) > server.model.words / 4


async def test_a_client_that_goes_away_stops_the_model_and_what_there_is_stays(
    server: Server, client: httpx.AsyncClient
) -> None:
    session_id = await new_session(client, "cleo")
    before = server.model.broken_off
    body = {"user_id": "cleo", "content": "Go on.", "stream": True}
    async with client.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
        async for piece in answer.aiter_text():
            if "word3" in piece:
                break
    began = time.monotonic()
    await asyncio.to_thread(eventually, lambda: server.model.broken_off > before, "the model is stopped", 10)
    assert time.monotonic() - began < server.model.words * server.model.pause_s
    read = await client.get(f"/v1/sessions/{session_id}/messages", params={"user_id": "cleo"})
    question, partial = read.json()["data"]
    assert question["content"] == "Go on."
    assert partial["content"].startswith("word0 word1 ")
    assert partial["status"] != "complete"


# -- parts that die -----------------------------------------------------------------------------------------


async def test_a_killed_replica_costs_at_most_retries(server: Server, client: httpx.AsyncClient) -> None:
    pid = server.pid_of("ray::ServeReplica")
    load = await under_load(client, "dora", lambda: kill(pid), after_s=8)
    assert server.pid_of("ray::ServeReplica") != pid
    assert set(load.failures) <= RETRYABLE | {0}
    assert_kept(server, load)


async def test_a_killed_module_costs_at_most_retries(server: Server, client: httpx.AsyncClient) -> None:
    pid = server.host_of("text_chat")
    load = await under_load(client, "emil", lambda: kill(pid), after_s=8)
    assert server.host_of("text_chat") != pid
    assert set(load.failures) <= RETRYABLE
    assert_kept(server, load)
    ready = await client.get("/ready")
    assert ready.status_code == 200, ready.text


async def test_a_killed_haproxy_is_back_within_seconds(server: Server, client: httpx.AsyncClient) -> None:
    pid = server.pid_of_haproxy()
    load = await under_load(client, "elsa", lambda: kill(pid), after_s=12)
    assert server.pid_of_haproxy() != pid
    assert set(load.failures) <= RETRYABLE | {0}
    assert_kept(server, load)


async def test_a_replica_is_replaced_without_a_failed_request(server: Server, client: httpx.AsyncClient) -> None:
    pid = server.pid_of("ray::ServeReplica")
    write_settings(server.configuration, server.model, {"max_body_bytes": 4096})

    def redeploy() -> None:
        server.command.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.pid_of("ray::ServeReplica") != pid and not _title(pid), "the old one is gone", 60)

    load = await under_load(client, "finn", redeploy)
    assert load.failures == []
    assert_kept(server, load)
    assert "the settings were read again" in server.command.stderr
    too_large = await client.post("/v1/sessions", content=b" " * 5000, headers={"Content-Type": "application/json"})
    assert too_large.status_code == 413, "the new settings hold"


async def test_settings_that_cannot_be_used_change_nothing(server: Server, client: httpx.AsyncClient) -> None:
    pid = server.pid_of("ray::ServeReplica")
    (server.configuration / "default.json").write_text('{"http": {"replicas": 0}}', "utf-8")
    server.command.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the settings stay as they were" in server.command.stderr, "it is said", 10)
    assert "http.replicas" in server.command.stderr
    assert server.pid_of("ray::ServeReplica") == pid
    assert (await client.get("/health")).status_code == 200


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk, the load generator")
def test_memory_does_not_grow_under_load(server: Server) -> None:
    write_settings(server.configuration, server.model, {})
    server.model.words = 5
    found = soak(Serving(server.port, server.command.process.pid, server.base), 24, slice_s=2)
    server.model.words = 40
    assert {"HAProxy", "replica", "module"} <= set(found.bytes)
    assert len(found.bytes["replica"]) >= 3
    assert found.too_much() == [], found.table().to_markdown()


# -- the end ------------------------------------------------------------------------------------------------


async def test_it_stops_in_order_under_load(server: Server, client: httpx.AsyncClient) -> None:
    """Last: it ends the server."""
    session_id = await new_session(client, "gina")
    load = Load(client, await new_session(client, "hal"), "hal")
    text = ""

    async def stream() -> None:
        nonlocal text
        body = {"user_id": "gina", "content": "Go on.", "stream": True}
        async with client.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
            async for piece in answer.aiter_text():
                text += piece

    streaming = asyncio.create_task(stream())
    sending = asyncio.create_task(load.run())
    await asyncio.to_thread(eventually, lambda: "word1 " in text, "the stream runs", 10)
    pids = server.pids()
    server.command.process.send_signal(signal.SIGTERM)
    await streaming
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert events(text)[-1][0] == "ended", "the stream came to its own end"
    assert await asyncio.to_thread(server.command.wait, 60) == 0, server.command.stderr
    assert server.command.stdout.splitlines()[-1] == "stopped"
    assert not is_running(server.base)
    stored = server.stored()
    assert set(load.acknowledged.values()) <= set(stored)
    assert len(stored) == len(set(stored))
    eventually(lambda: not [pid for pid in pids if _title(pid)], "no process is left", 30)
    with pytest.raises(httpx.ConnectError):
        await client.get("/health")


async def test_a_second_signal_ends_it_at_once_and_keeps_what_there_is_of_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.model.words = 10_000
        text = ""

        async def stream(client: httpx.AsyncClient, session_id: str) -> None:
            nonlocal text
            body = {"user_id": "ida", "content": "Go on.", "stream": True}
            async with client.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
                async for piece in answer.aiter_text():
                    text += piece

        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            session_id = await new_session(client, "ida")
            streaming = asyncio.create_task(stream(client, session_id))
            await asyncio.to_thread(eventually, lambda: "word3 " in text, "the stream runs", 10)
            began = time.monotonic()
            server.command.process.send_signal(signal.SIGINT)
            await asyncio.sleep(1)
            assert not server.command.ended
            server.command.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(server.command.wait, 60) == 0, server.command.stderr
            assert time.monotonic() - began < 15
            await asyncio.gather(streaming, return_exceptions=True)
        [path] = server.base.glob(f"text_chat/sessions/*/{session_id}/messages.jsonl")
        _, partial = (json.loads(line) for line in path.read_bytes().splitlines())
        assert partial["content"].startswith("word0 word1 word2 ")


@pytest.mark.parametrize("high_throughput", [True, False])
async def test_a_stream_that_outlasts_the_stop_is_ended_in_order(tmp_path: Path, high_throughput: bool) -> None:
    with serving(tmp_path, high_throughput=high_throughput, shutdown_seconds=2) as server:
        server.model.words = 10_000
        found = server.listeners()
        assert [one for one in found if not one.is_loopback] == []
        assert any("bin/haproxy" in one.title for one in found) is high_throughput
        text = ""
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            session_id = await new_session(client, "kim")
            body = {"user_id": "kim", "content": "Go on.", "stream": True}
            async with client.stream("POST", f"/v1/sessions/{session_id}/messages", json=body) as answer:
                async for piece in answer.aiter_text():
                    if "word3 " in text and "word3 " not in text[: -len(piece)]:
                        server.command.process.send_signal(signal.SIGTERM)
                    text += piece
        name, told = events(text)[-1]
        assert name == "error", "its reader is told"
        assert told["error"]["code"] == "unavailable"
        assert "not told" not in server.command.stderr
        assert await asyncio.to_thread(server.command.wait, 60) == 0, server.command.stderr
        [path] = server.base.glob(f"text_chat/sessions/*/{session_id}/messages.jsonl")
        _, partial = (json.loads(line) for line in path.read_bytes().splitlines())
        assert partial["content"].startswith("word0 word1 word2 ")
