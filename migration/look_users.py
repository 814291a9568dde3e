"""What a run would make of user directories, and of users whose data stands in other directories than theirs.

The rules, and the order of their application, are those of `migration.users` and `migration.merges`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from migration.embed import SourceObject, display_name
from migration.look import Look, Record, record_in
from migration.look_sessions import SessionLook, SessionRecord
from migration.lookalikes import Lookalikes, folded_hash, is_cut
from migration.sessions import SourcePart
from migration.survey import Largest
from migration.unit import MIGRATED
from migration.user_directory import UserRoot
from migration.v2.layout import ChildFiles, natural_home, sort_child
from migration.v2.read import FileFacts, SourceError, is_g1_user, list_below, read_regular, scan

Parts = list[tuple[SourcePart, SessionRecord]]


@dataclass(slots=True)
class UserPlaces:
    """A user directory by its name, in all the places where it stands."""

    look: Look
    name: str
    places: list[UserRoot] = field(default_factory=list)
    _roots: list[UserRoot] = field(default_factory=list)
    _profile_user: str | None = None
    _profile_read: bool = False
    _at_home: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._roots = user_roots(self.look, self.name)
        self.places = [root for root in self._roots if os.path.isdir(f"{root.path}/{self.name}")]

    def owner(self, named: str | None) -> tuple[str, str | bytes]:
        """The user of a record that names *named*: the id, and what its path component is made of."""
        named = named if named is not None else self._named_by_profile()
        return (named, named) if named is not None else (display_name(self.name), os.fsencode(self.name))

    def is_home_of(self, user_id: str) -> bool:
        """Whether this is the directory where v2 put that user."""
        known = self._at_home.get(user_id)
        if known is None:
            home = natural_home(user_id, self._is_user)
            if home is None and user_id == display_name(self.name):
                home = self.name
            known = self._at_home[user_id] = home == self.name
        return known

    def _is_user(self, name: str) -> bool:
        return name == self.name or any(os.path.isdir(f"{root.path}/{name}") for root in self._roots)

    def _named_by_profile(self) -> str | None:
        if not self._profile_read:
            self._profile_read = True
            for place in self.places:
                try:
                    data = read_regular(f"{place.path}/{self.name}/{self.look.settings.names.profile}")
                except OSError:
                    continue  # absent, or found where the profile itself is looked at
                found = record_in(data).found
                if found is not None and (user_id := found.text("user_id")):
                    self._profile_user = user_id
                    break
        return self._profile_user


def user_roots(look: Look, name: str) -> list[UserRoot]:
    """The places where a user directory of that name may stand."""
    source, names = look.settings.source, look.settings.names
    roots = [UserRoot(f"{source}/{users}", True) for users in names.users_dirs]
    if name not in names.reserved_top_level() and is_g1_user(f"{source}/{name}", names):
        roots.append(UserRoot(source, False))
    return roots


def home_of(look: Look, user_id: str) -> str | None:
    """The directory that v2 made for a user id; None when there is none."""
    return natural_home(user_id, lambda name: bool(UserPlaces(look, name).places))


@dataclass(slots=True)
class UserLook:
    """Counts one user directory."""

    look: Look
    user: UserPlaces
    sessions: Lookalikes = field(default_factory=Lookalikes)
    _owners: set[str] = field(default_factory=set)
    _has_profile: bool = False

    def collisions(self) -> list[tuple[str, ...]]:
        """Groups of sessions of one user that look alike; complete when they were `wanted`."""
        return self.sessions.groups()

    def count(self) -> None:
        """Counts everything in the directory."""
        survey = self.look.survey
        sessions_before, bytes_before = survey.counts["sessions"], survey.bytes
        if not self.user.places:
            survey.find("vanished", display_name(self.user.name))
        children, beside = self._list()
        self._beside(beside)
        for child in sorted(children):
            self._child(child, children[child])
        survey.counts["users"] += 1
        sessions = survey.counts["sessions"] - sessions_before
        survey.largest_user = max(survey.largest_user, Largest(survey.bytes - bytes_before, sessions, self.shown))
        if sessions and not self._has_profile:
            survey.find("no_profile", self.shown)
        self._note_owners()

    @property
    def shown(self) -> str:
        place = self.user.places[0].path if self.user.places else self.look.settings.source
        return self.look.shown(f"{place}/{self.user.name}")

    def _list(self) -> tuple[dict[str, list[UserRoot]], list[tuple[UserRoot, os.DirEntry[str]]]]:
        children: dict[str, list[UserRoot]] = {}
        beside: list[tuple[UserRoot, os.DirEntry[str]]] = []
        for place in self.user.places:
            path = f"{place.path}/{self.user.name}"
            try:
                for entry in scan(path):
                    if entry.is_dir(follow_symlinks=False):
                        children.setdefault(entry.name, []).append(place)
                    else:
                        beside.append((place, entry))
            except OSError as error:
                self.look.problem(SourceError.of(path, error))
        return children, beside

    # ---- what stands directly in the directory

    def _beside(self, entries: Sequence[tuple[UserRoot, os.DirEntry[str]]]) -> None:
        profiles: list[tuple[str, FileFacts, Record]] = []
        for _, entry in entries:
            facts = self.look.file_facts(entry)
            if facts is None:
                continue
            if entry.name == self.look.settings.names.profile:
                profiles.append((entry.path, facts, self.look.record(entry.path)))
            else:
                self.look.stray(entry.path, facts)
        found = [record.found for _, _, record in profiles if record.found is not None]
        newest = max(found, key=lambda one: one.text("updated_at") or "", default=None)
        foreign = newest is not None and not self._is_own(newest)
        for path, facts, record in profiles:
            self.look.settle(path, facts, record, counted=not (foreign and record.end == MIGRATED))
        if newest is not None and not foreign:
            self.look.survey.counts["profiles"] += 1
        self._has_profile = newest is not None

    def _is_own(self, profile: SourceObject) -> bool:
        """Whether the profile is of a user whose home this is; another user is put together at the end."""
        user_id, key = self.user.owner(profile.text("user_id"))
        if self.user.is_home_of(user_id):
            self._own(user_id, key)
            return True
        self.look.survey.foreign.add((user_id, self.user.name))
        return False

    # ---- one child

    def _child(self, child: str, places: Sequence[UserRoot]) -> None:
        names = self.look.settings.names
        sessions: dict[tuple[str, str | None], Parts] = {}
        for place in places:
            user_dir = f"{place.path}/{self.user.name}"
            facts = {f"{child}/{name}": one for name, one in self.look.below(f"{user_dir}/{child}").items()}
            found = sort_child(child, facts, names)
            for key, part in parts_of(found, place, user_dir, facts, counted=True):
                sessions.setdefault(key, []).append((part, SessionRecord.of(self.look, part)))
            self._beside_sessions(found, user_dir, facts)
        for (session, stamp), parts in sorted(sessions.items(), key=lambda one: (one[0][0], one[0][1] or "")):
            self._session(session, stamp, parts)

    def _beside_sessions(self, found: ChildFiles, user_dir: str, facts: Mapping[str, FileFacts]) -> None:
        look = self.look
        look.unclaimed(user_dir, found, facts)
        for file in found.personas.values():
            if look.read(f"{user_dir}/{file}", facts[file]) is not None:
                look.survey.counts["personas"] += 1
                look.survey.counts["user_personas"] += 1
                self._own(*self.user.owner(None))
        for vectors in found.vectors.values():
            for path in (vectors.embeddings, vectors.index):
                if path is not None:
                    look.take(f"{user_dir}/{path}", facts[path])
            look.survey.counts["vector_sets"] += 1

    def _session(self, session: str, stamp: str | None, parts: Parts) -> None:
        for user_id, key, own in self._by_user(parts):
            if not self.user.is_home_of(user_id):
                self.look.survey.foreign.add((user_id, self.user.name))
                continue
            self._own(user_id, key)
            records = [record for _, record in own]
            SessionLook(self.look, session, [part for part, _ in own], records, stamp).count()
            if stamp is None:
                note_session(self.look, self.sessions, user_id, session, own[0][0])

    def _by_user(self, parts: Parts) -> list[tuple[str, str | bytes, Parts]]:
        """The parts of a session by the user that their records name; a part without a record goes with the first."""
        if len(parts) == 1:
            return [(*self.user.owner(parts[0][1].user_id), parts)]
        groups: dict[str, tuple[str | bytes, Parts]] = {}
        default: tuple[str, str | bytes] | None = None
        for part, record in sorted(parts, key=lambda one: not one[1].is_usable):
            named = record.user_id is not None
            user_id, key = self.user.owner(record.user_id) if named or default is None else default
            default = default or (user_id, key)
            groups.setdefault(user_id, (key, []))[1].append((part, record))
        return [(user_id, *group) for user_id, group in groups.items()]

    # ---- whose directory it is

    def _own(self, user_id: str, key: str | bytes) -> None:
        if user_id not in self._owners:
            self._owners.add(user_id)
            if is_cut(key):
                self.look.survey.find("cut_name", self.shown, "user id")

    def _note_owners(self) -> None:
        survey = self.look.survey
        default = self.user.owner(None)[0]
        if default in self._owners:
            survey.users.append(folded_hash(default))
        survey.named_users |= self._owners - {default}
        if len(self._owners) > 1:
            survey.find("shared_directory", self.shown, ", ".join(sorted(self._owners)))
        elif self._owners - {display_name(self.user.name)}:
            survey.find("sanitised", self.shown, f"of user {min(self._owners)}")


@dataclass(slots=True)
class MergeLook:
    """Counts what other directories than their own hold of one user, as a run puts it together at its end."""

    look: Look
    user_id: str
    home: str | None
    directories: Sequence[str]
    sessions: Lookalikes = field(default_factory=Lookalikes)
    _added: set[str] = field(default_factory=set)

    @property
    def shown(self) -> str:
        return self.user_id

    def collisions(self) -> list[tuple[str, ...]]:
        """Groups of look-alike sessions that come of the putting together."""
        return [group for group in self.sessions.groups() if self._added & set(group)]

    def count(self) -> None:
        names = dict.fromkeys([*([self.home] if self.home else []), *self.directories])
        found: dict[tuple[str, str | None], Parts] = {}
        profiles = 0
        for user in [UserPlaces(self.look, name) for name in names]:
            for place in user.places:
                profiles += self._profile(user, place)
                for key, part, record in self._parts(user, place):
                    found.setdefault(key, []).append((part, record))
        self.look.survey.counts["profiles"] += bool(profiles)
        for (session, stamp), parts in sorted(found.items(), key=lambda one: (one[0][0], one[0][1] or "")):
            if any(part.counted for part, _ in parts):
                records = [record for _, record in parts]
                SessionLook(self.look, session, [part for part, _ in parts], records, stamp).count()
                self.look.survey.find("deferred_user", self.look.shown(parts[-1][0].directory), self.user_id)
                self._added.add(display_name(session))
            if stamp is None:
                note_session(self.look, self.sessions, self.user_id, session, parts[0][0])
        self.look.survey.named_users.add(self.user_id)

    def _parts(
        self, user: UserPlaces, place: UserRoot
    ) -> Iterator[tuple[tuple[str, str | None], SourcePart, SessionRecord]]:
        user_dir = f"{place.path}/{user.name}"
        for entry in self.look.entries(user_dir) or ():
            if not entry.is_dir(follow_symlinks=False):
                continue
            # What is no file here was noted when the directory itself was gone through.
            facts = {f"{entry.name}/{name}": one for name, one in list_below(entry.path).files.items()}
            found = sort_child(entry.name, facts, self.look.settings.names)
            for key, part in parts_of(found, place, user_dir, facts, counted=user.name != self.home):
                record = SessionRecord.of(self.look, part)
                if user.owner(record.user_id)[0] == self.user_id:
                    yield key, part, record

    def _profile(self, user: UserPlaces, place: UserRoot) -> bool:
        """Counts the user's profile in a directory of another; whether there is one."""
        path = f"{place.path}/{user.name}/{self.look.settings.names.profile}"
        if user.name == self.home or os.path.islink(path) or not os.path.isfile(path):
            return False
        record = self.look.record(path)
        if record.found is None or user.owner(record.found.text("user_id"))[0] != self.user_id:
            return False
        status = os.stat(path, follow_symlinks=False)
        self.look.settle(path, FileFacts(status.st_size, status.st_mtime_ns), record)
        return True


