"""A context that is entered in a thread, and left whatever happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modules.core.entered import entered
from modules.core.memory_file import memory_file


class Door:
    """Says when it is entered and left, and from where."""

    def __init__(self) -> None:
        self.may_open = threading.Event()
        self.may_open.set()
        self.log: list[str] = []

    @contextmanager
    def open(self) -> Iterator[str]:
        assert self.may_open.wait(10)
        self.log.append("main" if threading.current_thread() is threading.main_thread() else "thread")
        try:
            yield "inside"
        finally:
            self.log.append("left")


async def test_the_loop_does_not_wait_for_what_is_entered() -> None:
    door = Door()
    async with entered(door.open()) as place:
        assert (place, door.log) == ("inside", ["thread"])
    assert door.log == ["thread", "left"]


async def test_it_is_left_when_something_is_raised_inside() -> None:
    door = Door()
    with pytest.raises(ValueError, match="inside"):
        async with entered(door.open()):
            raise ValueError("inside")
    assert door.log[-1] == "left"


async def test_what_entering_raises_is_raised() -> None:
    @contextmanager
    def locked() -> Iterator[None]:
        raise OSError("locked")
        yield

    with pytest.raises(OSError, match="locked"):
        async with entered(locked()):
            pass


async def test_it_is_left_when_the_caller_goes_away_while_it_is_entered() -> None:
    door = Door()
    door.may_open.clear()

    async def wait() -> None:
        async with entered(door.open()):
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.log == []
    door.may_open.set()
    async with asyncio.timeout(10):
        while door.log != ["thread", "left"]:
            await asyncio.sleep(0.01)


def test_bytes_are_a_file_without_a_name() -> None:
    with memory_file(b"content") as fd, open(fd, "rb", closefd=False) as file:
        file.seek(0)
        assert file.read() == b"content"
