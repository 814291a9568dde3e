"""Persona definitions, global and of users."""

from __future__ import annotations

import json
from typing import Any

from migration.verify.comparison import Item, Tally
from migration.verify.jsontext import ObjectFile, named, object_values, string
from migration.verify.names import Name, shown
from migration.verify.sides import Sides
from migration.verify.source import PersonaFile
from migration.verify.tree import join

_MEMBERS = frozenset(
    [
        "id",
        "name",
        "description",
        "traits",
        "voice",
        "knowledge_areas",
        "behavioral_rules",
        "example_interactions",
        "system_prompt",
        "owner_id",
        "metadata",
        "legacy",
    ]
)
# where each of the two schemas of v2 keeps what the target calls so
_SAME_IN_BOTH = ("name", "description", "system_prompt")
_LISTS = {"knowledge_areas": ("expertise", "expertise_areas"), "traits": ("traits",)}
_FREE = ("traits", "voice", "behavioral_rules", "example_interactions", "knowledge_areas")


def persona_home(owner: Name | None, persona: Name) -> str:
    """The directory of a persona in the target."""
    below = "definitions" if owner is None else f"users/{owner.component}"
    return f"persona/{below}/{persona.component}"


def compare_persona(sides: Sides, tally: Tally, *, owner: Name | None, file: PersonaFile) -> None:
    """Compares one definition. Raises `OSError`."""
    user = owner.text if owner is not None else ""
    persona = Name.of_path(file.path.rpartition("/")[2].removesuffix(".json"))
    home = persona_home(owner, persona)
    definition = sides.object_or_none(file.path)
    if definition is None or _gave_way(sides, file, home):
        sides.attic(tally, user, file.path)
        return
    tally.claims.add(home)
    tally.files["migrated"] += 1
    item = Item("persona", user, shown(file.path))
    present = sides.same_file(item, "original.json", file.path, join(home, "original.json"))
    values = sides.expect_object(item, join(home, "profile.json"), "profile.json")
    if sides.deep:
        with item.quietly(not values):
            _compare(item, owner, persona, file, definition, values)
    tally.close(item, absent=not present and not values)


def _gave_way(sides: Sides, file: PersonaFile, home: str) -> bool:
    """Whether another file of v2, under the alias of the directory, took the place of this one."""
    values = sides.peek(join(home, "profile.json"))
    path = string((object_values(values.get("legacy")) or {}).get("path"))
    if path is None or path == shown(file.path) or path.rpartition("/")[2] != shown(file.path).rpartition("/")[2]:
        return False
    return sides.source.stat_or_none(path) is not None


def _compare(
    item: Item,
    owner: Name | None,
    persona: Name,
    file: PersonaFile,
    definition: ObjectFile,
    values: dict[str, bytes],
) -> None:
    source = definition.values
    item.same("id", persona.text, string(values.get("id")))
    item.same(
        "owner_id",
        owner.text if owner is not None else None,
        string(values.get("owner_id")),
        also=(named(source.get("owner_id")),) if owner is None else (),
    )
    for key in _SAME_IN_BOTH:
        given = named(source.get(key))
        if given is not None:
            item.same(key, given, string(values.get(key)))
        elif key == "name":
            item.same(key, persona.text, string(values.get(key)), also=(None, ""))
        else:
            item.same(key, None, string(values.get(key)), also=("",))
    known = _strings(json.loads(definition.record))
    for key, sources in _LISTS.items():
        given_list = [_strings(json.loads(source[name])) for name in sources if source.get(name, b"").startswith(b"[")]
        lost = {text for texts in given_list for text in texts} - _strings(json.loads(values.get(key, b"null")))
        for text in sorted(lost):
            item.missing(f"{key}", text)
    for key in _FREE:
        # the page leaves to the migration how it is put, but not what it says
        for text in sorted(_strings(json.loads(values.get(key, b"null")))):
            if not any(text in other or other in text for other in known):
                item.differs(key, "something that the definition says", text)
    declared = next((named(source.get(key)) for key in ("id", "persona_id") if named(source.get(key))), None)
    if declared is not None and declared != persona.text:
        metadata = object_values(values.get("metadata")) or {}
        item.same("metadata.declared_id", declared, string(metadata.get("declared_id")))
    legacy = object_values(values.get("legacy")) or {}
    item.same("legacy.path", shown(file.path), string(legacy.get("path")))
    if named(legacy.get("generation")) is None:
        item.missing("legacy.generation")
    for key in sorted(_MEMBERS - values.keys()):
        item.missing(f"member {key}")
    for key in sorted(values.keys() - _MEMBERS):
        item.extra(f"member {key}", values[key])


def _strings(value: Any) -> set[str]:
    """Every non-empty text inside a JSON value, keys of objects included."""
    if isinstance(value, str):
        return {value} if value else set()
    if isinstance(value, list):
        return {text for item in value for text in _strings(item)}
    if isinstance(value, dict):
        return set(value) | {text for item in value.values() for text in _strings(item)}
    return set()
