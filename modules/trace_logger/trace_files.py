"""The files of records: by the day or hour in which they were written, compressed when old, deleted when older.

    trace_logger/traces/2024-01-15/day-000.jsonl          a day's records (``rotate: day``)
    trace_logger/traces/2024-01-15/14-000.jsonl           those from 14:00 to 15:00 (``rotate: hour``), in UTC
    trace_logger/traces/2024-01-14/day-000.jsonl.zst      the same, compressed

A file that has grown large is followed by ``-001``, and so on: so any of them can be held in memory. While both a file
and its compressed form are there, the first counts: the compression was interrupted.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import zstandard

from modules.core.errors import StorageError
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)

ROOT = "trace_logger/traces"
LARGE_BYTES = 64 << 20
_NAME = re.compile(rf"{ROOT}/(\d{{4}}-\d{{2}}-\d{{2}})/(day|\d{{2}})-(\d{{3,}})\.jsonl(\.zst)?")
_COMPRESSED = ".zst"


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one series of files covers; ``hour`` None is the whole day."""

    day: str
    hour: int | None = None

    @property
    def start(self) -> datetime:
        return datetime.fromisoformat(self.day).replace(hour=self.hour or 0, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        return self.start + (timedelta(days=1) if self.hour is None else timedelta(hours=1))

    @classmethod
    def at(cls, moment: datetime, rotate: str) -> Bucket:
        moment = moment.astimezone(UTC)
        return cls(f"{moment:%Y-%m-%d}", moment.hour if rotate == "hour" else None)


@dataclass(frozen=True, slots=True)
class TraceFile:
    bucket: Bucket
    part: int

    @property
    def key(self) -> str:
        name = "day" if self.bucket.hour is None else f"{self.bucket.hour:02d}"
        return f"{ROOT}/{self.bucket.day}/{name}-{self.part:03d}.jsonl"

    @classmethod
    def parse(cls, key: str) -> TraceFile | None:
        """None for what is none of ours."""
        found = _NAME.fullmatch(key)
        if found is None:
            return None
        hour = None if found[2] == "day" else int(found[2])
        return cls(Bucket(found[1], hour), int(found[3]))


class TraceFiles:
    """Synchronous; safe for use from several threads of one process, which is the only one that writes."""

    def __init__(self, files: FlatFiles, rotate: str, *, large_bytes: int = LARGE_BYTES) -> None:
        self._files = files
        self._rotate = rotate
        self._large_bytes = large_bytes
        self._open: TraceFile | None = None
        self._lock = threading.Lock()

    def append(self, lines: bytes, now: datetime) -> None:
        """Raises StorageError; then nothing of it is stored."""
        with self._lock:
            bucket = Bucket.at(now, self._rotate)
            if self._open is None or self._open.bucket != bucket:
                self._open = self._newest(bucket)
            stamp = self._files.append(self._open.key, lines)
            if stamp.size >= self._large_bytes:
                self._open = TraceFile(bucket, self._open.part + 1)

    def found(self, since: datetime | None = None) -> list[TraceFile]:
        """Files that may hold what was written since then, in the order of their times."""
        files = {parsed for key in self._files.list(f"{ROOT}/") if (parsed := TraceFile.parse(key)) is not None}
        kept = (one for one in files if since is None or one.bucket.end > since)
        return sorted(kept, key=lambda one: (one.bucket.start, one.bucket.hour or 0, one.part))

    def read(self, file: TraceFile) -> bytes:
        """Its lines; none when it was deleted meanwhile. Raises StorageError when it cannot be read."""
        # Compressing puts the new file in place before it takes the old one away: one of the two is there.
        for key in (file.key, file.key + _COMPRESSED, file.key):
            if self._files.exists(key):
                return self._content(key)
        return b""

    def tidy(self, now: datetime, *, compress_after: timedelta, keep_for: timedelta) -> tuple[int, int]:
        """Compress what has been finished for so long, delete the days that are older. How many of each."""
        deleted = 0
        for day in self._files.directories(ROOT):
            if _is_day(day) and Bucket(day).end + keep_for <= now:
                deleted += self._files.delete_tree(f"{ROOT}/{day}")
        compressed = 0
        for file in self.found():
            if file.bucket.end + compress_after <= now and self._files.exists(file.key):
                with self._lock:
                    self._compress(file)
                compressed += 1
        return compressed, deleted

    def remove(self, is_unwanted: Callable[[bytes], bool]) -> int:
        """Remove lines from all files, for good. How many there were. Raises StorageError for a file that cannot be
        read: nothing that is asked to go may be passed over."""
        removed = 0
        for file in self.found():
            with self._lock:
                for key in (file.key, file.key + _COMPRESSED):
                    if self._files.exists(key):
                        removed += self._remove_from(key, is_unwanted)
        return removed

    def _remove_from(self, key: str, is_unwanted: Callable[[bytes], bool]) -> int:
        lines = self._content(key).splitlines(keepends=True)
        kept = [line for line in lines if not is_unwanted(line)]
        if len(kept) < len(lines):
            content = b"".join(kept)
            self._files.write(key, _compressed(content) if key.endswith(_COMPRESSED) else content, fsync=True)
        return len(lines) - len(kept)

    def _compress(self, file: TraceFile) -> None:
        self._files.write(file.key + _COMPRESSED, _compressed(self._files.read(file.key)), fsync=True)
        self._files.delete(file.key)

    def _content(self, key: str) -> bytes:
        data = self._files.read(key)
        if not key.endswith(_COMPRESSED):
            return data
        try:
            return zstandard.ZstdDecompressor().decompress(data)
        except zstandard.ZstdError as error:
            raise StorageError(f"{key} is damaged: {error}", key=key) from error

    def _newest(self, bucket: Bucket) -> TraceFile:
        """The one to go on with: a new one after one that is large, or was compressed meanwhile."""
        last = max((one.part for one in self.found() if one.bucket == bucket), default=0)
        stamp = self._files.stamp(TraceFile(bucket, last).key)
        is_compressed = self._files.exists(TraceFile(bucket, last).key + _COMPRESSED)
        is_full = is_compressed or (stamp is not None and stamp.size >= self._large_bytes)
        return TraceFile(bucket, last + is_full)


def lines_with(content: bytes, text: bytes) -> Iterator[bytes]:
    """The lines that hold *text*, without looking at the others one by one."""
    place = content.find(text)
    while place >= 0:
        start = content.rfind(b"\n", 0, place) + 1
        end = content.find(b"\n", place)
        end = len(content) if end < 0 else end
        yield content[start:end]
        place = content.find(text, end)


def _compressed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(content)


def _is_day(name: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", name) is not None
