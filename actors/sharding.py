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


_USER = Rule("user_id")
_USER_AGAIN = Rule("user_id", may_repeat=True)
_OWN = Rule("user_id", default="")
_OWN_AGAIN = Rule("user_id", default="", may_repeat=True)

RULES: Mapping[str, ModuleRules] = {
    "text_chat": ModuleRules(
        methods={
            "create_session": _USER,
            "delete_session": _USER,
            "end_session": _USER,
            "fork_session": _USER,
            "get_messages": _USER_AGAIN,
            "get_session": _USER_AGAIN,
            "list_sessions": _USER_AGAIN,
            "rename_session": _USER_AGAIN,
            "search_messages": _USER_AGAIN,
            "send_message": _USER,  # repeated when it has an idempotency key
            "stream_response": _USER,
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
    "memory": ModuleRules(
        methods={
            "consolidate_memories": _USER,
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
}

_NO_RULES = ModuleRules()
_NO_RULE = Rule()


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
