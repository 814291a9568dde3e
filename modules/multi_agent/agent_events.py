"""The events that multi_agent listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from modules.core.event_calls import EventCall, EventCalls

CALLS: EventCalls = {
    "agent.register": EventCall("register_agent", ("agent_id", "agent_type"), ("capabilities", "metadata", "user_id")),
    "agent.message": EventCall("tell_agents", ("message", "agent_ids"), ("user_id",)),
    "conversation.start": EventCall(
        "start_conversation",
        ("topic", "agent_ids"),
        (
            "max_turns",
            "user_id",
            "strategy",
            "termination",
            "options",
            "agreement",
            "leader",
            "title",
            "metadata",
            "idempotency_key",
        ),
    ),
    "conversation.turn": EventCall("add_turn", ("conversation_id", "content"), ("user_id",)),
}
