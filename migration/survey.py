"""What a look at a v2 store found, in sums: small, picklable, and the same in whatever order its parts are added."""

from __future__ import annotations

from array import array
from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from migration.issues import Issue
from migration.unit import ATTIC, IGNORED, MIGRATED, UNREAD, printable

EXAMPLES = 10


@dataclass(slots=True)
class Finding:
    """How often something was found, and the first few places in order of their paths."""

    count: int = 0
    examples: list[Issue] = field(default_factory=list)

    def add(self, issue: Issue) -> None:
        self.count += 1
        self._keep(issue)

    def merge(self, other: Finding) -> None:
        self.count += other.count
        for issue in other.examples:
            self._keep(issue)

    def _keep(self, issue: Issue) -> None:
        if len(self.examples) < EXAMPLES or issue < self.examples[-1]:
            insort(self.examples, issue)
            del self.examples[EXAMPLES:]


class Largest(NamedTuple):
    """The largest user or session so far. *sessions* is 1 for a session."""

    bytes: int = 0
    sessions: int = 0
    name: str = ""


@dataclass(slots=True)
class Survey:
    """Sums over pieces of a source.

    counts: by the names of `unit.COUNTS` and some more; files: by how they will end (`unit.MIGRATED`, ...); layouts:
    sessions by what their names tell; users: 8-byte hashes of the users that directories belong to, one for each;
    named_users: the ids of other users, whom records name; foreign: (user id, directory) where a record names a user
    of another directory; personas: the ids that a directory of global personas holds.
    """

    counts: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    generations: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)
    largest_user: Largest = field(default_factory=Largest)
    largest_session: Largest = field(default_factory=Largest)
    users: array[int] = field(default_factory=lambda: array("Q"))
    named_users: set[str] = field(default_factory=set)
    foreign: set[tuple[str, str]] = field(default_factory=set)
    personas: dict[str, frozenset[str]] = field(default_factory=dict)

    def find(self, kind: str, path: str, detail: str = "") -> None:
        """Notes a finding of *kind* (`findings.KINDS`) about *path*."""
        self.findings.setdefault(kind, Finding()).add(Issue(kind, printable(path), printable(detail)))

    def file(self, disposition: str, size: int = 0) -> None:
        """Counts a file by how it will end."""
        self.files[disposition] += 1
        self.bytes += size

    def merge(self, other: Survey) -> None:
        self.counts += other.counts
        self.files += other.files
        self.bytes += other.bytes
        self.generations += other.generations
        self.layouts += other.layouts
        for kind, finding in other.findings.items():
            self.findings.setdefault(kind, Finding()).merge(finding)
        self.largest_user = max(self.largest_user, other.largest_user)
        self.largest_session = max(self.largest_session, other.largest_session)
        self.users.extend(other.users)
        self.named_users |= other.named_users
        self.foreign |= other.foreign
        self.personas |= other.personas

    def issues(self, kind: str) -> Iterable[Issue]:
        """Examples of a kind; none when it was not found."""
        return self.findings[kind].examples if kind in self.findings else ()

    def figures(self) -> dict[str, int]:
        """Every sum by its name in reports; those that a run gives too have the run's name."""
        return {
            "users": self.counts["users"],
            **{name: self.counts[name] for name in _COUNTED},
            "attic": self.files[ATTIC],
            "ignored": self.files[IGNORED],
            "migrated_files": self.files[MIGRATED],
            "unread": self.files[UNREAD],
            "bytes": self.bytes,
            "files": self.files.total(),
            **{name: self.counts[name] for name in _OF_A_PLAN},
        }


_COUNTED = (
    "sessions",
    "documents",
    "vector_sets",
    "personas",
    "panels",
    "archived",
    "archived_documents",
    "profiles",
    "contexts",
    "links",
    "special",
    "empty_dirs",
)
_OF_A_PLAN = ("message_files", "message_bytes", "document_files", "user_personas", "global_personas", "shards")
