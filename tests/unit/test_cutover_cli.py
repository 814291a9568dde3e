"""The commands of the cut-over, as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import modchat
from migration import cutover_script
from migration.cutover_journal import Journal
from migration.cutover_serving import Side
from migration.target import Target
from tests.cutover_world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(world: World, action: str, *more: str, local: bool = True) -> int:
    places = ["--from", str(world.v2), "--to", str(world.new)]
    how = ["--local", "--workers", "1"] if local else []
    return modchat.main(["migrate", "cutover", action, *places, *how, *more])


def hooks_file(world: World, **more: Any) -> str:
    path = world.root / "hooks.json"
    path.write_text(json.dumps({**world.hooks().to_json(), **more}))
    return str(path)


def test_start_cuts_over_and_prints_one_object(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "start", "--no-backup", "--hooks", hooks_file(world), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["sums"]["messages"]) == ("done", 12)
    assert world.served_by() is Side.NEW


def test_commands_are_taken_from_the_line_too(world: World) -> None:
    started = world.root / "started"
    code = run(world, "start", "--no-backup", "--hooks", hooks_file(world), "--ready", f"touch {started}")
    assert (code, started.exists()) == (0, True)


def test_a_veto_is_4_and_says_why(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "start", "--no-backup", "--hooks", hooks_file(world, ready="false")) == 4
    assert "aborted, because verify: ready (false) ended with 1" in capsys.readouterr().err
    assert world.served_by() is Side.OLD


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--no-backup", "--stop-old", "'"], "No closing quotation"),
        (["--no-backup", "--max-lag", "-1"], "max_lag"),
        (["--no-backup", "--sample", "7"], "sample"),
        (["--no-backup", "--hooks", "/no/such/file"], "/no/such/file"),
        (["--no-backup", "--users-file", "/dev/null"], "names no user"),
        (["--no-backup", "--allow-deletes", "many"], "many"),
        (["--backups", "b", "--use-backup", ""], "no backup ''"),
    ],
)
def test_wrong_use_is_said_and_nothing_is_written(
    world: World, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(world, "start", *more)
    assert said in capsys.readouterr().err
    assert code in (2, 4)
    assert world.old_up.exists()


def test_a_backup_is_wanted_or_refused_in_words(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run(world, "start")
    assert refused.value.code == 2
    assert "--no-backup" in capsys.readouterr().err


def test_hooks_files_are_checked(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "start", "--no-backup", "--hooks", hooks_file(world, stop_everything="true")) == 2
    assert "'stop_everything' is no hook; there are: stop_old" in capsys.readouterr().err
    assert run(world, "start", "--no-backup", "--hooks", hooks_file(world, ready={"command": "x", "timeout": 1})) == 2


def test_plan_and_dry_run_write_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--no-backup", "--hooks", hooks_file(world)]
    assert run(world, "plan", *more, local=False) == 0
    assert run(world, "start", *more, "--dry-run", "--json") == 0
    out = capsys.readouterr().out
    assert "the point of no return" in out
    assert json.loads(out.splitlines()[-1])["verdict"] == "go"
    assert not world.new.exists()
    assert world.old_up.exists()


def test_a_plan_says_what_stands_in_the_way(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    inside = str(world.v2 / "backups")
    assert run(world, "plan", "--backups", inside, "--start-new", "no-such-program", local=False) == 4
    out = capsys.readouterr().out
    assert "[no go] hook start_new: no-such-program is no program" in out
    assert "contain each other" in out


def test_a_plan_can_be_a_page(world: World, tmp_path: Path) -> None:
    run(world, "plan", "--no-backup", "--html", str(tmp_path / "plan.html"), local=False)
    assert "<h2>Gates</h2>" in (tmp_path / "plan.html").read_text()


def test_status_continue_and_abort_from_another_process(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = hooks_file(world, ready=f"test -e {world.root}/ok")
    assert run(world, "start", "--no-backup", "--hooks", hooks, "--hold") == 4
    assert "stands at 6/10 verify: `cutover continue` or `cutover abort`" in capsys.readouterr().err
    assert run(world, "status", local=False) == 3
    assert "stands at 6/10 verify" in capsys.readouterr().out
    assert run(world, "abort", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["would_do"] == ["release", "start old", "finish"]
    assert run(world, "continue", "--dry-run") == 0
    assert not world.old_up.exists()
    assert run(world, "abort") == 0
    assert world.served_by() is Side.OLD
    assert run(world, "continue") == 4
    assert run(world, "status", local=False) == 0


def test_another_source_is_refused(world: World) -> None:
    run(world, "start", "--no-backup", "--hooks", hooks_file(world))
    to = str(world.new)
    assert modchat.main(["migrate", "cutover", "abort", "--from", "/elsewhere", "--to", to, "--local"]) == 4


def test_abort_after_the_switch_names_the_rollback(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = hooks_file(world, health={"command": "false", "timeout_s": 0.1})
    assert run(world, "start", "--no-backup", "--hooks", hooks) == 4
    assert "`modchat migrate rollback`" in capsys.readouterr().err
    assert run(world, "abort") == 4
    assert run(world, "abort", "--dry-run") == 4


def test_rollback_shows_first_and_goes_back_then(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    run(world, "start", "--no-backup", "--hooks", hooks_file(world))
    world.say_new("new_1")
    (world.new / "trace_logger").mkdir()
    (world.new / "trace_logger/x").touch()
    command = ["migrate", "rollback", "--to", str(world.new), "--local", "--workers", "1"]
    assert modchat.main(command) == 0
    assert "traces (1)" in capsys.readouterr().out
    assert world.served_by() is Side.NEW
    assert modchat.main([*command, "--execute"]) == 0
    assert world.lines_of_old()[-1] == "new_1"
    assert world.served_by() is Side.OLD
    assert modchat.main([*command, "--execute"]) == 4


def test_a_source_that_is_not_there_is_wrong_use(world: World) -> None:
    places = ["--from", str(world.root / "no"), "--to", str(world.new)]
    assert modchat.main(["migrate", "cutover", "start", "--no-backup", "--local", *places]) == 2
    assert not world.new.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_target_that_cannot_be_written_stops_nobody(world: World) -> None:
    world.new.mkdir(mode=0o555)
    assert run(world, "start", "--no-backup", "--hooks", hooks_file(world)) == 3
    assert world.old_up.exists()


# --- cutover.sh


def _settings(world: World) -> dict[str, str]:
    return {
        "CHAT_MIGRATION__SOURCE": str(world.v2),
        "CHAT_MIGRATION__TARGET": str(world.new),
        "STOP_OLD": f"rm -f {world.old_up}",
        "START_OLD": f"touch {world.old_up}",
        "STOP_NEW": f"rm -f {world.new_up}",
        "START_NEW": f"touch {world.new_up}",
        "HEALTH": f"test -e {world.new_up}",
    }


def test_the_script_takes_the_commands_from_the_environment(world: World) -> None:
    assert cutover_script.main(["--local", "--workers", "1"], _settings(world)) == 0
    assert world.served_by() is Side.NEW


def test_the_script_starts_v2_again_when_something_is_wrong(world: World) -> None:
    environ = {**_settings(world), "READY": "false", "BACKUPS": str(world.root / "backups")}
    assert cutover_script.main(["start", "--local", "--workers", "1"], environ) == 4
    assert world.served_by() is Side.OLD
    assert Journal(world.new).position.begun is not None
    assert list((world.root / "backups").glob("backup_*/MANIFEST.json"))


def test_the_script_needs_to_know_the_stores(capsys: pytest.CaptureFixture[str]) -> None:
    assert cutover_script.main([], {}) == 2
    assert "CHAT_MIGRATION__SOURCE" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shell_script_runs(world: World) -> None:
    environ = {**os.environ, **_settings(world), "PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "migration/cutover.sh", "--local", "--workers", "1"],
        env=environ,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert world.served_by() is Side.NEW
