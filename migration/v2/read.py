"""Reading a v2 store that may be in use, without touching it.

Nothing is opened that is not a regular file or a directory when it is listed, no link is followed, and a file that
changes while it is read is read again. An error is raised as what it is: it never looks like an end of the data.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from migration.v2.names import V2Names

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 65536
_LARGEST_READ = 1 << 24
ATTEMPTS = 5

# A file changed this shortly before it was read may change again within one tick of the file system's clock.
RACY_NS = 1_000_000_000


class SourceError(Exception):
    """Something of the source could not be read; the run goes on and reports it."""

    def __init__(self, path: str, reason: str, is_gone: bool = False) -> None:
        super().__init__(path, reason, is_gone)
        self.path = path
        self.reason = reason
        self.is_gone = is_gone

    @classmethod
    def of(cls, path: str, error: OSError) -> SourceError:
        return cls(path, error.strerror or str(error), isinstance(error, FileNotFoundError))

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Size in bytes and time of the last change in nanoseconds: the fingerprint of one source file."""

    size: int
    mtime_ns: int


@dataclass(slots=True)
class Listing:
    """All that is below one directory, by path relative to it (``/``-separated)."""

    files: dict[str, FileFacts] = field(default_factory=dict)
    empty_dirs: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    special: dict[str, str] = field(default_factory=dict)
    errors: list[SourceError] = field(default_factory=list)


def open_directory(name: str, dir_fd: int | None = None) -> int:
    """Descriptor of a directory; raises `OSError`, also when *name* is a link."""
    return os.open(name, _DIRECTORY_FLAGS, dir_fd=dir_fd)


def read_file(name: str, dir_fd: int | None, now_ns: int) -> tuple[bytes, os.stat_result]:
    """A file's bytes, and its status as of these bytes. Raises `OSError`.

    *now_ns* is the time before the read: a file that changed close to it is read until two reads agree.
    """
    fd = os.open(name, FILE_FLAGS, dir_fd=dir_fd)
    try:
        data = os.read(fd, _CHUNK)
        if len(data) == _CHUNK:
            data = _rest(fd, data)
        status = os.fstat(fd)
        if status.st_size == len(data) and now_ns - status.st_mtime_ns > RACY_NS:
            return data, status
        return _settled(fd, data, status)
    finally:
        os.close(fd)


def read_regular(path: str, now_ns: int = 0) -> bytes:
    """A file's bytes, for a path that no listing has shown to be a regular file. Raises `OSError`, also for a link,
    a pipe or a device, which is not opened."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return read_file(path, None, now_ns)[0]


def open_file(name: str, dir_fd: int | None = None) -> int:
    """Descriptor of a regular file; raises `OSError`, also when *name* is a link or no regular file."""
    fd = os.open(name, FILE_FLAGS, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


def list_below(path: str) -> Listing:
    """Everything below *path*. What cannot be read is listed in `errors`; a link is never followed."""
    listing = Listing()
    pending = [""]
    while pending:
        relative = pending.pop()
        directory = f"{path}/{relative}" if relative else path
        entries = 0
        try:
            for entry in scan(directory):
                entries += 1
                _list_entry(listing, pending, entry, f"{relative}/{entry.name}" if relative else entry.name)
        except OSError as error:
            listing.errors.append(SourceError.of(directory, error))
            continue
        if not entries:
            listing.empty_dirs.append(relative)
    return listing


def scan(directory: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a directory; an error of the listing is raised, not taken for its end."""
    with os.scandir(directory) as entries:
        yield from entries


def is_g1_user(path: str, names: V2Names) -> bool:
    """Whether a top-level directory is a user of the first generation: it has a profile, or sessions directly below.

    One that is gone or closed to us is none: whoever lists it says so. Any other `OSError` is raised.
    """
    try:
        for entry in scan(path):
            if entry.is_file(follow_symlinks=False) and entry.name == names.profile:
                return True
            if entry.is_dir(follow_symlinks=False) and any(
                _is_regular(f"{entry.path}/{name}") for name in (names.session, names.messages)
            ):
                return True
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return False


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def special_kind(mode: int) -> str:
    """What a thing that is neither file, directory nor link is called."""
    kinds = ((stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "character device"))
    return next((name for test, name in kinds if test(mode)), "block device" if stat.S_ISBLK(mode) else "unknown")


def _list_entry(listing: Listing, pending: list[str], entry: os.DirEntry[str], name: str) -> None:
    try:
        if entry.is_symlink():
            listing.links[name] = os.readlink(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            pending.append(name)
        elif entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            listing.files[name] = FileFacts(status.st_size, status.st_mtime_ns)
        else:
            listing.special[name] = special_kind(entry.stat(follow_symlinks=False).st_mode)
    except OSError as error:
        listing.errors.append(SourceError.of(entry.path, error))


def _rest(fd: int, start: bytes) -> bytes:
    """*start* and what follows it, up to the size that the file has now: one that grows all the time has no end."""
    chunks, left = [start], os.fstat(fd).st_size - len(start)
    while left > 0 and (chunk := os.read(fd, min(left, _LARGEST_READ))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _settled(fd: int, data: bytes, status: os.stat_result) -> tuple[bytes, os.stat_result]:
    """Reads until two reads in a row agree; after some attempts the last one stands, and a later run finds the rest."""
    for _ in range(ATTEMPTS):
        os.lseek(fd, 0, os.SEEK_SET)
        again = _rest(fd, b"")
        now = os.fstat(fd)
        same = again == data and (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        data, status = again, now
        if same:
            break
    return data, status
