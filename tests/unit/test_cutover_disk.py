"""A disk that is full or cannot be written, and whatever else a gate is for: refused in words, both sides intact."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration.cutover_gates import (
    Verdict,
    conservation_gate,
    findings_gate,
    lag_gate,
    newest_change,
    queue_gate,
    rest_gate,
    space_gate,
)
from migration.cutover_hooks import Hook, HookFailed, HookName, Hooks, run_hook
from migration.cutover_journal import Journal
from migration.cutover_preflight import waiting_in
from migration.cutover_serving import Side
from migration.cutover_steps import Ending, Step
from migration.cutover_work import Vetoed
from migration.dual_writer_queue import PendingWrite, WriteQueue
from migration.target import TargetError
from migration.v2.read import SourceError
from tests.backup_trees import snapshot
from tests.cutover_world import World

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if not IS_ROOT or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def world(tmp_path: Path, small_disk: Path) -> World:
    made = World(tmp_path)
    made.new = small_disk / "new"
    return made


def test_a_disk_that_is_too_small_is_refused_before_anybody_is_stopped(world: World) -> None:
    world.tree.put("users/ada/notes.bin", b"x" * (3 << 20))
    with pytest.raises(Vetoed, match="disk space"):
        world.begin()
    assert world.served_by() is Side.OLD
    assert Journal(world.new).position.next_step is Step.PREPARE


@pytest.mark.slow
def test_a_disk_that_fills_behind_the_fence_lets_v2_serve_again(world: World, small_disk: Path) -> None:
    world.begin(world.options(world.hooks(ready="false")))
    before = snapshot(world.v2)
    world.say("late")
    filler = small_disk / "filler"
    fill = f"sh -c 'rm -f {world.old_up}; cat /dev/zero > {filler} 2>/dev/null || true'"
    outcome = world.begin(world.options(world.hooks(stop_old=fill)))
    assert outcome.ending is Ending.ABORTED
    assert "No space left" in outcome.reason
    assert world.served_by() is Side.OLD
    assert snapshot(world.v2).keys() == before.keys()
    filler.unlink()
    assert world.begin().ending is Ending.DONE
    assert world.is_equal()
    assert world.lines_of_new()[-1] == "late"


def test_a_target_that_cannot_be_written_is_refused_before_anything(world: World, small_disk: Path) -> None:
    world.new.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(TargetError, match="Read-only"):
        world.begin()
    assert world.old_up.exists()
    assert not list(world.new.iterdir())


def test_a_target_that_turns_read_only_behind_the_fence_waits_for_a_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    really = Journal._write

    def write(self: Journal, line: bytes) -> None:
        if b'"final sync"' in line:
            raise OSError(errno.EROFS, "Read-only file system")
        really(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", write)
        with pytest.raises(TargetError, match="Read-only"):
            world.begin()
    assert Journal(world.new).position.number == "5/10 final sync"
    assert world.serving.side_of("ada") is Side.FENCED
    assert world.cut_over().abort().ending is Ending.ABORTED
    assert world.served_by() is Side.OLD


# --- gates


def _run(**more: object) -> dict[str, object]:
    counts = dict.fromkeys(("messages", "archived_messages", "panel_messages", "quarantined", "blank"), 0)
    return {**counts, "lines": 5, "messages": 4, "quarantined": 1, "unread": 0, "issues": {}, **more}


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (_run(), Verdict.GO),
        (_run(lines=6), Verdict.NO_GO),
        (_run(unread=1), Verdict.NO_GO),
        (_run(issues={"unbalanced": 1}), Verdict.NO_GO),
    ],
)
def test_sums_that_do_not_match_are_a_veto(run: dict[str, object], verdict: Verdict) -> None:
    assert conservation_gate(run).verdict is verdict


@pytest.mark.parametrize(
    ("issues", "accepted", "verdict"),
    [
        ({"deleted": 3, "attic": 1}, (), Verdict.GO),
        ({"conflict": 1}, (), Verdict.NO_GO),
        ({"conflict": 1}, ("conflict",), Verdict.GO),
        ({"conflict": 1, "replaced": 1}, ("conflict",), Verdict.NO_GO),
        ({"unread": 1}, ("unread", "conflict"), Verdict.NO_GO),
        ({"still_written": 1}, ("still_written",), Verdict.NO_GO),
    ],
)
def test_what_a_person_must_look_at_is_a_veto_until_it_is_accepted(
    issues: dict[str, int], accepted: tuple[str, ...], verdict: Verdict
) -> None:
    assert findings_gate({"issues": issues}, accepted).verdict is verdict


def test_lag_space_and_rest_are_decided_by_figures() -> None:
    assert [lag_gate(n, 5, 1).verdict for n in (5, 6)] == [Verdict.GO, Verdict.NO_GO]
    assert [space_gate("/", n, 10).verdict for n in (10, 11)] == [Verdict.GO, Verdict.NO_GO]
    assert [rest_gate((n, "x"), 10).verdict for n in (10, 11)] == [Verdict.GO, Verdict.NO_GO]
    assert rest_gate(None, 10).verdict is Verdict.GO


def test_writes_that_wait_for_the_new_side_are_a_veto(tmp_path: Path) -> None:
    path = tmp_path / "queue.jsonl"
    queue = WriteQueue(path)
    write = PendingWrite(session_id="s", content="hello", idempotency_key="k1")
    queue.add(write, fsync=False)
    with path.open("ab") as file:
        file.write(b'{"cut off')
    before = path.read_bytes()
    assert waiting_in(path) == 1
    assert queue_gate({str(path): waiting_in(path)}).verdict is Verdict.NO_GO
    assert path.read_bytes() == before
    path.write_bytes(before.removesuffix(b'{"cut off'))
    WriteQueue(path).done(write)
    assert queue_gate({str(path): waiting_in(path)}).verdict is Verdict.GO
    with pytest.raises(SourceError):
        waiting_in(tmp_path / "none")
    (tmp_path / "emptied.jsonl.lock").touch()  # its writer takes the file away when nothing waits
    assert waiting_in(tmp_path / "emptied.jsonl") == 0


def test_writes_that_wait_stop_a_cut_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tmp_path / "queue.jsonl"
    WriteQueue(path).add(PendingWrite(session_id="s", content="x", idempotency_key="k1"), fsync=False)
    outcome = world.begin(world.options(dual_queues=(str(path),)))
    assert outcome.ending is Ending.ABORTED
    assert "dual writer" in outcome.reason


def test_locks_and_directories_are_no_change(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    newest = newest_change(str(tmp_path))
    time.sleep(0.02)
    (tmp_path / "a.lock").touch()
    (tmp_path / "empty").mkdir()
    assert newest_change(str(tmp_path)) == newest
    with pytest.raises(SourceError):
        newest_change(str(tmp_path / "none"))


# --- commands


def test_a_command_that_outlived_its_cut_over_is_waited_for(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    slow = Hook(f"sh -c 'touch {begun}; sleep 0.5; echo one >> {tmp_path}/order'")
    environ = dict(os.environ)
    pid = os.fork()
    if pid == 0:
        run_hook(HookName.STOP_OLD, slow, tmp_path / "hooks", environ)
        os._exit(0)
    while not begun.exists():
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    run_hook(HookName.START_OLD, Hook(f"sh -c 'echo two >> {tmp_path}/order'"), tmp_path / "hooks", environ)
    assert (tmp_path / "order").read_text() == "one\ntwo\n"


def test_a_server_that_a_command_leaves_running_holds_nothing(tmp_path: Path) -> None:
    run_hook(HookName.START_NEW, Hook("sh -c 'sleep 5 &'"), tmp_path / "hooks", dict(os.environ))
    started = time.monotonic()
    run_hook(HookName.HEALTH, Hook("true"), tmp_path / "hooks", dict(os.environ))
    assert time.monotonic() - started < 3


def test_the_output_of_a_command_is_kept_for_its_owner_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(HookFailed) as failed:
        run_hook(HookName.READY, Hook("sh -c 'echo hush; exit 3'"), tmp_path / "hooks", dict(os.environ))
    (output,) = (tmp_path / "hooks").glob("*.log")
    assert output.read_text() == "hush\n"
    assert output.stat().st_mode & 0o077 == 0
    assert "ended with 3" in str(failed.value)
    assert "hush" not in str(failed.value)


def test_a_command_that_is_not_there_vetoes(tmp_path: Path) -> None:
    with pytest.raises(HookFailed, match="ended with 126"):
        run_hook(HookName.READY, Hook("/no/such/program"), tmp_path / "hooks", dict(os.environ))


@pytest.mark.parametrize(
    "given", [{"ready": ""}, {"ready": {"command": "x", "timeout_s": 0}}, {"ready": 5}, {"x": "y"}]
)
def test_a_hook_that_cannot_be_is_not_made(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"ready|no hook"):
        Hooks.of(given)
