"""The events that persona listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from modules.core.event_calls import EventCall, EventCalls

CALLS: EventCalls = {
    "persona.create": EventCall("create_persona", ("name", "traits"), ("backstory", "examples", "user_id", "fields")),
    "persona.activate": EventCall("activate_persona", ("persona_id",), ("session_id", "user_id", "strength")),
    "persona.update": EventCall("update_persona", ("persona_id", "changes"), ("user_id", "expected_version")),
    "persona.evaluate": EventCall("evaluate_consistency", ("messages", "persona_id"), ("user_id",)),
}
