"""Migrations as the server shows them: from the files that a run keeps of itself."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from migration.progress import Progress
from migration.sample import write_sample
from migration.state import Control, State
from migration.storage_mapper import StorageMapper
from tests.served import Served, events_of, served


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(str(tmp_path))
    state.make()
    return state


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


def note(state: State, run: int, outcome: str) -> None:
    state.write("run.json", {"run": run, "outcome": outcome, "source": "/old", "started_at": 1.0, "updated_at": 2.0})


def progress(users: int) -> Progress:
    return Progress("migrate", 1.0, users, 10, 5, 50, 1000, 0, 1, False, None, 2)


async def runs(here: Served, **query: Any) -> list[dict[str, Any]]:
    answer = await here.client.get("/v1/migrations", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_where_nothing_was_migrated_there_are_none(here: Served) -> None:
    assert await runs(here) == []
    assert (await here.client.get("/v1/migrations/run-000001")).status_code == 404
    assert (await here.client.get("/v1/migrations/..%2F..%2Fetc")).status_code == 404
    assert (await here.client.get("/v1/migrations/run-000001/events")).status_code == 404


async def test_a_real_run_is_shown_with_its_report(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2", users=1, sessions=1)
    StorageMapper(str(tmp_path / "v2"), str(tmp_path / "new")).migrate_sessions()
    async with served(tmp_path / "new") as here:
        (run,) = await runs(here)
        assert (run["id"], run["state"], run["source"]) == ("run-000001", "finished", str(tmp_path / "v2"))
        assert run["report"]["messages"] > 0
        assert (await here.client.get("/v1/migrations/run-000001")).json() == run
        events = events_of((await here.client.get("/v1/migrations/run-000001/events")).content)
        assert events == [("ended", run)]


async def test_a_run_that_broke_off_is_interrupted(here: Served, state: State) -> None:
    note(state, 3, "running")
    state.write_status(progress(4))
    (run,) = await runs(here)
    assert (run["id"], run["state"], run["progress"]["users"]) == ("run-000003", "interrupted", 4)


@pytest.mark.slow
async def test_a_run_under_way_is_followed_live(here: Served, state: State) -> None:
    note(state, 1, "running")
    state.write_status(progress(1))
    state.set_control(Control(paused=True))
    lock = os.open(f"{state.path}/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    stream = here.begin("GET", "/v1/migrations/run-000001/events")
    assert await stream.status() == 200
    name, first = events_of(await stream.until(b"event: progress"))[0]
    assert (name, first["state"], first["paused"], first["progress"]["users"]) == ("progress", "running", True, 1)
    state.write_status(progress(2))
    assert events_of(await stream.until(b"event: progress"))[0][1]["progress"]["users"] == 2
    note(state, 1, "finished")
    os.close(lock)
    assert events_of(await stream.until(b"event: ended"))[0][1]["state"] == "finished"
    await stream.ended()


async def test_runs_come_in_pages(here: Served, state: State) -> None:
    for number in (1, 2, 3):
        Path(f"{state.reports}/run-{number:06d}.json").write_text(json.dumps({"run": number, "source": "/old"}))
    ids = ["run-000001", "run-000002", "run-000003"]
    assert [one["id"] for one in await runs(here)] == ids
    assert [one["id"] for one in await runs(here, order="desc", limit=2)] == ids[:0:-1]
    assert [one["id"] for one in await runs(here, after=ids[0], limit=1)] == ids[1:2]
    assert [one["id"] for one in await runs(here, before=ids[2], limit=1)] == ids[1:2]
    assert (await here.client.get("/v1/migrations", params={"after": "run-000009"})).status_code == 404


async def test_damaged_notes_are_an_error_and_not_an_empty_list(here: Served, state: State) -> None:
    Path(f"{state.path}/run.json").write_text("{")
    answer = await here.client.get("/v1/migrations")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_error")
