"""The runtime's promises, kept by Ray; and what only separate processes can show."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import actors
import config
import migration
import modules
import serve
from actors.locks import is_running
from actors.ray_runtime import RayRuntime
from actors.sharding import shard_of
from actors.system import DEAD, LIVE, RESTARTING, PartHealth, Platform
from migration.health_check import MODULES
from modules.core.errors import Unavailable
from tests.runtime_behaviour import *  # noqa: F403 - the suite
from tests.runtime_behaviour import SENDERS, SETTINGS, assert_stored_as_acknowledged, install_probes, new_user, until

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayRuntime]:
    site = tmp_path_factory.mktemp("site")
    install_probes(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
        runtime = RayRuntime(num_cpus=2)
        yield runtime
        runtime.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, runtime: RayRuntime) -> Iterator[Path]:
    """The base of a platform that runs for all tests of this file."""
    base = tmp_path_factory.mktemp("base")

    async def start() -> None:
        platform = await Platform.start(SETTINGS, base=base, runtime=runtime)
        await platform.close()

    async def stop() -> None:
        await (await Platform.connect(base, runtime=runtime)).stop()

    asyncio.run(start())
    yield base
    asyncio.run(stop())
    assert not is_running(base)


@pytest.fixture
async def platform(running: Path, runtime: RayRuntime) -> AsyncIterator[Platform]:
    platform = await Platform.connect(running, runtime=runtime)
    yield platform
    await platform.close()


async def part_of(platform: Platform, module: str, shard: int) -> PartHealth:
    health = await platform.health()
    return next(part for part in health.parts if (part.module, part.shard) == (module, shard))


async def kill_process_of(platform: Platform, module: str, shard: int) -> int:
    report = (await part_of(platform, module, shard)).report
    assert report is not None
    os.kill(report.pid, signal.SIGKILL)
    return report.pid


async def test_a_killed_actor_loses_nothing_acknowledged_and_stores_nothing_twice(platform: Platform) -> None:
    chat, user = platform.ref("text_chat"), new_user()
    shard = shard_of(user, 2)
    session = await chat.ask("create_session", user)
    times: dict[str, tuple[float, float]] = {}
    turns = 10

    async def sender(number: int) -> None:
        for turn in range(turns):
            sent = time.monotonic()
            key = f"{number}:{turn}"
            message = await chat.ask("send_message", session.id, key, user_id=user, idempotency_key=key)
            times[message.id] = (sent, time.monotonic())

    async def killer() -> int:
        await until(lambda: _resolved(len(times) >= 2 * SENDERS), limit_s=60)
        pid = await kill_process_of(platform, "text_chat", shard)
        assert len(times) < SENDERS * turns, "the senders are still at work"
        return pid

    killed, *_ = await asyncio.gather(killer(), *(sender(number) for number in range(SENDERS)))
    stored = await chat.ask("get_messages", session.id, 1000, user_id=user)
    assert_stored_as_acknowledged([message.id for message in stored], times)
    assert sorted(m.content for m in stored) == sorted(f"{n}:{t}" for n in range(SENDERS) for t in range(turns))
    report = (await part_of(platform, "text_chat", shard)).report
    assert report is not None
    assert report.pid != killed


async def test_a_call_that_the_actor_had_when_it_died_has_an_unknown_outcome(platform: Platform) -> None:
    probe = platform.ref("probe")
    call = asyncio.create_task(probe.ask("sleep", 20))
    await asyncio.sleep(0.3)
    await kill_process_of(platform, "probe", 0)
    with pytest.raises(Unavailable, match="may or may not have been done") as caught:
        await call
    assert caught.value.retryable
    # Known to be away now: this one waits for the restart instead of failing.
    assert await probe.ask("echo", 1) == 1


async def test_a_stream_whose_actor_dies_fails_and_does_not_end(platform: Platform) -> None:
    stream = platform.ref("probe").stream("count", "to be killed", 10_000, 0.05)
    assert await anext(stream) == 0
    await kill_process_of(platform, "probe", 0)

    async def read_to_the_end() -> None:
        async for _ in stream:
            pass

    with pytest.raises(Unavailable, match="went away"):
        await read_to_the_end()


async def test_health_shows_a_restart_and_a_death(platform: Platform) -> None:
    killed = await kill_process_of(platform, "hearer", 0)
    states = []

    async def is_back() -> bool:
        part = await part_of(platform, "hearer", 0)
        states.append(part.state)
        return part.state == LIVE and part.report is not None and part.report.pid != killed

    await until(is_back, limit_s=60)
    assert RESTARTING in states
    assert await platform.ref("hearer").ask("probe_was_there"), "made again with its neighbours"


async def test_a_restarted_actor_still_hears_and_is_heard(platform: Platform) -> None:
    await kill_process_of(platform, "hearer", 0)
    await kill_process_of(platform, "probe", 0)

    async def hears_again() -> bool:
        try:
            event_id = await platform.ref("probe").ask("emit", "probe.thing.again", {})
            await asyncio.sleep(0.1)
            return event_id in [heard for heard, _ in await platform.ref("hearer").ask("heard", "probe.thing.again")]
        except Unavailable:
            return False

    await until(hears_again, limit_s=60)


async def test_inside_an_actor_the_five_packages_are_this_projects(platform: Platform) -> None:
    def origins(_: Any) -> list[list[str]]:
        import importlib

        names = ("config", "modules", "actors", "migration", "serve")
        return [list(importlib.import_module(name).__path__) for name in names]

    actor = ray.get_actor("probe-0", platform.topology.namespace)
    ours = [list(package.__path__) for package in (config, modules, actors, migration, serve)]
    assert await actor.__ray_call__.remote(origins) == ours


async def test_a_platform_that_was_stopped_is_gone_and_can_be_started_with_other_shards(
    tmp_path: Path, runtime: RayRuntime
) -> None:
    def settings(shards: int) -> dict[str, Any]:
        return {"modules": {"memory": {"enabled": True, "shards": shards}}}

    first = await Platform.start(settings(1), base=tmp_path, runtime=runtime)
    names = [f"user-{number}" for number in range(8)]
    for name in names:
        await first.ref("memory").ask("store_memory", "k", name, "long_term", user_id=name)
    await first.stop()
    part, *_ = (await first.health()).parts
    assert part.state == DEAD
    with pytest.raises(Unavailable, match="is not there"):
        await first.ref("memory").ask("recall_memory", "k", user_id="user-0")
    second = await Platform.start(settings(2), base=tmp_path, runtime=runtime)
    recalled = [await second.ref("memory").ask("recall_memory", "k", "long_term", user_id=name) for name in names]
    await second.stop()
    assert [item.content for item in recalled] == names


def test_up_status_and_down_on_the_command_line(tmp_path: Path) -> None:
    code = "import argparse, sys, actors.cli as cli\n" + (
        "root = argparse.ArgumentParser(); cli.register(root.add_subparsers(required=True))\n"
        "args = root.parse_args(); sys.exit(args.handler(args))"
    )

    def command(*words: str) -> list[str]:
        return [sys.executable, "-c", code, *words, "--base", str(tmp_path)]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*words), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)

    assert run("status").returncode == 3
    assert run("down").returncode == 0
    with subprocess.Popen(command("up", "--shards", "2"), stdout=subprocess.PIPE, text=True, cwd=ROOT) as up:
        try:
            assert up.stdout is not None
            assert "running on" in up.stdout.readline()
            status = run("status", "--json")
            assert status.returncode == 0, status.stderr
            report = json.loads(status.stdout)
            assert report["state"] == "running"
            live = [(part["module"], part["shard"]) for part in report["parts"] if part["state"] == "live"]
            assert {module for module, _ in live} == set(MODULES)
            assert {(module, 1) for module in ("memory", "text_chat")} <= set(live)
            asked = [sys.executable, "-m", "migration.health_check", "--base", str(tmp_path)]
            healthy = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
            assert healthy.returncode == 0, healthy.stdout
            assert healthy.stdout.count(" healthy") == len(MODULES)
            assert run("up").returncode == 4
            down = run("down")
            assert (down.returncode, up.wait(30)) == (0, 0), down.stderr
        finally:
            up.terminate()
    assert not is_running(tmp_path)


async def _resolved(value: bool) -> bool:
    return value
