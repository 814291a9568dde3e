"""After a cut-over v2 can serve again, with what was written on the new side since."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from migration.cutover import CutOverRefused, PastReturn
from migration.cutover_journal import Journal
from migration.cutover_serving import Side
from migration.cutover_steps import Ending
from migration.cutover_sync import LocalSyncer
from migration.cutover_work import Vetoed
from migration.reverse import ReverseReport
from migration.target import Target
from tests.cutover_world import OTHER, SESSION, Points, World, in_a_process


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.begin()
    return made


def kept_trees(world: World) -> list[Path]:
    return sorted(world.root.glob("v2.before-rollback-*"))


def test_after_a_rollback_v2_has_the_messages_written_on_the_new_side(world: World) -> None:
    for number in range(500):
        world.say_new(f"new_{number}", session=(SESSION, OTHER)[number % 2])
    outcome = world.cut_over().roll_back()
    assert outcome.ending is Ending.ROLLED_BACK
    assert world.served_by() is Side.OLD
    found = world.lines_of_old() + world.lines_of_old(session=OTHER)
    assert {f"new_{number}" for number in range(500)} <= set(found)
    assert world.lines_of_old()[:3] == ["msg_1", "msg_2", "new_0"]
    report = json.loads(Path(f"{outcome.report}.json").read_bytes())
    assert report["way_back"]["new_messages"] == 500


def test_the_tree_that_v2_had_is_kept(world: World) -> None:
    world.say_new("new_1")
    world.cut_over().roll_back()
    (kept,) = kept_trees(world)
    assert (kept / "users/ada" / SESSION / "messages.jsonl").read_bytes().count(b"\n") == 2


@pytest.mark.slow
def test_sigkill_at_every_step_of_a_rollback_leaves_a_way_on(tmp_path: Path) -> None:
    fatal = 0
    while True:
        world = World(tmp_path / f"{fatal}", ("ada",))
        world.begin()
        world.say_new("new_1")
        code = in_a_process(lambda w=world, f=fatal: w.cut_over(steps=Points(f)).roll_back())
        at = Journal(world.new).position
        if at.ended is Ending.DONE:  # killed before the turn was noted: the new side serves on
            assert world.served_by() is Side.NEW
            world.cut_over().roll_back()
        elif at.is_under_way:
            world.cut_over().carry_on()
        assert Journal(world.new).position.ended is Ending.ROLLED_BACK
        assert world.served_by() is Side.OLD
        assert world.lines_of_old() == ["msg_1", "msg_2", "new_1"]
        assert len(kept_trees(world)) == 1
        assert not [path.name for path in world.root.iterdir() if path.name.startswith(".v2")]
        if code == 0:
            break
        assert code == -signal.SIGKILL
        fatal += 1
    assert fatal > 20


@pytest.mark.slow
def test_a_rollback_can_be_cut_over_again_without_doubling_anything(world: World) -> None:
    world.say_new("new_1")
    world.cut_over().roll_back()
    world.say("old_again")
    assert world.begin(world.options(all_changed=True)).ending is Ending.DONE
    assert world.lines_of_new() == ["msg_1", "msg_2", "new_1", "old_again"]
    assert world.is_equal()


def test_v2_that_was_written_to_since_is_not_replaced_and_nobody_is_stopped_for_that(world: World) -> None:
    world.say("behind_our_back")
    with pytest.raises(Vetoed, match=r"messages\.jsonl was changed since"):
        world.cut_over().roll_back()
    assert "behind_our_back" in world.lines_of_old()
    assert world.served_by() is Side.NEW


def test_a_rollback_that_was_begun_can_still_accept_that(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.begin(world.options(world.hooks(stop_new=f"sh -c 'rm -f {world.new_up}; touch {world.v2}/late'")))
    for _ in range(2):
        with pytest.raises(Vetoed, match="late was changed"):
            world.cut_over().roll_back()
    assert world.cut_over().roll_back(accept_changed_old=True).ending is Ending.ROLLED_BACK
    assert world.served_by() is Side.OLD


@pytest.mark.slow
@pytest.mark.parametrize("step", ["intend restore", "note restore", "intend return", "do return"])
def test_what_the_new_side_took_between_a_crash_and_its_continuation_comes_along(tmp_path: Path, step: str) -> None:
    drill, points = World(tmp_path / "drill", ("ada",)), Points()
    drill.begin()
    drill.cut_over(steps=points).roll_back()
    world = World(tmp_path / "world", ("ada",))
    world.begin()
    world.say_new("new_1")
    assert in_a_process(lambda: world.cut_over(steps=Points(points.names.index(step))).roll_back()) == -signal.SIGKILL
    time.sleep(0.02)  # the clock of the file system ticks that slowly
    if step != "do return":  # then v2 may have been written to, and nobody may write to the new side
        world.new_up.touch()
        world.say_new("new_2")
    world.cut_over().carry_on()
    assert world.served_by() is Side.OLD
    assert world.lines_of_old() == ["msg_1", "msg_2", "new_1", *(["new_2"] if step != "do return" else [])]


@pytest.mark.slow
def test_a_rollback_can_be_given_up_at_every_step_before_v2_serves(tmp_path: Path) -> None:
    given_up = 0
    fatal = 0
    while True:
        world = World(tmp_path / f"{fatal}", ("ada",))
        world.begin()
        world.say_new("new_1")
        code = in_a_process(lambda w=world, f=fatal: w.cut_over(steps=Points(f)).roll_back())
        at = Journal(world.new).position
        if at.is_under_way and not at.has_returned:
            assert world.cut_over().abort().ending is Ending.DONE
            assert world.served_by() is Side.NEW
            assert world.lines_of_new() == ["msg_1", "msg_2", "new_1"]
            assert not [path.name for path in world.root.iterdir() if path.name.startswith(".v2")]
            given_up += 1
        elif at.is_under_way:
            with pytest.raises(PastReturn, match="v2 serves again"):
                world.cut_over().abort()
            world.cut_over().carry_on()
        if code == 0:
            break
        fatal += 1
    assert given_up > 15


def test_v2_that_was_written_to_since_is_kept_when_that_is_accepted(world: World) -> None:
    world.say("behind_our_back")
    world.cut_over().roll_back(accept_changed_old=True)
    (kept,) = kept_trees(world)
    assert b"behind_our_back" in (kept / "users/ada" / SESSION / "messages.jsonl").read_bytes()


def test_nothing_is_rolled_back_twice(world: World) -> None:
    world.cut_over().roll_back()
    with pytest.raises(CutOverRefused, match="nothing to roll back"):
        world.cut_over().roll_back()


class FullDisk(LocalSyncer):
    def reverse(self, source: str, target: str) -> ReverseReport:
        Path(target, "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", target)


def test_a_disk_that_is_full_on_the_way_back_leaves_both_trees(world: World) -> None:
    world.say_new("new_1")
    cutover = world.cut_over()
    object.__setattr__(cutover._tools, "syncer", FullDisk(1))
    with pytest.raises(OSError, match="No space left"):
        cutover.roll_back()
    assert world.lines_of_old() == ["msg_1", "msg_2"]
    assert world.lines_of_new()[-1] == "new_1"
    assert not list(world.root.glob(".v2.restore*"))
    assert world.cut_over().carry_on().ending is Ending.ROLLED_BACK
    assert world.lines_of_old()[-1] == "new_1"


def test_the_mode_of_the_store_is_kept(world: World) -> None:
    os.chmod(world.v2, 0o750)
    world.cut_over().roll_back()
    assert world.v2.stat().st_mode & 0o7777 == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_of_the_store_is_kept(world: World) -> None:
    os.chown(world.v2, 12345, 12345)
    world.cut_over().roll_back()
    owners = {path.stat().st_uid for path in (world.v2, *world.v2.rglob("*"))}
    assert owners == {12345}
