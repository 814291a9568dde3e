"""Personas as files elsewhere have them: this platform's export, and both schemas of v2. Pure.

======================  =====================================================================================
this platform           ``{"format": "modchat.persona", "version": 1, "persona": {...}}``
v2's class              id, name, description, traits, expertise, communication_style, metadata
v2's chat application   persona_id, name, description, system_prompt, behavioral_traits, expertise_areas, ...
======================  =====================================================================================

What has no field here (demographics, capabilities, ...) is kept in ``metadata``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.core.errors import ValidationError

from .profile import Persona

FORMAT, FORMAT_VERSION = "modchat.persona", 1

_EXPORTED = (
    "name",
    "description",
    "traits",
    "backstory",
    "voice",
    "knowledge_areas",
    "behavioral_rules",
    "examples",
    "system_prompt",
    "template",
    "metadata",
)
_NOT_METADATA = frozenset(
    """persona_id id name description traits expertise expertise_areas communication_style behavioral_traits
    system_prompt metadata owner_id is_global created_at updated_at""".split()  # noqa: SIM905 - a list literal would be fifteen lines
)

_READ_OF_BEHAVIOUR = frozenset({"personality", "values", "strengths", "communication_style", "decision_making"})


def exported(persona: Persona) -> dict[str, Any]:
    """What `fields_of` reads again; whose it is and its dates are not in it."""
    values = persona.to_dict()
    fields = {name: values[name] for name in _EXPORTED}
    return {"format": FORMAT, "version": FORMAT_VERSION, "persona": {"id": persona.id, **fields}}


def fields_of(data: object) -> tuple[str | None, dict[str, Any]]:
    """The id that the file names, and the fields of the persona as callers name them, unchecked.

    Raises ValidationError for what is no persona in any of the three forms.
    """
    if not isinstance(data, Mapping):
        raise ValidationError("a persona's file must hold an object", param="data")
    if "format" in data:
        return _own(data)
    if not isinstance(data.get("name"), str):
        raise ValidationError("a persona needs a name", param="name")
    return _id_in(data), _of_v2(data)


def _own(data: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    persona = data.get("persona")
    if data["format"] != FORMAT or data.get("version") != FORMAT_VERSION or not isinstance(persona, Mapping):
        raise ValidationError(
            f"not {FORMAT} of version {FORMAT_VERSION}: {data['format']!r}, {data.get('version')!r}", param="format"
        )
    unknown = [name for name in persona if name not in _EXPORTED and name != "id"]
    if unknown:
        raise ValidationError(f"an exported persona has no field {unknown[0]!r}", param=str(unknown[0]))
    return _id_in(persona), {name: persona[name] for name in _EXPORTED if name in persona}


def _of_v2(data: Mapping[str, Any]) -> dict[str, Any]:
    behaviour = data.get("behavioral_traits")
    behaviour = behaviour if isinstance(behaviour, Mapping) else {}
    traits = data.get("traits")
    if traits is None:
        traits = [*_list(behaviour.get("personality")), *_list(behaviour.get("values"))]
        traits += _list(behaviour.get("strengths"))
    own_metadata = data.get("metadata")
    metadata = {key: value for key, value in data.items() if key not in _NOT_METADATA}
    ways = {key: value for key, value in behaviour.items() if key not in _READ_OF_BEHAVIOUR}
    if ways:
        metadata["behavioral_traits"] = ways
    return {
        "name": data["name"],
        "description": data.get("description") or "",
        "traits": _list(traits),
        "voice": _voice(behaviour.get("communication_style", data.get("communication_style"))),
        "knowledge_areas": _list(data.get("expertise", data.get("expertise_areas"))),
        "behavioral_rules": _list(behaviour.get("decision_making")),
        "system_prompt": data.get("system_prompt") or "",
        "metadata": metadata | (dict(own_metadata) if isinstance(own_metadata, Mapping) else {}),
    }


def _id_in(data: Mapping[str, Any]) -> str | None:
    found = data.get("persona_id", data.get("id"))
    return found if isinstance(found, str) and found else None


def _voice(value: object) -> Any:
    return "; ".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, Mapping) else value or ""


def _list(value: object) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]
