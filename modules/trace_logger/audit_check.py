"""Checks an audit trail: that every byte of it is as it was written, that nothing is missing, nothing too much."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modules.core.errors import NotFound
from modules.core.storage import FlatFiles

from .audit_chain import GENESIS, HEAD, ROOT, ChainEntry, Head, digest_of, entry_of, is_chain_file, private_of

_MOST_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """``line`` counts from 1, ``offset`` in bytes from the file's start; ``entry`` is the number of the entry that it
    is about, where that can be told."""

    file: str
    message: str
    line: int | None = None
    offset: int | None = None
    length: int | None = None
    entry: int | None = None

    def __str__(self) -> str:
        where = self.file
        if self.line is not None:
            where += f", line {self.line}"
        if self.offset is not None and self.length is not None:
            where += f" (bytes {self.offset} to {self.offset + self.length})"
        about = "" if self.entry is None else f"entry {self.entry}: "
        return f"{where}: {about}{self.message}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """``unclaimed``: private records of entries that a crash kept from being made. At most 1000 findings are shown, of
    ``finding_count``."""

    entries: int
    erased: int
    unclaimed: int
    head: Head
    finding_count: int
    findings: tuple[AuditFinding, ...]

    @property
    def is_intact(self) -> bool:
        return self.finding_count == 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "object": "audit_report",
            "is_intact": self.is_intact,
            "entries": self.entries,
            "erased": self.erased,
            "unclaimed": self.unclaimed,
            "head": str(self.head),
            "finding_count": self.finding_count,
            "findings": [str(finding) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class _Line:
    file: str
    number: int
    offset: int
    data: bytes

    def finding(self, message: str, entry: int | None = None) -> AuditFinding:
        return AuditFinding(self.file, message, self.number, self.offset, len(self.data), entry)


def verify(files: FlatFiles, *, expected: Head | None = None) -> AuditReport:
    """Read the whole trail and write nothing. *expected*: a head that was kept elsewhere, which must be in the chain.

    Raises StorageError when it cannot be read. May run beside the writer: an entry that is being added meanwhile is
    not taken for damage, and what looks like damage is looked at twice.
    """
    report = _Check(files, expected).report()
    return report if report.is_intact else _Check(files, expected).report()


class _Check:
    def __init__(self, files: FlatFiles, expected: Head | None) -> None:
        self._files = files
        self._expected = expected
        self._findings: list[AuditFinding] = []
        self._count = 0
        self._entries: list[tuple[ChainEntry, _Line]] = []
        self._damaged = 0

    def report(self) -> AuditReport:
        # In the order opposite to that of writing: what is seen of the head is in the chain, what of the chain beside.
        noted = self._noted_head()
        head = self._check_chain(noted)
        self._check_heads(head, noted)
        erased, unclaimed = self._check_private()
        shown = tuple(self._findings[:_MOST_SHOWN])
        return AuditReport(len(self._entries) + self._damaged, erased, unclaimed, head, self._count, shown)

    def _find(self, finding: AuditFinding) -> None:
        self._count += 1
        if len(self._findings) < _MOST_SHOWN:
            self._findings.append(finding)

    def _check_chain(self, noted: Head) -> Head:
        head = Head()
        keys = [key for key in self._files.list(f"{ROOT}/") if is_chain_file(key)]
        for key in keys:
            for line, has_end in _lines(key, self._files.read(key)):
                if has_end:
                    head = self._check_entry(line, head)
                elif key != keys[-1] or noted.seq > head.seq:
                    # Not the beginning of an entry that is being added: one that is noted as written.
                    self._find(line.finding("lacks its end", head.seq + 1))
                    head = self._check_entry(line, head)
        return head

    def _check_entry(self, line: _Line, head: Head) -> Head:
        seq = head.seq + 1
        try:
            entry = entry_of(line.data)
        except (ValueError, TypeError) as error:
            self._damaged += 1
            self._find(line.finding(f"was changed: {error}", seq))
            return Head(seq, "")
        # After a line that is no entry, whether it was one, or one too much, shows only here.
        if entry.seq != seq and (head.hash or entry.seq != head.seq):
            missing = (
                f"entries {seq} to {entry.seq - 1} are missing before it" if entry.seq > seq else "it is out of order"
            )
            self._find(line.finding(missing, entry.seq))
        elif head.hash and entry.previous != head.hash:
            self._find(line.finding("does not follow from the entry before it: that one was written anew", entry.seq))
        self._entries.append((entry, line))
        return entry.head

    def _check_heads(self, head: Head, noted: Head) -> None:
        for known, where in ((noted, HEAD), (self._expected, "the head that was given")):
            if known is None or known.seq == 0:
                continue
            if known.seq > head.seq:
                self._find(AuditFinding(where, f"the chain ends with entry {head.seq}, and had {known.seq}"))
                continue
            same = next((entry for entry, _ in self._entries if entry.seq == known.seq), None)
            if same is not None and same.hash != known.hash:
                self._find(AuditFinding(where, "the entry has another hash in the chain", entry=known.seq))

    def _check_private(self) -> tuple[int, int]:
        erasures = {entry.erases: entry.seq for entry, _ in self._entries if entry.erases is not None}
        hidden: dict[str, _Line] = {}
        for key in self._files.list(f"{ROOT}/private/"):
            for line, _ in _lines(key, self._read_or_gone(key)):
                hidden[digest_of(line.data)] = line
        by_number = {record.seq: line for line in hidden.values() if (record := private_of(line.data)) is not None}
        erased = 0
        for entry, line in self._entries:
            is_erased = erasures.get(entry.subject, 0) > entry.seq
            if hidden.pop(entry.digest, None) is not None:
                if is_erased:
                    self._find(line.finding("its private record was to be erased, and is there", entry.seq))
            elif is_erased:
                erased += 1
            else:
                beside = by_number.get(entry.seq)
                where = "" if beside is None else f"; {beside.file}, line {beside.number} is not what it was"
                self._find(line.finding(f"its private record is missing or was changed{where}", entry.seq))
        return erased, len(hidden)

    def _read_or_gone(self, key: str) -> bytes:
        try:
            return self._files.read(key)
        except NotFound:
            return b""  # erased while this was reading

    def _noted_head(self) -> Head:
        try:
            return Head(**json.loads(self._files.read(HEAD)))
        except NotFound:
            return Head(0, GENESIS)
        except (ValueError, TypeError):
            self._find(AuditFinding(HEAD, "is damaged"))
            return Head(0, GENESIS)


def _lines(key: str, content: bytes) -> Iterator[tuple[_Line, bool]]:
    """Lines without their ends, and whether they have one, which only the last one may not have."""
    offset = 0
    *whole, rest = content.split(b"\n")
    for number, line in enumerate(whole, start=1):
        yield _Line(key, number, offset, line), True
        offset += len(line) + 1
    if rest:
        yield _Line(key, len(whole) + 1, offset, rest), False
