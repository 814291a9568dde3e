"""Attempts to reach what must not be reached, each against a server on loopback that notes every connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import ValidationError
from modules.tool_use import ToolError, ToolUseModule
from modules.tool_use.errors import AddressRefused
from tests.tool_use_parts import SECRET, LoopbackServer, Names, reply, running


def allowing(*ports: int, **more: Any) -> dict[str, Any]:
    """Settings with these ports allowed, so that it is the address and nothing else that is refused."""
    return {"allowed_ports": [80, 443, *ports], "retries": {"max_attempts": 1}, **more}


# {port} is the port of a server that listens on 127.0.0.1, or on ::1.
V4 = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost.localdomain:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.1.nip.io:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[::]:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://example.com:{port}\\@127.0.0.1:{port}/",
    "http://127.0.0.1%2eexample.com:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
    "ws://127.0.0.1:{port}/",
    "mcp+http://127.0.0.1:{port}/mcp#tool",
    "mcp+http://[::ffff:127.0.0.1]:{port}/mcp#tool",
]
NOT_HERE = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://100.64.0.1/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://192.0.0.192/opc/v2/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
]
# Names that a resolver may give, and where they lead.
LYING = Names(
    **{
        "localhost": [["127.0.0.1"]],
        "localhost_localdomain": [["127.0.0.1"]],
        "127_0_0_1_nip_io": [["127.0.0.1"]],
        "metadata_google_internal": [["169.254.169.254"]],
    }
)


@pytest.fixture
async def loopback() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer() as server:
        yield server


async def attempt(module: ToolUseModule, endpoint: str) -> None:
    """What an attacker does: register, and where that is taken, call."""
    await module.register_tool("attempt", endpoint, metadata={"method": "GET"})
    await module.execute_tool("attempt", timeout=5)


@pytest.mark.parametrize("endpoint", V4)
async def test_loopback_is_not_reached(endpoint: str, loopback: LoopbackServer, tmp_path: Path) -> None:
    async with running(tmp_path, allowing(loopback.port), resolve=LYING) as module:
        with pytest.raises(ValidationError) as caught:
            await attempt(module, endpoint.replace("{port}", str(loopback.port)))
    assert caught.value.param == "endpoint"
    assert loopback.connections == 0


async def test_loopback_of_ipv6_is_not_reached(tmp_path: Path) -> None:
    async with (
        LoopbackServer(host="::1") as server,
        running(tmp_path, allowing(server.port), resolve=LYING) as module,
    ):
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]"):
            with pytest.raises(AddressRefused, match="loopback"):
                await attempt(module, f"http://{host}:{server.port}/")
        assert server.connections == 0


@pytest.mark.parametrize("endpoint", NOT_HERE)
async def test_what_is_not_public_is_refused(endpoint: str, tmp_path: Path) -> None:
    async with running(tmp_path, allowing(), resolve=LYING) as module:
        with pytest.raises(AddressRefused, match="not public"):
            await attempt(module, endpoint)


async def test_a_name_that_answers_differently_the_second_time_is_refused(
    loopback: LoopbackServer, tmp_path: Path
) -> None:
    names = Names(rebind_example_com=[["8.8.8.8"], ["127.0.0.1"]])
    assert await names("rebind.example.com", 80) == ["8.8.8.8"], "who looked before the call saw a public address"
    async with running(tmp_path, allowing(loopback.port), resolve=names) as module:
        with pytest.raises(AddressRefused, match="loopback"):
            await attempt(module, f"http://rebind.example.com:{loopback.port}/")
    assert loopback.connections == 0


async def test_the_connection_goes_to_the_address_that_was_judged(loopback: LoopbackServer, tmp_path: Path) -> None:
    """One lookup for one connection: there is no second answer to fall for."""
    names = Names(once_internal=[["127.0.0.1"], ["169.254.169.254"]])
    config = allowing(loopback.port, internal_hosts=[f"once.internal:{loopback.port}"])
    async with running(tmp_path, config, resolve=names) as module:
        await attempt(module, f"http://once.internal:{loopback.port}/")
    assert names.asked == ["once.internal"]
    assert loopback.connections == 1


async def test_a_name_with_a_public_and_a_private_address_is_refused(loopback: LoopbackServer, tmp_path: Path) -> None:
    names = Names(both_example_com=[["8.8.8.8", "127.0.0.1"]])
    async with running(tmp_path, allowing(loopback.port), resolve=names) as module:
        with pytest.raises(AddressRefused, match="loopback"):
            await attempt(module, f"http://both.example.com:{loopback.port}/")
    assert loopback.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:{port}/", "http://[::ffff:7f00:1]:{port}/", "//localhost:{port}/", "file:///etc/passwd"],
)
async def test_a_redirect_does_not_lead_there_either(
    status: int, location: str, loopback: LoopbackServer, tmp_path: Path
) -> None:
    answer = reply(status, Location=location.replace("{port}", str(loopback.port)))
    async with LoopbackServer(lambda request: answer) as gate:
        config = allowing(loopback.port, internal_hosts=[gate.where])
        async with running(tmp_path, config, resolve=LYING) as module:
            with pytest.raises(ToolError):
                await attempt(module, f"http://{gate.where}/")
        assert gate.connections == 1
    assert loopback.connections == 0


async def test_a_redirect_to_a_blocked_domain_is_refused(loopback: LoopbackServer, tmp_path: Path) -> None:
    names = Names(evil_example_com=[["127.0.0.1"]])
    async with LoopbackServer(lambda request: reply(302, Location=f"http://evil.example.com:{loopback.port}/")) as gate:
        hosts = [gate.where, f"evil.example.com:{loopback.port}"]
        config = allowing(loopback.port, internal_hosts=hosts, blocked_domains=["evil.example.com"])
        async with running(tmp_path, config, resolve=names) as module:
            with pytest.raises(AddressRefused, match="blocked"):
                await attempt(module, f"http://{gate.where}/")
    assert loopback.connections == 0


async def test_a_parameter_cannot_become_the_host(loopback: LoopbackServer, tmp_path: Path) -> None:
    async with running(tmp_path, allowing(internal_hosts=[loopback.where]), resolve=LYING) as module:
        await module.register_tool("files", f"http://{loopback.where}/files/{{name}}", metadata={"method": "GET"})
        for name in ("@evil.com/", "//evil.com", "../../admin", "..", "?x=1", "#", "a\r\nHost: evil.com", "%2e%2e/x"):
            try:
                await module.execute_tool("files", {"name": name})
            except ToolError:
                continue
        lines = [request.split("\r\n")[0] for request in loopback.requests]
        assert lines
        assert all(line.startswith("GET /files/") and line.count("/") == 3 for line in lines), lines
        assert all(f"Host: {loopback.where}".lower() in request.lower() for request in loopback.requests)


async def test_the_environment_names_no_proxy(
    loopback: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{loopback.where}")
    names = Names(public_example_com=[["127.0.0.1"]])
    async with running(tmp_path, allowing(), resolve=names) as module:
        with pytest.raises(AddressRefused, match="loopback"):
            await attempt(module, "http://public.example.com/")
    assert loopback.connections == 0


async def test_what_is_refused_tells_nothing_of_what_is_there(loopback: LoopbackServer, tmp_path: Path) -> None:
    """An open port and a closed one look alike, so nobody can map a network by asking."""
    async with running(tmp_path, allowing(loopback.port, 1), resolve=LYING) as module:
        said = []
        for port in (loopback.port, 1):
            with pytest.raises(AddressRefused) as caught:
                await attempt(module, f"http://127.0.0.1:{port}/?key={SECRET}")
            said.append(str(caught.value))
    assert said[0] == said[1]
    assert SECRET not in said[0]
