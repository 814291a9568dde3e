"""Messages are found by their words, within one user's where asked, whatever is typed or stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration.index_builder import search_messages
from migration.message_index import IndexMissing
from modules.core.layout import derived_message_id
from tests.index_trees import Tree, said


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "base")


def test_a_hit_says_which_message_and_where_it_stands(tree: Tree) -> None:
    tree.session("alice", "s", said("first"), said("the needle", id="msg_7", role="assistant"))
    tree.build()

    (hit,) = search_messages(tree.base, "needle")

    assert (hit.user_id, hit.session_id, hit.message_id, hit.line) == ("alice", "s", "msg_7", 2)
    assert (hit.role, hit.timestamp) == ("assistant", "2024-01-15T10:00:00")
    assert hit.score > 0


def test_all_words_have_to_be_there_in_any_case(tree: Tree) -> None:
    tree.session("alice", "s", said("Green eggs and HAM"), said("green tea"), said("ham"))
    tree.build()

    assert tree.lines_found("ham GREEN") == [("alice", "s", 1)]


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("東京", 1),
        ("タワー", 1),
        ("京都", 2),
        ("ZOË", 3),
        ("naïve", 3),
        ("изба", 4),
        ("don't", 5),
        ("snake_case", 5),
        ("3.14", 6),
        ("ada@example.org", 6),
    ],
)
def test_words_of_many_languages_are_found(query: str, line: int, tree: Tree) -> None:
    contents = [
        "東京タワーへ行きました",
        "古い京都の町",
        "Zoë is naïve",
        "Изба",
        "I don't like snake_case",
        "3.14 ada@example.org",
    ]
    tree.session("alice", "s", *map(said, contents))
    tree.build()

    assert tree.lines_found(query) == [("alice", "s", line)]


def test_what_stands_together_in_a_query_stands_together_in_the_message(tree: Tree) -> None:
    tree.session("alice", "s", said("a well-known fact"), said("well, it is known"))
    tree.build()

    assert tree.lines_found("well-known") == [("alice", "s", 1)]
    assert tree.lines_found("well known") == [("alice", "s", 1), ("alice", "s", 2)]


def test_a_user_finds_only_messages_of_that_user(tree: Tree) -> None:
    tree.session("alice", "s", said("secret plan"))
    tree.session("alice2", "s", said("secret plan"))
    tree.build()

    assert tree.lines_found("secret", "alice") == [("alice", "s", 1)]
    assert tree.lines_found("secret", "Alice") == []
    assert tree.lines_found("secret", "ali") == []


def test_asking_for_one_user_does_not_change_how_well_a_message_fits(tree: Tree) -> None:
    tree.session("alice", "s", said("secret plan"))
    tree.session("bob", "s", said("another secret"))
    tree.build()

    (of_alice,) = search_messages(tree.base, "secret", "alice")

    assert of_alice in search_messages(tree.base, "secret")


@pytest.mark.parametrize(
    "query",
    [
        "user_id:bob secret",
        "secret OR user_id:bob",
        'secret" OR user_id:"bob',
        "secret) OR (user_id:bob",
        "-nothing secret",
        "* secret",
        "secret^2 [a TO z]",
        "secret~ \\",
        "/se.*t/",
        '"secret',
        "+",
        "\x00",
        "\ud83d secret",
        "(" * 500,
    ],
)
def test_nothing_that_is_typed_is_query_syntax(query: str, tree: Tree) -> None:
    tree.session("bob", "s", said("secret bob"))
    tree.session("alice", "s", said("secret"))
    tree.build()

    assert {hit.user_id for hit in search_messages(tree.base, query, "alice")} <= {"alice"}


def test_a_query_without_words_finds_nothing(tree: Tree) -> None:
    tree.session("alice", "s", said("hello !!!"))
    tree.build()

    assert search_messages(tree.base, "") == search_messages(tree.base, " !!! ") == []


def test_the_best_messages_come_first_and_the_limit_holds(tree: Tree) -> None:
    filler = "and so on and so forth for many more words than that"
    tree.session("alice", "s", said(f"tea {filler}"), said("tea"), said(f"tea {filler} {filler}"))
    tree.build()

    assert [hit.line for hit in search_messages(tree.base, "tea")] == [2, 1, 3]
    assert [hit.line for hit in search_messages(tree.base, "tea", limit=2)] == [2, 1]
    assert [hit.line for hit in search_messages(tree.base, "tea", "alice", limit=2)] == [2, 1]
    with pytest.raises(ValueError, match="at least 1"):
        search_messages(tree.base, "tea", limit=0)


def test_searching_before_the_first_build_says_what_to_do(tree: Tree) -> None:
    with pytest.raises(IndexMissing, match=r"messages: build it first"):
        search_messages(tree.base, "x")


# --- odd lines


def test_odd_contents_are_searched_by_their_json_text(tree: Tree) -> None:
    tree.session(
        "alice",
        "s",
        said([{"type": "text", "text": "parcel"}]),
        said({"answer": 42}),
        said(17),
        said(None),
        {"id": "bare"},
        {"content": "ownerless", "role": None, "timestamp": 1705312800},
        {"id": "m", "content": "numbers", "score": float("nan")},
        b'{"id": "m", "content": "half \\ud83d pair"}',
    )
    report = tree.build()

    assert (report.messages, report.skipped_lines) == (8, 0)
    for query, line in (("parcel", 1), ("42", 2), ("17", 3), ("ownerless", 6), ("numbers", 7), ("half pair", 8)):
        assert tree.lines_found(query) == [("alice", "s", line)], query
    (hit,) = search_messages(tree.base, "ownerless")
    assert hit.message_id == derived_message_id("alice", "s", 6)
    assert (hit.role, hit.timestamp) == ("", "1705312800")


def test_lines_that_are_no_messages_are_counted_and_keep_their_number(tree: Tree) -> None:
    where = tree.session("alice", "s", b"", b"{torn", b"[1]", b"\xff\xfe", b"[" * 100_000, said("after all that"))
    with open(where / "messages.jsonl", "ab") as file:
        file.write(b'{"id": "torn')

    report = tree.build()

    assert (report.messages, report.skipped_lines) == (1, 5)
    assert tree.lines_found("after") == [("alice", "s", 6)]


def test_lines_end_at_newlines_alone(tree: Tree) -> None:
    tree.session("alice", "s", '{"id": "a", "content": "one\u2028\u0085two\x1c"}'.encode(), said("three"))
    tree.build()

    assert tree.lines_found("three") == [("alice", "s", 2)]


def test_a_session_without_messages_is_a_session(tree: Tree) -> None:
    (tree.session("alice", "s") / "messages.jsonl").unlink()

    assert tree.build().sessions == 1
