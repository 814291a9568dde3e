"""Names in the platform's tree: each id is one component, no two ids share one, and none leads out of the base."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from uuid import NAMESPACE_URL, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.layout import component, derived_message_id, document_id, name_of, session_dir, vector_index_id

TEXT = st.text(st.characters(), max_size=30)
NAMES = st.one_of(
    TEXT, st.text("%./~-2EF", max_size=12), st.text("aé", min_size=60, max_size=260), st.sampled_from(["", ".", ".."])
)


@given(NAMES, NAMES)
def test_no_two_names_share_a_component(one: str, other: str) -> None:
    assert (component(one) == component(other)) == (one == other)


@given(NAMES)
def test_a_component_is_safe_in_every_directory(name: str) -> None:
    made = component(name)
    assert re.fullmatch(r"[A-Za-z0-9_@%~-][A-Za-z0-9_.@%~-]*", made)
    assert len(made) <= 200
    assert os.path.normpath(f"/base/{made}") == f"/base/{made}"


@given(st.binary(max_size=40))
def test_bytes_of_any_kind_have_a_component_of_their_own(name: bytes) -> None:
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        assert component(name) != component(name.decode("utf-8", "replace"))
    else:
        assert component(name) == component(text)


@given(st.text(max_size=60))
def test_a_component_that_was_not_cut_can_be_read_back(name: str) -> None:
    made = component(name)
    assert name_of(made) == (name if len(made) < 193 or "~" not in made else None)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("chat_session_20240115_100000_123456", "chat_session_20240115_100000_123456"),
        ("ada@example.org", "ada@example.org"),
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a b", "a%20b"),
        ("é", "%C3%A9"),
        ("~", "%7E"),
        ("a\0b", "a%00b"),
        ("a\n", "a%0A"),
        (b"\xff", "%FF"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_the_rule_by_example(name: str | bytes, made: str) -> None:
    assert component(name) == made


@pytest.mark.parametrize(("length", "cut"), [(199, False), (200, False), (201, True), (5000, True)])
def test_a_component_of_more_than_200_bytes_is_cut_and_carries_a_digest(length: int, cut: bool) -> None:
    name = "a" * length
    made = component(name)
    expected = "a" * 160 + "~" + blake2b(name.encode(), digest_size=16).hexdigest() if cut else name
    assert made == expected
    assert name_of(made) == (None if cut else name)


def test_a_plain_and_an_encoded_name_are_cut_at_the_same_length() -> None:
    assert component("." + "a" * 197) == "%2E" + "a" * 197
    assert "~" in component("." + "a" * 198)


def test_ids_are_digests_of_all_their_parts() -> None:
    joined = blake2b(b"ada\0s\0a.txt", digest_size=16).hexdigest()
    assert document_id("ada", "s", "a.txt") == f"doc_{joined}"
    assert vector_index_id("ada", "s") == "v2_" + blake2b(b"ada\0s", digest_size=16).hexdigest()
    assert vector_index_id("ada", "s", "path") not in {vector_index_id("ada", "s"), vector_index_id("ada", "spath")}
    assert document_id("\ud800", "s", "a") != document_id("?", "s", "a")


def test_the_id_of_a_message_without_one_is_that_of_its_place() -> None:
    namespace = uuid5(NAMESPACE_URL, "modchat:message")
    assert derived_message_id("ada", "s", 3) == "msg_" + uuid5(namespace, "ada\0s\0003").hex
    places = {derived_message_id(user, session, line) for user in "ab" for session in "cd" for line in (1, 2)}
    assert len(places) == 8


def test_a_session_stands_below_its_user() -> None:
    assert session_dir("a/b", "my custom/ session") == "text_chat/sessions/a%2Fb/my%20custom%2F%20session"
