"""How processes come by the platform of a base."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import topology as notes
from actors.local import LocalRuntime
from actors.locks import claim
from modules.core.errors import Unavailable
from serve.joining import join_or_start, was_replaced

SETTINGS: dict[str, Any] = {"modules": {"memory": {"enabled": True}}}


async def test_the_first_one_starts_it_and_the_others_join(tmp_path: Path) -> None:
    runtime = LocalRuntime()
    joined = await asyncio.gather(*(join_or_start(SETTINGS, base=tmp_path, runtime=runtime) for _ in range(3)))
    assert sorted(one.is_ours for one in joined) == [False, False, True]
    assert len({one.platform.topology.incarnation for one in joined}) == 1
    await joined[2].platform.ref("memory").ask("store_memory", "k", "v", user_id="ann")
    await next(one.platform for one in joined if one.is_ours).stop()


async def test_one_that_is_only_half_started_is_not_joined(tmp_path: Path) -> None:
    runtime = LocalRuntime()
    first = await join_or_start(SETTINGS, base=tmp_path, runtime=runtime)
    complete = notes.load(tmp_path)
    notes.save(tmp_path, replace(complete, is_complete=False))
    second = asyncio.create_task(join_or_start(SETTINGS, base=tmp_path, runtime=runtime))
    await asyncio.sleep(0.2)
    assert not second.done()
    notes.save(tmp_path, complete)
    assert not (await second).is_ours
    await first.platform.stop()


async def test_a_start_that_does_not_end_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    lock = claim(tmp_path)
    with pytest.raises(Unavailable, match=r"has not come up within 0.2 s"):
        await join_or_start(SETTINGS, base=tmp_path, runtime=LocalRuntime(), patience_s=0.2)
    lock.release()


async def test_a_platform_that_was_started_anew_is_another_one(tmp_path: Path) -> None:
    runtime = LocalRuntime()
    first = await join_or_start(SETTINGS, base=tmp_path, runtime=runtime)
    incarnation = first.platform.topology.incarnation
    assert not was_replaced(tmp_path, incarnation)
    await first.platform.stop()
    assert not was_replaced(tmp_path, incarnation), "gone is not replaced"
    second = await join_or_start(SETTINGS, base=tmp_path, runtime=runtime)
    assert was_replaced(tmp_path, incarnation)
    await second.platform.stop()
