"""Who may write below a base: locks that the kernel gives back when their holder dies, however it dies.

``<base>/.platform/platform.lock``: a platform that starts takes it alone, and fails when any host of another one
still lives; every host holds it together with the others.
``<base>/.platform/<module>-<shard>.lock``: its one host. A host that is started anew waits until the one before it has
let go.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

from modules.core.errors import Conflict, StorageError, Unavailable

from .topology import DIRECTORY

_PAUSE_S = 0.05


class FileLock:
    """Not held at first. Not for two threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def take(self, *, shared: bool = False) -> bool:
        """Try once; a lock that is held changes its kind. False when somebody else has it, and then it is held no
        more. Raises StorageError when the file cannot be opened."""
        try:
            if self._fd is None:
                self.path.parent.mkdir(mode=0o700, exist_ok=True)
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            self.release()
            raise StorageError.because(error, "lock", str(self.path)) from error
        return True

    async def wait(self, limit_s: float, *, shared: bool = False) -> None:
        """Raises Unavailable when it is still somebody else's after *limit_s*."""
        end = time.monotonic() + limit_s
        while not self.take(shared=shared):
            if time.monotonic() >= end:
                raise Unavailable(f"{self.path} is held by another process")
            await asyncio.sleep(_PAUSE_S)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def platform_lock(base: Path | str) -> FileLock:
    return FileLock(Path(base) / DIRECTORY / "platform.lock")


def shard_lock(base: Path | str, module: str, shard: int) -> FileLock:
    return FileLock(Path(base) / DIRECTORY / f"{module}-{shard}.lock")


def claim(base: Path | str) -> FileLock:
    """The platform's lock, held alone. Raises Conflict when a platform runs on this base."""
    lock = platform_lock(base)
    if not lock.take():
        raise Conflict(f"another platform runs on {base}; stop it first")
    return lock


def is_running(base: Path | str) -> bool:
    """Whether any part of a platform lives on this base. Leaves no trace of its own."""
    lock = platform_lock(base)
    if not lock.path.exists():
        return False
    is_free = lock.take()
    lock.release()
    return not is_free
