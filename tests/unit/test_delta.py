"""A run after the first carries over what has changed on a store that lives on, and loses nothing of either side."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from migration.engine import Engine, LocalBackend
from migration.guards import ChangeLimits
from migration.job import RunSettings
from migration.new_side import CONFLICTS
from migration.report import RunReport
from migration.reverse import reverse
from migration.state import RefusedError, State
from migration.target import Target
from migration.validate import MigrationValidator
from modules.core.storage import FlatFiles
from tests.hostile_case import SESSION, Tree, good, profile_record, session_record

OTHER = "chat_session_20250802_100000_000001"


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Store:
    """A v2 store of a few users, and the target of its migration."""

    def __init__(self, root: Path, users: tuple[str, ...] = ("ada", "bob", "cyd")) -> None:
        self.v2, self.new = root / "v2", root / "new"
        self.tree = Tree(self.v2)
        for user in users:
            self.tree.put(f"users/{user}/profile.json", profile_record(user))
            for session in (SESSION, OTHER):
                self.tree.put(f"users/{user}/{session}/session.json", session_record(user))
                self.tree.put(f"users/{user}/{session}/messages.jsonl", good(1) + b"\n" + good(2) + b"\n")

    def sync(self, **more: Any) -> RunReport:
        return Engine(RunSettings(os.fspath(self.v2), os.fspath(self.new)), LocalBackend(), **more).run()

    def session(self, user: str = "ada", session: str = SESSION) -> Path:
        return self.new / "text_chat/sessions" / user / session

    def lines(self, user: str = "ada", session: str = SESSION) -> list[str]:
        lines = (self.session(user, session) / "messages.jsonl").read_bytes().splitlines()
        return [json.loads(line)["id"] for line in lines]

    def say(self, number: int, user: str = "ada", session: str = SESSION) -> None:
        """Appends to the old side."""
        with (self.v2 / "users" / user / session / "messages.jsonl").open("ab") as file:
            file.write(good(number) + b"\n")

    def say_new(self, line: bytes, user: str = "ada", session: str = SESSION) -> None:
        """Appends to the new side, as text_chat does."""
        FlatFiles(self.new).append(f"text_chat/sessions/{user}/{session}/messages.jsonl", line + b"\n")

    def is_equal(self) -> bool:
        return MigrationValidator(os.fspath(self.v2), os.fspath(self.new)).report().equal


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    assert made.sync().exit_code == 0
    return made


def test_what_was_appended_is_carried_over_and_the_rest_is_left_alone(store: Store) -> None:
    untouched = store.session("bob") / "messages.jsonl"
    before = untouched.stat().st_mtime_ns
    store.say(3)
    report = store.sync()
    assert (report.changed, report.added, report.deleted, report.exit_code) == (1, 0, 0, 0)
    assert store.lines() == ["msg_1", "msg_2", "msg_3"]
    assert untouched.stat().st_mtime_ns == before
    assert store.is_equal()


def test_new_sessions_and_users_are_carried_over(store: Store) -> None:
    store.tree.put("users/dan/profile.json", profile_record("dan"))
    for user in ("ada", "dan"):
        path = f"users/{user}/chat_session_20250901_100000_000001"
        store.tree.put(f"{path}/session.json", session_record(user))
        store.tree.put(f"{path}/messages.jsonl", good(1) + b"\n")
    report = store.sync()
    assert (report.added, report.changed, report.counts["sessions"]) == (2, 0, 8)
    assert store.is_equal()


def test_a_run_without_changes_writes_nothing(store: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.new.rglob("*") if ".migration" not in path.parts}
    report = store.sync()
    assert (report.changed, report.added, report.deleted, report.resumed) == (0, 0, 0, 6)
    assert {p: p.stat().st_mtime_ns for p in store.new.rglob("*") if ".migration" not in p.parts} == before


def test_messages_of_both_sides_are_put_together(store: Store) -> None:
    store.say_new(b'{"id": "new_1", "role": "user", "content": "x"}')
    store.say(3)
    assert store.sync().exit_code == 0
    assert store.lines() == ["msg_1", "msg_2", "msg_3", "new_1"]
    store.say_new(b'{"id": "new_2", "role": "user", "content": "y"}')
    store.say(4)
    assert store.sync().exit_code == 0
    assert store.lines() == ["msg_1", "msg_2", "msg_3", "msg_4", "new_1", "new_2"]
    metadata = json.loads((store.session() / "metadata.json").read_bytes())
    assert (metadata["message_count"], metadata["legacy"]["messages"]) == (6, 4)
    assert store.is_equal()


def test_a_message_that_was_written_to_both_sides_is_there_once(store: Store) -> None:
    store.say_new(good(3).replace(b"message_id", b"id"))
    store.say(3)
    assert store.sync().exit_code == 0
    assert store.lines() == ["msg_1", "msg_2", "msg_3"]


def test_a_message_that_says_something_else_on_each_side_is_kept_from_both(store: Store) -> None:
    other = json.dumps({"id": "msg_3", "role": "user", "content": "something else"}).encode()
    store.say_new(other)
    store.say(3)
    report = store.sync()
    assert (report.issues["conflict"], report.exit_code) == (1, 1)
    assert store.lines() == ["msg_1", "msg_2", "msg_3"]
    assert (store.session() / CONFLICTS).read_bytes() == other + b"\n"


def test_a_title_that_was_given_on_the_new_side_stays(store: Store) -> None:
    path = store.session() / "metadata.json"
    path.write_bytes(path.read_bytes().replace(b'"title": "', b'"title": "Renamed: ', 1))
    store.say(3)
    assert store.sync().exit_code == 0
    assert json.loads(path.read_bytes())["title"].startswith("Renamed: ")


def test_a_session_that_v2_deleted_is_archived_with_all_it_has(store: Store) -> None:
    store.tree.put(f"users/ada/{SESSION}/documents/a.txt", b"a document")
    store.tree.put(f"users/ada/{SESSION}/situational_context.json", {"mood": "calm"})
    store.sync()
    store.say_new(b'{"id": "new_1"}')
    shutil.rmtree(store.v2 / "users/ada" / SESSION)
    report = store.sync()
    assert (report.deleted, report.issues["deleted"], report.exit_code) == (1, 1, 0)
    assert not store.session().exists()
    assert not list((store.new / "rag/documents").glob("*"))
    (archived,) = (store.new / "text_chat/archive/ada" / SESSION).iterdir()
    metadata = json.loads((archived / "metadata.json").read_bytes())
    assert (metadata["active"], metadata["legacy"]["deleted_from_v2"]) == (False, True)
    assert (archived / "messages.jsonl").read_bytes().endswith(b'{"id": "new_1"}\n')
    assert (archived / "context.json").is_file()
    assert [path.read_bytes() for path in archived.glob("documents/*/original.txt")] == [b"a document"]
    registry = json.loads((store.new / "rag/indices/document_registry.json").read_bytes())
    assert registry == {"documents": {}}
    assert store.is_equal()
    assert store.sync().deleted == 0


def test_the_way_back_after_a_deletion_is_what_v2_has(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(store.v2 / "users/ada" / SESSION)
    store.sync()
    reverse(os.fspath(store.new), os.fspath(tmp_path / "back"))
    assert _tree(tmp_path / "back") == _tree(store.v2)


def test_a_user_that_v2_deleted_is_put_away(store: Store) -> None:
    shutil.rmtree(store.v2 / "users/bob")
    assert store.sync().deleted == 2
    assert not (store.new / "text_chat/users/bob").exists()
    assert not any((store.new / "text_chat/sessions/bob").iterdir())
    assert len(list((store.new / ".migration/deleted").glob("*/text_chat/users/bob/profile.json"))) == 1
    assert store.is_equal()


def test_a_session_that_comes_back_is_migrated_again(store: Store) -> None:
    shutil.move(store.v2 / "users/ada" / SESSION, store.v2.parent / "aside")
    store.sync()
    shutil.move(store.v2.parent / "aside", store.v2 / "users/ada" / SESSION)
    assert store.sync().added == 1
    assert store.lines() == ["msg_1", "msg_2"]
    assert store.is_equal()


def test_a_directory_that_was_renamed_keeps_its_user_and_sessions(store: Store) -> None:
    (store.v2 / "users/ada").rename(store.v2 / "users/ada-2")
    report = store.sync(limits=ChangeLimits(deletes=0.9))
    assert report.exit_code == 0
    assert store.is_equal()


@pytest.mark.parametrize("what", ["documents/a.txt", "situational_context.json", "context_history/1.json", "notes.txt"])
def test_a_file_that_v2_deleted_from_a_session_is_put_away(store: Store, what: str) -> None:
    content = {"x": 1} if what.endswith(".json") else b"text"
    store.tree.put(f"users/ada/{SESSION}/{what}", content)
    store.sync()
    (store.v2 / "users/ada" / SESSION / what).unlink()
    if (parent := (store.v2 / "users/ada" / SESSION / what).parent).name != SESSION:
        parent.rmdir()
    assert store.sync().exit_code == 0
    assert store.is_equal()
    assert any((store.new / ".migration/deleted").rglob("*.*"))


def test_a_panel_a_persona_and_a_stray_that_v2_deleted_are_put_away(store: Store) -> None:
    store.tree.put("panel_sessions/p1/panel.json", {"id": "p1", "personas": ["x"]})
    store.tree.put("personas_global/x.json", {"id": "x", "name": "X"})
    store.tree.put("exports/e.csv", b"1,2")
    store.sync()
    for name in ("panel_sessions", "personas_global", "exports"):
        shutil.rmtree(store.v2 / name)
    assert store.sync().exit_code == 0
    assert store.is_equal()
    assert not (store.new / "attic/exports").exists() or not any((store.new / "attic/exports").iterdir())


def test_more_deletions_than_allowed_are_refused_and_nothing_is_touched(store: Store) -> None:
    for user in ("ada", "bob"):
        shutil.rmtree(store.v2 / "users" / user)
    store.say(3, "cyd")
    before = _tree(store.new)
    with pytest.raises(RefusedError, match=r"4 of 6 .*--allow-deletes 67%"):
        store.sync()
    assert _tree(store.new) == before
    assert State(os.fspath(store.new)).read("run.json")["outcome"] == "refused"  # type: ignore[index]
    assert store.sync(limits=ChangeLimits(deletes=0.67)).deleted == 4
    assert store.is_equal()


def test_an_emptied_store_is_refused_whatever_is_allowed(store: Store) -> None:
    for user in ("ada", "bob", "cyd"):
        shutil.rmtree(store.v2 / "users" / user)
    (store.v2 / "personas_global").mkdir()
    with pytest.raises(RefusedError, match="empty listing"):
        store.sync(limits=ChangeLimits(deletes=1.0))
    assert store.lines() == ["msg_1", "msg_2"]


def test_a_store_in_which_everything_has_changed_is_refused(tmp_path: Path) -> None:
    users = tuple(f"user{number:02}" for number in range(12))
    store = Store(tmp_path, users)
    store.sync()
    for user in users:
        for session in (SESSION, OTHER):
            store.say(9, user, session)
    with pytest.raises(RefusedError, match="every one of 24 sessions"):
        store.sync()
    assert store.sync(limits=ChangeLimits(all_changed=True)).changed == 24


def test_a_final_run_says_when_v2_is_still_written_to(store: Store) -> None:
    store.say(3)
    path = store.v2 / "users/ada" / SESSION / "messages.jsonl"
    os.utime(path, ns=(time.time_ns() + 10**10,) * 2)
    report = store.sync(final=True)
    assert (report.issues["still_written"], report.exit_code) == (1, 1)


def test_a_final_run_of_a_store_at_rest_is_clean(store: Store) -> None:
    store.say(3)
    os.utime(store.v2 / "users/ada" / SESSION / "messages.jsonl", ns=(time.time_ns() - 10**10,) * 2)
    assert store.sync(final=True).exit_code == 0


def test_what_the_platform_changed_in_a_file_that_is_replaced_is_kept(store: Store) -> None:
    profile = store.new / "text_chat/users/ada/profile.json"
    profile.write_bytes(b'{"changed": "here"}')
    os.utime(profile, ns=(_ended_ns(store) + 1,) * 2)
    time.sleep(0.01)
    (store.v2 / "users/ada/profile.json").unlink()
    store.tree.put("users/ada/profile.json", profile_record("ada", username="changed there"))
    report = store.sync()
    assert report.issues["replaced"] == 1
    (kept,) = (store.new / ".migration/replaced").glob("*/text_chat/users/ada/profile.json")
    assert kept.read_bytes() == b'{"changed": "here"}'
    assert json.loads(profile.read_bytes())["username"] == "changed there"


@pytest.mark.slow
def test_no_message_is_lost_that_is_appended_while_the_file_is_replaced(store: Store) -> None:
    stop = threading.Event()
    written: list[str] = []

    def chat() -> None:
        while not stop.is_set():
            name = f"new_{len(written)}"
            store.say_new(json.dumps({"id": name}).encode())
            written.append(name)

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        for number in range(3, 30):
            store.say(number)
            store.sync()
    finally:
        stop.set()
        thread.join()
    store.say(30)
    store.sync()
    assert store.lines() == [*(f"msg_{n}" for n in range(1, 31)), *written]


@pytest.mark.parametrize("step", range(12))
def test_a_deletion_that_is_interrupted_is_finished_by_the_next_run(
    store: Store, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tree.put(f"users/ada/{SESSION}/documents/a.txt", b"a document")
    store.tree.put(f"users/ada/{SESSION}/situational_context.json", {"mood": "calm"})
    store.sync()
    shutil.rmtree(store.v2 / "users/ada" / SESSION)
    with suppress(_Stopped), _failing_after(step, monkeypatch):
        store.sync()
    store.sync()
    assert not store.session().exists()
    (archived,) = (store.new / "text_chat/archive/ada" / SESSION).iterdir()
    assert (archived / "context.json").is_file()
    assert len(list(archived.glob("documents/*/original.txt"))) == 1
    assert store.is_equal()


class _Stopped(BaseException):
    pass


@contextmanager
def _failing_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stops the program at the so-manieth change of the target."""
    rename, left = os.rename, iter(range(steps))

    def counted(*args: Any, **kwargs: Any) -> None:
        if next(left, None) is None:
            raise _Stopped
        rename(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted)
        yield


