"""Where modules keep their data: keys that look like paths, flat files below one base directory.

`FlatFiles` is the synchronous core; `FlatFileStorage` offers the same through threads, for asynchronous callers
that need no more than the `StorageBackend` protocol.

How escape is prevented: a key is checked before it is used (relative, no ``.`` or ``..``, no NUL), and every
directory on its way is opened relative to the one before with O_NOFOLLOW. A symbolic link below the base is
therefore refused, even if it is put there between the check and the use.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from .clock import new_hex
from .errors import NotFound, StorageError, ValidationError

Keys = list[str]

_TEMPORARY = ".tmp-"
_TRASH = _TEMPORARY + "trash"
_LONGEST_COMPONENT = 255
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StorageBackend(Protocol):
    async def read(self, key: str) -> bytes: ...
    async def write(self, key: str, data: bytes, *, fsync: bool = False) -> None: ...
    async def append(self, key: str, data: bytes, *, fsync: bool = False) -> None: ...
    async def delete(self, key: str) -> bool: ...
    async def list(self, prefix: str = "") -> Keys: ...
    async def exists(self, key: str) -> bool: ...


class FileStamp(NamedTuple):
    """Which file stands under a key, and how long it is."""

    inode: int
    size: int


def write_all(fd: int, data: bytes) -> None:
    """Raises OSError; then a part of *data* may be written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@lru_cache(maxsize=4096)
def key_parts(key: str) -> tuple[str, ...]:
    """The components of *key*. Raises ValidationError for a key that could mean anything outside the base."""
    parts = tuple(key.split("/"))
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise ValidationError(f"not a storage key: {key!r}", param="key")
    if any(len(os.fsencode(part)) > _LONGEST_COMPONENT for part in parts):
        raise ValidationError(
            f"a part of the storage key is over {_LONGEST_COMPONENT} bytes: {key[:80]!r}...", param="key"
        )
    return parts


