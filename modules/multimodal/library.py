"""What is kept for users: uploads and results, with one writer at a time for each user.

An erasure moves the user's epoch on. What was begun before it and ends after it finds another epoch than it began in,
and is not kept: so nothing of a user comes back.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from modules.core.clock import Clock, IdMaker, new_hex
from modules.core.entered import entered
from modules.core.errors import NotFound, Unavailable, ValidationError
from modules.core.finishing import Finishing
from modules.core.spool import Spooled, pieces_of
from modules.core.storage import FlatFiles
from modules.core.stored_file import StoredFile

from .kinds import AUDIO, DOCUMENT, IMAGE, VIDEO, Format
from .result_cache import ResultCache
from .results import Erasure
from .settings import MultimodalSettings
from .sources import Source, Sources
from .uploads import DERIVED, UPLOADED, Upload, Uploads, hash_in

log = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_IN_A_PAGE = 1000
_ORDERS = ("asc", "desc")
_EXPORTED_BYTES = 64 << 20
_KINDS = (IMAGE, AUDIO, VIDEO, DOCUMENT)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The time of a user between two erasures."""

    user_id: str
    number: int


class Library:
    def __init__(
        self, files: FlatFiles, settings: MultimodalSettings, clock: Clock, *, new_id: IdMaker = new_hex
    ) -> None:
        limits = settings.limits
        self._uploads = Uploads(files, max_bytes=limits.max_bytes, max_user_bytes=limits.max_user_bytes)
        self._cache = ResultCache(files, max_bytes=settings.max_cache_bytes)
        self._sources = Sources(
            files, self._uploads, local_directories=settings.local_directories, max_bytes=limits.max_bytes
        )
        self._clock = clock
        self._new_id = new_id
        self._erasures: dict[str, int] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # The cache is everybody's: who makes room in it counts what all have.
        self._cache_lock = asyncio.Lock()
        self._finishing = Finishing("work on uploads")

    def epoch(self, user_id: str) -> Epoch:
        """To be taken before work begins whose result shall be kept."""
        if not isinstance(user_id, str):
            raise ValidationError("user_id must be text", param="user_id")
        return Epoch(user_id, self._erasures.get(user_id, 0))

    @asynccontextmanager
    async def opened(self, user_id: str, path: str) -> AsyncIterator[Source]:
        """See `Sources.opened`; the disk is read in a thread."""
        self.epoch(user_id)
        async with entered(self._sources.opened(user_id, path)) as source:
            yield source

    async def content(self, user_id: str, path: str) -> tuple[bytes, str]:
        """The whole content behind a path, and its name."""
        self.epoch(user_id)
        return await asyncio.to_thread(self._sources.read, user_id, path)

    async def add(
        self, user_id: str, content: bytes | str | Spooled, *, name: str | None, metadata: Mapping[str, Any] | None
    ) -> Upload:
        epoch = self.epoch(user_id)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ValidationError("metadata must be a mapping", param="metadata")
        kept_as: dict[str, Any] = {"origin": UPLOADED, "metadata": metadata}
        if isinstance(content, Spooled):
            return await self._finishing.finish(self._handed_over(epoch, content, name=name or "", **kept_as))
        if isinstance(content, str):
            return await self._finishing.finish(self._copied(epoch, content, name=name, **kept_as))
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ValidationError("content must be bytes, or a path", param="content")
        data = bytes(content)
        self._uploads.check_size(len(data))
        return await self._finishing.finish(self._arrived(epoch, [data], name=name or "", **kept_as))

    async def keep(
        self,
        epoch: Epoch,
        data: bytes,
        *,
        name: str,
        found: Format,
        origin: str = DERIVED,
        metadata: Mapping[str, Any] | None = None,
    ) -> Upload:
        """Keep *data* as an upload. Raises NotFound where the user was erased since *epoch*."""
        arrived = self._arrived(epoch, [data], name=name, found=found, origin=origin, metadata=metadata)
        return await self._finishing.finish(arrived)

    async def get(self, user_id: str, media_id: str) -> Upload:
        _check_id(media_id)
        self.epoch(user_id)
        return await asyncio.to_thread(self._uploads.get, user_id, media_id)

    async def read(self, user_id: str, media_id: str) -> bytes:
        _check_id(media_id)
        self.epoch(user_id)
        return await asyncio.to_thread(self._uploads.read, user_id, media_id)

    async def locate(self, user_id: str, media_id: str) -> StoredFile:
        _check_id(media_id)
        self.epoch(user_id)
        return await asyncio.to_thread(self._uploads.located, user_id, media_id)

    async def page(
        self, user_id: str, *, limit: int, after: str | None, before: str | None, order: str, kind: str | None
    ) -> list[Upload]:
        """A part of the user's uploads. Raises NotFound for a cursor that is none of them."""
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MOST_IN_A_PAGE:
            raise ValidationError(f"limit must be from 1 to {_MOST_IN_A_PAGE}, not {limit!r}", param="limit")
        if order not in _ORDERS:
            raise ValidationError(f"order must be asc or desc, not {order!r}", param="order")
        if kind is not None and kind not in _KINDS:
            raise ValidationError(f"kind must be one of {', '.join(_KINDS)}, not {kind!r}", param="kind")
        uploads = await self._alone(self.epoch(user_id), lambda: self._uploads.of_user(user_id))
        shown = [upload for upload in uploads if kind in (None, upload.kind)]
        if order == "desc":
            shown.reverse()
        low = 0 if after is None else _place_of(shown, after) + 1
        high = len(shown) if before is None else _place_of(shown, before)
        if after is None and before is not None:
            low = max(low, high - limit)  # the page that ends there
        return shown[low : min(high, low + limit)]

    async def delete(self, user_id: str, media_id: str) -> bool:
        _check_id(media_id)

        def delete() -> bool:
            is_gone = self._uploads.delete(user_id, media_id)
            if is_gone:
                self._cache.forget_content(user_id, hash_in(media_id))
            return is_gone

        async with self._cache_lock:
            return await self._alone(self.epoch(user_id), delete)

    async def export(self, user_id: str) -> dict[str, Any]:
        """All records; contents too, up to `_EXPORTED_BYTES` together: the rest is to be read one by one."""

        def whole() -> dict[str, Any]:
            room = _EXPORTED_BYTES
            uploads = []
            for upload in self._uploads.of_user(user_id):
                content = None
                if upload.size_bytes <= room:
                    room -= upload.size_bytes
                    content = b64encode(self._uploads.read(user_id, upload.id)).decode()
                uploads.append({**upload.to_dict(), "content": content})
            return {"user_id": user_id, "uploads": uploads}

        return await self._alone(self.epoch(user_id), whole)

    async def erase(self, user_id: str) -> Erasure:
        self._erasures[user_id] = self.epoch(user_id).number + 1

        def erase() -> Erasure:
            return Erasure(user_id, self._uploads.erase(user_id), self._cache.erase(user_id))

        async with self._cache_lock:
            return await self._alone(self.epoch(user_id), erase)

    async def cached(self, user_id: str, key: str) -> dict[str, Any] | None:
        return await asyncio.to_thread(self._cache.get, user_id, key)

    async def cache(self, epoch: Epoch, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result for the next time; nothing happens where the user was erased since *epoch*."""
        async with self._cache_lock:
            if epoch == self.epoch(epoch.user_id):
                await self._alone(epoch, lambda: self._cache.put(epoch.user_id, key, result))

    async def tidy_spool(self) -> int:
        """Remove what a crash left of files on their way in. Returns how many."""
        return await asyncio.to_thread(self._uploads.spool.remove_stale, self._clock.now())

    async def close(self) -> None:
        """Finish what has begun."""
        await self._finishing.wait()

    async def _copied(self, epoch: Epoch, path: str, *, name: str | None, **kept_as: Any) -> Upload:
        async with self.opened(epoch.user_id, path) as source:
            name = source.name if name is None else name
            return await self._arrived(epoch, pieces_of(source.fd), name=name, found=source.format, **kept_as)

    async def _handed_over(self, epoch: Epoch, spooled: Spooled, **kept_as: Any) -> Upload:
        try:
            async with entered(self._uploads.spool.owned(epoch.user_id, spooled, self._new_id())) as own:
                return await self._kept(epoch, own, **kept_as)
        except Unavailable:
            self._check(epoch)
            raise

    async def _arrived(self, epoch: Epoch, pieces: Iterable[bytes], **kept_as: Any) -> Upload:
        self._check(epoch)
        arriving = self._uploads.spool.arriving(epoch.user_id, self._new_id())
        try:
            await asyncio.to_thread(arriving.end, pieces)
            return await self._kept(epoch, arriving.spooled, **kept_as)
        finally:
            await asyncio.to_thread(arriving.remove)

    async def _kept(
        self,
        epoch: Epoch,
        spooled: Spooled,
        *,
        name: str,
        origin: str,
        metadata: Mapping[str, Any] | None,
        found: Format | None = None,
    ) -> Upload:
        """Reading it takes a while and needs no lock: the user's other files can be used meanwhile."""
        now = self._clock.now()
        try:
            arrived = await asyncio.to_thread(self._uploads.examined, epoch.user_id, spooled, found=found)
        except Unavailable:
            self._check(epoch)
            raise

        def add() -> Upload:
            return self._uploads.add(epoch.user_id, arrived, name=name, now=now, origin=origin, metadata=metadata)

        return await self._alone(epoch, add)

    def _check(self, epoch: Epoch) -> None:
        if epoch != self.epoch(epoch.user_id):
            raise NotFound(f"user {epoch.user_id!r} was erased meanwhile")

    async def _alone(self, epoch: Epoch, work: Callable[[], T]) -> T:
        """Run *work* in a thread, nothing else of this user meanwhile; to its end even when the caller goes away."""
        lock = self._locks.get(epoch.user_id)
        if lock is None:
            self._locks[epoch.user_id] = lock = asyncio.Lock()

        async def whole() -> T:
            async with lock:
                self._check(epoch)
                return await asyncio.to_thread(work)

        return await self._finishing.finish(whole())


def _check_id(media_id: object) -> None:
    if not isinstance(media_id, str):
        raise ValidationError("media_id must be text", param="media_id")
    hash_in(media_id)


def _place_of(uploads: Sequence[Upload], media_id: str) -> int:
    for place, upload in enumerate(uploads):
        if upload.id == media_id:
            return place
    raise NotFound(f"there is no upload {media_id!r} to go on from")
