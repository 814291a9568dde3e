"""Reading directories and files below one directory descriptor, never following a link, never writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from types import TracebackType
from typing import NamedTuple

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# a name too long to exist does not exist; every other error is one
_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG))
_PIECE = 1 << 16
_LARGE_PIECE = 1 << 20


class Listing(NamedTuple):
    """Names in one directory by what they are."""

    files: list[str]
    dirs: Sequence[str] = ()
    links: Sequence[str] = ()
    special: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        return not (self.files or self.dirs or self.links or self.special)


class Digest(NamedTuple):
    """Size and SHA-256 of a file."""

    size: int
    sha256: str


class Tree:
    """A directory tree that is only read. All paths are relative to its root.

    Every method raises `OSError` where the operating system does: an error is never taken for an absence.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def list(self, path: str) -> Listing:
        """What stands in the directory *path*."""
        fd = os.open(path or ".", _DIRECTORY, dir_fd=self._fd)
        try:
            return _listing(fd)
        finally:
            os.close(fd)

    def list_known(self, path: str) -> Listing:
        """As `list`, of a directory that the listing above has shown to be one and no link: in fewer system calls."""
        return _listing(f"{self.root}/{path}")

    def list_or_none(self, path: str) -> Listing | None:
        """As `list`; None where there is no such directory."""
        try:
            return self.list(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def read(self, path: str) -> bytes:
        """The whole of a file, which may be of any kind that can be read without waiting."""
        fd = os.open(path, _FILE, dir_fd=self._fd)
        try:
            piece = os.read(fd, _PIECE)
            if len(piece) < _PIECE:
                return piece
            pieces = [piece]
            while piece := os.read(fd, _LARGE_PIECE):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)

    def read_or_none(self, path: str) -> bytes | None:
        """As `read`; None where there is no such regular file."""
        if self.stat_or_none(path) is None:
            return None
        return self.read(path)

    def digest(self, path: str) -> Digest:
        """Size and SHA-256 of a file of any size, in bounded memory."""
        fd = os.open(path, _FILE, dir_fd=self._fd)
        try:
            size, state = 0, sha256()
            while piece := os.read(fd, _LARGE_PIECE):
                size += len(piece)
                state.update(piece)
            return Digest(size, state.hexdigest())
        finally:
            os.close(fd)

    def stat_or_none(self, path: str) -> os.stat_result | None:
        """The status of a regular file; None where there is none."""
        try:
            status = os.stat(path, dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return status if stat.S_ISREG(status.st_mode) else None

    def is_dir(self, path: str) -> bool:
        """Whether *path* is a directory (a link to one is not)."""
        try:
            status = os.stat(path, dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        return stat.S_ISDIR(status.st_mode)


def _listing(directory: int | str) -> Listing:
    # the iterator closes itself at its end, and when it fails
    entries = list(os.scandir(directory))
    files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    if len(files) == len(entries):
        return Listing(files)
    dirs, links, special = [], [], []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            dirs.append(entry.name)
        elif entry.is_symlink():
            links.append(entry.name)
        elif not entry.is_file(follow_symlinks=False):
            special.append(entry.name)
    return Listing(files, dirs, links, special)


def join(*parts: str) -> str:
    """Relative path of *parts*; empty ones stand for the root."""
    return "/".join(part for part in parts if part)
