"""Looking at a v2 store: what a run would do with each file, without doing it.

Every file gets the end that the run gives it (`migration.job`), by the same rules. For that the small JSON records
are read (who owns a session, and whether a record is one at all, decides where things go); messages, documents and
vectors are never opened. Nothing is written anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from migration.embed import SourceObject, display_name, source_object
from migration.job import RunSettings, attic_path
from migration.survey import Survey
from migration.unit import ATTIC, IGNORED, MIGRATED, UNREAD
from migration.v2.layout import ChildFiles
from migration.v2.names import LOCK_SUFFIX
from migration.v2.read import FileFacts, Listing, SourceError, list_below, read_file, scan, special_kind

RECENT_S = 300
LONGEST_PATH = 4000

_RECENT_NS = RECENT_S * 1_000_000_000


VANISHED = ""  # the end of a file that is gone: it is in no sum
_FINDING_OF_END = {ATTIC: "attic_json", UNREAD: "unread", VANISHED: "vanished"}


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON record of v2 that was looked at: how its file will end, and its object where that was parsed."""

    found: SourceObject | None
    end: str = MIGRATED
    reason: str = ""


PLAIN = Record(None)  # as v2 itself writes it: there is an object, and no need to parse it


def record_in(data: bytes) -> Record:
    """The record that a file of these bytes is."""
    found = source_object(data)
    return Record(None, ATTIC, found) if isinstance(found, str) else Record(found)


