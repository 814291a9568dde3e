"""A user directory of v2 by its name: where it stands, and whose it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from migration.embed import SourceObject, display_name, source_object
from migration.job import Job
from migration.v2.layout import SessionFiles, is_own_directory, natural_home
from migration.v2.read import read_regular


@dataclass(frozen=True, slots=True)
class UserRoot:
    """One place where a user's directory may stand: below a users directory, or (G1) below the base itself."""

    path: str
    under_users: bool


@dataclass(slots=True)
class UserDirectory:
    """A user directory by its name, in all the places where it stands."""

    job: Job
    name: str
    roots: Sequence[UserRoot]
    places: list[UserRoot] = field(default_factory=list)
    _profile_user: str | None = None
    _profile_read: bool = False
    _at_home: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = [root for root in self.roots if os.path.isdir(f"{root.path}/{self.name}")]

    @property
    def shown(self) -> str:
        return display_name(self.name)

    def owner(self, record: SourceObject | None) -> tuple[str, str | bytes]:
        """The user of a session with that record: the id, and what its path component is made of."""
        named = record.text("user_id") if record else None
        if named is None:
            named = self._named_by_profile()
        return (named, named) if named is not None else (self.shown, os.fsencode(self.name))

    def is_home_of(self, user_id: str) -> bool:
        """Whether this is the directory where v2 put that user; if not, the user is put together at the end."""
        known = self._at_home.get(user_id)
        if known is None:
            known = self._at_home[user_id] = self.home_of(user_id) == self.name
        return known

    def home_of(self, user_id: str) -> str | None:
        """The directory that v2 made for a user id, or None when there is none of that name."""
        if user_id == self.name and is_own_directory(user_id):
            return self.name
        return natural_home(user_id, self._is_user) or (self.name if user_id == self.shown else None)

    def _is_user(self, name: str) -> bool:
        return name == self.name or any(os.path.isdir(f"{root.path}/{name}") for root in self.roots)

    def archived_id(self, session: str, stamp: str, files: SessionFiles) -> str:
        """The id of a deleted session: its own, unless ``a.backup_X/b`` and ``a/b.backup_X`` both claim it; then the
        first keeps its whole path."""
        outright = f"{session}.backup_{stamp}"
        if files.directory == outright or not any(
            os.path.isdir(f"{place.path}/{self.name}/{outright}") for place in self.places
        ):
            return session
        return files.directory

    def _named_by_profile(self) -> str | None:
        if not self._profile_read:
            self._profile_read = True
            for place in self.places:
                try:
                    data = read_regular(f"{place.path}/{self.name}/{self.job.names.profile}", self.job.now_ns)
                except OSError:
                    continue  # absent, or reported where the profile itself is migrated
                found = source_object(data)
                if not isinstance(found, str) and (user_id := found.text("user_id")):
                    self._profile_user = user_id
                    break
        return self._profile_user
