"""Which of a module's shards a call belongs to.

A table names, for each method, the argument that is the key; a stable hash of its value picks the shard. The same key
has the same shard in every process of a run, so it has one writer; files are named without the shard, so the number
may change from run to run.

The key of text_chat is the user, not the session: limits, the list of sessions and the choice of a free session id
are the user's, and a session has one user. A call that names only the session first asks whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from modules.core.errors import ValidationError


@dataclass(frozen=True, slots=True)
class Rule:
    """``key`` is the argument that picks the shard; ``default`` what the module takes it for where it is not given.
    ``may_repeat``: doing it twice does no more than doing it once, so it is asked again when its outcome is unknown.
    """

    key: str | None = None
    default: str | None = None
    may_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a key that was not given is found: ``method`` of the module, asked with the argument ``by``, gives a value
    whose attribute ``attribute`` is the key. It only reads, so any shard can answer it."""

    method: str
    by: str
    attribute: str


@dataclass(frozen=True, slots=True)
class ModuleRules:
    methods: Mapping[str, Rule] = field(default_factory=dict)
    events: Mapping[str, Rule] = field(default_factory=dict)
    lookup: Lookup | None = None
    can_split: bool = True


_USER = Rule("user_id")
_USER_AGAIN = Rule("user_id", may_repeat=True)
_OWN = Rule("user_id", default="")
_OWN_AGAIN = Rule("user_id", default="", may_repeat=True)

