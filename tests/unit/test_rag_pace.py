"""Brief work is done in the event loop, what is not, or might wait, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import accumulate
from pathlib import Path

import pytest

from modules.rag import RagModule
from modules.rag.knowledge import Knowledge
from modules.rag.pace import BRIEF_S, Pace
from modules.rag.shelves import Shelves
from tests.rag_documents import HashedWords, opened

LONG_S = 2 * BRIEF_S


def pace_of(*seconds: float) -> Pace:
    """One that has seen pieces which took so long."""
    moments = iter(accumulate((one for taken in seconds for one in (taken, 0.0)), initial=0.0))
    pace = Pace(lambda: next(moments))
    for _ in seconds:
        pace.timed(lambda: None)
    return pace


def test_work_is_brief_once_it_was_so_many_times_in_a_row() -> None:
    assert not pace_of(*[0.0] * 7).is_brief
    assert pace_of(*[BRIEF_S / 2] * 8).is_brief
    assert not pace_of(*[0.0] * 20, LONG_S).is_brief
    assert not pace_of(LONG_S, *[0.0] * 7).is_brief
    assert pace_of(LONG_S, *[0.0] * 8).is_brief


def test_work_that_fails_is_timed_like_any() -> None:
    moments = iter([0.0, 0.0] * 8 + [1.0, 1.0 + LONG_S])
    pace = Pace(lambda: next(moments))
    for _ in range(8):
        pace.timed(lambda: None)
    with pytest.raises(ZeroDivisionError):
        pace.timed(lambda: 1 / 0)
    assert not pace.is_brief


@pytest.fixture
async def rag(tmp_path: Path) -> AsyncIterator[RagModule]:
    module = await opened(tmp_path, HashedWords())
    await module.add_document(b"a word", name="a.txt", user_id="ann")
    yield module
    await module.close()


@pytest.fixture
def shelves(rag: RagModule) -> Shelves:
    return rag._shelves


def place(knowledge: Knowledge) -> str:
    return threading.current_thread().name


async def made_brief(shelves: Shelves, user_id: str) -> None:
    await shelves.read(user_id, place)
    shelves._shelf(user_id).pace = pace_of(*[0.0] * 8)
    shelves._shelf(user_id).pace._now = lambda: 0.0


async def test_a_glance_is_in_a_thread_until_it_has_proved_brief(shelves: Shelves) -> None:
    own = threading.current_thread().name
    assert await shelves.glance("ann", place) != own
    await made_brief(shelves, "ann")
    assert await shelves.glance("ann", place) == own
    assert await shelves.glance("bob", place) != own, "each user's index has its own size"
    assert await shelves.read("ann", place) != own


async def test_a_glance_does_not_wait_in_the_event_loop_for_a_change(shelves: Shelves) -> None:
    await made_brief(shelves, "ann")
    begun, may_end = threading.Event(), threading.Event()

    def change(knowledge: Knowledge) -> None:
        begun.set()
        may_end.wait(30)

    changing = asyncio.create_task(shelves.change("ann", change))
    await asyncio.to_thread(begun.wait, 30)
    assert await shelves.glance("ann", place) != threading.current_thread().name
    may_end.set()
    await changing


@pytest.mark.parametrize(
    ("top_k", "filters", "in_the_loop"),
    [(10, None, True), (50, {}, True), (51, None, False), (10, {"metadata": {"kind": "note"}}, False)],
)
async def test_only_searches_that_cost_much_the_same_are_done_in_the_event_loop(
    rag: RagModule, monkeypatch: pytest.MonkeyPatch, top_k: int, filters: dict | None, in_the_loop: bool
) -> None:
    threads = []
    nearest = Knowledge.nearest

    def noted(*args: object) -> object:
        threads.append(threading.current_thread())
        return nearest(*args)

    await made_brief(rag._shelves, "ann")
    monkeypatch.setattr(Knowledge, "nearest", noted)
    await rag.search_by_vector([1.0] * 64, top_k, filters, user_id="ann")
    assert [thread is threading.current_thread() for thread in threads] == [in_the_loop]
