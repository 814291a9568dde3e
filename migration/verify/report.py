"""What was found, for people and for programs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime

from migration.verify.comparison import Finding, Symbol

# which of the seed's four parts looks after which kind of item
PART_OF = {
    "session": "sessions",
    "archive": "sessions",
    "profile": "sessions",
    "context": "sessions",
    "history": "sessions",
    "shard": "messages",
    "lines": "messages",
    "document": "documents",
    "registry": "documents",
    "vectors": "documents",
    "persona": "config",
    "panel": "config",
    "participant": "config",
    "attic": "config",
    "target": "config",
    "files": "config",
    "source": "config",
}
_MESSAGE_WORDS = ("message", "quarantine", "row of quarantine", "legacy.messages", "order of messages", "sum of lines")


def part_of(finding: Finding) -> str:
    """The part (sessions, messages, documents, config) that a finding belongs to."""
    if finding.kind in ("session", "archive", "panel") and _speaks_of_messages(finding.what):
        return "messages"
    if finding.kind == "target":
        return (
            "sessions"
            if finding.path.startswith("text_chat/")
            else "documents"
            if finding.path.startswith("rag/")
            else "config"
        )
    return PART_OF[finding.kind]


def _speaks_of_messages(what: str) -> bool:
    return what.startswith(_MESSAGE_WORDS) or "new messages" in what or what == "further members of messages"


@dataclass(frozen=True, slots=True)
class Root:
    """Top of a Merkle tree on both sides, in hexadecimal; empty for a side that has nothing."""

    source: str
    target: str

    @property
    def equal(self) -> bool:
        return self.source == self.target


@dataclass(frozen=True)
class Report:
    """The outcome of comparing a v2 tree with a migrated tree."""

    source: str
    target: str
    begun_at: str
    ended_at: str
    root: Root
    users: dict[str, Root]
    counts: dict[str, dict[str, int]]  # kind -> symbol -> how many items
    files: dict[str, int]
    lines: dict[str, int]
    findings: tuple[Finding, ...]
    omitted: int = 0
    notices: tuple[str, ...] = ()
    omitted_notices: int = 0
    sample: float | None = None
    source_timezone: str | None = None
    extra_roots: tuple[str, ...] = field(default=())

    @property
    def equal(self) -> bool:
        """Whether everything of v2 is in the target as it must be, and nothing else claims to come from it."""
        return not self.errors and not self.omitted and self.root.equal

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is no mismatch, but for a person to know."""
        return (*(str(finding) for finding in self.findings if not finding.is_error), *self.notices)

    def to_json(self) -> str:
        values = asdict(self)
        values["equal"] = self.equal
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    def to_text(self) -> str:
        verdict = "equal" if self.equal else f"NOT equal: {len(self.errors) + self.omitted} findings"
        lines = [
            f"{self.source} -> {self.target}: {verdict}",
            f"compared from {self.begun_at} to {self.ended_at}",
            f"root of the source {self.root.source}",
            f"root of the target {self.root.target}",
        ]
        if self.sample is not None:
            lines.append(f"{self.sample:.1%} of the users were compared in depth, of the others what exists")
        lines += ["", "items       " + "".join(f"{symbol.value:>10}" for symbol in Symbol)]
        lines += [
            f"{kind:<12}" + "".join(f"{symbols.get(symbol.value, 0):>10}" for symbol in Symbol)
            for kind, symbols in sorted(self.counts.items())
        ]
        for title, numbers in (("files", self.files), ("lines", self.lines)):
            lines.append(f"{title}: " + ", ".join(f"{name} {number}" for name, number in sorted(numbers.items())))
        lines += [f"user {user} differs" for user, root in sorted(self.users.items()) if not root.equal]
        if self.findings:
            lines += ["", *(str(finding) for finding in self.findings)]
        if self.omitted:
            lines.append(f"and {self.omitted} more, counted above")
        lines += [f"note: {notice}" for notice in self.notices]
        if self.omitted_notices:
            lines.append(f"and {self.omitted_notices} more notes")
        # a name may hold a line feed, which must not look like a line of the report
        return "".join(f"{_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def write_report(report: Report, stamp: datetime) -> str:
    """Writes the report as text and JSON below the target's ``.migration/reports``; returns the text's path.

    Nothing that stands there is overwritten. Raises `OSError`.
    """
    folder = os.path.join(report.target, ".migration", "reports")
    os.makedirs(folder, exist_ok=True)
    name = stamp.strftime("validate-%Y%m%dT%H%M%S.%fZ")
    for ending, text in ((".json", report.to_json()), (".txt", report.to_text())):
        with open(os.path.join(folder, name + ending), "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    return os.path.join(folder, name + ".txt")
