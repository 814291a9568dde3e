"""A store that is written to until the fence is cut over with nothing lost that was acknowledged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from migration.cutover_hooks import Hooks
from migration.cutover_serving import Side
from migration.cutover_steps import Ending
from migration.target import Target
from tests.cutover_world import World
from tests.v2_writer import Writer, new_side


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _stopping(world: World, stop: Path, stopped: Path) -> Hooks:
    wait = f"touch {stop}; while [ ! -e {stopped} ]; do sleep 0.01; done; rm -f {world.old_up}"
    return world.hooks(stop_old=f"sh -c '{wait}'")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_v2_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, users=("ada",))
    stop, stopped = tmp_path / "stop", tmp_path / "stopped"
    writer = Writer(world.v2, seed, stop, stopped)
    writer.start(sessions=8)
    options = world.options(_stopping(world, stop, stopped), all_changed=True, deletes=1.0, max_lag=20, passes=50)
    try:
        outcome = world.begin(options)
    finally:
        stop.touch()
        writer.join()
    assert outcome.ending is Ending.DONE, outcome.reason
    assert world.served_by() is Side.NEW
    assert world.is_equal()
    found = {key: ids for key, ids in new_side(world.new).items() if key[0] != "ada"}
    assert found == writer.acknowledged
    assert writer.writes > 8
    for (user, session), title in writer.titles.items():
        metadata = json.loads((world.new / "text_chat/sessions" / user / session / "metadata.json").read_bytes())
        assert metadata["title"] == title


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_an_abort_lets_a_living_v2_live_on(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, users=("ada",))
    stop, stopped = tmp_path / "stop", tmp_path / "stopped"
    writer = Writer(world.v2, seed, stop, stopped)
    writer.start(sessions=8)
    hooks = Hooks.of({**_stopping(world, stop, stopped).to_json(), "ready": "false"})
    try:
        outcome = world.begin(world.options(hooks, all_changed=True, deletes=1.0, max_lag=20, passes=50))
    finally:
        stop.touch()
        writer.join()
    assert outcome.ending is Ending.ABORTED
    assert world.served_by() is Side.OLD
    world.say("after_the_abort")
    assert world.begin(world.options(all_changed=True)).ending is Ending.DONE
    assert world.lines_of_new() == ["msg_1", "msg_2", "after_the_abort"]
