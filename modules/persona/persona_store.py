"""Personas on disk. Synchronous; called from threads.

``persona/definitions/<persona>/`` holds what is everyone's, ``persona/users/<user>/<persona>/`` what is one user's:
profile.json as it is now, ``versions/<n>.json`` as it was, byte for byte, and of a migrated one original.json, which
is never touched. A version is put aside before the profile is replaced, so a crash between the two loses nothing and
the next change writes the same bytes again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.core.layout import component, name_of
from modules.core.storage import FlatFiles

from .profile import Persona, Record, persona_of

log = logging.getLogger(__name__)

DEFINITIONS, USERS = "persona/definitions", "persona/users"
_VERSION = re.compile(r"([0-9]{6,})\.json")
_LONGEST_ID = 1_000


class PersonaStore:
    """*owner_id* None means everyone. Writes for one owner are for one writer."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files

    def get(self, owner_id: str | None, persona_id: str, version: int | None = None) -> Persona:
        """The persona as it is, or as it was in *version*. Raises NotFound, and StorageError for a damaged file."""
        record = self._record(owner_id, persona_id)
        current = persona_of(record, persona_id, owner_id)
        if version is None or version == current.version:
            return current
        key = _version_key(owner_id, persona_id, version)
        try:
            older = _parsed(key, self._files.read(key))
        except NotFound:
            raise NotFound(f"persona {persona_id!r} has no version {version}") from None
        return persona_of({"version": version, **older}, persona_id, owner_id)

    def find(self, persona_id: str, user_id: str | None) -> Persona:
        """The one that *user_id* means: the user's own, else everyone's. Raises NotFound."""
        if user_id is not None:
            try:
                return self.get(user_id, persona_id)
            except NotFound:
                pass  # then everyone's
        return self.get(None, persona_id)

    def of_owner(self, owner_id: str | None) -> list[Persona]:
        """By id. One whose file is damaged is left out, and logged."""
        found = []
        for name in self._files.directories(_root(owner_id)):
            try:
                record = self._read(f"{_root(owner_id)}/{name}")
            except NotFound:
                continue  # made or removed at this moment
            except StorageError as error:
                log.warning("a persona of %r cannot be read: %s", owner_id, error)
                continue
            found.append(persona_of(record, _id_of(name, record), owner_id))
        return sorted(found, key=lambda one: one.id)

    def create(self, owner_id: str | None, persona_id: str, members: Mapping[str, Any], now: str) -> Persona:
        """Raises Conflict when there is one of this id."""
        check_id(persona_id)
        if self._files.exists(_profile_key(owner_id, persona_id)):
            raise Conflict(f"there is a persona {persona_id!r} already", candidates=(persona_id,))
        record: Record = {
            "id": persona_id,
            "name": persona_id,
            "description": "",
            "traits": [],
            "voice": "",
            "knowledge_areas": [],
            "behavioral_rules": [],
            "example_interactions": [],
            "system_prompt": "",
            "owner_id": owner_id,
            "metadata": {},
            **members,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }
        # What a crash in the middle of a removal may have left would be taken for versions of this one.
        self._files.delete_tree(_home(owner_id, persona_id))
        self._files.write(_profile_key(owner_id, persona_id), _encoded(record), fsync=True)
        return persona_of(record, persona_id, owner_id)

    def change(
        self, owner_id: str | None, persona_id: str, members: Mapping[str, Any], now: str, *, keep: int
    ) -> Persona:
        """Make the next version; of older ones the first and the newest are kept, *keep* versions in all. Members that
        are not named stay as they are."""
        key = _profile_key(owner_id, persona_id)
        record = self._record(owner_id, persona_id)
        version = persona_of(record, persona_id, owner_id).version
        aside = _version_key(owner_id, persona_id, version)
        self._files.write(aside, self._files.read(key), fsync=True)
        changed: Record = {**record, **members, "version": version + 1, "updated_at": now}
        self._files.write(key, _encoded(changed), fsync=True)
        for older in surplus_of(self.versions(owner_id, persona_id), keep):
            self._files.delete(_version_key(owner_id, persona_id, older))
        return persona_of(changed, persona_id, owner_id)

    def versions(self, owner_id: str | None, persona_id: str) -> list[int]:
        """Numbers of what can be had, ascending; the last is the present one. Raises NotFound."""
        current = self.get(owner_id, persona_id).version
        return sorted({*self._put_aside(_home(owner_id, persona_id)), current})

    def delete(self, owner_id: str | None, persona_id: str) -> None:
        """Remove it with all its versions. Raises NotFound."""
        self._record(owner_id, persona_id)
        self._files.delete_tree(_home(owner_id, persona_id))

    def export(self, owner_id: str) -> dict[str, str]:
        """Text of every file of an owner, by its path below the owner's directory."""
        root = _root(owner_id) + "/"
        return {
            key.removeprefix(root): self._files.read(key).decode("utf-8", "replace") for key in self._files.list(root)
        }

    def erase(self, owner_id: str) -> int:
        """Remove all personas of a user. Returns how many there were."""
        count = len(self._files.directories(_root(owner_id)))
        self._files.delete_tree(_root(owner_id))
        return count

    def _record(self, owner_id: str | None, persona_id: str) -> Record:
        check_id(persona_id)
        try:
            return self._read(_home(owner_id, persona_id))
        except NotFound:
            whose = "everyone" if owner_id is None else f"user {owner_id!r}"
            raise NotFound(f"{whose} has no persona {persona_id!r}") from None

    def _read(self, home: str) -> Record:
        """The record with its version. One that a migration has written says none: it is the first, or, where it was
        migrated again over what had become of it here, the one after all those."""
        key = f"{home}/profile.json"
        data = self._files.read(key)
        record = _parsed(key, data)
        if "version" not in record:
            last = max(self._put_aside(home), default=0)
            is_put_aside = last > 0 and self._files.read(f"{home}/{_file_of(last)}") == data
            record["version"] = max(1, last if is_put_aside else last + 1)
        return record

    def _put_aside(self, home: str) -> list[int]:
        prefix = f"{home}/versions/"
        matches = (_VERSION.fullmatch(key.removeprefix(prefix)) for key in self._files.list(prefix))
        return sorted(int(match[1]) for match in matches if match)


