"""Work in confined processes: whatever it does, the process that asked for it goes on, and says what happened."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modules.core.errors import Unavailable
from modules.core.memory_file import memory_file
from modules.rag import ParsingStopped
from modules.rag.confined import ConfinedProcesses

pytestmark = pytest.mark.slow

LIMITS: dict[str, Any] = {"timeout_s": 20, "memory_bytes": 256 << 20, "result_bytes": 1 << 20}


@pytest.fixture
async def processes() -> AsyncIterator[ConfinedProcesses]:
    made = ConfinedProcesses(1)
    yield made
    made.close()


async def run(
    processes: ConfinedProcesses, function: str, data: bytes, arguments: dict[str, Any], **limits: Any
) -> Any:
    with memory_file(data) as fd:
        return await processes.run(function, fd, arguments, **limits)


@pytest.mark.parametrize(
    ("function", "arguments", "limits", "said"),
    [
        ("sleep", {"seconds": 60}, {"timeout_s": 0.3}, r"longer than 0\.3 s"),
        ("eat", {"megabytes": 2000}, {}, "more than 256 MB of memory"),
        ("crash", {}, {}, "SIGSEGV"),
        ("fail", {}, {}, r"ValueError: no good \(rag_work\.py"),
        ("talk", {"megabytes": 30}, {}, "parser"),
    ],
)
async def test_what_goes_wrong_is_an_error_that_says_what(
    processes: ConfinedProcesses, function: str, arguments: dict, limits: dict, said: str
) -> None:
    with pytest.raises(ParsingStopped, match=said):
        await run(processes, f"tests.rag_work:{function}", b"", arguments, **{**LIMITS, **limits})
    assert await run(processes, "tests.rag_work:echo", b"abc", {}, **LIMITS) == "abc"


async def test_work_that_takes_its_process_over_finds_no_secret_there(
    monkeypatch: pytest.MonkeyPatch, processes: ConfinedProcesses
) -> None:
    monkeypatch.setenv("CHAT_MODULES__RAG__EMBEDDING__API_KEY", "sk-secret")
    seen = await run(processes, "tests.rag_work:environment", b"", {}, **LIMITS)
    assert "PATH" in seen
    assert not any("secret" in value for value in seen.values())


async def test_a_process_that_was_killed_is_replaced(processes: ConfinedProcesses) -> None:
    await run(processes, "tests.rag_work:echo", b"one", {}, **LIMITS)
    pid = await run(processes, "tests.rag_work:parent", b"", {}, **LIMITS)
    os.kill(pid, 9)
    assert await run(processes, "tests.rag_work:echo", b"two", {}, **LIMITS) == "two"


async def test_a_caller_that_goes_away_ends_the_work(processes: ConfinedProcesses) -> None:
    asking = asyncio.create_task(run(processes, "tests.rag_work:sleep", b"", {"seconds": 60}, **LIMITS))
    await asyncio.sleep(0.5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(10):
        assert await run(processes, "tests.rag_work:echo", b"next", {}, **LIMITS) == "next"


async def test_closed_processes_take_no_work(processes: ConfinedProcesses) -> None:
    processes.close()
    with pytest.raises(Unavailable):
        await run(processes, "tests.rag_work:echo", b"", {}, **LIMITS)
