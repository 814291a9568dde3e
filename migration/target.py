"""Writing the platform's tree: whole files under a temporary name, then renamed.

All paths are relative to the base and made of components that `modules.core.layout` or the attic's checks let
through. Nothing here is synced file by file: `sync` makes everything durable at once, before the ledger says so.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import time
from contextlib import suppress
from uuid import uuid4

import xxhash

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_COPY_CHUNK = 1 << 20

STAGING = ".migration/staging"
"""Where the sessions of new users stand until they are whole."""


class TargetError(Exception):
    """The target cannot be written: the run stops, and can go on when the cause is gone."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    @classmethod
    def of(cls, base: str, path: str, error: OSError) -> TargetError:
        hint = {errno.ENOSPC: "; free some space and run again", errno.EROFS: "; remount it writable and run again"}
        return cls(f"{base}/{path}", (error.strerror or str(error)) + hint.get(error.errno or 0, ""))


class UserTakenError(Exception):
    """Somebody else has made the user's directory while it was staged: nothing of it was published."""


class PutOff(Exception):
    """Something would have been written, and this is not the time for it."""


class Target:
    """The base directory of the platform's tree, open for writing.

    *between_ns*: a file that was written between these times (ns since the epoch), the end of the run before and the
    beginning of this one, was written by the platform, and is kept under ``.migration/replaced`` before it is replaced;
    None while nobody else can have written.
    """

    is_writable = True

    def __init__(self, base: str, between_ns: tuple[int, int] | None = None) -> None:
        self.base = base
        self.replaced: list[str] = []
        self._between_ns = between_ns
        self._outputs: list[str] = []
        try:
            self.fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetError.of(base, "", error) from error
        self._made: set[str] = set()
        self._user: tuple[str, int] | None = None
        self._staged: tuple[str, str, int] | None = None

    def close(self) -> None:
        for opened in (self._user, self._staged):
            if opened is not None:
                os.close(opened[-1])
        self._user = self._staged = None
        os.close(self.fd)

    def directory(self, path: str) -> None:
        """Makes *path* and its parents; ones that are there are fine."""
        if path in self._made or not path:
            return
        parent = path.rpartition("/")[0]
        self.directory(parent)
        try:
            os.mkdir(path, dir_fd=self.fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(path, dir_fd=self.fd, follow_symlinks=False).st_mode):
                raise TargetError(f"{self.base}/{path}", "is in the way: not a directory") from None
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        self._made.add(path)

    def user_sessions(self, user: str) -> int:
        """Descriptor of ``text_chat/sessions/<user>``; the latest one stays open until the next is asked for."""
        if self._user is not None:
            if self._user[0] == user:
                return self._user[1]
            os.close(self._user[1])
            self._user = None
        path = f"text_chat/sessions/{user}"
        self.directory(path)
        try:
            fd = os.open(path, _DIRECTORY_FLAGS, dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        self._user = (user, fd)
        return fd

    def stage_user(self, user: str) -> int | None:
        """Descriptor of an empty directory that nobody sees until `publish_user`; None when the user has one already.

        So what is written there needs no temporary names. Its name is its own: another attempt at the same user, on a
        node that was given up and still writes, has another.
        """
        if os.path.lexists(f"{self.base}/text_chat/sessions/{user}"):
            return None
        path = f"{STAGING}/{uuid4().hex}"
        self.directory(STAGING)
        try:
            os.mkdir(path, dir_fd=self.fd)
            fd = os.open(path, _DIRECTORY_FLAGS, dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        self._staged = (path, user, fd)
        return fd

    def publish_user(self) -> None:
        """Makes the staged directory, if there is one, ``text_chat/sessions/<user>``. Raises `UserTakenError`."""
        if self._staged is None:
            return
        staged, user, fd = self._staged
        self._staged = None
        os.close(fd)
        path = f"text_chat/sessions/{user}"
        self.directory("text_chat/sessions")
        try:
            _rename_to_new(staged, path, self.fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise TargetError.of(self.base, path, error) from error
            self.remove(staged)
            raise UserTakenError(user) from error

    def take_outputs(self) -> list[str]:
        """The paths of all files that were written since the last call."""
        taken, self._outputs = self._outputs, []
        return taken

    def write(self, path: str, data: bytes, *, merged: bool = False) -> None:
        """Puts a whole file at *path*, in place of one that is there. *merged*: *data* holds what the platform wrote
        there."""
        temporary = self._temporary(path)
        if not merged:
            self._keep_replaced(path, data)
        self._outputs.append(path)
        try:
            fd = os.open(temporary, _WRITE_FLAGS, 0o666, dir_fd=self.fd)
            try:
                _write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(temporary, path, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error

    def copy(self, source_fd: int, path: str) -> tuple[int, str, bytes]:
        """Copies an open file of any size; returns the bytes copied, their SHA-256 in hex and their XXH3 (128 bits).

        It stops at the size that the file has when it begins, since one that grows all the time has no end.
        An `OSError` of reading is raised as it is, one of writing as `TargetError`.
        """
        temporary = self._temporary(path)
        self._outputs.append(path)
        sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
        try:
            fd = os.open(temporary, _WRITE_FLAGS, 0o666, dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        try:
            whole = os.fstat(source_fd).st_size
            while size < whole and (chunk := os.read(source_fd, min(_COPY_CHUNK, whole - size))):
                sha256.update(chunk)
                xxh3.update(chunk)
                size += len(chunk)
                try:
                    _write_all(fd, chunk)
                except OSError as error:
                    raise TargetError.of(self.base, path, error) from error
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.fd)
            raise
        finally:
            os.close(fd)
        try:
            os.rename(temporary, path, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        return size, sha256.hexdigest(), xxh3.digest()

    def move(self, path: str, to: str) -> bool:
        """Moves a file or directory within the target; False when it is not there. Whatever stands at *to* goes."""
        if not self.exists(path):
            return False
        self.directory(to.rpartition("/")[0])
        self.remove(to)
        try:
            os.rename(path, to, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error
        self._made = {made for made in self._made if made != path and not made.startswith(f"{path}/")}
        return True

    def exists(self, path: str) -> bool:
        return os.path.lexists(f"{self.base}/{path}")

    def read(self, path: str) -> bytes | None:
        """A regular file of the target; None when it is not there."""
        try:
            with open(os.open(path, _READ_FLAGS, dir_fd=self.fd), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error

    def remove(self, path: str) -> None:
        """Takes a file or directory away, if it is there."""
        try:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(path, dir_fd=self.fd, follow_symlinks=False).st_mode):
                    shutil.rmtree(f"{self.base}/{path}")
                else:
                    os.unlink(path, dir_fd=self.fd)
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error

    def names(self, path: str) -> list[str]:
        """Names in a directory; none when it is not there."""
        try:
            return os.listdir(f"{self.base}/{path}")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error

    def size(self, path: str) -> int | None:
        """Size of a file in bytes; None when it is not there."""
        try:
            return os.stat(path, dir_fd=self.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError.of(self.base, path, error) from error

    def sync(self) -> None:
        """Makes everything written to the target's file system durable."""
        if _libc.syncfs(self.fd) != 0:
            code = ctypes.get_errno()
            raise TargetError(self.base, os.strerror(code))

    def _keep_replaced(self, path: str, data: bytes) -> None:
        """Keeps what the platform wrote at *path*, which is about to be replaced by something else."""
        if self._between_ns is None:
            return
        after, before = self._between_ns
        try:
            status = os.stat(path, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not after < status.st_mtime_ns < before or not stat.S_ISREG(status.st_mode) or self.read(path) == data:
            return
        when = time.strftime("%Y%m%d_%H%M%S", time.gmtime(status.st_mtime_ns / 1e9))
        kept = f".migration/replaced/{when}/{path}"
        self.directory(kept.rpartition("/")[0])
        self.remove(kept)
        os.link(path, kept, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.replaced.append(path)

    def _temporary(self, path: str) -> str:
        """Temporary name beside *path*: short whatever the name's length, and the same for every attempt."""
        parent, _, name = path.rpartition("/")
        self.directory(parent)
        return f"{parent}/{temporary_name(name)}" if parent else temporary_name(name)


class UnwrittenTarget(Target):
    """A target that is only looked at: whoever would change it gets `PutOff`."""

    is_writable = False

    def directory(self, path: str) -> None:
        raise PutOff(path)

    def user_sessions(self, user: str) -> int:
        raise PutOff(user)

    def stage_user(self, user: str) -> int | None:
        raise PutOff(user)

    def move(self, path: str, to: str) -> bool:
        raise PutOff(path)

    def remove(self, path: str) -> None:
        raise PutOff(path)


def temporary_name(name: str) -> str:
    """What a file is called until it is whole."""
    digest: str = xxhash.xxh3_64_hexdigest(name.encode("utf-8", "surrogateescape"))
    return f".tmp-{digest}"


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


_libc = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE = 1


def _rename_to_new(path: str, to: str, dir_fd: int) -> None:
    """`os.rename` within a directory tree, but an empty directory at *to* is an error too. Not every file system can
    see to that (renameat2(2)); on those an empty one is replaced."""
    code = _renameat2(path, to, dir_fd)
    if code in (errno.EINVAL, errno.ENOSYS):
        os.rename(path, to, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    elif code:
        raise OSError(code, os.strerror(code), path, None, to)


def _renameat2(path: str, to: str, dir_fd: int) -> int:
    """0, or the error's number."""
    call = getattr(_libc, "renameat2", None)
    if call is None:
        return errno.ENOSYS
    is_done = call(dir_fd, os.fsencode(path), dir_fd, os.fsencode(to), ctypes.c_uint(_RENAME_NOREPLACE)) == 0
    return 0 if is_done else ctypes.get_errno()
