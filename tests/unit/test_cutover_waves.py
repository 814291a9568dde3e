"""Users move in waves; who serves whom is asked and answered without a gap."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from migration.cutover import CutOverRefused
from migration.cutover_journal import Journal, cutover_directory
from migration.cutover_serving import FencedError, Routes, Serving, Side, WritersStay
from migration.cutover_steps import Ending
from migration.cutover_sync import LocalSyncer
from migration.job import RunSettings
from migration.state import RefusedError
from migration.target import Target
from migration.verify.report import Report
from tests.cutover_world import Points, World, in_a_process


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def wave(world: World, *users: str) -> Ending:
    """v2 stays up for the others, so its command does nothing."""
    hooks = world.hooks(stop_old="true", start_old="true", start_new=f"touch {world.new_up}")
    return world.begin(world.options(hooks, users=users)).ending


def test_a_wave_moves_its_users_and_nobody_else(world: World) -> None:
    assert wave(world, "ada") is Ending.DONE
    assert [world.serving.side_of(user) for user in ("ada", "bob", "new here")] == [Side.NEW, Side.OLD, Side.OLD]
    assert world.old_up.exists()


def test_a_wave_is_not_held_up_by_what_others_write(world: World) -> None:
    class Busy(LocalSyncer):
        def validate(self, settings: RunSettings, sample: float | None) -> Report:
            world.say("meanwhile", user="bob")
            return super().validate(settings, sample)

    cutover = world.cut_over()
    object.__setattr__(cutover._tools, "syncer", Busy(1))
    hooks = world.hooks(stop_old="true", start_old="true")
    assert cutover.begin(world.settings, world.options(hooks, users=("ada",))).ending is Ending.DONE


def test_a_wave_whose_own_user_is_written_to_goes_back(world: World) -> None:
    class Busy(LocalSyncer):
        def validate(self, settings: RunSettings, sample: float | None) -> Report:
            world.say("meanwhile", user="ada")
            return super().validate(settings, sample)

    cutover = world.cut_over()
    object.__setattr__(cutover._tools, "syncer", Busy(1))
    hooks = world.hooks(stop_old="true", start_old="true")
    outcome = cutover.begin(world.settings, world.options(hooks, users=("ada",)))
    assert outcome.ending is Ending.ABORTED
    assert "user 'ada' differs" in outcome.reason
    assert world.serving.side_of("ada") is Side.OLD


@pytest.mark.slow
def test_waves_follow_each_other_and_the_last_one_moves_everybody(world: World) -> None:
    wave(world, "ada")
    world.say_new("new_1", user="ada")
    wave(world, "bob")
    assert world.serving.routes().on_new == {"ada", "bob"}
    outcome = world.begin()
    assert outcome.ending is Ending.DONE, outcome.reason
    assert world.serving.routes() == Routes(Side.NEW)
    assert world.lines_of_new("ada") == ["msg_1", "msg_2", "new_1"]


def test_a_user_who_has_moved_does_not_move_again(world: World) -> None:
    wave(world, "ada")
    with pytest.raises(CutOverRefused, match="serves already"):
        wave(world, "ada")


def test_a_user_whom_v2_does_not_know_is_a_veto(world: World) -> None:
    assert wave(world, "nobody") is Ending.ABORTED
    assert "no user 'nobody'" in Journal(world.new).position.reason


def test_the_commands_of_a_wave_are_told_its_users(world: World) -> None:
    copied = world.root / "users.txt"
    hooks = world.hooks(stop_old=f"sh -c 'cp \"$MODCHAT_USERS\" {copied}'", start_old="true")
    world.begin(world.options(hooks, users=("ada", "bob")))
    assert [json.loads(line) for line in copied.read_text().splitlines()] == ["ada", "bob"]


def test_a_rollback_of_waves_brings_what_both_sides_took(world: World) -> None:
    wave(world, "ada")
    world.say_new("new_1", user="ada")
    world.say("old_1", user="bob")
    outcome = world.cut_over().roll_back()
    assert outcome.ending is Ending.ROLLED_BACK
    assert world.lines_of_old("ada") == ["msg_1", "msg_2", "new_1"]
    assert world.lines_of_old("bob") == ["msg_1", "msg_2", "old_1"]
    assert world.serving.routes() == Routes(Side.OLD)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["continue", "abort", "roll back"])
def test_a_wave_that_is_killed_at_any_step_goes_on_or_back(tmp_path: Path, then: str) -> None:
    fatal, ended = 0, 0
    while True:
        world = World(tmp_path / f"{fatal}", ("ada", "bob"))
        options = world.options(world.hooks(stop_old="true", start_old="true"), users=("ada",))
        code = in_a_process(lambda w=world, o=options, f=fatal: w.begin(o, steps=Points(f)))
        at = Journal(world.new).position
        if at.is_under_way:
            again = world.cut_over()
            if then == "continue" or (then == "abort" and at.is_past_return):
                again.carry_on()
            elif then == "abort" or not at.is_past_return:
                again.abort()
            else:
                world.say("old_1", user="bob")
                again.roll_back()
                assert world.lines_of_old("bob")[-1] == "old_1"
            ended += 1
        done = Journal(world.new).position.ended is Ending.DONE
        assert world.serving.side_of("ada") is (Side.NEW if done else Side.OLD)
        assert world.serving.side_of("bob") is Side.OLD
        assert world.lines_of_old("ada") == ["msg_1", "msg_2"]
        if done:
            assert world.lines_of_new("ada") == ["msg_1", "msg_2"]
        if code == 0:
            break
        fatal += 5  # the whole cut-over is killed at every step; of a wave every fifth is enough
    assert ended > 7


# --- who serves whom


def test_nobody_is_cut_over_where_nothing_says_so(tmp_path: Path) -> None:
    assert Serving(tmp_path / "new").side_of("ada") is Side.OLD


def test_a_damaged_file_sends_nobody_anywhere(world: World) -> None:
    world.begin()
    world.serving.path.write_text('{"default": "newer", "users": {}}')
    with pytest.raises(RefusedError, match="damaged"):
        world.serving.side_of("ada")


def test_whoever_asks_again_sees_the_change(world: World) -> None:
    asked = world.serving
    assert asked.side_of("ada") is Side.OLD
    world.serving.set(Routes(Side.OLD, {"ada": Side.NEW}))
    assert asked.side_of("ada") is Side.NEW
    world.serving.set(Routes(Side.OLD, {"ada": Side.OLD}))
    assert asked.side_of("ada") is Side.OLD


def test_a_fenced_user_is_told_to_try_again(world: World) -> None:
    world.serving.set(Routes(Side.OLD, {"ada": Side.FENCED}))
    with pytest.raises(FencedError, match="try again"), world.serving.writing("ada"):
        pytest.fail("a fenced user's write went through")
    with world.serving.writing("bob") as side:
        assert side is Side.OLD


def test_the_fence_waits_for_who_was_told_before(world: World) -> None:
    cutover_directory(world.new).mkdir(parents=True)
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        with world.serving.writing("ada"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert entered.wait(10)
    world.serving.set(Routes(Side.FENCED))
    with pytest.raises(WritersStay):
        world.serving.wait_for_writers(0.1)
    leave.set()
    world.serving.wait_for_writers(10)
    thread.join(10)


@pytest.mark.slow
def test_every_write_between_two_answers_is_on_the_side_that_was_answered(world: World) -> None:
    """Writers ask and write while the routes change: none is found on a side after the fence had passed it."""
    stop = threading.Event()
    log: list[tuple[str, int]] = []
    epoch = [0]

    def write() -> None:
        serving = Serving(world.new)
        while not stop.is_set():
            try:
                with serving.writing("ada") as side:
                    log.append((side.value, epoch[0]))
            except FencedError:
                continue

    world.serving.set(Routes(Side.OLD))
    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        world.serving.set(Routes(Side.FENCED))
        world.serving.wait_for_writers(10)
        epoch[0] = number + 1
        world.serving.set(Routes(Side.NEW if number % 2 == 0 else Side.OLD))
    stop.set()
    for thread in threads:
        thread.join(10)
    assert log
    assert all(side == ("new" if number % 2 else "old") for side, number in log)
