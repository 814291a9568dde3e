"""The users whose index is open: opened when first asked for, one change at a time for each, closed when there are too
many."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from modules.core.clock import IdMaker
from modules.core.finishing import Finishing

from .knowledge import Knowledge, prefix_of
from .library import Library
from .nearness import one_thread_each
from .pace import Pace
from .part import Places, remove_directory

log = logging.getLogger(__name__)
T = TypeVar("T")

_THREADS = 4


@dataclass(slots=True)
class _Shelf:
    knowledge: Knowledge | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pace: Pace = field(default_factory=Pace)


class Shelves:
    """At most *max_open* users at a time, besides those that are being changed."""

    def __init__(self, library: Library, places: Places, *, max_open: int, new_id: IdMaker) -> None:
        self._library = library
        self._places = places
        self._max_open = max_open
        self._new_id = new_id
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._names: dict[str, list[str]] = {}
        self._finishing = Finishing("work on documents")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rag", initializer=one_thread_each)

    def survey(self) -> None:
        """Learn the names of all parts, once, before the first user is asked for. Raises OSError."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for directory in (self._places.directory(""), self._places.words("")):
            for path in directory.iterdir() if directory.is_dir() else ():
                prefix = path.name.removeprefix(".tmp-")[: len(prefix_of(""))]
                names[prefix].append(path.name)
        self._names = {prefix: sorted(set(found)) for prefix, found in names.items()}

    async def read(self, user_id: str, work: Callable[[Knowledge], T]) -> T:
        """Run *work*, which changes nothing, in a thread; others read and one changes meanwhile."""
        _, knowledge = await self._opened(user_id)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, knowledge)

    async def glance(self, user_id: str, work: Callable[[Knowledge], T]) -> T:
        """As `read`, for work that takes much the same each time: in the event loop, where it has proved brief for this
        user and no change is under way, for which it might have to wait."""
        shelf, knowledge = await self._opened(user_id)
        timed = partial(shelf.pace.timed, partial(work, knowledge))
        if shelf.pace.is_brief and not shelf.lock.locked():
            one_thread_each()
            return timed()
        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)

    async def change(self, user_id: str, work: Callable[[Knowledge], T]) -> T:
        """Run *work* in a thread, no other change of this user meanwhile; to its end, even if its caller goes away."""
        return await self._alone(user_id, work)

    async def forget(self, user_id: str) -> None:
        """Let go of a user of whom nothing is left."""
        self._shelves.pop(user_id, None)
        self._names.pop(prefix_of(user_id), None)

    async def close(self) -> None:
        """Finish what has begun, and close every user."""
        await self._finishing.wait()
        for user_id in list(self._shelves):
            await self._close(user_id)
        self._threads.shutdown(wait=True)

    async def _alone(self, user_id: str, work: Callable[[Knowledge], T]) -> T:
        async def whole() -> T:
            while True:
                shelf = self._shelf(user_id)
                async with shelf.lock:
                    if self._shelves.get(user_id) is not shelf:
                        continue  # it was closed while this waited: there is, or will be, another
                    loop = asyncio.get_running_loop()
                    if shelf.knowledge is None:
                        shelf.knowledge = await loop.run_in_executor(self._threads, self._read, user_id)
                        await self._make_room(user_id)
                    return await loop.run_in_executor(self._threads, work, shelf.knowledge)

        return await self._finishing.finish(whole())

    async def _opened(self, user_id: str) -> tuple[_Shelf, Knowledge]:
        shelf = self._shelf(user_id)
        knowledge = shelf.knowledge
        if knowledge is None:
            knowledge = await self._alone(user_id, lambda opened: opened)
        return shelf, knowledge

    def _read(self, user_id: str) -> Knowledge:
        prefix = prefix_of(user_id)
        names = []
        for name in self._names.get(prefix, ()):
            if name.startswith(prefix) and self._places.directory(name).is_dir():
                names.append(name)
            else:  # a draft, or words of a part that was never published
                remove_directory(self._places.directory(name))
                remove_directory(self._places.words(name))
        return Knowledge.open(self._places, user_id, names, self._library.live(user_id), self._new_id)

    def _shelf(self, user_id: str) -> _Shelf:
        shelf = self._shelves.setdefault(user_id, _Shelf())
        self._shelves.move_to_end(user_id)
        return shelf

    async def _make_room(self, besides: str) -> None:
        for user_id in list(self._shelves):
            if len(self._shelves) <= self._max_open:
                return
            if user_id != besides and not self._shelves[user_id].lock.locked():
                await self._close(user_id)

    async def _close(self, user_id: str) -> None:
        shelf = self._shelves[user_id]
        async with shelf.lock:
            if shelf.knowledge is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, shelf.knowledge.close)
                self._names[prefix_of(user_id)] = shelf.knowledge.part_names
                shelf.knowledge = None
            if self._shelves.get(user_id) is shelf:
                del self._shelves[user_id]
