"""A cut-over ends with one side serving and nothing lost, wherever it is stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from migration.cutover import CutOver, CutOverRefused, PastReturn
from migration.cutover_hooks import HookFailed
from migration.cutover_journal import Journal, JournalDamaged
from migration.cutover_serving import Side
from migration.cutover_steps import ROUTES, Ending, Step, Way
from migration.cutover_sync import LocalSyncer
from migration.cutover_work import Vetoed
from migration.job import RunSettings
from migration.state import RefusedError
from migration.target import Target
from migration.v2.read import SourceError
from migration.verify.report import Report
from tests.cutover_world import SESSION, Points, World, in_a_process


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_cut_over_ends_with_the_new_side_serving_all_that_v2_had(world: World) -> None:
    outcome = world.begin()
    assert (outcome.ending, outcome.reason, outcome.needs_look) == (Ending.DONE, "", False)
    assert world.served_by() is Side.NEW
    assert world.is_equal()
    assert world.lines_of_new() == ["msg_1", "msg_2"]


def test_every_step_has_an_intent_and_an_end_in_the_journal(world: World) -> None:
    world.begin()
    events = [(record.event.value, record.step) for record in Journal(world.new).records]
    steps = [pair for step in ROUTES[Way.FORWARD] for pair in (("intent", step.value), ("done", step.value))]
    assert events == [("begin", ""), *steps, ("end", "")]


def test_the_report_has_the_figures_and_no_command(world: World) -> None:
    hooks = world.hooks(ready="true --token=hush-hush")
    outcome = world.begin(world.options(hooks))
    report = json.loads(Path(f"{outcome.report}.json").read_bytes())
    page = Path(f"{outcome.report}.html").read_text()
    assert (report["verdict"], report["sums"]["messages"], report["sums"]["sessions"]) == ("done", 12, 6)
    assert report["roots"]["source"] == report["roots"]["target"]
    assert report["downtime_s"] > 0
    assert {step["state"] for step in report["steps"]} <= {"done", "skipped", "under way"}
    assert "Merkle" in page
    assert "hush" not in page + json.dumps(report)


def test_the_report_escapes_what_it_shows(tmp_path: Path) -> None:
    world = World(tmp_path, users=("<b>bold</b>",))
    outcome = world.begin(world.options(users=("<b>bold</b>",)))
    page = Path(f"{outcome.report}.html").read_text()
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page


def test_a_journal_is_for_its_owner_alone(world: World) -> None:
    world.begin()
    assert os.stat(Journal(world.new).path).st_mode & 0o077 == 0


# --- killed


def _drill(world: World) -> list[str]:
    points = Points()
    world.begin(world.options(backups=str(world.root / "backups")), steps=points)
    return points.names


@pytest.mark.slow
@pytest.mark.parametrize("then", ["continue", "abort"])
def test_sigkill_at_every_durable_step_leaves_a_way_on_and_a_way_back(tmp_path: Path, then: str) -> None:
    points = _drill(World(tmp_path / "drill", ("ada",)))
    assert len(points) > 40
    for fatal in range(len(points)):
        world = World(tmp_path / f"{fatal}", ("ada",))
        options = world.options(backups=str(world.root / "backups"))
        code = in_a_process(lambda w=world, o=options, f=fatal: w.begin(o, steps=Points(f)))
        assert code == -signal.SIGKILL
        if world.old_up.exists() and not Journal(world.new).position.has_fenced:
            world.say("while_it_was_down")
        at = Journal(world.new).position
        if at.ended is None and at.begun is not None:
            if then == "continue":
                assert world.cut_over().carry_on().ending is Ending.DONE
            elif at.is_past_return:
                with pytest.raises(PastReturn, match="migrate rollback"):
                    world.cut_over().abort()
                world.cut_over().carry_on()
            else:
                assert world.cut_over().abort().ending is Ending.ABORTED
        elif at.begun is None:
            world.begin(options)
        position = Journal(world.new).position
        assert world.served_by() is (Side.NEW if position.ended is Ending.DONE else Side.OLD), points[fatal]
        if position.ended is Ending.DONE:
            assert world.is_equal(), points[fatal]
            assert world.lines_of_new()[:2] == ["msg_1", "msg_2"]
        else:
            assert world.begin(options).ending is Ending.DONE
        assert world.lines_of_new() == world.lines_of_old(), points[fatal]


@pytest.mark.slow
def test_a_process_that_goes_on_may_be_killed_at_every_step_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    options = world.options()
    in_a_process(lambda: world.begin(options, steps=Points(0)))
    kills = 0
    while (at := Journal(world.new).position).ended is None:
        fatal = 3 + 2 * kills  # each gets a little farther; from the fence on, all is done again
        if at.begun is None:
            code = in_a_process(lambda f=fatal: world.begin(options, steps=Points(f)))
        else:
            code = in_a_process(lambda f=fatal: world.cut_over(steps=Points(f)).carry_on())
        kills += code == -signal.SIGKILL
        assert kills < 100
    assert kills > 8
    assert world.served_by() is Side.NEW
    assert world.is_equal()


@pytest.mark.slow
def test_an_abort_may_be_killed_at_every_step_too(tmp_path: Path) -> None:
    fatal = 0
    while True:
        world = World(tmp_path / f"{fatal}", ("ada",))
        halt = world.options(world.hooks(ready="false"), hold=True)
        with pytest.raises(HookFailed):
            world.begin(halt)
        code = in_a_process(lambda w=world, f=fatal: w.cut_over(steps=Points(f)).abort())
        at = Journal(world.new).position
        if at.ended is None:
            assert world.cut_over().abort().ending is Ending.ABORTED
        assert world.served_by() is Side.OLD
        if code == 0:
            break
        fatal += 1
    assert fatal > 8


def _killed_before(world: World, name: str) -> None:
    points = Points()
    World(world.root / "drill", ("ada",)).begin(steps=points)
    code = in_a_process(lambda: world.begin(steps=Points(points.names.index(name))))
    assert code == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("step", ["intend verify", "intend switch", "do switch", "intend start new"])
def test_what_v2_took_between_a_crash_and_its_continuation_comes_along(world: World, step: str) -> None:
    _killed_before(world, step)
    world.old_up.touch()  # the machine has started it by itself
    world.say("after_the_crash")
    assert world.cut_over().carry_on().ending is Ending.DONE
    assert world.served_by() is Side.NEW
    assert world.lines_of_new() == ["msg_1", "msg_2", "after_the_crash"]
    assert world.is_equal()


@pytest.mark.slow
def test_what_fails_after_the_switch_does_not_go_back_by_itself(world: World) -> None:
    _killed_before(world, "intend start new")
    world.v2.rename(world.root / "away")
    with pytest.raises(SourceError):
        world.cut_over().carry_on()
    with pytest.raises(PastReturn):
        world.cut_over().abort()
    (world.root / "away").rename(world.v2)
    assert world.cut_over().carry_on().ending is Ending.DONE


# --- what goes back by itself


def test_a_veto_behind_the_fence_lets_v2_serve_again(world: World) -> None:
    outcome = world.begin(world.options(world.hooks(ready="false")))
    assert outcome.ending is Ending.ABORTED
    assert outcome.reason.startswith("verify: ready (false) ended with 1")
    assert world.served_by() is Side.OLD
    assert world.begin().ending is Ending.DONE


def test_a_command_that_cannot_stop_v2_lets_v2_serve_again(world: World) -> None:
    outcome = world.begin(world.options(world.hooks(stop_old="false")))
    assert outcome.ending is Ending.ABORTED
    assert world.served_by() is Side.OLD


def test_a_difference_behind_the_fence_lets_v2_serve_again(world: World) -> None:
    spoil = f"rm {world.new}/text_chat/sessions/ada/{SESSION}/messages.jsonl"
    world.begin(world.options(world.hooks(stop_old=spoil)))
    position = Journal(world.new).position
    assert position.ended is Ending.ABORTED
    assert "validation" in position.reason
    assert world.serving.routes().default is Side.OLD


class Untimely(LocalSyncer):
    """v2 is written to after it was compared."""

    def __init__(self, world: World) -> None:
        super().__init__(1)
        self._world = world

    def validate(self, settings: RunSettings, sample: float | None) -> Report:
        report = super().validate(settings, sample)
        time.sleep(0.01)  # the clock of the file system ticks that slowly
        self._world.say("late")
        return report


def test_a_writer_that_was_not_fenced_is_a_veto(world: World) -> None:
    outcome = CutOver(os.fspath(world.new), Untimely(world)).begin(world.settings, world.options())
    assert outcome.ending is Ending.ABORTED
    assert "v2 at rest" in outcome.reason
    assert world.served_by() is Side.OLD
    assert world.begin().ending is Ending.DONE
    assert "late" in world.lines_of_new()


def test_a_command_that_does_not_end_is_stopped_and_vetoes(world: World) -> None:
    hooks = {**world.hooks().to_json(), "ready": {"command": "sleep 60", "timeout_s": 0.3}}
    started = time.monotonic()
    outcome = world.begin(world.options(type(world.hooks()).of(hooks)))
    assert "did not end within 0.3 s" in outcome.reason
    assert time.monotonic() - started < 20


def test_a_cut_over_that_holds_stays_behind_the_fence(world: World) -> None:
    options = world.options(world.hooks(ready=f"test -e {world.root}/ok"), hold=True)
    with pytest.raises(HookFailed):
        world.begin(options)
    assert world.serving.side_of("ada") is Side.FENCED
    assert not world.old_up.exists()
    (world.root / "ok").touch()
    assert world.cut_over().carry_on().ending is Ending.DONE
    assert world.served_by() is Side.NEW


def test_a_failure_before_the_fence_stops_nobody(world: World) -> None:
    options = world.options(max_lag=0, passes=1)
    with pytest.raises(Vetoed, match="--max-lag"):
        world.begin(options)
    assert world.served_by() is Side.OLD
    assert Journal(world.new).position.next_step is Step.BACK_FILL
    assert world.cut_over().abort().ending is Ending.ABORTED
    assert not list((world.new / ".migration/cutover/hooks").glob("*"))


def test_a_platform_that_is_not_well_stays_for_a_decision(world: World) -> None:
    hooks = {**world.hooks().to_json(), "health": {"command": f"test -e {world.root}/well", "timeout_s": 0.5}}
    options = world.options(type(world.hooks()).of(hooks))
    with pytest.raises(HookFailed, match="health"):
        world.begin(options)
    with pytest.raises(PastReturn):
        world.cut_over().abort()
    (world.root / "well").touch()
    assert world.cut_over().carry_on().ending is Ending.DONE


# --- refusals


def test_a_second_cut_over_waits_for_the_first(world: World) -> None:
    with pytest.raises(HookFailed):
        world.begin(world.options(world.hooks(ready="false"), hold=True))
    with pytest.raises(CutOverRefused, match="stands at 6/10 verify"):
        world.begin()


def test_a_store_that_serves_already_is_not_cut_over_again(world: World) -> None:
    world.begin()
    with pytest.raises(CutOverRefused, match="serves already"):
        world.begin()


def test_there_is_nothing_to_continue_or_abort_or_roll_back(world: World) -> None:
    for call in (world.cut_over().carry_on, world.cut_over().abort, world.cut_over().roll_back):
        with pytest.raises((CutOverRefused, SourceError)):
            call()


def test_a_target_that_is_not_ours_is_not_made_ours_by_the_journal(world: World) -> None:
    world.new.mkdir()
    (world.new / "thesis.txt").touch()
    with pytest.raises(RefusedError, match="not made by a migration"):
        world.begin()
    assert [path.name for path in world.new.iterdir()] == ["thesis.txt"]


def test_a_source_that_vanishes_behind_the_fence_is_no_deletion(world: World) -> None:
    away = world.root / "away"
    options = world.options(world.hooks(stop_old=f"mv {world.v2} {away}"))
    outcome = world.begin(options)
    assert outcome.ending is Ending.ABORTED
    assert "no such directory" in outcome.reason
    assert world.lines_of_new() == ["msg_1", "msg_2"]
    away.rename(world.v2)
    assert world.begin().ending is Ending.DONE


def test_an_emptied_source_is_no_deletion_either(world: World) -> None:
    options = world.options(
        world.hooks(stop_old=f"sh -c 'mkdir {world.root}/a && mv {world.v2}/users/* {world.root}/a'")
    )
    outcome = world.begin(options)
    assert outcome.ending is Ending.ABORTED
    assert world.lines_of_new() == ["msg_1", "msg_2"]


# --- the journal


def test_a_line_that_a_crash_cut_off_announces_nothing(world: World) -> None:
    world.begin(world.options(world.hooks(ready="false")))
    path = Journal(world.new).path
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"record": {"num')
    assert Journal(world.new).position.ended is Ending.ABORTED
    assert world.begin().ending is Ending.DONE
    assert path.read_bytes().startswith(whole + b'{"record"')


@pytest.mark.parametrize("spoil", [lambda d: d.replace(b"verify", b"verifx", 1), lambda d: d.split(b"\n", 1)[1]])
def test_a_journal_that_was_changed_is_not_followed(world: World, spoil: object) -> None:
    world.begin()
    path = Journal(world.new).path
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(JournalDamaged):
        Journal(world.new)


def test_a_full_disk_does_not_keep_anybody_from_the_way_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from errno import ENOSPC

    from migration import cutover_journal

    really = Journal._write
    options = world.options(world.hooks(ready="false"))
    failed: list[bytes] = []

    def write(self: Journal, line: bytes) -> None:
        if b'"failed"' in line and not failed:
            failed.append(line)
            raise OSError(ENOSPC, "No space left on device")
        really(self, line)

    monkeypatch.setattr(cutover_journal.Journal, "_write", write)
    outcome = world.begin(options)
    assert failed
    assert outcome.ending is Ending.ABORTED
    assert world.served_by() is Side.OLD