class FlatFiles:
    """Files below *base*, which is made when something is first written. Safe for use from several threads.

    Every method raises ValidationError for a bad key and StorageError when the disk refuses or a symbolic link is
    on the way; reading what is absent raises NotFound.
    """

    def __init__(self, base: Path | str) -> None:
        self.base = Path(base)

    def read(self, key: str) -> bytes:
        with (
            self.opened(key, os.O_RDONLY) as fd,
            _as_storage_error("read", key),
            os.fdopen(fd, "rb", closefd=False) as file,
        ):
            return file.read()

    def write(self, key: str, data: bytes, *, fsync: bool = False) -> None:
        """Replace the whole of *key*: readers see the old content or the new one, never a mixture."""
        *parents, name = key_parts(key)
        temporary = _TEMPORARY + new_hex()
        with _as_storage_error("write", key), self._directory(parents, create=True, fsync=fsync) as directory:
            try:
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory)
                try:
                    write_all(fd, data)
                    if fsync:
                        os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                _unlink_if_there(temporary, directory)
                raise
            if fsync:
                os.fsync(directory)

    def append(self, key: str, data: bytes, *, fsync: bool = False, create_parents: bool = True) -> FileStamp:
        """Add whole lines, with one write; what stood there stays untouched.

        An unfinished last line, left by a crash, is ended first, so the new lines never join it. When the disk
        takes only a part, that part is taken back before StorageError is raised. Returns the file as it is after.
        One writer at a time per key: the taking back relies on it.
        """
        if not data.endswith(b"\n"):
            raise ValidationError("only whole lines can be appended", param="data")
        *parents, name = key_parts(key)
        with (
            _as_storage_error("append to", key),
            self._directory(parents, create=create_parents, fsync=fsync) as directory,
        ):
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd, before = _open_to_append(name, flags, directory)
            try:
                if before.st_size and os.pread(fd, 1, before.st_size - 1) != b"\n":
                    data = b"\n" + data
                written = os.write(fd, data)
                if written != len(data):
                    os.ftruncate(fd, before.st_size)
                    raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were taken")
                if fsync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if fsync and not before.st_size:
                os.fsync(directory)
        return FileStamp(before.st_ino, before.st_size + written)

    def delete(self, key: str) -> bool:
        """Remove a file. False when there was none."""
        *parents, name = key_parts(key)
        try:
            with _as_storage_error("delete", key), self._directory(parents) as directory:
                os.unlink(name, dir_fd=directory)
        except NotFound:
            return False
        return True

    def create(self, key: str) -> int:
        """A descriptor of a new file, to be written to by `write_all` and closed by the caller. Raises StorageError
        where something is there already."""
        *parents, name = key_parts(key)
        with _as_storage_error("create", key), self._directory(parents, create=True) as directory:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory)

    def rename(self, key: str, new_key: str, *, fsync: bool = False) -> bool:
        """Give a file another key, in place of what is under that. False when there was no such file. With *fsync* it
        has the new key after a power loss, too."""
        *parents, name = key_parts(key)
        *new_parents, new_name = key_parts(new_key)
        try:
            with (
                _as_storage_error("rename", key),
                self._directory(parents) as directory,
                self._directory(new_parents, create=True, fsync=fsync) as new_directory,
            ):
                os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
                if fsync:
                    os.fsync(new_directory)
        except NotFound:
            return False
        return True

    def link(self, key: str, new_key: str) -> bool:
        """Give a file a second key, which must not be one yet. False when there is no such file.

        Raises StorageError, also where the file system knows no hard links.
        """
        *parents, name = key_parts(key)
        *new_parents, new_name = key_parts(new_key)
        try:
            with (
                _as_storage_error("link", key),
                self._directory(parents) as directory,
                self._directory(new_parents, create=True) as new_directory,
            ):
                os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)
        except NotFound:
            return False
        return True

    def delete_tree(self, key: str) -> bool:
        """Remove a directory and all below it. False when absent.

        It is renamed out of sight first, so nobody meets half of it. What a crash leaves over there is removed by
        `empty_trash`.
        """
        *parents, name = key_parts(key)
        doomed = new_hex()
        try:
            with (
                _as_storage_error("delete", key),
                self._directory(parents) as directory,
                self._directory([_TRASH], create=True) as trash,
            ):
                os.rename(name, doomed, src_dir_fd=directory, dst_dir_fd=trash)
                _remove_tree(doomed, trash)
        except NotFound:
            return False
        return True

    def empty_trash(self) -> int:
        """Finish deletions that a crash interrupted. Returns how many there were."""
        try:
            with _as_storage_error("empty", _TRASH), self._directory([_TRASH]) as trash:
                left = os.listdir(trash)
                for name in left:
                    _remove_tree(name, trash)
        except NotFound:
            return 0
        return len(left)

    def make_directory(self, key: str, *, fsync: bool = False) -> bool:
        """Make one directory (and those above it). False when it was there already."""
        *parents, name = key_parts(key)
        with _as_storage_error("make directory", key), self._directory(parents, create=True, fsync=fsync) as directory:
            try:
                os.mkdir(name, 0o755, dir_fd=directory)
            except FileExistsError:
                return False
            if fsync:
                os.fsync(directory)
        return True

    def sync(self, key: str) -> None:
        """Return when what was written to *key* before this call is on the disk."""
        with self.opened(key, os.O_RDONLY) as fd, _as_storage_error("sync", key):
            os.fsync(fd)

    def truncate(self, key: str, size: int) -> None:
        with self.opened(key, os.O_WRONLY) as fd, _as_storage_error("truncate", key):
            os.ftruncate(fd, size)

    def stamp(self, key: str) -> FileStamp | None:
        """Identity and length of the file under *key*; None when there is none."""
        try:
            with self.opened(key, os.O_RDONLY) as fd:
                status = os.fstat(fd)
        except NotFound:
            return None
        return FileStamp(status.st_ino, status.st_size)

    def is_still(self, key: str, stamp: FileStamp) -> bool:
        """Whether the very file that *stamp* describes stands under *key*, as long as it says. The cheapest look there
        is: nothing is opened, and a link on the way, which this follows, leads to another file."""
        key_parts(key)
        try:
            status = os.stat(f"{self.base}/{key}", follow_symlinks=False)
        except OSError:
            return False  # whoever opens it is told why
        return (status.st_ino, status.st_size) == (stamp.inode, stamp.size)

    def exists(self, key: str) -> bool:
        """Whether a regular file stands under *key*. Links and directories do not count."""
        *parents, name = key_parts(key)
        try:
            with _as_storage_error("look at", key), self._directory(parents) as directory:
                return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        except NotFound:
            return False

    def directories(self, key: str) -> Keys:
        """Names of the directories directly below *key* (``""`` is the base), sorted; none when it is absent."""
        try:
            with _as_storage_error("list", key), self._directory(key_parts(key) if key else ()) as directory:
                return sorted(_entries(directory)[0])
        except NotFound:
            return []

    def list(self, prefix: str = "") -> Keys:
        """Keys of all regular files that begin with *prefix*, sorted. Links and temporary files are not listed."""
        parent, _, _ = prefix.rpartition("/")
        start = key_parts(parent) if parent else ()
        try:
            with _as_storage_error("list", prefix), self._directory(start) as directory:
                found = list(_walk(directory, "/".join(start)))
        except NotFound:
            return []
        return sorted(key for key in found if key.startswith(prefix))

    def probe(self) -> None:
        """Prove that the base can be written to. Leaves nothing behind. Raises StorageError when it cannot."""
        with _as_storage_error("write below", str(self.base)):
            if not self.base.is_dir():
                raise OSError(errno.ENOTDIR, "the base is no directory")
            with tempfile.TemporaryFile(dir=self.base, prefix=_TEMPORARY) as file:
                file.write(b"probe")
                file.flush()

    @contextmanager
    def opened(self, key: str, flags: int) -> Iterator[int]:
        """A descriptor of the existing regular file under *key*, closed at the end."""
        *parents, name = key_parts(key)
        with _as_storage_error("open", key), self._directory(parents) as directory:
            # Without O_NONBLOCK, opening a FIFO that somebody put there would wait for ever.
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, "not a regular file")
        try:
            yield fd
        finally:
            os.close(fd)

    def _directory(self, parts: Iterable[str], *, create: bool = False, fsync: bool = False) -> _Open:
        if create:
            self.base.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                below = _step(fd, part, create=create, fsync=fsync)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return _Open(fd)


