"""The events that topic_router listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from modules.core.event_calls import EventCall, EventCalls

CALLS: EventCalls = {
    "router.classify": EventCall("classify_content", ("content",), ("context_history", "user_id")),
    "router.route": EventCall(
        "route_to_specialist",
        ("content",),
        ("available_specialists", "user_id", "session_id", "context_history", "capabilities"),
    ),
    "router.update": EventCall("learn_topics", ("examples",), ("user_id",)),
    "router.analyze": EventCall("analyze_routing_efficiency", ("time_period",), ()),
}
