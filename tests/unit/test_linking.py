"""What is decided when every session has been seen, by plain values."""

from __future__ import annotations

import os

import pytest

from migration import linking
from migration.engine import registry_json
from migration.ledger import Entry, Span
from migration.linking import Halves, Written
from migration.unit import COUNTS, Unit, path_fact, text_fact
from migration.worker import Item


def written(user: str, session: str, directory: bytes, *, has_data: bool = True) -> Written:
    return Written(user, session, directory, session, has_data)


def test_users_named_in_foreign_directories_are_put_together_once_each() -> None:
    facts = [["foreign", text_fact(user), path_fact(directory)] for user, directory in
             (("ada", "eve"), ("ada", "bob"), ("ada", "eve"), ("\ud800", "b\udcff"))]  # fmt: skip
    items = linking.merges([*facts, ["document", "x"]], {"ada": "ada"}.get)
    assert items == [
        Item("merge", "ada", extra=("ada", ("bob", "eve"))),
        Item("merge", "\ud800", extra=(None, ("b\udcff",))),
    ]


def half(session: str, user: str, directory: str) -> list[str]:
    return ["half", session, text_fact(user), path_fact(directory), path_fact(session)]


def test_the_halves_of_a_split_session_name_each_other() -> None:
    halves = Halves.among([half("s", "persona_x", "persona_x"), half("t", "bot_y", "bot_y")])
    assert halves.wanted() == {"s", "t"}
    found = halves.items(
        [written("login", "s", b"login"), written("persona_x", "s", b"persona_x", has_data=False)], lambda w: w.user
    )
    assert found == [
        Item("split", "login", extra=("s", {"s": ["persona_x"]})),
        Item("split", "persona_x", extra=("s", {"s": ["login"]})),
    ]


def test_a_half_without_its_partner_stays_as_it_is() -> None:
    halves = Halves.among([half("s", "persona_x", "persona_x")])
    assert halves.items([], lambda w: w.user) == []
    assert halves.items([written("login", "s", b"login", has_data=False)], lambda w: w.user) == []


def entry(directory: bytes, name: str, *homes: str) -> Entry:
    unit = Unit(name, [(f"{name}/messages.jsonl", 1, 1, "m")], [0] * len(COUNTS), b"", written=dict.fromkeys(homes, 1))
    return Entry(Span("user", directory), 1, 1, [unit])


def test_the_newest_record_says_what_stands_in_the_target() -> None:
    home = "text_chat/sessions/ada/s"
    older, newer = entry(b"ada", "s", home), entry(b"ada", "s")
    assert linking.sessions_written([older], {"s"}, {"messages.jsonl"}) == [Written("ada", "s", b"ada", "s", True)]
    assert linking.sessions_written([older, newer], {"s"}, {"messages.jsonl"}) == []
    assert linking.sessions_written([older], {"t"}, {"messages.jsonl"}) == []


def test_a_child_whose_name_is_not_utf8_is_named_as_it_is() -> None:
    (found,) = linking.sessions_written([entry(b"b\xff", "s\0FF", "text_chat/sessions/b/s")], {"s"}, set())
    assert (found.child, os.fsdecode(found.directory)) == ("s\udcff", "b\udcff")


@pytest.mark.parametrize(
    ("here", "elsewhere", "user", "owner", "candidates", "session_dir"),
    [
        (["ada"], [], "ada", "found", (), "/v2/ada/s"),
        (["ada", "eve"], [], "default", "several", ("ada", "eve"), None),
        ([], [], "default", "none", (), None),
        ([], [("bob", "/extra/bob/s")], "bob", "found", (), "/extra/bob/s"),
        (["ada"], [("bob", "/extra/bob/s")], "ada", "found", (), "/v2/ada/s"),
        ([], [("bob", "/a"), ("cy", "/b")], "default", "several", ("bob", "cy"), None),
    ],
)
def test_a_vector_set_belongs_to_the_one_user_with_a_session_of_that_id(
    here: list[str],
    elsewhere: list[tuple[str, str]],
    user: str,
    owner: str,
    candidates: tuple[str, ...],
    session_dir: str | None,
) -> None:
    (found,) = linking.assign_owners(
        [("s", "/v2/users/default/sessions/s/vectors")],
        [written(name, "s", name.encode()) for name in here],
        user_of=lambda w: w.user,
        session_dir_of=lambda directory, session: f"/v2/{directory}/{session}",
        elsewhere=lambda _: elsewhere,
        directory_user=lambda _: "default",
        shown=lambda directory: directory.removeprefix("/"),
    )
    assert (found.user_id, found.owner, found.candidates, found.session_dir) == (user, owner, candidates, session_dir)


def test_two_sets_of_one_session_get_two_indices() -> None:
    sets = linking.vector_sets([["vectors", path_fact("s"), path_fact(d)] for d in ("/b", "/a", "/a")] + [["x"]])
    assert sets == [("s", "/a"), ("s", "/b")]
    owned = linking.assign_owners(
        sets,
        [written("ada", "s", b"ada")],
        user_of=lambda w: w.user,
        session_dir_of=lambda *_: None,
        elsewhere=lambda _: [],
        directory_user=lambda _: "default",
        shown=lambda directory: directory.removeprefix("/"),
    )
    assert len({one.index_id for one in owned}) == 2


def test_the_registry_lists_documents_by_id() -> None:
    text = registry_json({"b": ["u", "s", "t", "c", "4", "ff"], "a": ["u", "s", "t", "c", "0", ""]}).decode()
    assert text.index('"a"') < text.index('"b"')
    assert '"size_bytes": 4' in text
    assert '"sha256": null' in text