def parts_of(
    found: ChildFiles, place: UserRoot, user_dir: str, facts: dict[str, FileFacts], *, counted: bool
) -> Iterator[tuple[tuple[str, str | None], SourcePart]]:
    """The sessions of a child, live ones and (with their stamp) archived ones."""
    for session, files in found.sessions.items():
        yield (session, None), SourcePart(user_dir, place.under_users, files, facts, "", counted)
    for (session, stamp), files in found.archived.items():
        yield (session, stamp), SourcePart(user_dir, place.under_users, files, facts, "", counted)


def note_session(look: Look, sessions: Lookalikes, user_id: str, session: str, part: SourcePart) -> None:
    """Notes what the session's id becomes in the target."""
    sessions.add(display_name(session), within=user_id)
    if is_cut(os.fsencode(session)):
        look.survey.find("cut_name", look.shown(part.directory), "session id")


def extra_root_sets(look: Look, root: str) -> None:
    """Counts the vector sets of a further root, from which a run takes nothing else."""
    names = look.settings.names
    for users in names.users_dirs:
        if not os.path.isdir(f"{root}/{users}"):
            continue
        for user in look.entries(f"{root}/{users}") or ():
            below = f"{user.path}/{names.sessions_dir}"
            if not user.is_dir(follow_symlinks=False) or os.path.islink(below) or not os.path.isdir(below):
                continue
            facts = {f"{names.sessions_dir}/{name}": one for name, one in list_below(below).files.items()}
            for vectors in sort_child(names.sessions_dir, facts, names).vectors.values():
                for path in (vectors.embeddings, vectors.index):
                    if path is not None:
                        look.take(f"{user.path}/{path}", facts[path])
                look.survey.counts["vector_sets"] += 1
