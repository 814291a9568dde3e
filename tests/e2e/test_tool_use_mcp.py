"""Real MCP servers over stdio and over HTTP: the good, the silent, the endless and the dying."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modules.tool_use import (
    HttpServer,
    ParametersInvalid,
    StdioServer,
    ToolAnswerInvalid,
    ToolFailed,
    ToolTimedOut,
    ToolUnavailable,
    ToolUseModule,
)
from modules.tool_use.errors import AddressRefused
from tests.tool_use_parts import SECRET, LoopbackServer, raw_server, reply, running, say_nothing

SCRIPT = Path(__file__).with_name("tool_use_mcp_server.py")
MAX_BYTES = 200_000
CONFIG: dict[str, Any] = {
    "timeouts": {"connect_seconds": 20.0, "list_seconds": 10.0, "call_seconds": 20.0},
    "limits": {"max_output_bytes": MAX_BYTES, "calls_per_minute": 1000},
    "circuit_breaker": {"failures": 100},
    "retries": {"max_attempts": 1},
}
HOW = ["stdio", "http", "http-json"]


@contextmanager
def started(kind: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server program on a port of loopback, ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SCRIPT), kind, str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            end = time.monotonic() + 30
            while True:
                assert time.monotonic() < end, "the server does not start"
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port, process
        finally:
            process.kill()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def commands_of_children() -> list[str]:
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = process.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            command = process.joinpath("cmdline").read_text()
        except OSError:
            continue  # it has ended
        if int(parent) == os.getpid():
            commands.append(command)
    return commands


@pytest.fixture(params=HOW)
async def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ToolUseModule]:
    """The module with the tools of the server, by each way of speaking to it."""
    if request.param == "stdio":
        async with running(tmp_path, CONFIG) as module:
            module.add_server("workshop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
            await module.import_tools("mcp:workshop")
            yield module
        return
    with started(request.param) as (port, _):
        async with running(tmp_path, {**CONFIG, "internal_hosts": [f"127.0.0.1:{port}"]}) as module:
            await module.import_tools(f"mcp+http://127.0.0.1:{port}/mcp")
            yield module


async def test_tools_of_a_server_are_registered_with_their_schemas_and_called(workshop: ToolUseModule) -> None:
    tools = {tool.name: tool for tool in await workshop.discover_tools()}
    assert {"add", "weather", "echo", "never"} <= set(tools)
    assert tools["add"].description == "Adds two numbers."
    assert tools["add"].options.is_idempotent, "it says that it only reads"
    assert not tools["echo"].options.is_idempotent
    assert (await workshop.execute_tool("add", {"a": 2, "b": 40})).output == {"result": 42}
    assert (await workshop.execute_tool("weather", {"city": "Rome"})).output == {"city": "Rome", "degrees": 21.5}
    assert (await workshop.execute_tool("echo", {"text": "né\n"})).output == "né\n"


async def test_parameters_that_do_not_fit_never_leave(workshop: ToolUseModule) -> None:
    with pytest.raises(ParametersInvalid, match="'b' is a required property"):
        await workshop.execute_tool("add", {"a": 1})


async def test_a_tool_that_fails_says_so_and_stays_usable(workshop: ToolUseModule) -> None:
    with pytest.raises(ToolFailed, match="Error executing tool refuse"):
        await workshop.execute_tool("refuse")
    assert (await workshop.execute_tool("echo", {"text": "x"})).output == "x"


async def test_an_answer_that_is_too_long_is_cut_and_marked(workshop: ToolUseModule) -> None:
    result = await workshop.execute_tool("long_text", {"size": MAX_BYTES + 1000})
    assert result.is_cut
    assert result.output == "x" * MAX_BYTES


async def test_fifty_megabytes_are_refused_without_being_held(workshop: ToolUseModule) -> None:
    before = resident_bytes()
    with pytest.raises(ToolAnswerInvalid, match=r"more than [0-9]+ bytes"):
        await workshop.execute_tool("long_text", {"size": 50_000_000})
    assert resident_bytes() - before < 40_000_000
    assert (await workshop.execute_tool("echo", {"text": "still here"})).output == "still here"


async def test_a_call_that_never_ends_is_ended(workshop: ToolUseModule) -> None:
    began = time.monotonic()
    with pytest.raises(ToolTimedOut, match="did not answer never in time"):
        await workshop.execute_tool("never", timeout=1.0)
    assert time.monotonic() - began < 3
    assert (await workshop.execute_tool("echo", {"text": "next"})).output == "next"


async def test_a_slow_call_does_not_hold_up_others(workshop: ToolUseModule) -> None:
    slow = asyncio.create_task(workshop.execute_tool("never", timeout=3.0))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    results = await asyncio.gather(*(workshop.execute_tool("add", {"a": n, "b": 1}) for n in range(20)))
    assert [result.output["result"] for result in results] == list(range(1, 21))
    assert time.monotonic() - began < 2.5
    with pytest.raises(ToolTimedOut):
        await slow


async def test_a_caller_that_goes_away_leaves_the_connection_to_the_others(workshop: ToolUseModule) -> None:
    call = asyncio.create_task(workshop.execute_tool("never"))
    await asyncio.sleep(0.3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await workshop.execute_tool("echo", {"text": "x"})).output == "x"


async def test_a_server_that_dies_during_a_call_is_started_again_for_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as module:
        module.add_server("workshop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
        await module.import_tools("mcp:workshop")
        with pytest.raises(ToolUnavailable, match=r"has ended \(exit code 7\)"):
            await module.execute_tool("die")
        assert (await module.execute_tool("echo", {"text": "back"})).output == "back"


async def test_a_server_that_was_killed_between_two_calls_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as module:
        module.add_server("workshop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
        await module.import_tools("mcp:workshop")
        pid = int((await module.execute_tool("process_id")).output)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert int((await module.execute_tool("process_id")).output) != pid


async def test_a_call_that_may_be_repeated_survives_the_death_of_the_server(tmp_path: Path) -> None:
    config = {**CONFIG, "retries": {"max_attempts": 3, "backoff_seconds": 0.05}}
    async with running(tmp_path, config) as module:
        module.add_server("workshop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
        await module.register_tool("careful", "mcp:workshop#die_once", metadata={"idempotent": True})
        await module.register_tool("rash", "mcp:workshop#die_once")
        result = await module.execute_tool("careful", {"marker": str(tmp_path / "first")})
        assert (result.output, result.attempts) == ("alive", 2)
        with pytest.raises(ToolUnavailable):
            await module.execute_tool("rash", {"marker": str(tmp_path / "second")})


async def test_a_server_that_dies_within_its_answer_is_told_from_one_that_answers(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as module:
        module.add_server("half", StdioServer(sys.executable, (str(SCRIPT), "half")))
        await module.register_tool("any", "mcp:half#any")
        with pytest.raises(ToolUnavailable, match="has ended"):
            await module.execute_tool("any")


async def test_a_server_that_never_says_a_word_is_given_up(tmp_path: Path) -> None:
    config = {**CONFIG, "timeouts": {"connect_seconds": 1.0}}
    async with running(tmp_path, config) as module:
        module.add_server("silent", StdioServer(sys.executable, (str(SCRIPT), "silent")))
        began = time.monotonic()
        with pytest.raises(ToolTimedOut, match="did not connect in 1 s"):
            await module.import_tools("mcp:silent")
        assert time.monotonic() - began < 2
        await module.register_tool("any", "mcp:silent#any")
        with pytest.raises(ToolTimedOut):
            await module.execute_tool("any", timeout=0.5)


async def test_a_web_server_that_never_says_a_word_is_given_up(tmp_path: Path) -> None:
    async with raw_server(say_nothing) as where:
        config = {**CONFIG, "timeouts": {"connect_seconds": 1.0}, "internal_hosts": [where]}
        async with running(tmp_path, config) as module:
            began = time.monotonic()
            with pytest.raises(ToolTimedOut, match="did not connect"):
                await module.import_tools(f"mcp+http://{where}/mcp")
            assert time.monotonic() - began < 2


async def test_a_web_server_that_dies_during_a_call_is_told(tmp_path: Path) -> None:
    with started("http") as (port, _):
        async with running(tmp_path, {**CONFIG, "internal_hosts": [f"127.0.0.1:{port}"]}) as module:
            await module.import_tools(f"mcp+http://127.0.0.1:{port}/mcp")
            with pytest.raises(ToolUnavailable, match=r"broke off|no connection"):
                await module.execute_tool("die")
            with pytest.raises(ToolUnavailable):
                await module.execute_tool("echo", {"text": "nobody is there"})


async def test_a_web_server_that_was_started_anew_is_connected_anew(tmp_path: Path) -> None:
    with started("http") as (port, process):
        async with running(tmp_path, {**CONFIG, "internal_hosts": [f"127.0.0.1:{port}"]}) as module:
            await module.import_tools(f"mcp+http://127.0.0.1:{port}/mcp")
            process.kill()
            process.wait()
            command = [sys.executable, str(SCRIPT), "http", str(port)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as second:
                try:
                    end = time.monotonic() + 30
                    while True:
                        try:
                            result = await module.execute_tool("echo", {"text": "again"})
                            break
                        except ToolUnavailable:
                            assert time.monotonic() < end, "it does not come back"
                            await asyncio.sleep(0.1)
                    assert result.output == "again"
                finally:
                    second.kill()


async def test_an_mcp_server_cannot_redirect_to_another_place(tmp_path: Path) -> None:
    async with LoopbackServer() as inside:
        answer = reply(307, Location=f"http://127.0.0.1:{inside.port}/mcp")
        async with (
            LoopbackServer(lambda request: answer) as gate,
            running(tmp_path, {**CONFIG, "internal_hosts": [gate.where]}) as module,
        ):
            with pytest.raises(ToolUnavailable):
                await module.import_tools(f"mcp+http://{gate.where}/mcp")
        assert gate.connections >= 1
        assert inside.connections == 0


async def test_an_mcp_server_at_an_address_that_changes_is_refused(tmp_path: Path) -> None:
    async def lie(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with LoopbackServer() as server:
        config = {**CONFIG, "allowed_ports": [server.port]}
        async with running(tmp_path, config, resolve=lie) as module:
            with pytest.raises(AddressRefused, match="loopback"):
                await module.import_tools(f"mcp+http://tools.example.com:{server.port}/mcp")
        assert server.connections == 0


async def test_no_program_outlives_the_module(tmp_path: Path) -> None:
    name_of_server = f"{SCRIPT}\0stdio"

    def servers() -> list[str]:
        return [one for one in commands_of_children() if name_of_server in one]

    async with running(tmp_path, CONFIG) as module:
        for name in ("one", "two"):
            module.add_server(name, StdioServer(sys.executable, (str(SCRIPT), "stdio")))
            await module.import_tools(f"mcp:{name}", prefix=f"{name}_")
        assert len(servers()) == 2
        call = asyncio.create_task(module.execute_tool("one_never"))
        await asyncio.sleep(0.3)
    with pytest.raises(ToolUnavailable):
        await call
    assert servers() == []


async def test_servers_of_the_operators_file_are_listed_at_the_start_with_their_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    servers = tmp_path / "servers.json"
    program = {"command": sys.executable, "args": [str(SCRIPT), "stdio"], "env": {"SHOP_KEY": "${REAL_KEY}"}}
    servers.write_text(json.dumps({"mcpServers": {"shop": program}}))
    config = {**CONFIG, "mcp_servers_file": str(servers)}
    base = tmp_path / "base"
    async with running(base, config, environ={"REAL_KEY": SECRET, "OTHER": "not for it"}) as module:
        end = time.monotonic() + 20
        while len(await module.discover_tools()) < 10:
            assert time.monotonic() < end, "its tools were not listed"
            await asyncio.sleep(0.05)
        assert (await module.execute_tool("shop_environment", {"name": "SHOP_KEY"})).output == SECRET
        assert (await module.execute_tool("shop_environment", {"name": "OTHER"})).output == ""
        assert await module.list_servers() == {"shop": "10 tools"}
    assert "somebody asks for SHOP_KEY, which is ***" in caplog.text
    assert SECRET not in caplog.text
    assert all(SECRET.encode() not in path.read_bytes() for path in base.rglob("*") if path.is_file())


async def test_tools_that_a_server_lists_no_more_go_and_others_stay(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as module:
        module.add_server("shop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
        for name in ("shop_gone", "old_one"):
            endpoint = f"mcp:{name.partition('_')[0]}#gone"
            module.add_server("old", StdioServer("none"))
            await module.register_tool(name, endpoint, metadata={"mcp_tool": "gone"})
        await module.register_tool("own", "mcp:shop#echo")
        del module._mcp.servers["old"]
        await module.list_servers()
        names = {tool.name for tool in await module.discover_tools()}
    assert {"own", "shop_add"} <= names
    assert not {"shop_gone", "old_one"} & names


async def test_a_connection_that_nobody_uses_is_closed_and_opened_again_when_needed(tmp_path: Path) -> None:
    class Clock:
        seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

        def now(self) -> Any:
            return datetime(2026, 1, 1, tzinfo=UTC)

    clock = Clock()
    async with running(tmp_path, CONFIG, clock=clock) as module:
        module.add_server("workshop", StdioServer(sys.executable, (str(SCRIPT), "stdio")))
        await module.import_tools("mcp:workshop")
        first = (await module.execute_tool("process_id")).output
        assert await module.close_idle() == 0
        clock.seconds = 1000.0
        assert await module.close_idle() == 1
        assert (await module.execute_tool("process_id")).output != first


async def test_a_named_server_over_http_gets_the_operators_headers(tmp_path: Path) -> None:
    async with LoopbackServer(lambda request: reply(401)) as server:
        config = {**CONFIG, "internal_hosts": [server.where]}
        async with running(tmp_path, config, environ={"REAL_KEY": SECRET}) as module:
            module.add_server("web", HttpServer(f"http://{server.where}/mcp", {"Authorization": "Bearer ${REAL_KEY}"}))
            with pytest.raises(ToolFailed) as caught:
                await module.import_tools("mcp:web")
    assert SECRET not in str(caught.value)
    assert f"authorization: bearer {SECRET}" in server.requests[0].lower()
