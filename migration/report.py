"""What a run did: as one JSON object, as text, and as an exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migration.issues import KINDS, Issue, Severity, severity_of
from migration.job import RunSettings
from migration.shard import Totals
from migration.unit import ATTIC, IGNORED, MIGRATED, UNREAD

NOT_ON_DISK = (
    "v2 kept these only in memory, so there is nothing to migrate: API users, keys and roles; open chat sessions "
    "and their use cases; memory entries; multi-agent statistics; tool history; topic routes; traces; search "
    "indices; caches"
)


@dataclass(frozen=True, slots=True)
class RunReport:
    """The outcome of one run. Sizes in bytes, times in seconds; counts are of everything in the target that this run
    visited, `resumed` of the sessions among them that an earlier run had migrated."""

    source: str
    target: str
    run: int
    elapsed_s: float
    workers: int
    shards: int
    counts: Mapping[str, int]
    files: Mapping[str, int]
    users: int
    bytes: int
    resumed: int
    units: int
    tasks: int
    work_s: float
    issues: Mapping[str, int]
    examples: Mapping[str, Sequence[Issue]] = field(default_factory=dict)
    added: int = 0
    changed: int = 0
    deleted: int = 0

    @classmethod
    def of(
        cls, totals: Totals, settings: RunSettings, run: int, elapsed_s: float, workers: int, shards: int
    ) -> RunReport:
        return cls(
            source=settings.source,
            target=settings.target,
            run=run,
            elapsed_s=elapsed_s,
            workers=workers,
            shards=shards,
            counts=totals.named(),
            files=dict(totals.files),
            users=totals.users,
            bytes=totals.bytes,
            resumed=totals.resumed,
            units=totals.units,
            tasks=totals.tasks,
            work_s=totals.work_s,
            issues=dict(sorted(totals.issues.items())),
            examples={kind: tuple(rows) for kind, rows in sorted(totals.examples.items())},
            added=totals.changes.added,
            changed=totals.changes.changed,
            deleted=totals.changes.deleted,
        )

    @property
    def exit_code(self) -> int:
        """1 when a person should look at something, else 0."""
        return int(any(severity_of(kind) is Severity.ATTENTION for kind in self.issues))

    @property
    def notices(self) -> list[str]:
        """One sentence for each kind of finding."""
        rows = []
        for kind, count in self.issues.items():
            severity, meaning = KINDS[kind]
            example = self.examples[kind][0]
            rows.append(f"{severity.value}: {kind} ({count}): {meaning}; e.g. {_shown(example)}")
        return rows

    def to_json(self) -> dict[str, Any]:
        """The object that ``modchat migrate run --json`` prints."""
        counts = dict(self.counts)
        return {
            "source": self.source,
            "target": self.target,
            "run": self.run,
            "elapsed_s": round(self.elapsed_s, 6),
            "users": self.users,
            "sessions": counts.pop("sessions"),
            "messages": counts.pop("messages"),
            "documents": counts.pop("documents"),
            "vector_sets": counts.pop("vector_sets"),
            "personas": counts.pop("personas"),
            "panels": counts.pop("panels"),
            "quarantined": counts.pop("quarantined"),
            **counts,
            "attic": self.files.get(ATTIC, 0),
            "ignored": self.files.get(IGNORED, 0),
            "migrated_files": self.files.get(MIGRATED, 0),
            "unread": self.files.get(UNREAD, 0),
            "bytes": self.bytes,
            "resumed": self.resumed,
            "added": self.added,
            "changed": self.changed,
            "deleted": self.deleted,
            "units": self.units,
            "tasks": self.tasks,
            "work_s": round(self.work_s, 6),
            "workers": self.workers,
            "shards": self.shards,
            "issues": dict(self.issues),
            "notices": self.notices,
            "exit_code": self.exit_code,
        }

    def text(self) -> str:
        """The report for a person."""
        figures = self.to_json()
        lines = [f"Migrated {self.source} to {self.target} in {self.elapsed_s:.2f} s (run {self.run})", ""]
        for title, keys in _SECTIONS:
            lines.append(title)
            lines += [f"  {key.replace('_', ' '):<20} {figures[key]:>12,}" for key in keys]
            lines.append("")
        lines.append("What was found" if self.issues else "Nothing unusual was found.")
        for kind, count in self.issues.items():
            severity, meaning = KINDS[kind]
            lines.append(f"  [{severity.value}] {kind} ({count}): {meaning}")
            lines += [f"      {_shown(issue)}" for issue in self.examples[kind][:10]]
            if count > 10:
                lines.append(f"      ... all {count} are in the JSON report or the ledger")
        return "\n".join([*lines, "", NOT_ON_DISK, ""])

    def write(self, directory: str) -> str:
        """Puts the report as text and JSON into *directory*; returns the path without extension."""
        os.makedirs(directory, exist_ok=True)
        base = f"{directory}/run-{self.run:06d}"
        details = {kind: [list(issue[1:]) for issue in rows] for kind, rows in self.examples.items()}
        full = {**self.to_json(), "examples": details, "not_on_disk": NOT_ON_DISK}
        for extension, text in (("json", json.dumps(full, indent=2, ensure_ascii=False) + "\n"), ("txt", self.text())):
            with open(f"{base}.{extension}", "wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        return base


_SECTIONS = (
    ("Migrated", ("users", "sessions", "messages", "documents", "contexts", "profiles", "personas", "panels")),
    ("Also", ("panel_messages", "archived", "archived_messages", "archived_documents", "vector_sets", "resumed")),
    ("Since the run before", ("added", "changed", "deleted")),
    ("Lines of message files", ("lines", "salvaged", "quarantined", "blank")),
    ("Source files", ("migrated_files", "attic", "ignored", "unread", "links", "special", "empty_dirs", "bytes")),
)


def _shown(issue: Issue) -> str:
    return f"{issue.path}: {issue.detail}" if issue.detail else issue.path
