from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors import cli, topology
from actors.limits import RuntimeLimits
from actors.local import LocalRuntime
from actors.locks import claim, is_running, shard_lock
from actors.manifest import Function, Manifest
from actors.start_order import start_order
from actors.system import DEAD, Platform
from actors.topology import Placed, Topology, namespace_of
from modules.core.errors import ConfigurationError, Conflict, NotFound, StorageError, Unavailable
from modules.core.types import ModuleInfo

CHAT = {"modules": {"text_chat": {"enabled": True}, "memory": {"enabled": True}}}


def info(name: str, *needs: str, uses: tuple[str, ...] = ()) -> ModuleInfo:
    return ModuleInfo(name=name, version="1", dependencies=needs, optional=uses)


def test_modules_come_after_what_they_need_and_what_they_use() -> None:
    infos = {"a": info("a", "b", uses=("c", "absent")), "b": info("b"), "c": info("c", "d"), "d": info("d")}
    assert start_order(infos) == ("b", "d", "c", "a")


def test_a_circle_is_named() -> None:
    with pytest.raises(ConfigurationError, match="a -> b -> a"):
        start_order({"a": info("a", "b"), "b": info("b", "a")})


def test_a_module_whose_need_does_not_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'a' needs module 'b'"):
        start_order({"a": info("a", "b")})


def test_a_topology_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = Manifest("m", "1", {"f": Function(("a", "b"), streams=True)}, ("a.b", "*"))
    written = Topology("i", "n", "addr", (Placed(3, manifest),), ("absent",), {"call_timeout_seconds": 2.0})
    topology.save(tmp_path, written)
    assert topology.load(tmp_path) == written


def test_a_damaged_topology_is_an_error_and_not_an_absent_one(tmp_path: Path) -> None:
    topology.save(tmp_path, Topology("i", "n"))
    (tmp_path / ".platform/platform.json").write_text('{"incarnation": "i"}')
    with pytest.raises(StorageError, match="is damaged"):
        topology.load(tmp_path)


def test_only_the_notes_of_the_same_incarnation_are_removed(tmp_path: Path) -> None:
    topology.save(tmp_path, Topology("second", "n"))
    topology.remove(tmp_path, "first")
    assert topology.load(tmp_path).incarnation == "second"
    topology.remove(tmp_path, "second")
    with pytest.raises(NotFound):
        topology.load(tmp_path)


def test_a_base_has_one_namespace_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert namespace_of(tmp_path) == namespace_of(f"{tmp_path}/link/.") == namespace_of(os.path.relpath(tmp_path))
    assert namespace_of(tmp_path) != namespace_of(tmp_path.parent)


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = (
        "import sys; from actors.locks import claim; lock = claim(sys.argv[1]); print('held', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_running(tmp_path)
        with pytest.raises(Conflict, match="another platform runs"):
            claim(tmp_path)
        holder.send_signal(signal.SIGKILL)
    claim(tmp_path).release()
    assert not is_running(tmp_path)


async def test_a_host_waits_for_its_predecessors_lock_and_then_says_that_it_is_held(tmp_path: Path) -> None:
    first, second = shard_lock(tmp_path, "m", 0), shard_lock(tmp_path, "m", 0)
    assert first.take()
    with pytest.raises(Unavailable, match=r"m-0\.lock is held"):
        await second.wait(0.1)
    first.release()
    await second.wait(0.1)
    assert not first.take()
    second.release()


async def test_a_platform_whose_start_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = {"modules": {**CHAT["modules"], "text_chat": {"enabled": True, "durability": "hope"}}}
    runtime = LocalRuntime()
    with pytest.raises(ConfigurationError, match="durability"):
        await Platform.start(settings, base=tmp_path, runtime=runtime)
    assert not is_running(tmp_path)
    platform = await Platform.start(CHAT, base=tmp_path, runtime=runtime)
    await platform.stop()


async def test_a_platform_that_was_stopped_is_dead_and_cannot_be_found(tmp_path: Path) -> None:
    runtime = LocalRuntime()
    platform = await Platform.start(CHAT, base=tmp_path, runtime=runtime)
    await platform.stop()
    assert {part.state for part in (await platform.health()).parts} == {DEAD}
    with pytest.raises(NotFound):
        await Platform.connect(tmp_path, runtime=runtime)


async def test_modules_stop_in_the_reverse_order_of_their_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    class Noting(LocalRuntime):
        async def end(self, module: str, shard: int) -> None:
            ended.append(f"{module}-{shard}")
            await super().end(module, shard)

    settings = {"modules": {**CHAT["modules"], "memory": {"enabled": True, "shards": 2}}}
    platform = await Platform.start(settings, base=tmp_path, runtime=Noting())
    await platform.stop()
    assert ended == ["text_chat-0", "memory-0", "memory-1"]


async def test_a_host_of_a_stopped_platform_cannot_come_back_beside_a_new_one(tmp_path: Path) -> None:
    old = await Platform.start(CHAT, base=tmp_path, runtime=LocalRuntime())
    incarnation = old.topology.incarnation
    await old.stop()
    new = await Platform.start(CHAT, base=tmp_path, runtime=LocalRuntime())
    from actors.hosting import HostSpec

    spec = HostSpec("memory", 5, 6, str(tmp_path), incarnation, {"memory": {}}, RuntimeLimits())
    with pytest.raises(Unavailable, match="belongs to a platform that was stopped"):
        await LocalRuntime().start(new.topology.namespace, spec)
    await new.stop()


@pytest.mark.parametrize("shards", [0, -1, True, "2", None])
async def test_a_number_of_shards_that_is_none_is_refused(tmp_path: Path, shards: object) -> None:
    settings = {"modules": {"memory": {"enabled": True, "shards": shards}}}
    with pytest.raises(ConfigurationError, match=r"memory\.shards"):
        await Platform.start(settings, base=tmp_path, runtime=LocalRuntime())
    assert not is_running(tmp_path)


def test_limits_are_read_from_where_the_settings_have_them() -> None:
    limits = RuntimeLimits.read({"call_timeout_seconds": 2, "events": {"max_queued": 5}, "address": None})
    assert (limits.call_timeout_s, limits.max_queued_events, limits.restart_wait_s) == (2, 5, 30.0)
    with pytest.raises(ConfigurationError, match="max_calls_per_batch"):
        RuntimeLimits.read({"max_calls_per_batch": 0})


def run(*words: str) -> int:
    root = argparse.ArgumentParser()
    cli.register(root.add_subparsers(required=True))
    args = root.parse_args(words)
    code: int = args.handler(args)
    return code


def test_up_refuses_a_directory_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--base", str(tmp_path / "typo")) == 2
    assert "no such directory" in capsys.readouterr().err


def test_up_refuses_a_base_that_has_a_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = claim(tmp_path)
    assert run("up", "--base", str(tmp_path)) == 4
    assert "runs on" in capsys.readouterr().err
    lock.release()


def test_status_of_nothing_says_so_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--base", str(tmp_path), "--json") == 3
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"
    assert list(tmp_path.iterdir()) == []


def test_down_of_nothing_is_done_already(tmp_path: Path) -> None:
    assert run("down", "--base", str(tmp_path)) == 0
