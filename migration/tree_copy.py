"""Walking a tree and writing a copy of it: contents, links, modes, times, owners.

File contents are shared with the original where the file system can do that copy-on-write (reflinks), and copied
elsewhere. They are never hard links, since an append to one file would then change the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from migration.backup_manifest import Changing, Entry, Unreadable, renamed

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
COPIED_KINDS = frozenset({"file", "directory", "link"})

_ATTEMPTS = 3
_CHUNK = 1 << 20
_FICLONE = 0x40049409  # linux/fs.h
_CANNOT_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})

Clone = Callable[[int, int], bool]
"""Makes the second descriptor's file share the first one's content; False where that is not possible."""


def reflink(source: int, target: int) -> bool:
    """Lets *target* share the content of *source* copy-on-write; False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that was copied, with the state in which it was read."""

    status: os.stat_result
    size: int
    sha256: str


class TreeWriter:
    """Writes a tree below *root*, an empty directory, in the order of a walk.

    *more_bits* are mode bits to set, by kind, beyond those of the entries; *owners* asks for their owners too.
    Modes and times of directories are set when the walk has left them. Errors in writing are OSErrors.
    """

    def __init__(self, root: Path, *, clone: Clone, more_bits: Mapping[str, int], owners: bool) -> None:
        self._root = root
        self._clone = clone
        self._more_bits = more_bits
        self._owners = owners
        self._open: list[Entry] = []
        self.owners_lost = 0
        """Entries that could not be given their owner, which only root may always do."""

    def directory(self, entry: Entry) -> None:
        self._leave(entry.path)
        if entry.path:
            os.mkdir(self._root / entry.path, 0o700)
        self._open.append(entry)

    def link(self, entry: Entry) -> None:
        if entry.target is None:
            raise ValueError(f"{entry.path} is a link without a target")
        self._leave(entry.path)
        os.symlink(entry.target, self._root / entry.path)
        self._settle(entry)

    def copy(self, origin: Path, path: str) -> Copied:
        """Copies the file at *origin*, whole: one that changes meanwhile is copied again.

        Raises Unreadable, or Changing when it never holds still. Its mode and times are those of `settle`.
        """
        self._leave(path)
        source = open_file(origin)
        try:
            target = os.open(
                self._root / path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                for _ in range(_ATTEMPTS):
                    before = os.fstat(source)
                    size, digest = self._copy_content(source, target, origin)
                    after = os.fstat(source)
                    if (size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                        return Copied(after, size, digest)
                raise Changing(str(origin), f"changed during each of {_ATTEMPTS} attempts to copy it")
            finally:
                os.close(target)
        finally:
            os.close(source)

    def settle(self, entry: Entry) -> None:
        """Gives the file copied to the entry's path its mode, times and owner."""
        self._settle(entry)

    def _copy_content(self, source: int, target: int, origin: Path) -> tuple[int, str]:
        os.ftruncate(target, 0)
        if self._clone(source, target):
            return digest_of(target, origin)
        os.lseek(target, 0, os.SEEK_SET)
        return digest_of(source, origin, copy_to=target)

    def _leave(self, path: str) -> None:
        """Settles the directories that do not hold *path*: the walk has left them."""
        while self._open and self._open[-1].path and not path.startswith(self._open[-1].path + "/"):
            self._settle(self._open.pop())

    def _settle(self, entry: Entry) -> None:
        where = self._root / entry.path
        if self._owners:
            self._give(where, entry)  # before the mode, of which a change of owner takes bits away
        if entry.kind != "link":
            os.chmod(where, entry.mode | self._more_bits.get(entry.kind, 0))
        os.utime(where, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _give(self, where: Path, entry: Entry) -> None:
        status = os.lstat(where)
        if (status.st_uid, status.st_gid) == (entry.uid, entry.gid):
            return
        try:
            os.chown(where, entry.uid, entry.gid, follow_symlinks=False)
        except PermissionError:
            self.owners_lost += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            while self._open:
                self._settle(self._open.pop())


def walk(root: Path, shown_as: Mapping[str, str], *, skip: str | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below *root* after *root* itself (``""``): a directory before what it holds, by the bytes of names.

    *shown_as* maps a name to report to the name at the top of *root* that it stands for; *skip* is left out there.
    Nothing is followed. Raises Unreadable for what cannot be listed or examined.
    """
    reported = {actual: shown for shown, actual in shown_as.items()}
    yield "", _examine(root)
    top = [reported.get(name, name) for name in names_in(root) if name != skip]
    stack = [("", iter(sorted(top, key=os.fsencode)))]
    while stack:
        parent, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            continue
        path = f"{parent}/{name}" if parent else name
        where = root / renamed(path, shown_as)
        status = _examine(where)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            stack.append((path, iter(sorted(names_in(where), key=os.fsencode))))


def names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        raise Unreadable(str(directory), error.strerror or str(error)) from error


def open_file(path: Path) -> int:
    """A descriptor of the regular file at *path*, which is not followed if it is a link."""
    try:
        # Without O_NONBLOCK a FIFO that has taken the file's place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Changing(str(path), "was a file and is none any more")
    return descriptor


def digest_of(descriptor: int, path: Path, *, copy_to: int | None = None) -> tuple[int, str]:
    """Size and SHA-256 of the whole file, whose content goes to *copy_to* on the way. *path* is for errors."""
    digest = sha256()
    size = 0
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except OSError as error:
            raise Unreadable(str(path), error.strerror or str(error)) from error
        if not chunk:
            return size, digest.hexdigest()
        digest.update(chunk)
        size += len(chunk)
        if copy_to is not None:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(copy_to, rest) :]


def read_link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error


def remove_tree(path: Path) -> None:
    """Removes a directory with all it holds, whatever the modes of the directories in it."""
    for at, directories, _ in os.walk(path):
        os.chmod(at, 0o700)
        for name in directories:
            below = os.path.join(at, name)
            if not os.path.islink(below):
                os.chmod(below, 0o700)
    shutil.rmtree(path)


def _examine(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