RULES: Mapping[str, ModuleRules] = {
    "text_chat": ModuleRules(
        methods={
            "complete": _OWN,
            "create_session": _USER,
            "delete_session": _USER,
            "describe_model": Rule(default="", may_repeat=True),
            "end_session": _USER,
            "erase_user": _USER_AGAIN,
            "export_user": _USER_AGAIN,
            "fork_session": _USER,
            "get_messages": _USER_AGAIN,
            "get_session": _USER_AGAIN,
            "list_sessions": _USER_AGAIN,
            "rename_session": _USER_AGAIN,
            "search_messages": _USER_AGAIN,
            "send_message": _USER,  # repeated when it has an idempotency key
            "stream_response": _USER,
            "update_session_metadata": _USER_AGAIN,
        },
        events={
            "chat.message.send": _USER,
            "chat.session.create": _USER,
            "chat.session.start": _USER,
            "chat.session.end": _USER,
            "chat.history.request": _USER,
        },
        lookup=Lookup("get_session", "session_id", "user_id"),
    ),
    "rag": ModuleRules(
        methods={
            "add_document": _OWN_AGAIN,  # the same document has the same id
            "delete_document": _OWN,
            "erase_user": _USER_AGAIN,
            "export_user": _USER_AGAIN,
            "extract_text": Rule(default="", may_repeat=True),
            "get_document": _OWN_AGAIN,
            "get_relevant_context": _OWN_AGAIN,
            "index_status": _OWN_AGAIN,
            "list_documents": _OWN_AGAIN,
            "list_indexes": _OWN_AGAIN,
            "locate_original": _OWN_AGAIN,
            "read_original": _OWN_AGAIN,
            "search_by_vector": _OWN_AGAIN,
            "search_knowledge": _OWN_AGAIN,
            "update_embeddings": _OWN_AGAIN,
            "verify_source": _OWN_AGAIN,
        },
        events={
            "rag.document.add": _OWN,
            "rag.index.update": _OWN,
            "rag.query": _OWN,
            "rag.source.verify": _OWN,
        },
    ),
    "memory": ModuleRules(
        methods={
            "consolidate_memories": _USER,
            "delete_memory": _OWN,
            "erase_user": _USER,
            "export_user": _USER_AGAIN,
            "get_context_window": _USER_AGAIN,
            "recall": Rule(default="", may_repeat=True),
            "recall_memory": _OWN_AGAIN,
            "save_context": _USER,
            "search_memories": _OWN_AGAIN,
            "store": Rule(default="", may_repeat=True),
            "store_memory": _OWN_AGAIN,
        },
        events={
            "memory.store": _OWN,
            "memory.recall": _OWN,
            "memory.search": _OWN,
            "memory.consolidate": _USER,
            "session.context.save": _USER,
        },
    ),
    # All but the making of images gives the same the second time.
    "multimodal": ModuleRules(
        methods={
            "add_upload": _OWN_AGAIN,
            "analyze": _OWN_AGAIN,
            "analyze_audio": _OWN_AGAIN,
            "analyze_video": _OWN_AGAIN,
            "convert": _OWN_AGAIN,
            "delete_upload": _OWN,
            "erase_user": _USER_AGAIN,
            "export_user": _USER_AGAIN,
            "extract_text": _OWN_AGAIN,
            "generate_image": _OWN,
            "get_upload": _OWN_AGAIN,
            "list_uploads": _OWN_AGAIN,
            "locate_upload": _OWN_AGAIN,
            "process_image": _OWN_AGAIN,
            "read_upload": _OWN_AGAIN,
            "transcribe_audio": _OWN_AGAIN,
        },
        events={
            "multimodal.process": _OWN,
            "multimodal.generate": _OWN,
            "multimodal.convert": _OWN,
            "multimodal.analyze": _OWN,
        },
    ),
    # Who knows a conversation asks for its owner, whose shard runs it.
    "multi_agent": ModuleRules(
        methods={
            "add_turn": _USER,
            "cancel_conversation": _USER_AGAIN,
            "continue_conversation": _USER,
            "coordinate_task": _OWN,  # repeated when it has an idempotency key
            "delete_conversation": _USER,
            "erase_user": _USER_AGAIN,
            "export_user": _USER_AGAIN,
            "follow_conversation": _USER,
            "get_agent": _OWN_AGAIN,
            "get_conversation": _USER_AGAIN,
            "get_decisions": _USER_AGAIN,
            "get_task": _USER_AGAIN,
            "get_turns": _USER_AGAIN,
            "list_agents": _OWN_AGAIN,
            "list_conversations": _OWN_AGAIN,
            "register_agent": _OWN_AGAIN,
            "resume_conversation": _USER_AGAIN,
            "resume_interrupted": Rule(default="", may_repeat=True),
            "send_to_agents": _OWN,
            "start_conversation": _OWN,  # as coordinate_task
            "tell_agents": _OWN,
            "unregister_agent": _OWN,
            "wait_for_conversation": _USER_AGAIN,
        },
        events={
            "agent.register": _OWN,
            "agent.message": _OWN,
            "conversation.start": _OWN,
            "conversation.turn": _USER,
        },
        lookup=Lookup("get_conversation", "conversation_id", "user_id"),
    ),
    # Who is not named is everyone: everyone's personas have one writer, as each user's have.
    "persona": ModuleRules(
        methods={
            "activate_persona": _OWN_AGAIN,
            "active_persona": _OWN_AGAIN,
            "create_persona": _OWN,
            "deactivate_persona": _OWN_AGAIN,
            "delete_persona": _OWN,
            "erase_user": _USER_AGAIN,
            "evaluate_consistency": _OWN_AGAIN,
            "export_persona": _OWN_AGAIN,
            "export_user": _USER_AGAIN,
            "get_persona": _OWN_AGAIN,
            "import_persona": _OWN,
            "inject_personality": _OWN_AGAIN,
            "list_personas": _OWN_AGAIN,
            "list_versions": _OWN_AGAIN,
            "shape_prompt": _OWN_AGAIN,
            "update_persona": _OWN,
        },
        events={
            "persona.create": _OWN,
            "persona.activate": _OWN,
            "persona.update": _OWN,
            "persona.evaluate": _OWN,
        },
    ),
    # Examples and specialists have one writer; routes are balanced and logged by the shard of their user.
    "topic_router": ModuleRules(
        methods={
            "analyze_routing_efficiency": Rule(default="", may_repeat=True),
            "classify_content": _OWN_AGAIN,
            "erase_user": Rule(default="", may_repeat=True),
            "export_user": Rule(default="", may_repeat=True),
            "find_boundaries": _OWN_AGAIN,
            "forget_examples": Rule(default="", may_repeat=True),
            "judge_route": _OWN_AGAIN,
            "learn_topics": Rule(default="", may_repeat=True),
            "list_examples": Rule(default="", may_repeat=True),
            "list_specialists": _OWN_AGAIN,
            "list_topics": _OWN_AGAIN,
            "prune_log": _OWN_AGAIN,
            "register_specialist": Rule(default="", may_repeat=True),
            "remove_specialist": Rule(default="", may_repeat=True),
            "report_outcome": _OWN_AGAIN,
            "route_to_specialist": _OWN,
        },
        events={
            "router.classify": _OWN,
            "router.route": _OWN,
            "router.update": Rule(default=""),
            "router.analyze": Rule(default=""),
        },
    ),
    # One shard, always; what is said here is what may be asked again.
    "tool_use": ModuleRules(
        can_split=False,  # limits, circuit breakers and costs are a tool's, whoever calls it
        methods={
            "close_idle": Rule(default="", may_repeat=True),
            "cost_today": Rule(default="", may_repeat=True),
            "create_tool_chain": _OWN,
            "delete_chain": _OWN_AGAIN,
            "discover_tools": _OWN_AGAIN,
            "erase_user": _USER_AGAIN,
            "execute_chain": _OWN,
            "execute_tool": _OWN,
            "export_user": _USER_AGAIN,
            "get_tool": _OWN_AGAIN,
            "import_tools": _OWN_AGAIN,
            "list_chains": _OWN_AGAIN,
            "list_servers": Rule(default="", may_repeat=True),
            "register_tool": _OWN_AGAIN,
            "tool_status": _OWN_AGAIN,
            "unregister_tool": _OWN_AGAIN,
            "validate_parameters": _OWN_AGAIN,
        },
        events={
            "tool.register": _OWN,
            "tool.execute": _OWN,
            "tool.chain": _OWN,
            "tool.validate": _OWN,
        },
    ),
}