class FlatFileStorage:
    """The StorageBackend over flat files. ``files`` is the synchronous core, for modules that need more."""

    def __init__(self, base: Path | str) -> None:
        self.files = FlatFiles(base)

    async def read(self, key: str) -> bytes:
        return await asyncio.to_thread(self.files.read, key)

    async def write(self, key: str, data: bytes, *, fsync: bool = False) -> None:
        await asyncio.to_thread(self.files.write, key, data, fsync=fsync)

    async def append(self, key: str, data: bytes, *, fsync: bool = False) -> None:
        await asyncio.to_thread(self.files.append, key, data, fsync=fsync)

    async def delete(self, key: str) -> bool:
        return await asyncio.to_thread(self.files.delete, key)

    async def list(self, prefix: str = "") -> Keys:
        return await asyncio.to_thread(self.files.list, prefix)

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self.files.exists, key)


# Classes, for generators cost twice as much, and all that is stored passes through these.
class _Open:
    """A descriptor, closed at the end."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *raised: object) -> None:
        os.close(self._fd)


class _as_storage_error:
    """What the system refuses is raised as NotFound or StorageError."""

    __slots__ = ("_doing", "_key")

    def __init__(self, doing: str, key: str) -> None:
        self._doing = doing
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):
            return
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"nothing is stored under {self._key!r}") from error
        if error.errno == errno.ELOOP:
            raise StorageError(
                f"cannot {self._doing} {self._key!r}: a symbolic link is on the way", key=self._key
            ) from error
        raise StorageError.because(error, self._doing, self._key) from error


def _step(parent: int, name: str, *, create: bool, fsync: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    except NotADirectoryError:
        # With O_DIRECTORY, Linux reports a link as "not a directory"; say which of the two it is.
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link is on the way") from None
        raise
    with suppress(FileExistsError):  # another writer made it in between: as good
        os.mkdir(name, 0o755, dir_fd=parent)
        if fsync:
            os.fsync(parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _open_to_append(name: str, flags: int, directory: int) -> tuple[int, os.stat_result]:
    """The file, held against being replaced until it is closed: who puts another one in its place (a migration that
    goes on) locks it alone, and a file that was replaced while this waited has no name left."""
    while True:
        fd = os.open(name, flags, 0o644, dir_fd=directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        if status.st_nlink:
            return fd, status
        os.close(fd)


def _unlink_if_there(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):  # it never came to be, or was renamed already
        os.unlink(name, dir_fd=directory)


def _entries(directory: int) -> tuple[list[str], list[str]]:
    """Names of directories and of regular files in *directory*; links, special and temporary files left out."""
    directories: list[str] = []
    files: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_TEMPORARY):
                continue
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.name)
    return directories, files


def _walk(directory: int, above: str) -> Iterator[str]:
    directories, files = _entries(directory)
    for name in files:
        yield f"{above}/{name}" if above else name
    for name in directories:
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            yield from _walk(fd, f"{above}/{name}" if above else name)
        finally:
            os.close(fd)


def _remove_tree(name: str, parent: int) -> None:
    """Remove a directory. What another process removes at the same time counts as removed."""
    with suppress(FileNotFoundError):
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            with os.scandir(fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for below, is_directory in found:
                if is_directory:
                    _remove_tree(below, fd)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(below, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
