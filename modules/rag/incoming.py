"""Documents on their way in: whatever a caller brings becomes a file in the module's spool, and is read from there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from modules.core.clock import IdMaker
from modules.core.entered import entered
from modules.core.errors import ValidationError
from modules.core.spool import Arriving, Spool, Spooled, pieces_of

from .documents import digest_of
from .parsing import check_size, opened_local, pieces_within
from .settings import RagSettings

Source = bytes | str | Path | Spooled


@dataclass(frozen=True, slots=True)
class Incoming:
    """``sha256`` in hex."""

    file: Spooled
    size_bytes: int
    sha256: str


class Arrivals:
    def __init__(self, spool: Spool, settings: RagSettings, new_id: IdMaker) -> None:
        self._spool = spool
        self._settings = settings
        self._new_id = new_id

    @asynccontextmanager
    async def taken(self, user_id: str, source: Source) -> AsyncIterator[Incoming]:
        """The document as a file of this module's own, which is removed at the end if it was not kept.

        Raises ValidationError, UnreadableDocument for what is too large, NotFound, StorageError, Unavailable.
        """
        if isinstance(source, Spooled):
            async with entered(self._spool.owned(user_id, source, self._new_id())) as own:
                yield await asyncio.to_thread(self._measured, user_id, own)
            return
        arriving = self._spool.arriving(user_id, self._new_id())
        try:
            await self._write(arriving, source)
            yield await asyncio.to_thread(self._measured, user_id, arriving.spooled)
        finally:
            await asyncio.to_thread(arriving.remove)

    async def _write(self, arriving: Arriving, source: object) -> None:
        if isinstance(source, bytes):
            check_size(len(source), self._settings)
            await asyncio.to_thread(arriving.end, [source])
        elif isinstance(source, str | Path):
            async with entered(opened_local(source, self._settings)) as fd:
                await asyncio.to_thread(arriving.end, pieces_within(pieces_of(fd), self._settings))
        else:
            raise ValidationError("a document is bytes, or a path", param="source")

    def _measured(self, user_id: str, file: Spooled) -> Incoming:
        with self._spool.opened(user_id, file) as fd:
            size = os.fstat(fd).st_size
            check_size(size, self._settings)
            return Incoming(file, size, digest_of(pieces_of(fd)))
