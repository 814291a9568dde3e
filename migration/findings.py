"""What a plan has to tell about a source: every kind of finding, in the order in which reports give them."""

from __future__ import annotations

from typing import NamedTuple

from migration.issues import Severity


class FindingKind(NamedTuple):
    """*title* is for a list, *meaning* says what a run makes of it."""

    severity: Severity
    title: str
    meaning: str


_LOOK, _NOTICE = Severity.ATTENTION, Severity.NOTICE

FINDINGS: dict[str, FindingKind] = {
    "unread": FindingKind(_LOOK, "unreadable", "cannot be read here and would not be migrated"),
    "stopped": FindingKind(_LOOK, "listing failed", "a run ends here too; what comes after is not in these figures"),
    "user_collision": FindingKind(
        _LOOK, "users that look alike", "equal but for case or Unicode form: one path where the target folds names"
    ),
    "session_collision": FindingKind(
        _LOOK, "sessions that look alike", "equal but for case or Unicode form: one path where the target folds names"
    ),
    "long_path": FindingKind(_LOOK, "paths too long", "longer than 4000 bytes at the target; choose a shorter --to"),
    "fresh_lock": FindingKind(_NOTICE, "fresh locks", "touched in the last five minutes: v2 is probably in use"),
    "recent": FindingKind(
        _NOTICE, "fresh files", "changed in the last five minutes: v2 is probably in use, or the store was just copied"
    ),
    "attic_json": FindingKind(_NOTICE, "damaged records", "no JSON object; goes to the attic byte for byte"),
    "cp1252": FindingKind(_NOTICE, "records not in UTF-8", "read as cp1252"),
    "attic": FindingKind(_NOTICE, "unknown files", "no rule claims them; carried to the attic byte for byte"),
    "temporary": FindingKind(_NOTICE, "temporary files", "left by interrupted writes; carried to the attic"),
    "link": FindingKind(_NOTICE, "symbolic links", "reported, never followed"),
    "special": FindingKind(_NOTICE, "special files", "reported, never opened"),
    "vanished": FindingKind(_NOTICE, "vanished", "gone while this plan was made"),
    "sanitised": FindingKind(
        _NOTICE, "renamed users", "v2 changed the id to name the directory; another id may have got the same name"
    ),
    "shared_directory": FindingKind(
        _NOTICE, "directories of several users", "v2 gave several ids one directory; each gets its own"
    ),
    "cut_name": FindingKind(_NOTICE, "long names", "over 200 bytes: cut in paths, whole inside the files"),
    "deferred_user": FindingKind(
        _NOTICE, "sessions of another user", "the record names another user than the directory; the record is right"
    ),
    "merged": FindingKind(_NOTICE, "sessions in several places", "one session in the target; all parts kept"),
    "no_record": FindingKind(
        _NOTICE, "sessions without record", "title, times and type come from messages, names and file times"
    ),
    "no_times": FindingKind(_NOTICE, "records without times", "times come from messages or file times"),
    "no_profile": FindingKind(_NOTICE, "users without profile", "the user's id is the directory's name"),
    "document_without_entry": FindingKind(_NOTICE, "documents not listed", "title and type come from the file's name"),
    "entry_without_file": FindingKind(_NOTICE, "listed documents missing", "the entry is kept, without an original"),
}
