"""Users and personas of the old API on the platform's store. Synchronous; called from threads.

A user is there when anything of theirs is: a profile, a session, a context, a persona. Reading makes nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from migration.definitions import persona_profile
from migration.legacy_sessions import check_id
from migration.legacy_store import LegacyStore, Record, below, json_file, made_plain
from migration.v2.layout import sanitised
from modules.core.layout import component
from modules.text_chat.raw_object import RawObject

PROFILES = "text_chat/users"
_OF_USERS = (PROFILES, "text_chat/sessions", "memory/short_term", "persona/users")
_EVERYONES, _USERS = "persona/definitions", "persona/users"
_FIELDS = ("user_id", "username", "created_at", "updated_at", "preferences", "metadata")
# Of a persona that the platform has changed: what its profile says, under the old names.
_PLATFORM_NAMES = {"name": "name", "description": "description", "traits": "traits", "system_prompt": "system_prompt"}


class LegacyPeople:
    def __init__(self, store: LegacyStore) -> None:
        self._store = store
        self._files = store.files

    # -- users -----------------------------------------------------------------------------------------------

    def exists(self, user_id: str) -> bool:
        name = component(user_id)
        return any((self._files.base / root / name).is_dir() for root in _OF_USERS)

    def create(self, user_id: str, profile: Mapping[str, Any] | None) -> bool:
        """False when the user is there already. Raises TypeError and ValueError for what is no id."""
        check_id("user_id", user_id)
        with self._store.locks.held(_lock(user_id)):
            if self.exists(user_id):
                return False
            self._write_new(user_id, profile or {})
        return True

    def ensure(self, user_id: str) -> None:
        if not self.exists(user_id):
            self.create(user_id, None)

    def profile(self, user_id: str) -> Record | None:
        """The profile as the old application stored it: what a migration noted of where it came from is left out."""
        stored = self._store.read_object(_profile(user_id))
        return None if stored is None else {name: value for name, value in stored.items() if name != "legacy"}

    def update(self, user_id: str, updates: Mapping[str, Any]) -> bool:
        """The name is replaced, preferences and metadata are merged. False when there is no profile."""
        key = _profile(user_id)
        with self._store.locks.held(_lock(user_id)):
            stored = self._store.read_object(key)
            if stored is None:
                return False
            changes: Record = {"updated_at": self._store.now().isoformat()}
            if "username" in updates:
                changes["username"] = updates["username"]
            for name in ("preferences", "metadata"):
                if name in updates:
                    before = stored.get(name)
                    changes[name] = {**(before if isinstance(before, dict) else {}), **updates[name]}
            document = RawObject.parse(self._files.read(key)).replaced(**changes)
            self._files.write(key, document.to_bytes(), fsync=True)
        return True

    def store(self, profile: Mapping[str, Any]) -> bool:
        """Create or update."""
        user_id = check_id("user_id", profile["user_id"])
        wanted = {name: profile[name] for name in ("username", "preferences", "metadata") if profile.get(name)}
        if self.update(user_id, wanted):
            return True
        with self._store.locks.held(_lock(user_id)):
            if self._store.read_object(_profile(user_id)) is None:
                self._write_new(user_id, wanted)
                return True
        return self.update(user_id, wanted)

    def put(self, record: Mapping[str, Any]) -> None:
        """Make the profile what *record* says, a record of the old application."""
        key = _profile(check_id("user_id", record["user_id"]))
        with self._store.locks.held(_lock(record["user_id"])):
            wanted = {name: record[name] for name in _FIELDS if name in record}
            if self._store.read_object(key) is None:
                self._store.write_object(key, wanted)
            else:
                document = RawObject.parse(self._files.read(key)).replaced(**made_plain(wanted))
                self._files.write(key, document.to_bytes(), fsync=True)

    def listed(self) -> list[str]:
        found: set[str] = set()
        for root in _OF_USERS:
            found.update(name for _, name in self._store.names_below(root, "profile.json", "user_id"))
        return sorted(found)

    def _write_new(self, user_id: str, profile: Mapping[str, Any]) -> None:
        now = self._store.now().isoformat()
        made = (user_id, profile.get("username") or "", now, now)
        more = (dict(profile.get("preferences") or {}), dict(profile.get("metadata") or {}))
        self._store.write_object(_profile(user_id), dict(zip(_FIELDS, (*made, *more), strict=True)))

    # -- personas --------------------------------------------------------------------------------------------

    def save_persona(self, persona_id: str, data: Mapping[str, Any], user_id: str | None) -> bool:
        """Replace the persona of everyone, or of a user. Raises TypeError and ValueError for what cannot be kept."""
        check_id("persona_id", persona_id)
        original = json_file(dict(data))
        with self._store.locks.held(f"persona\0{user_id or ''}"):
            name = self._stored_name(persona_id, user_id) or persona_id
            home = _persona_home(name, user_id)
            mapped = json.loads(persona_profile(name, data, owner_id=user_id, path="", generation="G6"))
            del mapped["legacy"]  # nothing that was migrated
            self._files.write(f"{home}/original.json", original, fsync=True)
            self._store.write_object(f"{home}/profile.json", mapped)
        return True

    def persona(self, persona_id: str, user_id: str | None) -> Record | None:
        """The user's own, else everyone's."""
        for owner in dict.fromkeys((user_id, None)):
            name = self._stored_name(persona_id, owner)
            if name is not None:
                found = self._persona_at(_persona_home(name, owner))
                if found is not None:
                    return found
        return None

    def personas(self, user_id: str | None) -> list[Record]:
        """Everyone's, then the user's; each by name. What cannot be read is left out."""
        homes: list[str] = []
        for root in (_EVERYONES, *([below(_USERS, user_id)] if user_id is not None else [])):
            homes += [f"{root}/{name}" for name in self._files.directories(root)]
        return [found for home in homes if (found := self._persona_at(home)) is not None]

    def _stored_name(self, persona_id: str, user_id: str | None) -> str | None:
        """Under which of its names the persona stands: its own, or the one that the old application's files had."""
        for name in dict.fromkeys((persona_id, sanitised(persona_id))):
            found = self._store.read_object(f"{_persona_home(name, user_id)}/profile.json")
            if found is None:
                continue
            declared = (found.get("metadata") or {}).get("declared_id", name)
            if name == persona_id or (declared in (persona_id, name) and "legacy" in found):
                return name
        return None

    def _persona_at(self, home: str) -> Record | None:
        original = self._store.read_object(f"{home}/original.json")
        profile = self._store.read_object(f"{home}/profile.json")
        if profile is None:
            return original
        if original is not None and profile.get("version", 1) == 1:
            return original
        changed = {old: profile[new] for new, old in _PLATFORM_NAMES.items() if new in profile}
        changed["expertise"] = profile.get("knowledge_areas", [])
        own = original if original is not None else {"id": profile.get("id"), "metadata": profile.get("metadata", {})}
        return {**own, **changed}


def snapshots(people: LegacyPeople, personas: Iterable[str]) -> dict[str, Record]:
    """What everyone's personas are now, by id; those that are not there are left out."""
    found = {persona_id: people.persona(persona_id, None) for persona_id in personas}
    return {persona_id: record for persona_id, record in found.items() if record is not None}


def _profile(user_id: str) -> str:
    return f"{PROFILES}/{component(user_id)}/profile.json"


def _persona_home(name: str, user_id: str | None) -> str:
    return below(_EVERYONES, name) if user_id is None else below(_USERS, user_id, name)


def _lock(user_id: str) -> str:
    return f"user\0{user_id}"
