"""The events that memory listens to, each answered by a call. What goes wrong is left to the bus to report."""

from __future__ import annotations

from modules.core.event_calls import EventCall, EventCalls

_SCOPE = ("user_id", "session_id", "agent_id")

CALLS: EventCalls = {
    "memory.store": EventCall("store_memory", ("key", "content"), ("memory_type", "ttl", "metadata", *_SCOPE)),
    "memory.recall": EventCall("recall_memory", ("key",), ("memory_type", *_SCOPE)),
    "memory.search": EventCall("search_memories", ("query",), ("memory_type", "limit", *_SCOPE)),
    "memory.consolidate": EventCall("consolidate_memories", ("user_id",), ("strategy",)),
    "session.context.save": EventCall("save_context", ("user_id", "session_id", "context"), ()),
}
