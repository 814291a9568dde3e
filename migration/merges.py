"""Users whose data stands in directories that v2 did not make for them.

A record can name a user whose directory is another one. Where two directories claim the same session or profile of
one user, neither can be migrated alone. So they wait until every directory has been seen, and are put together here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from migration.embed import SourceObject, display_name
from migration.job import Job, SourceFile
from migration.people import write_profile
from migration.sessions import SessionWriter, SourcePart, all_files
from migration.unit import ELSEWHERE, MIGRATED, Unit, UnitDraft, ledger_name, ledger_path
from migration.user_directory import UserDirectory, UserRoot
from migration.users import by_user
from migration.v2.layout import SessionFiles, sort_child
from migration.v2.read import list_below, scan

Parts = list[tuple[SourcePart, SourceObject | None]]


@dataclass(slots=True)
class UserMerge:
    """Puts together what the directories hold of one user; what the home directory holds alone is done.

    *home_redone*: the home directory was migrated after the last time, which may have undone the putting together.
    """

    job: Job
    user_id: str
    directories: Sequence[UserDirectory]
    known: Mapping[str, Unit]
    home: str | None = None
    home_redone: bool = False
    _sessions: dict[tuple[str, str | None], Parts] = field(default_factory=dict)
    _unread: UnitDraft = field(default_factory=lambda: UnitDraft(""))

    def run(self) -> list[tuple[Unit, bool]]:
        for directory in self.directories:
            found: dict[tuple[str, str | None], list[tuple[SourcePart, SourceObject | None]]] = {}
            for place in directory.places:
                self._collect(found, directory, place)
            for key, read in found.items():
                for user_id, _, own, records in by_user(directory, read):
                    if user_id == self.user_id:
                        self._sessions.setdefault(key, []).extend(zip(own, records, strict=True))
        units = [self._profiles()]
        for (session, stamp), parts in sorted(self._sessions.items(), key=lambda item: (item[0][0], item[0][1] or "")):
            if any(part.counted for part, _ in parts):
                units.append(self._session(session, stamp, parts))
        if self._unread.issues:  # said, and not recorded, so that the next run tries again
            units.append((self._unread.finished(), True))
        return [unit for unit in units if unit is not None]

    def _collect(
        self,
        read: dict[tuple[str, str | None], list[tuple[SourcePart, SourceObject | None]]],
        directory: UserDirectory,
        place: UserRoot,
    ) -> None:
        """Reads the records of every session below one place of a directory."""
        user_dir = f"{place.path}/{directory.name}"
        try:
            entries = sorted(scan(user_dir), key=lambda entry: entry.name)
        except OSError as error:
            self._unread.issue("unread", self.job.shown(user_dir), error.strerror or str(error))
            return
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            listing = list_below(entry.path)
            for problem in listing.errors:
                self._unread.issue("unread", self.job.shown(problem.path), problem.reason)
            facts = {f"{entry.name}/{name}": one for name, one in listing.files.items()}
            found = sort_child(entry.name, facts, self.job.names)
            of_all: list[tuple[str, str | None, SessionFiles]]
            of_all = [(session, None, files) for session, files in found.sessions.items()]
            for (deleted, when), files in found.archived.items():
                of_all.append((directory.archived_id(deleted, when, files), when, files))
            for session, stamp, files in of_all:
                counted = directory.name != self.home
                part = SourcePart(user_dir, place.under_users, files, facts, f"{self._name(user_dir)}/", counted)
                record = None
                if files.session is not None:
                    scratch = UnitDraft("")
                    record = self.job.read_object(scratch, part.path(files.session), files.session, ELSEWHERE)
                    self._unread.issues += scratch.issues if record is None else []
                read.setdefault((session, stamp), []).append((part, record))

    def _session(self, session: str, stamp: str | None, parts: Parts) -> tuple[Unit, bool]:
        name = ledger_name(f"{session}//{stamp}" if stamp else session)  # no path of a session holds two slashes
        draft = UnitDraft(name)
        known = self.known.get(name)
        if known is not None:
            # With a part out of reach, what was put together before is better than what could be put together now.
            undone = self.home_redone and not all(part.counted for part, _ in parts)
            unchanged = not undone and self.job.is_unchanged(known, _files_of(part for part, _ in parts))
            if self._unread.issues or unchanged:
                return known, True
        for part, _ in parts:
            if part.files.session is not None:
                self.job.read_object(
                    draft, part.path(part.files.session), part.name(part.files.session), part.disposition
                )
        writer = SessionWriter(
            self.job,
            draft,
            self.user_id,
            self.user_id,
            display_name(session),
            os.fsencode(session),
            [part for part, _ in parts],
            [record for _, record in parts],
            stamp,
        )
        writer.write()
        draft.issue("deferred_user", self.job.shown(parts[-1][0].directory), self.user_id)
        unit = self.job.finished(draft)
        if self._unread.issues:  # a part may be missing: to be done again, whatever its files are then
            unit = msgspec.structs.replace(unit, version=0)
        return unit, False

    def _profiles(self) -> tuple[Unit, bool] | None:
        draft = UnitDraft("")
        found: list[tuple[str, SourceObject, bool]] = []
        foreign = False
        for directory in self.directories:
            for place in directory.places:
                path = f"{place.path}/{directory.name}/{self.job.names.profile}"
                if not os.path.isfile(path) or os.path.islink(path):
                    continue
                at_home = directory.name == self.home
                name = self._name(path)
                record = self.job.read_object(draft, path, name, ELSEWHERE if at_home else MIGRATED)
                if record is None or directory.owner(record)[0] != self.user_id:
                    draft.files.pop(name, None)
                    continue
                foreign |= not at_home
                found.append((path, record, place.under_users))
        known = self.known.get("")
        if any(issue.kind == "unread" for issue in draft.issues):
            self._unread.issues += draft.issues
            return (known, True) if known is not None else None
        if not foreign:
            return None
        source = self.job.settings.source
        now = [
            (name, size, mtime_ns, f"{source}/{ledger_path(name)}") for name, (size, mtime_ns, _) in draft.files.items()
        ]
        undone = self.home_redone and len(found) > 1
        if known is not None and not undone and self.job.is_unchanged(known, now):
            return known, True
        found.sort(key=lambda one: one[1].text("updated_at") or "", reverse=True)
        records = [(path, record) for path, record, _ in found]
        mtime_ns = draft.files[self._name(found[0][0])][1]
        write_profile(self.job, draft, self.user_id, self.user_id, found[0][2], mtime_ns, records)
        if len(found) > 1:
            draft.issue("merged", self.job.shown(found[0][0]), ", ".join(self.job.shown(p) for p, _ in records[1:]))
        else:
            draft.issue("deferred_user", self.job.shown(found[0][0]), self.user_id)
        return self.job.finished(draft), False

    def _name(self, path: str) -> str:
        """A path as the unit names it: relative to the source."""
        return ledger_name(os.path.relpath(path, self.job.settings.source))


def _files_of(parts: Iterable[SourcePart]) -> list[SourceFile]:
    return [
        (part.name(file), part.facts[file].size, part.facts[file].mtime_ns, part.path(file))
        for part in parts
        for file in all_files(part.files)
    ]