def _ended_ns(store: Store) -> int:
    """When the last run ended."""
    run = State(os.fspath(store.new)).read("run.json")
    assert run is not None
    return int(run["updated_at"] * 1e9) + 1000


def _tree(root: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".migration" not in path.parts
    }


@pytest.mark.parametrize(
    ("known", "added"),
    [
        ((f"{SESSION}/session.json", f"{SESSION}/history/1.json"), f"{SESSION}/history/2.json"),
        ((f"{SESSION}/session.json", f"{SESSION}/notes/a.txt"), f"{SESSION}/notes/b.txt"),
        (("nest/inner/session.json",), "nest/inner/messages.jsonl"),
    ],
)
def test_a_file_that_comes_deeper_down_is_found_however_old_it_is(
    tmp_path: Path, known: tuple[str, ...], added: str
) -> None:
    store = Store(tmp_path, users=())
    contents = {"session.json": session_record(), "messages.jsonl": good(1) + b"\n"}
    for path in (*known, added):
        file = store.v2 / "users/ada" / path
        if path == added:
            store.sync()
        store.tree.put(f"users/ada/{path}", contents.get(file.name, b'{"some": "thing"}'))
        os.utime(file, ns=(10**18, 10**18))
    assert not store.is_equal()
    store.sync()
    assert store.is_equal()
    report = store.sync()
    assert report.resumed == report.counts["sessions"]