@dataclass(slots=True)
class Look:
    """One look at a part of the source, summed in `survey`. *as_root*: every file can be read whatever its mode."""

    settings: RunSettings
    now_ns: int
    as_root: bool
    survey: Survey = field(default_factory=Survey)

    def shown(self, path: str) -> str:
        """A source path as reports give it: relative to its root, as text."""
        for root in (self.settings.source, *self.settings.extra_roots):
            if path.startswith(root + "/"):
                return display_name(path[len(root) + 1 :])
        return display_name(path)

    # ---- listing

    def below(self, directory: str) -> dict[str, FileFacts]:
        """The files below *directory* by their paths relative to it; everything else there is noted."""
        listing = list_below(directory)
        if listing.links or listing.special or listing.errors or listing.empty_dirs:
            self._note(listing, directory)
        recent = self.now_ns - _RECENT_NS
        for name, facts in listing.files.items():
            if facts.mtime_ns > recent:
                self._note_recent(f"{directory}/{name}")
        return listing.files

    def entries(self, directory: str) -> list[os.DirEntry[str]] | None:
        """The entries of *directory* by name; None, and noted, when it cannot be listed."""
        try:
            return sorted(scan(directory), key=lambda entry: entry.name)
        except OSError as error:
            self.problem(SourceError.of(directory, error))
            return None

    def file_facts(self, entry: os.DirEntry[str]) -> FileFacts | None:
        """The facts of an entry that is no directory; None, and noted, for what is no regular file or is gone."""
        try:
            if entry.is_symlink():
                self._note_link(entry.path, os.readlink(entry.path))
                return None
            status = entry.stat(follow_symlinks=False)
            if not entry.is_file(follow_symlinks=False):
                self._note_special(entry.path, special_kind(status.st_mode))
                return None
        except OSError as error:
            self.problem(SourceError.of(entry.path, error))
            return None
        if status.st_mtime_ns > self.now_ns - _RECENT_NS:
            self._note_recent(entry.path)
        return FileFacts(status.st_size, status.st_mtime_ns)

    def problem(self, error: SourceError) -> None:
        """Notes what could not be listed; what is gone since it was listed is no more than a notice."""
        kind = "vanished" if error.is_gone else "unread"
        self.survey.find(kind, self.shown(error.path), error.reason)

    # ---- the ends of files

    def take(self, path: str, facts: FileFacts, counted: bool = True) -> bool:
        """A file that a rule claims; whether it can be read. One not *counted* is counted elsewhere."""
        return self._end(path, facts, MIGRATED if counted else None)

    def attic(self, path: str, facts: FileFacts) -> None:
        """A file that no rule claims."""
        if not self._end(path, facts, ATTIC):
            return
        temporary = self.settings.names.is_temporary(path.rpartition("/")[2])
        self.survey.find("temporary" if temporary else "attic", self.shown(path))
        self._note_length(path)

    def stray(self, path: str, facts: FileFacts) -> None:
        """A file where nothing is expected: an empty lock is ignored, anything else goes to the attic."""
        if path.endswith(LOCK_SUFFIX) and facts.size == 0:
            self.survey.file(IGNORED)
        else:
            self.attic(path, facts)

    def unclaimed(self, directory: str, found: ChildFiles, facts: Mapping[str, FileFacts]) -> None:
        """What `sort_child` left to the attic, and the locks."""
        for file in found.ignored:
            self.survey.file(IGNORED, facts[file].size)
        for file in found.attic:
            self.attic(f"{directory}/{file}", facts[file])

    def content(self, path: str) -> bytes | Record:
        """The bytes of a JSON record that was listed, or how its file ends when it cannot be read."""
        try:
            return read_file(path, None, self.now_ns)[0]
        except FileNotFoundError:
            return Record(None, VANISHED, "gone since it was listed")
        except OSError as error:
            return Record(None, UNREAD, error.strerror or str(error))

    def record(self, path: str) -> Record:
        """Reads a JSON record. Its end is for `settle` to count."""
        data = self.content(path)
        return data if isinstance(data, Record) else record_in(data)

    def settle(self, path: str, facts: FileFacts, record: Record, counted: bool = True) -> SourceObject | None:
        """Counts the file of a record where it ends; gives its object. One not *counted* is counted elsewhere."""
        if not counted:
            return record.found
        if record.end != VANISHED:
            self.survey.file(record.end, 0 if record.end == UNREAD else facts.size)
        if record.end in _FINDING_OF_END:
            self.survey.find(_FINDING_OF_END[record.end], self.shown(path), record.reason)
        elif record.found is not None and record.found.encoding != "utf-8":
            self.survey.find("cp1252", self.shown(path))
        if record.end == ATTIC:
            self._note_length(path)
        return record.found

    def read(self, path: str, facts: FileFacts, counted: bool = True) -> SourceObject | None:
        """The object of a record whose file is counted at once."""
        return self.settle(path, facts, self.record(path), counted)

    def _end(self, path: str, facts: FileFacts, end: str | None) -> bool:
        if not self.as_root and not os.access(path, os.R_OK, effective_ids=True):
            if end is not None:
                gone = not os.path.lexists(path)
                self.survey.find("vanished" if gone else "unread", self.shown(path), "" if gone else "no permission")
                if not gone:
                    self.survey.file(UNREAD)
            return False
        if end is not None:
            self.survey.file(end, facts.size)
        return True

    # ---- what is noted

    def _note(self, listing: Listing, directory: str) -> None:
        for name, target in listing.links.items():
            self._note_link(f"{directory}/{name}", target)
        for name, kind in listing.special.items():
            self._note_special(f"{directory}/{name}", kind)
        for error in listing.errors:
            self.problem(error)
        self.survey.counts["empty_dirs"] += len(listing.empty_dirs)

    def _note_link(self, path: str, target: str) -> None:
        self.survey.find("link", self.shown(path), f"to {display_name(target)}")
        self.survey.counts["links"] += 1

    def _note_special(self, path: str, kind: str) -> None:
        self.survey.find("special", self.shown(path), kind)
        self.survey.counts["special"] += 1

    def _note_recent(self, path: str) -> None:
        self.survey.find("fresh_lock" if path.endswith(LOCK_SUFFIX) else "recent", self.shown(path))

    def _note_length(self, path: str) -> None:
        length = len(os.fsencode(f"{self.settings.target}/{attic_path(self.settings, path)}"))
        if length > LONGEST_PATH:
            self.survey.find("long_path", self.shown(path), f"{length} bytes in the target's attic")
