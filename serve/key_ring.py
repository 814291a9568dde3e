"""The keys in force, followed as their file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from modules.core.errors import PlatformError

from .caller import Caller
from .keys import KeyFile, Keys

log = logging.getLogger(__name__)

_EVERY_S = 1.0


class KeyRing:
    """Read once when made: raises what `KeyFile` raises. A file that cannot be read later on leaves the keys that were
    known in force, and is reported once and by ``is_current``."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = file.stamp()
        self._keys: Keys = file.read()
        self.is_current = True

    def verify(self, shown: str) -> Caller | None:
        return self._keys.verify(shown)

    def refresh(self) -> None:
        """Read the file when it is another one than before. Blocks."""
        try:
            stamp = self._file.stamp()
            if stamp == self._stamp:
                return
            self._keys = self._file.read()
            self._stamp, self.is_current = stamp, True
            log.info("the keys were read again from %s", self._file.path)
        except PlatformError as error:
            if self.is_current:
                log.error("the keys are as they were: %s", error)
            # Not to be taken for read: it is tried again the next time.
            self._stamp, self.is_current = None, False

    async def follow(self) -> AsyncGenerator[bool, None]:
        """Until cancelled: after every look at the file, ``is_current``."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await asyncio.to_thread(self.refresh)
            yield self.is_current
