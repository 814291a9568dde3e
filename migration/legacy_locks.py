"""Locks between all processes that use the old API on one store: files that the system unlocks when their holder dies.

A name is one of 256 files, so their number is bounded and none is ever removed; two names that share one only wait for
each other. Each hold opens the file anew, so threads of one process exclude each other as processes do. Nobody asks
for a second lock while holding one, save of several names at once, which are taken in one order.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

from modules.core.errors import StorageError

HOME = ".migration/adapter/locks"


class Locks:
    """Of the store at *base*. Raises StorageError when a lock file cannot be made."""

    def __init__(self, base: Path) -> None:
        self._directory = base / HOME

    @contextmanager
    def held(self, *names: str, shared: bool = False) -> Iterator[None]:
        """Hold all *names*; with *shared*, beside others that share them."""
        with ExitStack() as stack:
            for stripe in sorted({_stripe(name) for name in names}):
                fd = self._opened(stripe)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield

    def _opened(self, stripe: str) -> int:
        path = self._directory / stripe
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return os.open(path, flags, 0o644)
            except FileNotFoundError:
                self._directory.mkdir(parents=True, exist_ok=True)
                return os.open(path, flags, 0o644)
        except OSError as error:
            raise StorageError.because(error, "lock", f"{HOME}/{stripe}") from error


def _stripe(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).hexdigest()
