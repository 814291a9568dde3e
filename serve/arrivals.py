"""Bodies that are files: written below the base as they come, and handed to a module by name.

Nothing of a file is held but the last piece, the event loop never waits for the disk, and a sender is not read from
faster than the disk takes it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request

from modules.core.clock import IdMaker, new_hex
from modules.core.errors import StorageError
from modules.core.spool import Arriving, Spool, Spooled
from modules.core.storage import FlatFiles

from .bodies import announced_bytes
from .errors import NoRoom, TooLarge

T = TypeVar("T")

_PIECE_BYTES = 256 << 10
# How often it is looked whether there still is room, and how much of it uploads leave to others.
_LOOKED_AT_EVERY = 16 << 20
_RESERVE_BYTES = 64 << 20
# Of its own: an upload that waits for the disk must not hold up what else is done in threads.
_THREADS = 4


class Arrivals:
    """Of one replica."""

    def __init__(self, files: FlatFiles, *, new_id: IdMaker = new_hex) -> None:
        self._files = files
        self._new_id = new_id
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="arrivals")

    @asynccontextmanager
    async def received(self, request: Request, module: str, user_id: str, *, most_bytes: int) -> AsyncIterator[Spooled]:
        """The body as a file in the spool of *module*, which is told its name. If it is not kept by the end, it is
        removed then.

        Raises TooLarge at once when it is known to be, NoRoom, StorageError, and ClientDisconnect for a sender who goes
        away before the end.
        """
        await self._check(announced_bytes(request.headers), most_bytes)
        arriving = Spool(self._files, module).arriving(user_id, self._new_id())
        try:
            await self._write(request, arriving, most_bytes)
            yield arriving.spooled
        finally:
            await self._in_thread(arriving.remove)

    def close(self) -> None:
        """Wait for what is being written."""
        self._threads.shutdown()

    async def _check(self, announced: int | None, most_bytes: int) -> None:
        if announced is None:
            return
        if announced > most_bytes:
            raise TooLarge.beyond(most_bytes)
        if announced > _PIECE_BYTES:
            await self._in_thread(self._check_room, announced)

    async def _write(self, request: Request, arriving: Arriving, most_bytes: int) -> None:
        pieces: list[bytes] = []
        size = held = 0
        async for piece in request.stream():
            size += len(piece)
            if size > most_bytes:
                raise TooLarge.beyond(most_bytes)
            pieces.append(piece)
            held += len(piece)
            if held >= _PIECE_BYTES:
                if size // _LOOKED_AT_EVERY != (size - held) // _LOOKED_AT_EVERY:
                    await self._in_thread(self._check_room, 0)
                await self._in_thread(arriving.write, pieces)
                pieces, held = [], 0
        await self._in_thread(arriving.end, pieces)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room() from error
            raise

    def _check_room(self, wanted: int) -> None:
        """Raises NoRoom, also where others' uploads have taken it meanwhile: what is left is for messages."""
        try:
            disk = os.statvfs(self._files.base)
        except OSError as error:
            raise StorageError.because(error, "look at", str(self._files.base)) from error
        if disk.f_bavail * disk.f_frsize < wanted + _RESERVE_BYTES:
            raise _no_room()


def _no_room() -> NoRoom:
    return NoRoom("the disk has no room for this file now")
