"""Files on their way in: written below the base piece by piece, then taken in by the module that keeps them.

    .platform/incoming/<module>/<owner>-<name>

*owner* stands for the user whose file it is (32 hex digits of BLAKE2b), *name* is 32 hex digits that nobody can guess.
Only the name is handed from process to process: a module looks for it among the files of the user it was told of, and
nowhere else.

Whoever has a file arrive removes it in the end. A module that is handed one gives it a second name of its own first
(`Spool.owned`): so it finishes what it began when the sender has gone, and can be asked again when its answer was lost.
Keeping a file is renaming that. What a crash leaves goes with its user, or when nobody has written to it for `STALE_S`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from .errors import NotFound, StorageError, Unavailable, ValidationError
from .storage import FlatFiles, write_all

log = logging.getLogger(__name__)

HOME = ".platform/incoming"
# Longer than a sender may be silent, and than a module may be at work on what it was handed.
STALE_S = 3600.0

# File systems that know no hard links.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))

_NAME = re.compile(r"[0-9a-f]{32}")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file that has arrived for a module: its name, which means nothing elsewhere."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise ValidationError("not the name of a file that was handed over", param="name")


class Arriving:
    """A file that is written as it comes. Not on the disk before the first `write` or `end`.

    Safe for several threads: a caller that goes away removes it while a thread still writes.
    """

    def __init__(self, files: FlatFiles, key: str, spooled: Spooled) -> None:
        self.spooled = spooled
        self._files = files
        self._key = key
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._is_over = False

    def write(self, pieces: Iterable[bytes]) -> None:
        """Raises StorageError."""
        with self._lock:
            if self._is_over:
                raise StorageError("the file was given up while it arrived", key=self._key)
            if self._fd is None:
                self._fd = self._files.create(self._key)
            try:
                for piece in pieces:
                    write_all(self._fd, piece)
            except OSError as error:
                raise StorageError.because(error, "write", self._key) from error

    def end(self, pieces: Iterable[bytes]) -> None:
        """The last of it. Raises StorageError."""
        self.write(pieces)
        with self._lock:
            self._close()

    def remove(self) -> bool:
        """Give it up; false where it was kept, or had not begun."""
        with self._lock:
            self._close()
            self._is_over = True
            return self._files.delete(self._key)

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


class Spool:
    """The files that arrive for one module."""

    def __init__(self, files: FlatFiles, module: str) -> None:
        self._files = files
        self._home = f"{HOME}/{module}"

    def arriving(self, user_id: str, name: str) -> Arriving:
        """*name*: 32 hex digits that were never used before."""
        spooled = Spooled(name)
        return Arriving(self._files, self._key(user_id, spooled), spooled)

    @contextmanager
    def opened(self, user_id: str, spooled: Spooled) -> Iterator[int]:
        """A descriptor for reading. Raises ValidationError for what is no name, Unavailable where no such file of this
        user waits, StorageError for what is no file."""
        with ExitStack() as stack:
            try:
                fd = stack.enter_context(self._files.opened(self._key(user_id, spooled), os.O_RDONLY))
            except NotFound:
                raise _gone() from None
            yield fd

    @contextmanager
    def owned(self, user_id: str, spooled: Spooled, name: str) -> Iterator[Spooled]:
        """The same file as *name* (see `arriving`), which its sender cannot take away; gone at the end unless it was
        kept. Raises ValidationError for what is no name, Unavailable where no such file of this user waits."""
        own = Spooled(name)
        key, own_key = self._key(user_id, spooled), self._key(user_id, own)
        try:
            is_there = self._files.link(key, own_key)
        except StorageError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _NO_LINKS:
                raise
            is_there = self._files.rename(key, own_key)
        if not is_there:
            raise _gone()
        try:
            yield own
        finally:
            self._files.delete(own_key)

    def move(self, user_id: str, spooled: Spooled, key: str) -> None:
        """Keep the file under *key*, durably. Raises as `opened`."""
        with self.opened(user_id, spooled) as fd:
            try:
                os.fsync(fd)
            except OSError as error:
                raise StorageError.because(error, "sync", key) from error
            if not self._files.rename(self._key(user_id, spooled), key, fsync=True):
                raise _gone()

    def erase(self, user_id: str) -> int:
        """Remove whatever is on its way in for a user; what still arrives cannot be taken in."""
        return sum(self._files.delete(key) for key in self._files.list(f"{self._home}/{_owner(user_id)}-"))

    def remove_stale(self, now: datetime) -> int:
        """Remove what a crash has left. Returns how many files that was."""
        removed = 0
        for key in self._files.list(f"{self._home}/"):
            try:
                with self._files.opened(key, os.O_RDONLY) as fd:
                    age_s = now.timestamp() - os.fstat(fd).st_mtime
                if age_s > STALE_S:
                    removed += self._files.delete(key)
            except NotFound:
                continue  # kept or removed meanwhile
            except StorageError:
                log.warning("what a crash may have left of an upload could not be removed", exc_info=True)
        return removed

    def _key(self, user_id: str, spooled: Spooled) -> str:
        # Checked again: what comes from another process was not built here.
        return f"{self._home}/{_owner(user_id)}-{Spooled(spooled.name).name}"


def pieces_of(fd: int) -> Iterator[bytes]:
    """A file's content, piece by piece, whatever else reads it."""
    at = 0
    while piece := os.pread(fd, _PIECE, at):
        at += len(piece)
        yield piece


def _owner(user_id: str) -> str:
    return blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _gone() -> Unavailable:
    return Unavailable("the file that was handed over is not there any more: send it again")
