"""A run that was broken off, wherever that was, goes on where it stopped: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import StorageError
from modules.core.storage import FileStamp, FlatFiles
from modules.multi_agent import Turn
from tests.multi_agent_world import Asked, World, world

PETS = ["a cat", "a dog"]
AGENTS = ["ada", "ben", "cleo"]


def script(asked: Asked) -> str:
    return "1" if asked.is_vote else f"{asked.name} speaks"


class StopsAt:
    """Answers so many requests, and then no more: the process can be ended there."""

    def __init__(self, answered: int) -> None:
        self.left = answered
        self.has_stopped = asyncio.Event()

    async def __call__(self, asked: Asked) -> str:
        if self.left == 0:
            self.has_stopped.set()
            await asyncio.Event().wait()
        self.left -= 1
        return script(asked)


def kinds(turns: list[Turn]) -> Counter[tuple[Any, ...]]:
    return Counter((turn.agent_id, turn.kind, turn.round) for turn in turns if turn.is_of_agent)


async def begun(here: World, strategy: str, key: str = "k") -> str:
    options = PETS if strategy == "consensus" else []
    made = await here.module.start_conversation(
        "t", AGENTS, 7, strategy=strategy, options=options, user_id="u", idempotency_key=key
    )
    return made.id


@pytest.mark.parametrize("strategy", ["round_robin", "consensus", "leader_based"])
async def test_broken_off_after_any_number_of_turns_it_ends_as_if_it_had_not_been(
    tmp_path: Path, strategy: str
) -> None:
    async with world(tmp_path / "whole", script) as here:
        await here.register(*AGENTS)
        whole = await here.module.wait_for_conversation(await begun(here, strategy), 10)
        expected = kinds(await here.turns(whole.id))
    for answered in range(sum(expected.values())):
        stops = StopsAt(answered)
        async with world(tmp_path / f"{answered}", stops, max_parallel_answers=1) as here:
            await here.register(*AGENTS)
            conversation_id = await begun(here, strategy)
            await asyncio.wait_for(stops.has_stopped.wait(), 10)
            before = await here.turns(conversation_id)
        async with world(tmp_path / f"{answered}", script) as here:
            assert (await here.module.get_conversation(conversation_id)).status == "running"
            assert await here.module.resume_interrupted() == 1
            assert await here.module.resume_interrupted() == 0
            ended = await here.module.wait_for_conversation(conversation_id, 10)
            turns = await here.turns(conversation_id)
            assert turns[: len(before)] == before
            assert kinds(turns) == expected, "each turn once"
            assert (ended.status, ended.reason) == (whole.status, whole.reason)
            assert (ended.decision or {}).get("content") == (whole.decision or {}).get("content")
            assert len(await here.module.get_decisions(conversation_id)) == (whole.decision is not None)


@pytest.mark.parametrize("cut", [1, 40])
async def test_a_line_that_was_torn_by_the_crash_is_said_again_and_its_bytes_are_kept(tmp_path: Path, cut: int) -> None:
    stops = StopsAt(3)
    async with world(tmp_path, stops) as here:
        await here.register(*AGENTS)
        conversation_id = await begun(here, "round_robin")
        await asyncio.wait_for(stops.has_stopped.wait(), 10)
    home = tmp_path / "multi_agent/conversations" / conversation_id
    data = (home / "transcript.jsonl").read_bytes()
    (home / "transcript.jsonl").write_bytes(data[:-cut])
    async with world(tmp_path, script) as here:
        await here.module.resume_interrupted()
        ended = await here.module.wait_for_conversation(conversation_id, 10)
        assert ended.turns == 7
        spoken = [turn.agent_id for turn in await here.turns(conversation_id) if turn.is_of_agent]
        assert spoken == ["ada", "ben", "cleo", "ada", "ben", "cleo", "ada"]
    if cut > 1:  # without its newline alone, a line is still whole
        (row,) = (home / "quarantine.jsonl").read_text().splitlines()
        assert json.loads(row)["raw"].encode() == data[:-cut].rpartition(b"\n")[2]


class Crash(BaseException):
    """In the place of the end of the process."""


class Crashing(FlatFiles):
    """Breaks off before the n-th change of any file."""

    def __init__(self, base: Path, changes: int) -> None:
        super().__init__(base)
        self.left = changes

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def write(self, key: str, data: bytes, *, fsync: bool = False) -> None:
        assert fsync, f"{key} must be on the disk before the next step"
        self._count()
        super().write(key, data, fsync=fsync)

    def append(self, key: str, data: bytes, *, fsync: bool = False, create_parents: bool = True) -> FileStamp:
        assert fsync, f"{key} must be on the disk before the next step"
        self._count()
        return super().append(key, data, fsync=fsync, create_parents=create_parents)


async def test_broken_off_before_any_change_of_any_file_it_decides_once(tmp_path: Path) -> None:
    registered = 3
    # That nobody asks what became of the runs that crashed is no news.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    for changes in range(registered, 100):
        base = tmp_path / f"{changes}"
        files = Crashing(base, changes)
        async with world(base, script, files=files) as here:
            await here.register(*AGENTS)
            with suppress(Crash):  # while it was begun; a run takes it with itself
                await here.module.wait_for_conversation(await begun(here, "consensus"), 10)
            has_crashed = files.left < 0
        async with world(base, script) as here:
            await here.module.resume_interrupted()
            conversation_id = await begun(here, "consensus")  # the caller that heard nothing asks again
            ended = await here.module.wait_for_conversation(conversation_id, 10)
            assert (ended.status, ended.reason, ended.turns) == ("completed", "consensus", 6)
            turns = await here.turns(conversation_id)
            assert set(kinds(turns).values()) == {1}
            assert [turn.content for turn in turns if not turn.is_of_agent] == ["t"]
            assert len(await here.module.get_decisions(conversation_id)) == 1
            assert len(await here.module.list_conversations("u")) == 1
        if not has_crashed:
            return
    pytest.fail("it never got through")


class Full(FlatFiles):
    """A disk that is full from the n-th line on, until it is emptied."""

    lines = 3

    def append(self, key: str, data: bytes, *, fsync: bool = False, create_parents: bool = True) -> FileStamp:
        if self.lines == 0:
            raise StorageError.because(OSError(28, os.strerror(28)), "append to", key)
        self.lines -= 1
        return super().append(key, data, fsync=fsync, create_parents=create_parents)


async def test_what_cannot_be_kept_is_tried_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Full(tmp_path)
    async with world(tmp_path, script, files=files) as here:
        await here.register(*AGENTS)
        conversation_id = await begun(here, "round_robin")
        stopped = await here.module.wait_for_conversation(conversation_id, 10)
        assert (stopped.status, stopped.turns) == ("running", 3)
        assert "cannot go on for now" in caplog.text
        files.lines = 100
        assert await here.module.resume_interrupted() == 0, "not at once again"
        here.module._conversing._runs.put_off(conversation_id, "u", pause_s=0.0)
        assert await here.module.resume_interrupted() == 1
        assert (await here.module.wait_for_conversation(conversation_id, 10)).turns == 7


async def test_one_that_was_left_under_way_can_be_cancelled_without_going_on(tmp_path: Path) -> None:
    stops = StopsAt(1)
    async with world(tmp_path, stops) as here:
        await here.register(*AGENTS)
        conversation_id = await begun(here, "round_robin")
        await asyncio.wait_for(stops.has_stopped.wait(), 10)
    async with world(tmp_path, script) as here:
        assert (await here.module.cancel_conversation(conversation_id)).status == "cancelled"
        assert await here.module.resume_interrupted() == 0


async def test_a_state_that_cannot_be_read_stops_its_run_and_hides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stops = StopsAt(1)
    async with world(tmp_path, stops) as here:
        await here.register(*AGENTS)
        conversation_id = await begun(here, "round_robin")
        await asyncio.wait_for(stops.has_stopped.wait(), 10)
    (tmp_path / "multi_agent/conversations" / conversation_id / "state.json").write_text('{"status": "running"}')
    async with world(tmp_path, script) as here:
        assert await here.module.resume_interrupted() == 0
        assert "its run cannot go on" in caplog.text
        assert len(await here.turns(conversation_id)) == 2


async def test_the_time_limit_counts_from_the_start_also_over_an_interruption(tmp_path: Path) -> None:
    stops = StopsAt(1)
    async with world(tmp_path, stops) as here:
        await here.register(*AGENTS)
        made = await here.module.start_conversation("t", AGENTS, termination={"time_s": 0.3})
        await asyncio.wait_for(stops.has_stopped.wait(), 10)
    await asyncio.sleep(0.3)
    async with world(tmp_path, script) as here:
        await here.module.resume_interrupted()
        ended = await here.module.wait_for_conversation(made.id, 10)
        assert (ended.reason, ended.turns) == ("time", 1)
