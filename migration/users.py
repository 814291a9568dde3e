"""One user directory of v2: its profile, its personas and its children, each child a unit of the ledger.

Nearly every child is a plain session, which `plain` migrates. Whatever differs in any way goes through `_child`,
which reads the whole child, sorts its files (`v2.layout`) and lets `sessions` write them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from migration.embed import SourceObject, display_name
from migration.job import Job, SourceFile
from migration.people import write_persona, write_profile
from migration.plain import PlainSessions
from migration.sessions import SessionWriter, SourcePart, all_files
from migration.source_files import files_below, source_files
from migration.target import PutOff, UserTakenError
from migration.unit import ELSEWHERE, IGNORED, UNREAD, Unit, UnitDraft, ledger_name, ledger_path, path_fact, text_fact
from migration.user_directory import UserDirectory, UserRoot
from migration.v2.layout import ChildFiles, sort_child
from migration.v2.read import FileFacts, SourceError, list_below
from modules.core.layout import component


@dataclass(slots=True)
class Progress:
    """How far a user directory has been gone through: the units made or found, and the children that are left.

    read_bytes: of files that were read now; put_off: children (``""``: what stands beside them) that are to
    be migrated, and whether they were before, when the target is only looked at; gone: units that v2 no longer has.
    """

    units: list[tuple[Unit, bool]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    last: str | None = None
    read_bytes: int = 0
    put_off: list[tuple[str, Unit | None]] = field(default_factory=list)
    gone: list[Unit] = field(default_factory=list)


@dataclass(slots=True)
class UserMigration:
    """Migrates a user directory, or a range of its children."""

    job: Job
    user: UserDirectory
    known: Mapping[str, Unit]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _plain: PlainSessions | None = None
    _persona_homes: set[str] = field(default_factory=set)

    def run(self, low: str | None, high: str | None, deadline: float, budget_bytes: int) -> Progress:
        """Goes through the children in ``low < name <= high`` (None: no bound; without *low* also what stands beside
        them) until the deadline (of `time.perf_counter`) or the budget is passed, but does at least one."""
        # Ranges of one user are migrated side by side; what begins at the front is alone.
        may_stage = low is None and not self.known
        try:
            return self._run(low, high, deadline, budget_bytes, may_stage=may_stage)
        except UserTakenError:  # by the platform, which has met the user in the meantime
            return self._run(low, high, deadline, budget_bytes, may_stage=False)

    def _run(
        self, low: str | None, high: str | None, deadline: float, budget_bytes: int, *, may_stage: bool
    ) -> Progress:
        progress = Progress()
        children, beside, problems = self._list()
        above = None if low is None else os.fsencode(low)
        up_to = None if high is None else os.fsencode(high)

        def is_within(name: bytes) -> bool:
            return (above is None or name > above) and (up_to is None or name <= up_to)

        chosen = _by_bytes(children)  # as the ledger orders them
        if not (low is None and high is None):
            chosen = [child for child in chosen if is_within(os.fsencode(child))]
        with self._plain_way(may_stage=may_stage):
            if low is None:
                self._beside_once(progress, beside, problems)
            elif problems:  # said, and not recorded: what stands beside the children is another item's unit
                progress.units.append((_unread(self.job, problems), True))
            self._children(progress, children, chosen, deadline, budget_bytes)
        if not problems and not self.known.keys() <= {"", *children}:
            there = {ledger_name(child) for child in children}
            end = None if progress.last is None or not progress.left else os.fsencode(progress.last)
            for name, unit in self.known.items():
                if not name or name in there:
                    continue
                child = os.fsencode(ledger_path(name))
                if is_within(child) and (end is None or child <= end):
                    progress.gone.append(unit)
        return progress

    def some(self, wanted: Sequence[str], deadline: float, budget_bytes: int) -> Progress:
        """As `run`, for these children; ``""`` is what stands beside them."""
        progress = Progress()
        children, beside, problems = self._list()
        with self._plain_way():
            if "" in wanted:
                self._beside_once(progress, beside, problems)
            chosen = [child for child in wanted if child in children]
            self._children(progress, children, chosen, deadline, budget_bytes)
        return progress

    def _children(
        self,
        progress: Progress,
        children: Mapping[str, list[UserRoot]],
        chosen: Sequence[str],
        deadline: float,
        budget_bytes: int,
    ) -> None:
        plain, units = self._plain, progress.units
        for position, child in enumerate(chosen):
            if position and (time.perf_counter() > deadline or progress.read_bytes > budget_bytes):
                progress.left = list(chosen[position:])
                break
            known = self.known.get(ledger_name(child)) if self.known else None
            if known is not None and plain is not None and plain.is_unchanged(child, known):
                units.append((known, True))
            else:
                try:
                    self._one(progress, child, children[child], known)
                except PutOff:
                    progress.put_off.append((child, known))
            progress.last = child

    def _beside_once(
        self,
        progress: Progress,
        beside: Sequence[tuple[UserRoot, os.DirEntry[str]]],
        problems: Sequence[SourceError],
    ) -> None:
        known = self.known.get("")
        try:
            self._add(progress, self._beside(beside, problems, known), known=known)
        except PutOff:
            progress.put_off.append(("", known))

    @contextmanager
    def _plain_way(self, *, may_stage: bool = False) -> Iterator[None]:
        """Opens the short way for plain sessions, where it can be taken at all. Raises `UserTakenError` at its end."""
        user = self.user
        one_place = len(user.places) == 1 and user.places[0].under_users
        usual = one_place and self.job.settings.source_timezone is None and not user.shown.startswith("persona_")
        if not (usual and user.name.isascii() and user.is_home_of(user.shown)):
            yield
            return
        try:
            directory = f"{user.places[0].path}/{user.name}"
            self._plain = PlainSessions(self.job, directory, user.shown, may_stage=may_stage)
        except OSError:
            yield  # the directory is gone or closed to us: the listing has reported that
            return
        try:
            yield
            self._plain.publish()
        finally:
            self._plain.close()
            self._plain = None

    def again(self, child: str) -> tuple[Unit, bool]:
        """Migrates one child with the knowledge of `splits`, unless it was so before."""
        places = [place for place in self.user.places if os.path.isdir(f"{place.path}/{self.user.name}/{child}")]
        known = self.known.get(ledger_name(child))
        context = repr(sorted(self.splits.items()))
        if known is not None and known.context == context and self._is_unchanged(known, child, places):
            return known, True
        unit = self._child(child, places)
        return msgspec.structs.replace(unit, context=context), False

    def _one(self, progress: Progress, child: str, places: list[UserRoot], known: Unit | None) -> None:
        if known is not None and self._is_unchanged(known, child, places):
            self._add(progress, known, known=known)
            return
        if not self.job.target.is_writable:
            raise PutOff(child)  # at once: it would be read for nothing
        unit = None
        if self._plain is not None:
            unit = self._plain.migrate(child) if known is None else None
            if unit is None:
                self._plain.publish()  # the general way writes beside what is there
        self._add(progress, unit or self._child(child, places))

    def _add(self, progress: Progress, unit: Unit, known: Unit | None = None) -> None:
        progress.units.append((unit, unit is known))
        if unit is not known or unit.racy:  # whose files were read to see whether they are the same
            for file in unit.files:
                progress.read_bytes += file[1]

    # ---- listing

    def _list(self) -> tuple[dict[str, list[UserRoot]], list[tuple[UserRoot, os.DirEntry[str]]], list[SourceError]]:
        children: dict[str, list[UserRoot]] = {}
        beside: list[tuple[UserRoot, os.DirEntry[str]]] = []
        problems: list[SourceError] = []
        for place in self.user.places:
            path = f"{place.path}/{self.user.name}"
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            children.setdefault(entry.name, []).append(place)
                        else:
                            beside.append((place, entry))
            except OSError as error:
                problems.append(SourceError.of(path, error))
        return children, beside, problems

    def _is_unchanged(self, known: Unit, child: str, places: Sequence[UserRoot]) -> bool:
        now: list[SourceFile] = []
        for number, place in enumerate(places):
            found = files_below(f"{place.path}/{self.user.name}", child)
            if found is None:
                return False
            prefix = _prefix(number)
            now += [(prefix + name, size, mtime, path) for name, size, mtime, path in found]
        return self.job.is_unchanged(known, now)

    # ---- any child

    def _child(self, child: str, places: Sequence[UserRoot]) -> Unit:
        draft = UnitDraft(ledger_name(child))
        sessions: dict[str, list[SourcePart]] = {}
        archived: dict[tuple[str, str], list[SourcePart]] = {}
        for number, place in enumerate(places):
            user_dir = f"{place.path}/{self.user.name}"
            facts = self._listed(draft, user_dir, child)
            found = sort_child(child, facts, self.job.names)
            prefix = _prefix(number)
            for session, files in found.sessions.items():
                part = SourcePart(user_dir, place.under_users, files, facts, prefix)
                sessions.setdefault(session, []).append(part)
            for (session, stamp), files in found.archived.items():
                part = SourcePart(user_dir, place.under_users, files, facts, prefix)
                archived.setdefault((self.user.archived_id(session, stamp, files), stamp), []).append(part)
            self._beside_sessions(draft, user_dir, place, found, facts, prefix)
        for session, parts in sorted(sessions.items()):
            self._session(draft, session, parts, None)
        for (session, stamp), parts in sorted(archived.items()):
            self._session(draft, session, parts, stamp)
        return self.job.finished(draft)

    def _listed(self, draft: UnitDraft, user_dir: str, child: str) -> dict[str, FileFacts]:
        """The files below a child, by their path below the user directory; everything else is noted in the draft."""
        listing = list_below(f"{user_dir}/{child}")
        self.job.note_listing(draft, listing, f"{user_dir}/{child}")
        return {f"{child}/{name}": facts for name, facts in listing.files.items()}

    def _beside_sessions(
        self,
        draft: UnitDraft,
        user_dir: str,
        place: UserRoot,
        found: ChildFiles,
        facts: Mapping[str, FileFacts],
        prefix: str,
    ) -> None:
        for file in found.ignored:
            draft.file(prefix + ledger_name(file), facts[file].size, facts[file].mtime_ns, IGNORED)
        for file in found.attic:
            self.job.to_attic(draft, f"{user_dir}/{file}", prefix + ledger_name(file))
        for stem, file in found.personas.items():
            self._persona(draft, user_dir, place, stem, file, prefix)
        for session, vectors in found.vectors.items():
            for path in (vectors.embeddings, vectors.index):
                if path is not None:
                    draft.file(prefix + ledger_name(path), facts[path].size, facts[path].mtime_ns, ELSEWHERE)
            draft.facts.append(["vectors", path_fact(session), path_fact(f"{user_dir}/{vectors.directory}")])

    def _persona(self, draft: UnitDraft, user_dir: str, place: UserRoot, stem: str, file: str, prefix: str) -> None:
        """Migrates a persona; one whose place is another's (of a further place of the directory, or of the directory
        that is its user's own) goes to the attic."""
        user_id, key = self.user.owner(None)
        home = f"persona/users/{component(key)}/{component(os.fsencode(stem))}"
        if home in self._persona_homes or not self.user.is_home_of(user_id):
            self.job.to_attic(draft, f"{user_dir}/{file}", prefix + ledger_name(file))
            return
        self._persona_homes.add(home)
        generation = "G2" if place.under_users else "G1"
        write_persona(
            self.job, draft, f"{user_dir}/{file}", prefix + ledger_name(file), stem, home, user_id, generation
        )

    def _session(self, draft: UnitDraft, session: str, parts: Sequence[SourcePart], stamp: str | None) -> None:
        """Writes a session, or leaves it to the end of the run when its record names a user of another directory."""
        read = [(part, self._record(draft, part)) for part in parts]
        for user_id, key, own_parts, records in by_user(self.user, read):
            if not self.user.is_home_of(user_id):
                self._defer(draft, user_id, own_parts)
                continue
            shown = display_name(session)
            writer = SessionWriter(
                self.job,
                draft,
                user_id,
                key,
                shown,
                os.fsencode(session),
                own_parts,
                records,
                stamp,
                split_with=self.splits.get(shown, ()) if stamp is None else (),
            )
            writer.write()

    def _record(self, draft: UnitDraft, part: SourcePart) -> SourceObject | None:
        if part.files.session is None:
            return None
        path, name = part.path(part.files.session), part.name(part.files.session)
        return self.job.read_object(draft, path, name, part.disposition)

    def _defer(self, draft: UnitDraft, user_id: str, parts: Sequence[SourcePart]) -> None:
        for part in parts:
            for file in all_files(part.files):
                facts = part.facts[file]
                name = part.name(file)
                *_, disposition = draft.files.pop(name, (0, 0, ELSEWHERE))
                if disposition == UNREAD:  # so who it belongs to is not known either: the next run looks again
                    draft.file(name, 0, 0, UNREAD)
                else:
                    draft.file(name, facts.size, facts.mtime_ns, ELSEWHERE)
            draft.facts.append(["foreign", text_fact(user_id), path_fact(self.user.name)])

    # ---- what stands directly in the user directory

    def _beside(
        self,
        entries: Sequence[tuple[UserRoot, os.DirEntry[str]]],
        problems: Sequence[SourceError],
        known: Unit | None,
    ) -> Unit:
        files = source_files((_prefix(self.user.places.index(place)) + entry.name, entry) for place, entry in entries)
        if known is not None and not problems and files is not None and self.job.is_unchanged(known, files):
            return known
        if known is None and not problems and self._plain is not None and len(entries) == 1:
            entry = entries[0][1]
            is_profile = entry.name == self.job.names.profile and entry.is_file(follow_symlinks=False)
            if is_profile and (unit := self._plain.migrate_profile(entry.name)) is not None:
                return unit
        draft = UnitDraft("")
        for problem in problems:
            draft.issue("vanished" if problem.is_gone else "unread", self.job.shown(problem.path), problem.reason)
        profiles: list[tuple[UserRoot, str]] = []
        for place, entry in sorted(entries, key=lambda found: (self.user.places.index(found[0]), found[1].name)):
            name = _prefix(self.user.places.index(place)) + ledger_name(entry.name)
            if not self.job.is_file(draft, entry):
                continue
            if entry.name == self.job.names.profile:
                profiles.append((place, name))
            else:
                self.job.stray(draft, entry.path, name)
        self._profiles(draft, profiles)
        return self.job.finished(draft)

    def _profiles(self, draft: UnitDraft, places: Sequence[tuple[UserRoot, str]]) -> None:
        found: list[tuple[UserRoot, str, SourceObject, int]] = []
        for place, name in places:
            path = f"{place.path}/{self.user.name}/{self.job.names.profile}"
            record = self.job.read_object(draft, path, name)
            if record is not None:
                found.append((place, path, record, draft.files[name][1]))
        owners = {path: self.user.owner(record) for _, path, record, _ in found}
        for user_id, key in dict.fromkeys(owners.values()):
            own = [one for one in found if owners[one[1]][0] == user_id]
            if self.user.is_home_of(user_id):
                own.sort(key=lambda one: one[2].text("updated_at") or "", reverse=True)
                records = [(path, record) for _, path, record, _ in own]
                write_profile(self.job, draft, user_id, key, own[0][0].under_users, own[0][3], records)
                continue
            for place, *_ in own:
                name = next(name for one, name in places if one is place)
                draft.files[name] = (*draft.files[name][:2], ELSEWHERE)
            draft.facts.append(["foreign", text_fact(user_id), path_fact(self.user.name)])


