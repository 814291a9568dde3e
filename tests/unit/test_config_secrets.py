"""Secrets are told by the names of their keys."""

import pytest

from migration.v2.config_keys import KEYS
from migration.v2.config_kinds import BRIDGE_KEYS, V1_KEYS, VARIABLES
from migration.v2.config_secrets import looks_secret, without_secrets


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("api_key", "k", True), ("apiKey", "k", True), ("OPENAI_API_KEY", "k", True), ("password", 1234, True),
        ("db-passwd", "k", True), ("token", "k", True), ("JWT_SECRET", "k", True), ("auth_tokens", ["k"], True),
        ("requires_api_key", True, False), ("api_key", None, False), ("max_tokens", 512, False),
        ("max_tokens", "512", False), ("max_tokens_per_chunk", 800, False), ("keywords_max_count", 10, False),
        ("monkey", "k", False),
    ],
)  # fmt: skip
def test_secrets_are_told_by_their_keys(key, value, secret):
    assert looks_secret(key, value) is secret


def test_no_key_of_v2_s_own_tables_is_taken_for_a_secret():
    names = [key.rpartition(".")[2] for key in KEYS] + list(V1_KEYS) + list(BRIDGE_KEYS) + list(VARIABLES)
    assert [name for name in names if looks_secret(name, "value")] == []


def test_secrets_are_taken_out_at_every_depth_and_named():
    found = []
    value = {"a": [{"token": "t", "b": 1}], "password": "p", "c": {"d": "kept"}}
    assert without_secrets("top", value, found) == {"a": [{"b": 1}], "c": {"d": "kept"}}
    assert found == ["top.a.0.token", "top.password"]