def surplus_of(versions: Sequence[int], keep: int) -> Sequence[int]:
    """Which of a persona's versions (ascending) go, so that *keep* are left: the oldest ones, but for the very first,
    which is how the persona came, and the present one."""
    between = versions[1:-1]
    return between[: max(0, min(len(between), len(versions) - keep))]


def check_id(persona_id: object) -> None:
    if not isinstance(persona_id, str) or not 1 <= len(persona_id) <= _LONGEST_ID:
        raise ValidationError(f"persona_id must be text of 1 to {_LONGEST_ID} characters", param="persona_id")


def id_for(name: str, taken: set[str]) -> str:
    """An id after a persona's name: ``Dr. Who`` becomes ``dr-who``, a second one ``dr-who-2``."""
    stem = re.sub(r"\W+", "-", name.casefold()).strip("-")[:60] or "persona"
    number = 1
    while (candidate := stem if number == 1 else f"{stem}-{number}") in taken:
        number += 1
    return candidate


def _root(owner_id: str | None) -> str:
    return DEFINITIONS if owner_id is None else f"{USERS}/{component(owner_id)}"


def _home(owner_id: str | None, persona_id: str) -> str:
    return f"{_root(owner_id)}/{component(persona_id)}"


def _profile_key(owner_id: str | None, persona_id: str) -> str:
    return f"{_home(owner_id, persona_id)}/profile.json"


def _version_key(owner_id: str | None, persona_id: str, version: int) -> str:
    return f"{_home(owner_id, persona_id)}/{_file_of(version)}"


def _file_of(version: int) -> str:
    return f"versions/{version:06d}.json"


def _id_of(name: str, record: Mapping[str, Any]) -> str:
    """What a directory's name stands for; of a name that was cut, the id inside knows it."""
    stored = record.get("id")
    if isinstance(stored, str) and stored and component(stored) == name:
        return stored
    return name_of(name) or name


def _parsed(key: str, data: bytes) -> Record:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{key} is damaged and is left as it is: {error}", key=key) from error
    if not isinstance(record, dict):
        raise StorageError(f"{key} is damaged and is left as it is: not an object", key=key)
    return record


def _encoded(record: Mapping[str, Any]) -> bytes:
    # What a migrated profile holds may be more than strict JSON has: NaN, lone surrogates. It is kept as it was.
    return json.dumps(record, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
