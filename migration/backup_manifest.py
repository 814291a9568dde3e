"""The manifest of a backup, as a stream.

One JSON document: a head line, one entry a line in the order of a walk (a directory before what it holds, names sorted
by their bytes), and a last line with the number of entries and the SHA-256 of all lines before it. So it is written,
read and compared with a tree without holding it in memory, and a manifest that was cut off or edited is noticed.
Names that are not UTF-8 stand in it with surrogate escapes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

NAME = "MANIFEST.json"
_FORMAT = 1
_SHOWN_PROBLEMS = 20


class BackupError(Exception):
    """A backup was not made, or cannot be used."""


class UnknownBackup(BackupError, ValueError):
    """There is no backup of that name."""


class Unreadable(BackupError):
    """Part of a tree cannot be read. Nothing was kept: mend it, then try again."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Changing(Unreadable):
    """A file was written to during every attempt at copying it. Stop the writer, then try again."""


class BackupDamaged(BackupError):
    """A backup is not what its manifest says. It must not be restored."""

    def __init__(self, path: str, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        more = len(self.problems) - _SHOWN_PROBLEMS
        tail = f"; and {more} more" if more > 0 else ""
        return f"backup {self.path} is damaged: {'; '.join(self.problems[:_SHOWN_PROBLEMS])}{tail}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the tree. *path* is relative to its top, which is itself ``""``."""

    path: str
    kind: str
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    """Where a link points to."""


@dataclass(frozen=True, slots=True)
class Head:
    created_at: str
    source: str
    renamed: Mapping[str, str]
    """Names at the top of the backup that stand for other names in the source: what was itself called
    ``MANIFEST.json`` there."""


class ManifestWriter:
    """Writes a manifest to a new file; without a call of `finish` it stays one that no reader accepts."""

    def __init__(self, path: Path, head: Head) -> None:
        self._file = open(path, "xb")  # noqa: SIM115  closed by __exit__: the writer is itself the context manager
        self._digest = sha256()
        self._count = 0
        members = {
            "format": _FORMAT,
            "created_at": head.created_at,
            "source": head.source,
            "renamed": dict(head.renamed),
        }
        self._line(json.dumps(members)[:-1] + ', "entries": [')

    def add(self, entry: Entry) -> None:
        members = {name: value for name in _MEMBERS if (value := getattr(entry, name)) is not None}
        members["mode"] = f"{entry.mode:04o}"
        self._line(("," if self._count else "") + json.dumps(members))
        self._count += 1

    def finish(self) -> None:
        """Writes the last line, and returns when the file is on disk."""
        last = {"count": self._count, "sha256": self._digest.hexdigest()}
        self._file.write(b"], " + json.dumps(last).encode()[1:] + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _line(self, text: str) -> None:
        line = text.encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Manifest:
    """Reads the manifest of the backup in *directory*. Raises BackupDamaged where it is not whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME
        try:
            with open(self._path, "rb") as file:
                first = file.readline()
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        try:
            members = json.loads(first + b"]}")
            made_by = members["format"]
            renamed = {str(shown): str(name) for shown, name in members["renamed"].items()}
            head = Head(str(members["created_at"]), str(members["source"]), MappingProxyType(renamed))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged("its first line is not that of a manifest") from error
        if made_by != _FORMAT:
            raise self._damaged(f"its format is {made_by!r}; this program reads {_FORMAT}")
        self.head = head

    def entries(self) -> Iterator[Entry]:
        """Every entry, in order. Raises at the end if the manifest's own digest is wrong."""
        digest = sha256()
        before: tuple[bytes, ...] | None = None
        with open(self._path, "rb") as file:
            first = file.readline()
            digest.update(first)
            for number, line in enumerate(file):
                if line.startswith(b"]"):
                    self._check_last(line, number, digest.hexdigest())
                    return
                entry = self._parse(line.removeprefix(b","), number + 2)
                at = order(entry.path)
                if (before is None) != (at == ()) or (before is not None and at <= before):
                    raise self._damaged(f"line {number + 2} is out of order")
                before = at
                digest.update(line)
                yield entry
        raise self._damaged("it is cut off")

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            members = json.loads(line)
            entry = Entry(**{**members, "mode": int(members["mode"], 8)})
            well_named = entry.path == "" or all(_is_name(part) for part in entry.path.split("/"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(f"line {number} is not an entry") from error
        if not well_named:
            raise self._damaged(f"line {number} holds the path {entry.path!r}")
        return entry

    def _check_last(self, line: bytes, count: int, digest: str) -> None:
        try:
            last = json.loads(b'{"entries": [' + line)
        except ValueError as error:
            raise self._damaged("it is cut off") from error
        if (last.get("count"), last.get("sha256")) != (count, digest):
            raise self._damaged("it is not the one that was written: its digest differs")

    def _damaged(self, problem: str) -> BackupDamaged:
        return BackupDamaged(str(self._directory), (f"{NAME}: {problem}",))


def order(path: str) -> tuple[bytes, ...]:
    """Sorts paths as a walk meets them; the top comes first."""
    return tuple(os.fsencode(path).split(b"/")) if path else ()


def renamed(path: str, names: Mapping[str, str]) -> str:
    """*path* with its first component replaced by what *names* says of it."""
    first, slash, rest = path.partition("/")
    return names.get(first, first) + slash + rest


def _is_name(part: Any) -> bool:
    return part not in ("", ".", "..") and "\0" not in part


_MEMBERS = tuple(field.name for field in fields(Entry))
