"""The platform's files as the old API needs them: JSON in and out, lines appended among many processes. Synchronous.

A log is appended to under an exclusive lock on the log itself, which the platform (shared) and a migration (exclusive)
lock as well: no two writers meet in one log, whichever they are.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from migration.legacy_locks import Locks
from migration.legacy_settings import LegacySettings
from modules.core.errors import NotFound, StorageError
from modules.core.layout import component, name_of
from modules.core.storage import FlatFiles

Now = Callable[[], datetime]
Record = dict[str, Any]


class LegacyStore:
    """*now* gives local time without an offset, as the old application spells it."""

    def __init__(self, settings: LegacySettings, now: Now) -> None:
        self.settings = settings
        self.files = FlatFiles(settings.base_path)
        self.locks = Locks(settings.base_path)
        self.now = now

    def read_object(self, key: str) -> Record | None:
        """The JSON object under *key*; None when there is none, or it is none."""
        try:
            value = decoded(self.files.read(key))
        except (NotFound, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write_object(self, key: str, value: Any) -> None:
        self.files.write(key, json_file(value), fsync=True)

    def names_below(self, directory: str, file: str, member: str) -> Iterator[tuple[str, str]]:
        """(path component, true name) of the directories below *directory*; a name that was cut stands as *member* of
        their *file*."""
        for found in self.files.directories(directory):
            name = name_of(found)
            if name is None:
                stored = (self.read_object(f"{directory}/{found}/{file}") or {}).get(member)
                name = stored if isinstance(stored, str) else found
            yield found, name

    def records(self, key: str) -> Iterator[Record]:
        """The JSON objects of a log, in order; a line that is none is passed over, as is an unfinished last one."""
        try:
            with self.files.opened(key, os.O_RDONLY) as fd, os.fdopen(fd, "rb", closefd=False) as file:
                for line in file:
                    record = _record(line)
                    if record is not None:
                        yield record
        except NotFound:
            return

    def append(self, key: str, record: Mapping[str, Any], *, unless_there: str | None = None) -> bool:
        """Add one line, on the disk when this returns. With *unless_there*, nothing is done and False returned when
        the log has a record of that ``id``. Raises StorageError, and ValueError for what JSON cannot hold."""
        line = json.dumps(made_plain(dict(record)), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        while True:
            self._make(key)
            try:
                with self.files.opened(key, os.O_RDWR | os.O_APPEND) as fd:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    status = os.fstat(fd)
                    if not status.st_nlink:
                        continue  # replaced while this waited
                    if unless_there is not None and self._has(fd, status.st_size, unless_there):
                        return False
                    _write_line(fd, status.st_size, line, key)
                    fcntl.flock(fd, fcntl.LOCK_UN)  # others need not wait for the disk
                    os.fsync(fd)
                return True
            except NotFound:
                continue  # put away at this moment
            except OSError as error:
                raise StorageError.because(error, "append to", key) from error

    def _make(self, key: str) -> None:
        if self.files.exists(key):
            return
        directory = key.rpartition("/")[0]
        self.files.make_directory(directory, fsync=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self.files.base / key, flags, 0o644))
            above = os.open(self.files.base / directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(above)
            finally:
                os.close(above)
        except OSError as error:
            raise StorageError.because(error, "make", key) from error

    def _has(self, fd: int, size: int, record_id: str) -> bool:
        spelled = json.dumps(record_id, ensure_ascii=False).encode("utf-8", "surrogatepass")
        data = os.pread(fd, size, 0)
        return spelled in data and any(
            (record := _record(line)) is not None and record.get("id") == record_id
            for line in data.split(b"\n")
            if spelled in line
        )


def _write_line(fd: int, size: int, line: bytes, key: str) -> None:
    if size and os.pread(fd, 1, size - 1) != b"\n":
        line = b"\n" + line  # a line that a crash cut off is ended, so that this one does not join it
    written = os.write(fd, line)
    if written != len(line):
        os.ftruncate(fd, size)
        raise StorageError.because(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "append to", key)


def _record(line: bytes) -> Record | None:
    try:
        value = decoded(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def decoded(data: bytes) -> Any:
    """The value that *data* spells, as Python's json module reads it. Raises ValueError."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        pass  # NaN, lone surrogates, numbers beyond a double: the standard library reads more
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def json_file(value: Any) -> bytes:
    """*value* as the old application writes a JSON file. Raises ValueError or TypeError for what is no JSON."""
    return json.dumps(made_plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def made_plain(value: Any) -> Any:
    """*value* with NaN and the infinities as their names, as the platform reads them: strict JSON has none."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case list() | tuple():
            return [made_plain(item) for item in value]
        case dict():
            return {key: made_plain(item) for key, item in value.items()}
        case _:
            return value


def below(root: str, *names: str) -> str:
    """The key of what *names* mean below *root*; a name from outside becomes exactly one path component."""
    return "/".join((root, *(component(name) for name in names)))