def _by_bytes(names: Collection[str]) -> list[str]:
    """In the order of the bytes that the names are; for ASCII that is the order of the text."""
    return sorted(names) if all(map(str.isascii, names)) else sorted(names, key=os.fsencode)


Records = Sequence[tuple[SourcePart, SourceObject | None]]


def by_user(
    user: UserDirectory, read: Records
) -> list[tuple[str, str | bytes, list[SourcePart], list[SourceObject | None]]]:
    """The parts of one session in one user directory, by the user that their records name.

    A part whose record names nobody, or that has none, goes with the first part that names one.
    """
    groups: dict[str, tuple[str | bytes, list[SourcePart], list[SourceObject | None]]] = {}
    named_first = sorted(read, key=lambda found: found[1] is None or found[1].text("user_id") is None)
    default = user.owner(named_first[0][1])
    for part, record in named_first:
        named = record is not None and record.text("user_id") is not None
        user_id, key = user.owner(record) if named else default
        _, own_parts, records = groups.setdefault(user_id, (key, [], []))
        own_parts.append(part)
        records.append(record)
    return [(user_id, *group) for user_id, group in groups.items()]


def _unread(job: Job, problems: Sequence[SourceError]) -> Unit:
    draft = UnitDraft("")
    for problem in problems:
        draft.issue("vanished" if problem.is_gone else "unread", job.shown(problem.path), problem.reason)
    return draft.finished()


def _prefix(number: int) -> str:
    """What marks a file of a user's second and further places in the ledger."""
    return "" if number == 0 else f"{number}>"