_NO_RULES = ModuleRules()
_NO_RULE = Rule()


def can_split(module: str) -> bool:
    """Whether the module may have several actors."""
    return module in RULES and RULES[module].can_split


def rules_of(module: str) -> ModuleRules:
    """The table's rules; of a module that is not in it, none: it can be asked while it has one shard."""
    return RULES.get(module, _NO_RULES)


def rule_of(rules: ModuleRules, method: str) -> Rule:
    return rules.methods.get(method, _NO_RULE)


def shard_of(key: str, shards: int) -> int:
    """The shard, from 0, that *key* belongs to among so many."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass")) % shards


def given_key(rule: Rule, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The key among the arguments of a call; *parameters* names those given by place. None when it is not there."""
    if rule.key is None:
        return rule.default
    value = argument(rule.key, parameters, args, kwargs)
    return value if isinstance(value, str) else rule.default


def argument(name: str, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any | None:
    """The argument of that name, given by name or by place; None when it is not given."""
    if name in kwargs:
        return kwargs[name]
    place = parameters.index(name) if name in parameters else len(args)
    return args[place] if place < len(args) else None


def may_repeat(rule: Rule, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call whose outcome is unknown may be made again."""
    return rule.may_repeat or kwargs.get("idempotency_key") is not None


def no_key(module: str, method: str, rule: Rule, shards: int) -> ValidationError:
    """The error for a call that could be for any of several shards."""
    wanted = f"say {rule.key}" if rule.key is not None else "say shard_key"
    return ValidationError(f"{module} has {shards} shards: {wanted} in {method}", param=rule.key or "shard_key")
