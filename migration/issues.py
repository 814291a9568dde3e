"""What a migration has to tell about the data: every kind of finding, and whether a person must look at it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Severity(Enum):
    NOTICE = "notice"  # nothing is lost and nothing need be done
    ATTENTION = "attention"  # something is not as it must be: the run ends with exit code 1


class Issue(NamedTuple):
    """One finding. *path* is the path in v2 (as text), *detail* says what was found."""

    kind: str
    path: str
    detail: str = ""


KINDS: dict[str, tuple[Severity, str]] = {
    "attic": (Severity.NOTICE, "no rule claims the file; carried to the attic byte for byte"),
    "attic_json": (Severity.NOTICE, "not a JSON object; carried to the attic, its place built from what else there is"),
    "cp1252": (Severity.NOTICE, "not UTF-8; read as cp1252"),
    "deferred_user": (Severity.NOTICE, "belongs to the user that its record names, not to its directory's"),
    "deleted": (Severity.NOTICE, "gone from v2 since an earlier run; archived, and no longer live"),
    "document_without_entry": (Severity.NOTICE, "document that documents/metadata.json does not list"),
    "duplicate_ids": (Severity.NOTICE, "message ids that occur more than once; all kept"),
    "entry_without_file": (Severity.NOTICE, "documents/metadata.json lists a document that is not there"),
    "link": (Severity.NOTICE, "symbolic link; not followed, its target is named here"),
    "merged": (Severity.NOTICE, "one session or profile from several directories"),
    "not_built": (Severity.NOTICE, "derived file that could not be built here"),
    "quarantined": (Severity.NOTICE, "line that does not parse; kept in quarantine.jsonl"),
    "salvaged": (Severity.NOTICE, "line that did not parse whole; its record became a message, its bytes are kept"),
    "shard_differs": (Severity.NOTICE, "per-persona copy with lines that the session's messages lack"),
    "special": (Severity.NOTICE, "not a file; never opened"),
    "split": (Severity.NOTICE, "two halves of a session that v2 stored under different users"),
    "temporary": (Severity.NOTICE, "left-over of an interrupted write; carried to the attic"),
    "vanished": (Severity.NOTICE, "gone from the source; what was migrated of it is kept"),
    "vector_orphans": (Severity.NOTICE, "vectors without a line, or lines without a vector"),
    "vector_owner": (Severity.NOTICE, "vector set whose owner is not certain; it stays with its directory's user"),
    "vector_unreadable": (Severity.NOTICE, "vectors that numpy cannot read; carried over byte for byte"),
    "conflict": (Severity.ATTENTION, "v2 and the platform say different things; both are kept"),
    "replaced": (Severity.ATTENTION, "changed on both sides; v2's stands, the platform's is in .migration/replaced"),
    "still_written": (Severity.ATTENTION, "v2 was written to during the final run: fence it, then run --final again"),
    "unread": (Severity.ATTENTION, "could not be read and is not migrated"),
    "unbalanced": (Severity.ATTENTION, "the sums of files or lines do not match"),
}


def severity_of(kind: str) -> Severity:
    return KINDS[kind][0]
