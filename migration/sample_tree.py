"""The files of a made v2 store, written the way v2 wrote them, and the tally of what they hold.

Everything is a function of the arguments: bytes, and modification times too, since a migration falls back on them.
Moments are whole microseconds since 1970; v2 wrote them as local time without a zone, so they have none here.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL

_encode_line = json.JSONEncoder(ensure_ascii=False).encode
_encode_file = json.JSONEncoder(ensure_ascii=False, sort_keys=True, indent=2).encode


def moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Microseconds since 1970 of a wall clock reading."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * SECOND


def iso(at: int) -> str:
    """The time as v2 stores it: no zone, and no fraction when that is zero."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat()


def stamp(at: int, *, fraction: bool = True) -> str:
    """The time as v2 puts it into names: ``YYYYMMDD_HHMMSS``, since G2 with ``_ffffff``."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y%m%d_%H%M%S_%f" if fraction else "%Y%m%d_%H%M%S")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """What a migration of the store must find.

    ``messages`` are those of live sessions, salvaged ones included; ``quarantined`` are the lines that became no
    message (a salvaged line has a row in quarantine.jsonl too, but is not counted here). ``documents`` are those of
    live sessions, with or without their entry or their file; ``contexts`` are the current ones of live sessions. A v2
    user directory may hold several users or none.
    """

    user_directories: int = 0
    profiles: int = 0
    sessions: int = 0
    archived_sessions: int = 0
    messages: int = 0
    archived_messages: int = 0
    panel_messages: int = 0
    salvaged: int = 0
    quarantined: int = 0
    blank_lines: int = 0
    shards: int = 0
    documents: int = 0
    archived_documents: int = 0
    contexts: int = 0
    vector_sets: int = 0
    personas: int = 0
    panels: int = 0
    insights: int = 0
    attic_files: int = 0
    ignored_files: int = 0
    empty_directories: int = 0
    source_files: int = 0

    @property
    def all_messages(self) -> int:
        """Messages of live sessions, archived sessions and panels."""
        return self.messages + self.archived_messages + self.panel_messages

    @property
    def migrated_files(self) -> int:
        """Files that are neither ignored nor carried to the attic."""
        return self.source_files - self.attic_files - self.ignored_files


_COUNTED = frozenset(field.name for field in fields(SampleCounts))


class SampleTree:
    """Writes new files below *root* and counts them; *root* must be absent or empty (else `FileExistsError`).

    Paths are relative, ``/``-separated. No file is ever written twice.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise FileExistsError(errno.EEXIST, "a store is only made in an empty directory", str(root))
        self._root = os.fspath(root)
        self._tally: Counter[str] = Counter()
        self._made: set[str] = set()

    def raw(self, path: str, data: bytes, at: int) -> None:
        """Write *data* with the modification time *at*."""
        parent = path.rpartition("/")[0]
        if parent not in self._made:
            os.makedirs(f"{self._root}/{parent}", exist_ok=True)
            self._made.add(parent)
        descriptor = os.open(f"{self._root}/{path}", _WRITE_NEW, 0o644)
        try:
            with open(descriptor, "wb", buffering=0, closefd=False) as file:
                file.write(data)
            os.utime(descriptor, ns=(at * 1000, at * 1000))
        finally:
            os.close(descriptor)
        self._tally["source_files"] += 1

    def json(self, path: str, value: Mapping[str, Any], at: int) -> None:
        """Write one object as v2 does: sorted keys, two spaces, not escaped, no final newline."""
        self.raw(path, _encode_file(value).encode(), at)

    def jsonl(self, path: str, records: Iterable[Mapping[str, Any]], at: int) -> None:
        """Write one object a line as v2 does: keys in the order given, not escaped, a final newline."""
        self.raw(path, "".join([_encode_line(record) + "\n" for record in records]).encode(), at)

    def empty(self, path: str) -> None:
        """Make an empty directory."""
        os.makedirs(f"{self._root}/{path}")
        self.count(empty_directories=1)

    def count(self, **found: int) -> None:
        """Add to the tally; names are those of `SampleCounts`."""
        if unknown := found.keys() - _COUNTED:
            raise ValueError(f"not counted: {', '.join(sorted(unknown))}")
        self._tally.update(found)

    def finish(self, at: int) -> SampleCounts:
        """Give every directory the modification time *at* and return the tally; nothing is written after this."""
        for directory, _, _ in os.walk(self._root, topdown=False):
            os.utime(directory, ns=(at * 1000, at * 1000))
        return SampleCounts(**self._tally)


def encode_line(record: Mapping[str, Any]) -> bytes:
    """One JSONL line of v2 without its newline."""
    return _encode_line(record).encode()
