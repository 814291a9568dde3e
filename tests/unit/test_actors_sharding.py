from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.hosting import CHORES
from actors.manifest import manifest_of
from actors.sharding import RULES, Rule, argument, given_key, may_repeat, no_key, rules_of, shard_of
from modules.core.loader import build


@given(st.text(), st.integers(1, 256))
def test_every_text_has_one_shard_among_those_there_are(key: str, shards: int) -> None:
    assert shard_of(key, shards) == shard_of(key, shards)
    assert 0 <= shard_of(key, shards) < shards


def test_a_key_has_the_same_shard_in_every_process_and_version() -> None:
    code = "from actors.sharding import shard_of; print([shard_of(f'user-{n}', 7) for n in range(8)])"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert elsewhere.strip() == str([shard_of(f"user-{n}", 7) for n in range(8)])
    assert [shard_of(key, 7) for key in ("", "alice", "bob", "\ud800")] == [4, 5, 4, 0]


def test_keys_spread_evenly() -> None:
    counts = Counter(shard_of(f"user-{number}", 8) for number in range(8000))
    assert all(800 < count < 1200 for count in counts.values())


@pytest.mark.parametrize("module", sorted(RULES))
def test_the_table_names_functions_and_arguments_that_the_module_has(module: str) -> None:
    instance = build(module, {})
    functions = manifest_of(module, instance, ()).functions
    not_yet = {"stream_response"}
    for method, rule in RULES[module].methods.items():
        if method in not_yet and method not in functions:
            continue
        assert method in functions, method
        if rule.key is not None:
            keywords = getattr(instance, method).__code__
            names = keywords.co_varnames[: keywords.co_argcount + keywords.co_kwonlyargcount]
            assert rule.key in names, method


@pytest.mark.parametrize("module", sorted(RULES))
def test_every_function_of_a_sharded_module_has_a_rule(module: str) -> None:
    for_the_host = {"health_check", *(chore.method for chore in CHORES.get(module, ()))}
    functions = set(manifest_of(module, build(module, {}), ()).functions)
    assert functions - for_the_host <= RULES[module].methods.keys()


@pytest.mark.parametrize(
    ("args", "kwargs", "key"),
    [
        (("s", "bob"), {}, "bob"),
        (("s",), {"user_id": "bob"}, "bob"),
        (("s",), {}, None),
        (("s", None), {}, None),
        ((), {"user_id": 5}, None),
    ],
)
def test_the_key_is_found_by_name_or_by_place(args: tuple, kwargs: dict, key: str | None) -> None:
    assert given_key(Rule("user_id"), ("session_id", "user_id"), args, kwargs) == key


def test_a_key_that_is_not_given_has_the_rules_default() -> None:
    assert given_key(Rule("user_id", default=""), (), (), {}) == ""
    assert given_key(Rule(default=""), (), (), {"user_id": "bob"}) == ""


def test_an_argument_that_cannot_be_given_by_place_is_none_unless_named() -> None:
    assert argument("user_id", ("session_id",), ("s",), {}) is None
    assert argument("user_id", ("session_id",), ("s",), {"user_id": "u"}) == "u"


def test_a_send_is_repeated_only_with_an_idempotency_key() -> None:
    rule = rules_of("text_chat").methods["send_message"]
    assert not may_repeat(rule, {})
    assert not may_repeat(rule, {"idempotency_key": None})
    assert may_repeat(rule, {"idempotency_key": "k"})
    assert may_repeat(rules_of("text_chat").methods["get_messages"], {})


def test_a_module_without_a_table_has_no_rules_and_the_error_says_what_to_give() -> None:
    assert rules_of("no_such").methods == {}
    assert "say shard_key in do" in str(no_key("m", "do", Rule(), 3))
