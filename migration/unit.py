"""The unit of migration: what the ledger remembers, what a task reports, what the sums are made of.

A unit is everything below one child of a user directory (usually one session), or the files directly in the user
directory, or a panel, a vector set, a directory of strays. It is migrated whole or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import xxhash

from migration.issues import Issue

# Raised with every change to what is written, so that a newer program redoes what an older one migrated.
TRANSFORM_VERSION = 1

MIGRATED, ATTIC, IGNORED, UNREAD = "m", "a", "i", "u"
ELSEWHERE = "e"  # another unit accounts for the file; this one only depends on it

_REMOVED = -1  # the version of a unit that v2 no longer has, and whose outputs were put away

COUNTS = (
    "sessions",
    "messages",
    "archived_messages",
    "panel_messages",
    "salvaged",
    "quarantined",
    "blank",
    "lines",
    "documents",
    "archived_documents",
    "archived",
    "profiles",
    "personas",
    "panels",
    "vector_sets",
    "contexts",
    "links",
    "special",
    "empty_dirs",
)
_ESCAPED = re.compile("\0([0-9A-F]{2})")
_POSITION = {name: position for position, name in enumerate(COUNTS)}


class Unit(msgspec.Struct, array_like=True, gc=False):
    """What the ledger keeps of one migrated unit.

    files: [path below the unit's parent, size in bytes, mtime in ns, disposition] of every source file;
    counts: by position, as `COUNTS`; digest: `content_digest` of the source; written: size in bytes of the
    messages.jsonl of each session (-1: it has none), to see later whether the new side has written there; facts: what
    the linking needs; context: what it was migrated with besides its files; racy: a file was so young that its time
    cannot show a later change; outputs: the files written in the target, where they do not follow from `written`.
    """

    name: str
    files: list[tuple[str, int, int, str]]
    counts: list[int]
    digest: bytes
    version: int = TRANSFORM_VERSION
    written: dict[str, int] = {}
    issues: list[Issue] = []
    facts: list[list[str]] = []
    context: str = ""
    racy: bool = False
    outputs: list[str] = []

    @property
    def is_removed(self) -> bool:
        return self.version == _REMOVED

    @property
    def all_outputs(self) -> set[str]:
        """Every file of the target that the unit wrote."""
        if self.outputs:
            return {ledger_path(path) for path in self.outputs}
        found = {f"{session}/metadata.json" for session in self.written}
        return found | {f"{session}/messages.jsonl" for session, size in self.written.items() if size >= 0}


def removed_unit(name: str) -> Unit:
    """What the ledger keeps of a unit that v2 no longer has."""
    return Unit(name, [], [0] * len(COUNTS), b"", version=_REMOVED)


@dataclass(slots=True)
class UnitDraft:
    """A unit while it is being migrated."""

    name: str
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    issues: list[Issue] = field(default_factory=list)
    facts: list[list[str]] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    context: str = ""
    racy: bool = False
    listed: int = 0
    vanished: int = 0

    def count(self, name: str, by: int = 1) -> None:
        self.counts[_POSITION[name]] += by

    def issue(self, kind: str, path: str, detail: str = "") -> None:
        self.issues.append(Issue(kind, printable(path), printable(detail)))

    def file(self, path: str, size: int, mtime_ns: int, disposition: str, digest: bytes = b"") -> None:
        """Notes where a source file ended. A file that ends twice is a mistake of the program."""
        if path in self.files:
            raise AssertionError(f"{path} was accounted for twice")
        self.files[path] = (size, mtime_ns, disposition)
        self.digests[path] = digest

    def finished(self, outputs: list[str] | None = None) -> Unit:
        """The unit, with its sums checked: every file that was listed has one end, and so has every line."""
        self._check_sums()
        files = sorted(self.files)
        return Unit(
            name=self.name,
            files=[(path, *self.files[path]) for path in files],
            counts=self.counts,
            digest=content_digest([self.digests[path] for path in files]),
            written=self.written,
            issues=self.issues,
            facts=self.facts,
            context=self.context,
            racy=self.racy,
            outputs=[ledger_name(path) for path in outputs or ()],
        )

    def _check_sums(self) -> None:
        ended = len(self.files) + self.vanished
        if self.listed and ended != self.listed:
            self.issue("unbalanced", self.name, f"{self.listed} files were listed and {ended} accounted for")
        lines = counts_named(self.counts)
        ends = ("messages", "archived_messages", "panel_messages", "quarantined", "blank")
        ended = sum(lines[end] for end in ends)
        if ended != lines["lines"]:
            self.issue("unbalanced", self.name, f"{lines['lines']} lines were read and {ended} accounted for")


def content_digest(digests: Iterable[bytes]) -> bytes:
    """Digest of a unit's content from those of its files, in the order of their names: XXH3, 128 bits."""
    digest: bytes = xxhash.xxh3_128_digest(b"".join(digests))
    return digest


def counts_named(counts: list[int]) -> dict[str, int]:
    return dict(zip(COUNTS, counts, strict=True))


def ledger_name(path: str) -> str:
    """A v2 path of any bytes as text, different for different paths; `ledger_path` reverses it.

    A byte that is not UTF-8 becomes NUL and two hex digits: no path holds a NUL.
    """
    if path.isascii():
        return path
    return "".join(f"\0{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)


def ledger_path(name: str) -> str:
    return _ESCAPED.sub(lambda match: chr(0xDC00 + int(match[1], 16)), name)


def path_fact(path: str) -> str:
    """A path or name of any bytes as text for a fact; `fact_path` reverses it."""
    return os.fsencode(path).hex()


def text_fact(text: str) -> str:
    """An id of any characters as text for a fact; `fact_text` reverses it."""
    return text.encode("utf-8", "surrogatepass").hex()


def fact_text(fact: str) -> str:
    return bytes.fromhex(fact).decode("utf-8", "surrogatepass")


def printable(text: str) -> str:
    """Text for a report: what UTF-8 cannot hold becomes an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def fact_path(fact: str) -> str:
    return os.fsdecode(bytes.fromhex(fact))
