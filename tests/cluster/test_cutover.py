"""The cut-over as an operator calls it, with the work on Ray: killed behind the fence, it goes on; then v2 again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from migration.cutover_journal import Journal
from migration.cutover_serving import Side
from migration.cutover_steps import Ending, Step, Way
from tests.cluster.conftest import CommandLine, eventually, report_of
from tests.cutover_world import World

pytestmark = [pytest.mark.cluster]


def test_a_cut_over_on_ray_is_killed_goes_on_and_is_rolled_back(modchat: CommandLine, tmp_path: Path) -> None:
    world = World(tmp_path / "stores")
    gate = tmp_path / "gate"
    hooks = {**world.hooks().to_json(), "ready": f"sh -c 'while [ ! -e {gate} ]; do sleep 0.05; done'"}
    (tmp_path / "hooks.json").write_text(json.dumps(hooks))
    where = ["--from", world.v2, "--to", world.new, "--workers", "2"]

    started = modchat.start("migrate", "cutover", "start", *where, "--no-backup", "--hooks", tmp_path / "hooks.json")
    eventually(lambda: _stands_in_the_gate(world) or started.ended, "the cut-over reaches its last gate")
    assert not started.ended, started.stderr
    assert not world.old_up.exists()
    started.kill()
    assert world.serving.side_of("ada") is Side.FENCED
    gate.touch()

    went_on = modchat.run("migrate", "cutover", "continue", *where, "--json")
    assert went_on.wait() == 0, went_on.stderr
    report = report_of(went_on)
    assert (report["verdict"], report["sums"]["messages"]) == ("done", 12)
    assert world.served_by() is Side.NEW
    assert world.is_equal()

    world.say_new("new_1")
    back = modchat.run("migrate", "rollback", *where, "--execute")
    assert back.wait() == 0, back.stderr
    assert Journal(world.new).position.ended is Ending.ROLLED_BACK
    assert world.served_by() is Side.OLD
    assert world.lines_of_old() == ["msg_1", "msg_2", "new_1"]


def _stands_in_the_gate(world: World) -> bool:
    """Whether the command of the last gate is running."""
    hooks = world.new / ".migration/cutover/hooks"
    if not os.path.isdir(hooks) or not list(hooks.glob("*-ready.log")):
        return False
    return (Way.FORWARD, Step.VERIFY) in Journal(world.new).position.intents
