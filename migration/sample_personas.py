"""Personas in both schemas, and a panel of them."""

from __future__ import annotations

from random import Random
from typing import Any

from migration.sample_sessions import G3, message
from migration.sample_text import Prose
from migration.sample_tree import MINUTE, SECOND, SampleTree, iso, moment, stamp

_MADE = moment(2025, 7, 24, 9)

DR_WHO: dict[str, Any] = {
    "id": "dr. who",
    "name": "Dr. Who",
    "description": "A traveller who answers with another question",
    "traits": ["curious", "restless"],
    "expertise": ["history", "physics"],
    "communication_style": {"tone": "playful", "formality": "low"},
    "created_at": iso(_MADE),
    "updated_at": iso(_MADE),
    "is_global": True,
    "owner_id": None,
    "metadata": {"source": "workshop"},
}

# As the chat application's authors typed them: their own key order and layout, no final newline.
_BY_HAND = {
    "dr._sarah_wilson": """{
  "persona_id": "dr._sarah_wilson",
  "name": "Dr. Sarah Wilson",
  "description": "A clinical researcher who weighs evidence",
  "category": "professional",
  "demographics": { "age": 46, "occupation": "Clinical Researcher", "location": "Montréal" },
  "behavioral_traits": {
    "communication_style": "Calm and precise",
    "decision_making": "Evidence first",
    "values": ["accuracy", "care"],
    "strengths": ["statistics", "study design"]
  },
  "capabilities": ["analytical", "medical"],
  "expertise_areas": ["clinical trials", "epidemiology"],
  "llm_config_persona": { "llm_provider": "openai", "temperature": 0.30, "max_tokens": 2500 },
  "system_prompt": "You are Dr. Sarah Wilson, a clinical researcher. You weigh evidence before you answer."
}""",
    "marcus_chen": """{
    "persona_id": "marcus_chen", "name": "Marcus Chen",
    "category": "creative",
    "description": "A designer who thinks in pictures",
    "demographics": {"age": null, "occupation": "Designer", "location": "Taipei"},
    "behavioral_traits": {"communication_style": "Vivid", "values": ["play"], "personality": "Warm"},
    "capabilities": ["creative"],
    "llm_config_persona": {"llm_provider": "ollama_local", "temperature": 7e-1, "max_tokens": 2000},
    "enable_context_analysis": true, "context_analysis_note": "Looks at the last ten messages",
    "system_prompt": "You are Marcus Chen, a designer."
}""",
}


def write_global_personas(tree: SampleTree) -> None:
    tree.json("personas_global/dr._who.json", DR_WHO, _MADE)
    for persona, text in _BY_HAND.items():
        tree.raw(f"personas_global/{persona}.json", text.encode(), _MADE + MINUTE)
    tree.count(personas=1 + len(_BY_HAND))


def write_user_personas(tree: SampleTree, home: str, user_id: str) -> None:
    """One persona in each schema that belongs to one user."""
    own = DR_WHO | {"id": "coach", "name": "Coach", "is_global": False, "owner_id": user_id}
    tree.json(f"{home}/personas/coach.json", own, _MADE)
    tree.raw(f"{home}/personas/marcus_chen.json", _BY_HAND["marcus_chen"].encode(), _MADE)
    tree.count(personas=2)


def write_panel(tree: SampleTree, rng: Random, prose: Prose) -> None:
    """A panel with messages, two snapshots of personas as they were, and insights."""
    started = moment(2025, 7, 30, 14, 15) + 123_456
    panel = f"panel_{stamp(started)}"
    home = f"panel_sessions/{panel}"
    tree.json(
        f"{home}/panel.json",
        {
            "id": panel,
            "type": "expert_panel",
            "personas": ["dr. who", "dr._sarah_wilson", "nobody_defined_me"],
            "created_at": iso(started),
            "updated_at": iso(started + 15),
            "message_count": 0,
            "config": {"rounds": 2},
            "metadata": {"topic": "Is the café menu robust?"},
        },
        started,
    )
    # Snapshots carry the raw id in their name, unlike the global files.
    tree.json(f"{home}/personas/dr. who.json", DR_WHO | {"traits": ["curious"]}, started)
    tree.raw(f"{home}/personas/dr._sarah_wilson.json", _BY_HAND["dr._sarah_wilson"].encode(), started)

    records: list[dict[str, Any]] = []
    for number in range(6):
        speaker = ("dr. who", "dr._sarah_wilson", "nobody_defined_me")[number % 3]
        at = started + (number + 1) * 20 * SECOND
        record = message(G3, rng, role=speaker, content=prose.message(rng), at=at, metadata={})
        record["persona_id"] = speaker
        record["response_to"] = records[-1]["message_id"] if records else None
        record["consensus_level"] = round(number / 6, 2) if records else None
        records.append(record)
    tree.jsonl(f"{home}/messages.jsonl", records, started + 3 * MINUTE)

    for number, kind in enumerate(("conclusion", "recommendation")):
        insight = f"insight_{rng.getrandbits(48):012x}"
        at = started + (4 + number) * MINUTE
        tree.json(
            f"{home}/insights/{insight}.json",
            {
                "id": insight,
                "panel_id": panel,
                "type": kind,
                "content": prose.message(rng),
                "supporting_messages": [record["message_id"] for record in records[number::2]],
                "consensus_level": 0.75,
                "created_at": iso(at),
                "created_by": "system",
                "metadata": {},
            },
            at,
        )
    tree.count(panels=1, panel_messages=len(records), insights=2)
