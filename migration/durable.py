"""Steps that survive a crash: locks that die with their holder, files and directories that change in one step.

Linux system calls that Python does not offer are reached through libc. Each of them may be missing, in the library or
in the file system; what is said here to return False then leaves everything as it was.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100  # fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


class Busy(Exception):
    """Another process holds the lock. Try again when it is done."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is held by another process"


@contextmanager
def held(lock: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds *lock*, a file that is made for it, alone or together with other *shared* holders. Never waits.

    A holder that dies lets go. Raises Busy when it is held already.
    """
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # A file that its last holder removed between our two calls excludes nobody: take the new one.
            current = _is_file_at(descriptor, lock)
        except BlockingIOError:
            os.close(descriptor)
            raise Busy(str(lock)) from None
        except OSError:
            os.close(descriptor)
            raise
        if current:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        if not shared:
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def exchange(first: Path, second: Path) -> bool:
    """Swaps what two paths name, in one step (renameat2). False where system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def sync_filesystem(path: Path) -> None:
    """Returns when all that was written to the file system of *path* is on disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Returns when the names in directory *path* are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Puts *content* at *path*, durably: a crash leaves the old file or the new one. One writer at a time."""
    draft = draft_of(path)
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def draft_of(path: Path) -> Path:
    """Where `replace_file` writes; a crash may leave it behind."""
    return path.with_name(f".{path.name}.draft")
