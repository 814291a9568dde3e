"""The real HAProxy, started by our program on a configuration of Ray Serve's, before replicas that are small fakes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from serve.addresses import free_port
from tests.listening import listeners

WRITTEN = (Path(__file__).parents[1] / "cases" / "haproxy" / "ray-2.60.cfg").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[2]


RESET = b"reset"


@dataclass
class FakeReplica:
    """Answers its health checks, notes every other request and gives it the next of *answers*; None hangs up, RESET
    does so as the kernel does for a process that was killed."""

    answers: list[bytes | None]
    seen: list[dict[str, str]] = field(default_factory=list)
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections[task] = writer
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            del self.connections[task]

    async def close(self) -> None:
        for writer in self.connections.values():
            writer.close()
        if self.connections:
            await asyncio.wait(list(self.connections))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *rest = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
                await reader.readexactly(int(headers.get("content-length", "0")))
                answer: bytes | None = _ok("success")
                if "/-/healthz" not in first:
                    self.seen.append(headers)
                    answer = self.answers.pop(0) if self.answers else _ok("hello")
                if answer is RESET:
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                if answer in (None, RESET):
                    break
                writer.write(answer)
                await writer.drain()


def _ok(text: str, status: str = "200 OK", kind: str = "text/plain") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nServer: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
    )


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    client: httpx.AsyncClient


def written_to(directory: Path, port: int, replica: int) -> Path:
    path = directory / "haproxy.cfg"
    text = WRITTEN.replace("@DIR@", str(directory)).replace("@PORT@", str(port)).replace("@REPLICA@", str(replica))
    path.write_text(text.replace("@FALLBACK@", str(replica)), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def haproxy(directory: Path, replica: FakeReplica, **environ: str) -> AsyncIterator[Running]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    port = free_port()
    path = written_to(directory, port, server.sockets[0].getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "serve.haproxy", "-db", "-f", str(path), "-dR"],
        cwd=ROOT,
        env={**os.environ, **environ},
        stderr=subprocess.DEVNULL,
    )
    try:
        # Retries of the client's own would hide what HAProxy does.
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            await _until_up(client, process)
            replica.seen.clear()
            yield Running(process, port, directory, client)
    finally:
        process.kill()
        process.wait(10)
        server.close()
        await replica.close()
        await server.wait_closed()


async def _until_up(client: httpx.AsyncClient, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.poll() is None, "HAProxy ended"
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/-/healthz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
def directory() -> Iterator[Path]:
    # Sockets have short paths, and pytest's are long.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="mc-", dir="/tmp") as name:
        yield Path(name)


async def test_it_listens_at_one_address_and_keeps_the_arguments_that_ray_knows_it_by(directory: Path) -> None:
    async with haproxy(directory, FakeReplica([])) as here:
        [only] = listeners([here.process.pid])
        assert (only.address, only.port) == ("127.0.0.1", here.port)
        assert f"-f {directory / 'haproxy.cfg'}" in only.title
        assert "bin/haproxy" in only.title
        assert (directory / "admin.sock").stat().st_mode & 0o777 == 0o600


async def test_the_public_address_is_haproxys_alone(directory: Path) -> None:
    async with haproxy(directory, FakeReplica([]), MODCHAT_HTTP_HOST="0.0.0.0") as here:
        assert [(one.address, one.port) for one in listeners([here.process.pid])] == [("0.0.0.0", here.port)]


async def test_headers_by_which_a_client_could_command_serve_do_not_arrive(directory: Path) -> None:
    replica = FakeReplica([])
    async with haproxy(directory, replica) as here:
        await here.client.get(
            "/v1/models",
            headers={
                "X-Request-Timeout-Seconds": "0.001",
                "X-Request-Disconnect-Disabled": "?0",
                "X-Forwarded-For": "8.8.8.8",
                "Serve_Multiplexed_Model_Id": "other",
                "X-Request-Id": "mine-1",
            },
        )
    [seen] = replica.seen
    assert "x-request-timeout-seconds" not in seen
    assert "serve_multiplexed_model_id" not in seen
    assert seen["x-request-disconnect-disabled"] == "?1"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-request-id"] == "mine-1"


async def test_a_trusted_proxy_says_who_the_client_is(directory: Path) -> None:
    replica = FakeReplica([])
    async with haproxy(directory, replica, MODCHAT_TRUSTED_PROXIES="127.0.0.0/8 10.1.2.3") as here:
        await here.client.get("/x", headers={"X-Forwarded-For": "1.1.1.1, 203.0.113.7"})
        await here.client.get("/x")
    assert [seen["x-forwarded-for"] for seen in replica.seen] == ["203.0.113.7", "127.0.0.1"]


@pytest.mark.parametrize("wrong", ["a b", 'quo"te', "x" * 200, "new\tline"])
async def test_a_request_id_that_is_none_is_replaced(directory: Path, wrong: str) -> None:
    replica = FakeReplica([])
    async with haproxy(directory, replica) as here:
        await here.client.get("/x", headers={"X-Request-Id": wrong})
    [seen] = replica.seen
    assert seen["x-request-id"] != wrong
    assert len(seen["x-request-id"]) == 36


async def test_a_replica_that_hangs_up_is_told_of_in_the_applications_words(directory: Path) -> None:
    async with haproxy(directory, FakeReplica([None] * 8)) as here:
        answer = await here.client.post("/v1/sessions", json={}, headers={"X-Request-Id": "mine-2"})
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["request_id"]) == ("server_error", "unavailable", "mine-2")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-request-id"] == "mine-2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "headers", "asked"),
    [("GET", {}, 2), ("POST", {"Idempotency-Key": "k"}, 2), ("POST", {}, 1), ("DELETE", {}, 1), ("PATCH", {}, 1)],
)
async def test_only_what_may_be_done_twice_is_asked_again(
    directory: Path, method: str, headers: dict[str, str], asked: int
) -> None:
    replica = FakeReplica([None, _ok("done")])
    async with haproxy(directory, replica) as here:
        content = None if method == "GET" else b"{}"
        answer = await here.client.request(method, "/v1/x", headers=headers, content=content)
    assert len(replica.seen) == asked
    assert answer.status_code == (200 if asked == 2 else 502)


async def test_a_replica_that_was_killed_leaves_no_client_without_an_answer(directory: Path) -> None:
    replica = FakeReplica([_ok("hello"), _ok("hello"), RESET])
    async with haproxy(directory, replica) as here:
        for _ in range(2):
            assert (await here.client.get("/x", headers={"Connection": "close"})).status_code == 200
        # There is a connection to the replica that was used before; this client has asked nothing yet.
        answer = await here.client.post("/v1/sessions", json={}, headers={"Connection": "close"})
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "unavailable"


async def test_serves_own_refusals_become_the_applications(directory: Path) -> None:
    plain = [_ok("Request dropped due to backpressure", "503 Service Unavailable"), _ok("Internal", "500 Internal")]
    of_the_application = _ok('{"error": 1}', "503 Service Unavailable", "application/json")
    async with haproxy(directory, FakeReplica([*plain, of_the_application])) as here:
        dropped, failed, own = [await here.client.get("/x") for _ in range(3)]
    assert (dropped.status_code, dropped.json()["error"]["code"]) == (503, "unavailable")
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert own.json() == {"error": 1}
    assert "server" not in dropped.headers


async def test_what_is_no_http_does_not_reach_a_replica(directory: Path) -> None:
    replica = FakeReplica([])
    async with haproxy(directory, replica) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nNo colon here\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert replica.seen == []


async def test_it_ends_with_the_process_that_watches_it(directory: Path) -> None:
    path = written_to(directory, free_port(), free_port())
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert watcher.stdout is not None
    pid = int(watcher.stdout.readline())
    async with asyncio.timeout(20):
        while not listeners([pid]):
            await asyncio.sleep(0.05)
        watcher.send_signal(signal.SIGKILL)
        watcher.wait(10)
        watcher.stdout.close()
        while Path(f"/proc/{pid}/fd").exists() and listeners([pid]):
            await asyncio.sleep(0.05)


_WATCH = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "serve.haproxy", "-db", "-f", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_nothing_is_started_on_a_configuration_that_is_not_understood(directory: Path) -> None:
    path = written_to(directory, free_port(), free_port())
    path.write_text(path.read_text(encoding="utf-8").replace("frontend http_frontend", "frontend other"), "utf-8")
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "serve.haproxy", "-db", "-f", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert "modchat-haproxy: 0 sections 'frontend http_frontend', expected one" in ended.stderr
    assert time.monotonic() - began < 10


def test_a_port_that_is_free_can_be_had() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
