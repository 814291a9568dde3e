"""An operator pauses, slows and asks a run of `modchat migrate run` while it is at work, and after it was killed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from migration.run import Throttle
from migration.sample import write_bulk
from migration.state import State
from tests.cluster.conftest import Command, CommandLine, eventually, progress, report_of, snapshot

pytestmark = [pytest.mark.cluster]

_SESSIONS = 1200
_SLOW_MB_S = 0.4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bulk") / "v2"
    write_bulk(path, users=120, sessions=10, messages=10)
    return path


def start(modchat: CommandLine, source: Path, target: Path) -> Command:
    return modchat.start(
        "migrate", "run", "--from", source, "--to", target, "--execute", "--workers", 2, "--shards", 2, "--json"
    )


def control(modchat: CommandLine, target: Path, *action: object) -> str:
    command = modchat.run("migrate", "control", "--to", target, *action)
    assert command.wait() == 0, command.stderr
    return command.stdout


def status(modchat: CommandLine, target: Path) -> dict[str, Any]:
    command = modchat.run("migrate", "status", "--to", target, "--json")
    assert command.wait() in (0, 3), command.stderr
    return report_of(command)


def begun(run: Command, target: Path) -> dict[str, Any]:
    """The progress of a run once it has migrated something."""

    def noted() -> dict[str, Any] | None:
        assert not run.ended, run.stderr
        found = progress(target, run.started)
        return found if found and found["sessions"] else None

    found: dict[str, Any] = eventually(noted, "the run migrates")
    return found


def sessions_in(target: Path) -> int:
    return sum(1 for _ in target.glob("text_chat/sessions/*/*/metadata.json"))


def stands_still(target: Path) -> int:
    """Waits until nothing is under way; returns how many sessions there are, which are no more a while later."""
    eventually(lambda: (progress(target) or {}).get("in_flight") == 0, "no task is under way")
    before = sessions_in(target)
    noted = progress(target)
    time.sleep(1.5)
    later = progress(target)
    assert noted is not None
    assert later is not None
    assert later["at"] > noted["at"], "the driver lives and looks"
    assert sessions_in(target) == before == later["sessions"]
    return before


@pytest.mark.slow
def test_a_run_is_slowed_paused_asked_and_gone_on_with(modchat: CommandLine, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    State(os.fspath(target)).make()
    assert "the next run will follow" in control(modchat, target, "throttle", _SLOW_MB_S)
    run = start(modchat, source, target)
    begun(run, target)

    assert "the run under way follows" in control(modchat, target, "pause")
    eventually(lambda: (progress(target) or {}).get("paused"), "the pause is seen")
    stood_at = stands_still(target)
    assert 0 < stood_at < _SESSIONS
    paused = status(modchat, target)
    assert (paused["active"], paused["outcome"], paused["paused"]) == (True, "running", True)
    assert paused["throttle_mb_s"] == _SLOW_MB_S
    assert "paused (modchat migrate control" in paused["progress"]["line"]

    control(modchat, target, "workers", 1)
    control(modchat, target, "throttle", 0)
    control(modchat, target, "resume")
    assert run.wait() == 0, run.stderr
    report = report_of(run)
    assert (report["sessions"], report["resumed"]) == (_SESSIONS, 0)
    after = status(modchat, target)
    assert (after["active"], after["outcome"], after["paused"], after["workers"]) == (False, "finished", False, 1)
    assert after["throttle_mb_s"] is None
    assert after["progress"]["sessions"] == _SESSIONS
    assert modchat.run("migrate", "status", "--to", target).wait() == 0


@pytest.mark.slow
def test_a_pause_outlives_a_killed_driver_and_the_next_run_goes_on(
    modchat: CommandLine, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new"
    State(os.fspath(target)).make()
    control(modchat, target, "throttle", _SLOW_MB_S)
    run = start(modchat, source, target)
    begun(run, target)
    control(modchat, target, "pause")
    eventually(lambda: (progress(target) or {}).get("paused"), "the pause is seen")
    stood_at = stands_still(target)
    run.kill()

    told = modchat.run("migrate", "status", "--to", target)
    assert told.wait() == 3
    assert "interrupted, paused" in told.stdout
    assert "Run the same command again" in told.stdout
    interrupted = status(modchat, target)
    assert (interrupted["active"], interrupted["outcome"]) == (False, "interrupted")

    again = start(modchat, source, target)
    noted = eventually(lambda: progress(target, again.started), "the next run is up")
    assert (noted["paused"], noted["sessions"], noted["in_flight"]) == (True, 0, 0)
    time.sleep(1.0)
    assert sessions_in(target) == stood_at
    assert status(modchat, target)["active"]

    control(modchat, target, "throttle", 0)
    control(modchat, target, "resume")
    assert again.wait() == 0, again.stderr
    report = report_of(again)
    assert (report["sessions"], report["resumed"]) == (_SESSIONS, stood_at)
    assert len([path for path in snapshot(target) if path.endswith("/metadata.json")]) == _SESSIONS


def test_control_and_status_of_a_place_without_a_migration_say_so(modchat: CommandLine, tmp_path: Path) -> None:
    for command in (["status"], ["control"]):
        ended = modchat.run("migrate", *command, "--to", tmp_path, *(["pause"] if command == ["control"] else []))
        assert ended.wait() == 2
        assert f"{tmp_path}: no migration was made here" in ended.stderr
    assert not (tmp_path / ".migration").exists()


def test_a_throttle_lets_the_rate_through_from_when_it_was_set() -> None:
    throttle = Throttle(at=0.0)
    assert throttle.allowance(None, now=1000.0) is None
    throttle.spend(50_000_000_000)
    assert throttle.allowance(None, now=1001.0) is None
    assert throttle.allowance(2.0, now=1001.5) == 1_000_000


def test_a_throttle_keeps_no_more_than_a_second_for_later() -> None:
    throttle = Throttle(at=0.0)
    assert throttle.allowance(2.0, now=3600.0) == 2_000_000


def test_a_throttle_waits_for_what_was_read_too_much() -> None:
    throttle = Throttle(at=0.0)
    assert throttle.allowance(1.0, now=0.5) == 500_000
    throttle.spend(2_500_000)
    assert throttle.allowance(1.0, now=1.5) == 0
    assert throttle.allowance(1.0, now=3.0) == 500_000
