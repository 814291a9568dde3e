"""What personas and panels of v2 become: a persona's profile.json, a conversation's metadata.json. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migration.embed import SourceObject, object_json, text_json, value_json
from migration.transform import Pairs, Part, SessionFacts, exact_json, times_of

_PERSONA_KEYS = {"persona_id", "id", "name", "description", "traits", "communication_style", "behavioral_traits"}
_PERSONA_KEYS |= {"expertise", "expertise_areas", "system_prompt", "owner_id", "metadata"}


def persona_profile(stem: str, record: Mapping[str, Any], *, owner_id: str | None, path: str, generation: str) -> bytes:
    """profile.json of a persona, from either of the two schemas that v2's stores hold.

    v2's own class has traits, expertise, communication_style; the personas of the chat application have
    behavioral_traits, expertise_areas, system_prompt, llm_config_persona and others, kept in `metadata`.
    """
    behaviour = record.get("behavioral_traits")
    behaviour = behaviour if isinstance(behaviour, dict) else {}
    metadata = {key: value for key, value in record.items() if key not in _PERSONA_KEYS}
    own_metadata = record.get("metadata")
    if isinstance(own_metadata, dict):
        metadata |= own_metadata
    declared = record.get("persona_id", record.get("id"))
    if declared is not None and declared != stem:
        metadata["declared_id"] = declared
    traits = record.get("traits")
    if not isinstance(traits, list):
        traits = [*_texts(behaviour.get("personality")), *_texts(behaviour.get("values"))]
        traits += _texts(behaviour.get("strengths"))
    knowledge = record.get("expertise", record.get("expertise_areas"))
    owner = record.get("owner_id")
    mapped = {
        "id": stem,
        "name": record.get("name") if isinstance(record.get("name"), str) else stem,
        "description": record.get("description") if isinstance(record.get("description"), str) else "",
        "traits": traits,
        "voice": behaviour.get("communication_style", record.get("communication_style", "")),
        "knowledge_areas": knowledge if isinstance(knowledge, list) else _texts(knowledge),
        "behavioral_rules": _texts(behaviour.get("decision_making")),
        "example_interactions": [],
        "system_prompt": record.get("system_prompt") if isinstance(record.get("system_prompt"), str) else "",
        "owner_id": owner_id if owner_id is not None else owner,
        "metadata": metadata,
        "legacy": {"generation": generation, "path": path},
    }
    return json.dumps(mapped, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"


def _texts(value: object) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


@dataclass(frozen=True, slots=True)
class PanelFacts:
    """A panel's directory, read."""

    panel_id: str
    path: str
    record: SourceObject | None
    messages: int
    participants: int
    insights: Sequence[str]
    first_timestamp: str | None
    last_timestamp: str | None
    mtime_ns: int
    generation: str
    exact: Mapping[str, Any] = field(default_factory=dict)
    source_timezone: str | None = None


def panel_metadata(facts: PanelFacts) -> bytes:
    """metadata.json of a conversation of agents that was a panel."""
    record = facts.record
    session = SessionFacts(
        "",
        facts.panel_id,
        (Part(facts.path, record),),
        facts.generation,
        facts.messages,
        facts.first_timestamp,
        facts.last_timestamp,
        facts.mtime_ns,
        source_timezone=facts.source_timezone,
    )
    stamps, inferred = times_of(session, record)
    legacy: Pairs = [
        ("generation", text_json(facts.generation)),
        ("path", text_json(facts.path)),
        ("record", record.raw if record else b"null"),
        ("messages", b"%d" % facts.messages),
        ("insights", value_json(list(facts.insights))),
    ]
    if inferred:
        legacy.append(("inferred", value_json(inferred)))
    if facts.exact:
        legacy.append(("exact", exact_json(facts.exact)))
    title = record and (record.text("title") or record.text("topic") or record.text("name"))
    pairs: Pairs = [
        ("id", text_json(facts.panel_id)),
        ("title", text_json(title or "Panel Session")),
        ("type", text_json((record and record.text("type")) or "multi_persona")),
        *stamps,
        ("config", record.raw_object("config") if record else b"{}"),
        ("metadata", record.raw_object("metadata") if record else b"{}"),
        ("message_count", b"%d" % facts.messages),
        ("participants", b"%d" % facts.participants),
        ("decisions", b"%d" % len(facts.insights)),
        ("legacy", object_json(legacy, indent=False)),
    ]
    return object_json(pairs)
