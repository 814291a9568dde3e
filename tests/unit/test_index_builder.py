"""Indices are made from the tree alone, and replace those of before in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from migration.durable import Busy, exchange, held
from migration.fanout import LocalFanOut
from migration.index_builder import IndexReport, build, build_indices, open_message_index, search_messages
from migration.index_reader import UserContent, UserSlice, read_users
from modules.core.layout import component
from tests.index_trees import Tree, said

T = TypeVar("T")
R = TypeVar("R")

INDEX_FILES = (
    "indices/master_index.json",
    "text_chat/indices/user_sessions.json",
    "rag/indices/document_registry.json",
)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "base")


class Backwards(LocalFanOut):
    """Answers in the opposite order, as a cluster may."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        yield from reversed(list(super().map(function, items)))


class Failing(LocalFanOut):
    """Fails after its first answer."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for item in items:
            yield function(item)
            raise ConnectionError("a worker is gone")


# --- users and sessions


def test_every_user_has_the_sessions_that_are_whole(tree: Tree) -> None:
    tree.session("alice", "s2")
    tree.session("alice", "s1")
    (tree.session("alice", "unfinished") / "metadata.json").unlink()
    (tree.session("bob", "unfinished") / "metadata.json").unlink()

    report = tree.build()

    assert tree.read("text_chat/indices/user_sessions.json") == {"alice": ["s1", "s2"], "bob": []}
    assert (report.users, report.sessions) == (2, 2)


def test_names_are_the_true_ids_not_those_of_directories(tree: Tree) -> None:
    long_user, long_session = "u" * 300, "sé/" * 100
    tree.session("zoë/../x", "my custom/ session", said("hello"))
    tree.session(long_user, long_session, said("hello"))
    tree.session("", ".hidden", said("hello"))

    tree.build()

    assert tree.read("text_chat/indices/user_sessions.json") == {
        "zoë/../x": ["my custom/ session"],
        long_user: [long_session],
        "": [".hidden"],
    }
    assert tree.lines_found("hello", "") == [("", ".hidden", 1)]
    assert tree.lines_found("hello", long_user) == [(long_user, long_session, 1)]


def test_an_id_that_was_not_utf8_is_the_one_in_the_files(tree: Tree) -> None:
    where = tree.base / "text_chat/sessions" / component(b"caf\xe9") / "s"
    tree.session("passing", "s", said("hello")).rename(_made(where.parent) / "s")
    (where / "metadata.json").write_text('{"id": "s", "user_id": "caf%E9"}')

    tree.build()

    assert tree.lines_found("hello") == [("caf%E9", "s", 1)]
    assert tree.lines_found("hello", "caf%E9") == [("caf%E9", "s", 1)]


def test_ids_that_differ_only_in_lone_surrogates_stay_two(tree: Tree) -> None:
    tree.session("a\ud800", "s", said("hello"))
    tree.session("a\ud801", "s", said("hello"))

    tree.build()

    assert tree.lines_found("hello", "a\ud800") == [("a\\ud800", "s", 1)]
    assert len(tree.read("text_chat/indices/user_sessions.json")) == 2


def test_a_cut_name_without_an_id_inside_is_reported(tree: Tree) -> None:
    (tree.session("alice", "s" * 300) / "metadata.json").write_text("{}")
    (tree.session("alice", "t" * 300) / "metadata.json").write_text("{")

    report = tree.build()

    assert tree.read("text_chat/indices/user_sessions.json") == {"alice": []}
    assert [problem.partition(": ")[0][-14:] for problem in report.problems] == ["/metadata.json"] * 2


def test_links_and_temporary_names_are_no_users(tree: Tree) -> None:
    home = tree.session("alice", "s").parent
    (home.parent / "mallory").symlink_to(home)
    (home.parent / ".alice.tmp").mkdir()
    (home / "stray.txt").write_text("")

    tree.build()

    assert tree.read("text_chat/indices/user_sessions.json") == {"alice": ["s"]}


# --- documents, and the files as a whole


def test_documents_are_registered_with_their_owner_and_content(tree: Tree) -> None:
    known = {
        "user_id": "alice",
        "session_id": "s",
        "title": "Plan ✓.pdf",
        "content_type": "application/pdf",
        "size_bytes": 12,
        "sha256": "ab",
    }
    tree.document("doc_b", **known, legacy={"path": "users/alice"})
    tree.document("doc_a")
    (tree.base / "rag/documents/unfinished").mkdir()
    broken = tree.document("doc_c")
    (broken / "metadata.json").write_text("[]")

    report = tree.build()

    registry = tree.read("rag/indices/document_registry.json")
    assert registry == {"documents": {"doc_a": dict.fromkeys(known), "doc_b": known}}
    assert list(registry["documents"]) == ["doc_a", "doc_b"]
    assert report.documents == 2
    assert report.problems == ("rag/documents/doc_c/metadata.json: not a JSON object",)


def test_the_master_index_holds_all_three(tree: Tree) -> None:
    tree.session("alice", "s", said("one"), said("two"))
    tree.document("doc_a", title="t")

    tree.build()

    master = tree.read("indices/master_index.json")
    assert master["user_sessions"] == {"alice": ["s"]}
    assert master["message_search"] == {"engine": "tantivy", "path": "text_chat/indices/messages", "messages": 2}
    assert master["document_registry"] == tree.read("rag/indices/document_registry.json")


def test_the_same_tree_gives_the_same_bytes_in_whatever_order_it_is_read(tree: Tree) -> None:
    for user in ("b", "a", "é", "c"):
        tree.session(user, "s2", said("x"))
        tree.session(user, "s1", said("x"))
    tree.build()
    first = [(tree.base / path).read_bytes() for path in INDEX_FILES]

    tree.build(fan_out=Backwards(), slice_bytes=1)

    assert [(tree.base / path).read_bytes() for path in INDEX_FILES] == first


def test_an_empty_tree_has_empty_indices(tree: Tree) -> None:
    assert tree.build() == IndexReport(0, 0, 0, 0, 0, ())
    assert search_messages(tree.base, "anything") == []


async def test_indices_are_built_from_a_coroutine_with_nothing_but_the_path(tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))

    report = await build_indices(tree.base)

    assert report.messages == 1
    assert tree.lines_found("hello") == [("alice", "s", 1)]


def test_a_base_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="typo"):
        build(tmp_path / "typo", LocalFanOut())
    assert not (tmp_path / "typo").exists()


# --- slices


def big_tree(tree: Tree) -> None:
    for user in range(5):
        for session in range(3):
            lines = [said(f"word{line} from user{user}", id=f"m{line}") for line in range(7 * session)]
            tree.session(f"u{user}", f"s{session}", *lines)
    (tree.session("u9", "s") / "metadata.json").unlink()


@pytest.mark.parametrize("slice_bytes", [1, 200, 333, 1000, 5000])
def test_the_size_of_slices_changes_nothing(slice_bytes: int, tree: Tree) -> None:
    big_tree(tree)
    whole = tree.build()
    expected = [tree.lines_found(query) for query in ("word3", "user4", "from")]

    assert tree.build(slice_bytes=slice_bytes) == whole
    assert [tree.lines_found(query) for query in ("word3", "user4", "from")] == expected
    assert len(expected[2]) == whole.messages == 5 * (7 + 14)


def test_an_answer_is_bounded_and_what_is_left_goes_on_where_it_ended(tree: Tree) -> None:
    tree.session("alice", "s1", *(said("x" * 100, id=f"m{line}") for line in range(50)))
    tree.session("alice", "s2", said("y"))
    part: UserSlice | None = UserSlice(str(tree.base), ("alice",), 1000)
    rows: list[tuple[str, int]] = []
    sessions: list[tuple[str, str]] = []
    while part is not None:
        packed = read_users(part)
        assert len(packed) < 2500
        content = msgspec.msgpack.decode(packed, type=UserContent)
        rows += [(row.session_id, row.line) for row in content.rows]
        sessions += content.sessions
        part = content.rest

    assert rows == [*(("s1", line) for line in range(1, 51)), ("s2", 1)]
    assert sessions == [("alice", "s1"), ("alice", "s2")]


# --- replacing what is there


def test_a_build_takes_in_what_came_and_drops_what_went(tree: Tree) -> None:
    gone = tree.session("alice", "gone", said("old words"))
    tree.build()
    (gone / "metadata.json").unlink()
    tree.session("alice", "come", said("new words"))

    tree.build()

    assert tree.lines_found("words") == [("alice", "come", 1)]


def everything_in(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "text_chat/indices").iterdir())


def test_a_build_that_fails_leaves_the_indices_of_before(tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))
    tree.build()
    before = [(tree.base / path).read_bytes() for path in INDEX_FILES]
    tree.session("bob", "s", said("hello"))

    with pytest.raises(ConnectionError):
        tree.build(fan_out=Failing())

    assert [(tree.base / path).read_bytes() for path in INDEX_FILES] == before
    assert tree.lines_found("hello") == [("alice", "s", 1)]
    assert everything_in(tree.base) == ["messages", "user_sessions.json"]


def test_what_cannot_be_read_is_an_error_and_not_an_empty_session(tree: Tree) -> None:
    where = tree.session("alice", "s", said("hello"))
    (where / "messages.jsonl").unlink()
    (where / "messages.jsonl").mkdir()

    with pytest.raises(IsADirectoryError):
        tree.build()


@pytest.mark.parametrize("swap", [exchange, lambda first, second: False], ids=["exchange", "two renames"])
def test_a_build_leaves_nothing_but_the_new_indices(swap: Callable[[Path, Path], bool], tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))
    tree.build(swap=swap)
    tree.session("bob", "s", said("hello"))

    tree.build(swap=swap)

    assert everything_in(tree.base) == ["messages", "user_sessions.json"]
    assert len(tree.lines_found("hello")) == 2


def test_an_index_in_use_goes_on_while_it_is_replaced(tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))
    tree.build()
    in_use = open_message_index(tree.base)
    tree.session("bob", "s", said("hello"))

    tree.build()

    assert len(in_use.search("hello")) == 1
    assert len(search_messages(tree.base, "hello")) == 2


def test_a_crash_between_two_renames_leaves_an_index_to_search(tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))
    tree.build()
    indices = tree.base / "text_chat/indices"
    (indices / "messages").rename(indices / "messages.old")
    (indices / "messages.tmp").mkdir()

    assert tree.lines_found("hello") == [("alice", "s", 1)]
    with pytest.raises(ConnectionError):
        tree.build(fan_out=Failing())
    assert everything_in(tree.base) == ["messages", "user_sessions.json"]
    assert tree.lines_found("hello") == [("alice", "s", 1)]


def test_a_crash_after_both_renames_leaves_the_new_index(tree: Tree) -> None:
    tree.session("alice", "s", said("hello"))
    tree.build()
    (tree.base / "text_chat/indices/messages.old").mkdir()

    assert tree.lines_found("hello") == [("alice", "s", 1)]
    tree.build()
    assert everything_in(tree.base) == ["messages", "user_sessions.json"]


def test_only_one_process_builds_at_a_time(tree: Tree) -> None:
    tree.build()

    with held(tree.base / "text_chat/indices/.build.lock"), pytest.raises(Busy):
        tree.build()
