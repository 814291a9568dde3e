"""The journal of the cut-overs of one target: append-only, one record a line, each on disk before what it announces.

``<target>/.migration/cutover/journal.jsonl``; a line is ``{"record": {...}, "sum": "<hex>"}``, where the sum is
BLAKE2b-128 over the sum of the line before and the record's text, so a line that was changed, lost or moved is found.
A last line that a crash cut off announces nothing that was done, and is taken away by the next writer.

A reserve of some kilobytes lies beside it: a disk that is full must not keep anybody from noting the way back.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from migration.cutover_steps import Event, Position, Record, position_of
from migration.durable import held, sync_directory
from migration.state import STATE_DIR, RefusedError
from migration.target import TargetError

_RESERVE_BYTES = 64 << 10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class JournalDamaged(RefusedError):
    """The journal is not what was written. Nobody can say which side serves: a person has to look."""


def cutover_directory(target: str | Path) -> Path:
    return Path(target) / STATE_DIR / "cutover"


class Journal:
    """Reading needs nothing; writing needs `taken`. *target* is the base path of the platform's store."""

    def __init__(self, target: str | Path) -> None:
        self.directory = cutover_directory(target)
        self.path = self.directory / "journal.jsonl"
        self._reserve = self.directory / "reserve"
        self.records: list[Record] = []
        self._sum = ""
        self._end = 0
        self.read()

    @property
    def position(self) -> Position:
        return position_of(self.records)

    def read(self) -> None:
        """Takes up what others have written. Raises `JournalDamaged`; `OSError` when it cannot be read."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        self.records, self._sum, self._end = [], "", 0
        *lines, _ = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            record, self._sum = self._parsed(line, number)
            self.records.append(record)
            self._end += len(line) + 1

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds the journal for writing, against every other process. Raises `durable.Busy`; `TargetError`."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError.of(str(self.directory), "", error) from error
        with held(self.directory / "lock"):
            self.read()
            yield

    def append(self, event: Event, step: str, data: Mapping[str, Any], *, at: datetime, cutover: int) -> Record:
        """Adds a record; when this returns, it is on disk. Raises `TargetError` when it is not."""
        record = Record(len(self.records) + 1, at.isoformat(), cutover, event, step, dict(data))
        text = json.dumps(asdict(record), ensure_ascii=True, sort_keys=True)
        total = _sum_of(self._sum, text)
        line = f'{{"record": {text}, "sum": "{total}"}}\n'.encode()
        try:
            try:
                self._write(line)
            except OSError as error:
                if error.errno not in _FULL or not self._reserve.exists():
                    raise
                self._reserve.unlink()
                self._write(line)
        except OSError as error:
            raise TargetError.of(str(self.directory), self.path.name, error) from error
        self.records.append(record)
        self._sum, self._end = total, self._end + len(line)
        return record

    def lay_by(self) -> None:
        """Puts the reserve down (again). Raises `TargetError`."""
        try:
            if not self._reserve.exists() or self._reserve.stat().st_size != _RESERVE_BYTES:
                with open(self._reserve, "wb") as file:
                    file.write(b"\0" * _RESERVE_BYTES)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise TargetError.of(str(self.directory), self._reserve.name, error) from error

    def _write(self, line: bytes) -> None:
        is_new = not self.path.exists()
        # Not for everybody: the commands in it may name what others need not know.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, self._end)
            rest, at = memoryview(line), self._end
            while rest:
                written = os.pwrite(descriptor, rest, at)
                rest, at = rest[written:], at + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_directory(self.directory)
            sync_directory(self.directory.parent)

    def _parsed(self, line: bytes, number: int) -> tuple[Record, str]:
        try:
            whole = json.loads(line)
            values = whole["record"]
            text = json.dumps(values, ensure_ascii=True, sort_keys=True)
            if whole["sum"] != _sum_of(self._sum, text):
                raise ValueError("its sum is wrong")
            record = Record(**{**values, "event": Event(values["event"])})
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(
                f"{self.path}, line {number}: is not what was written ({error}); see which side serves, and put a "
                "copy of the file back, or move it away when no cut-over is under way"
            ) from error
        return record, str(whole["sum"])


def _sum_of(before: str, text: str) -> str:
    return blake2b(f"{before}{text}".encode(), digest_size=16).hexdigest()
