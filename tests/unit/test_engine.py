"""A run that is interrupted, refused by the disk or disturbed by its source ends well, and says what it met."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

import migration.job
import migration.ledger
import migration.plain
import migration.target
import migration.users
import migration.v2.read
from migration.engine import Engine, LocalBackend, OnProgress, Phase, progress_of
from migration.job import RunSettings
from migration.ledger import journals
from migration.report import RunReport
from migration.sample import write_sample
from migration.shard import Shard, Totals
from migration.state import BusyError, Control, State
from migration.target import Target, TargetError
from migration.v2.read import SourceError
from migration.worker import process
from tests.hostile_case import SESSION, Tree, good, profile_record, session_record

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of runs need not wait for the disk; that a task does is a test of the worker."""
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Everything v2 left behind, and users in foreign directories."""
    root = tmp_path_factory.mktemp("source") / "v2"
    write_sample(root, users=2, sessions=2, messages=3)
    tree = Tree(root)
    tree.session(f"users/gil/{SESSION}", "gil", messages=2)
    tree.put(f"users/hal/{SESSION}/session.json", session_record("gil", updated_at="2025-08-02T00:00:00"))
    tree.put(f"users/hal/{SESSION}/messages.jsonl", good(8) + b"\n")
    tree.put("users/hal/profile.json", profile_record("ivy"))
    tree.put("users/ivy/profile.json", profile_record("ivy", username="I"))
    tree.put("personas/x.json", {"id": "x", "name": "X"})
    for directory, _, files in os.walk(root):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(10**18, 10**18))
    return os.fspath(root)


def migrate(source: str, target: Path, backend: LocalBackend | None = None, **more: Any) -> RunReport:
    return Engine(RunSettings(source, os.fspath(target)), backend or LocalBackend(), **more).run()


@pytest.fixture(scope="module")
def whole(source: str, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The target of a run that nothing disturbed."""
    target = tmp_path_factory.mktemp("whole") / "new"
    report = migrate(source, target)
    assert report.exit_code == 0
    return files(target)


def files(target: Path) -> Files:
    found = {}
    for directory, directories, names in os.walk(target):
        if ".migration" in directories:
            directories.remove(".migration")
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, target)] = Path(path).read_bytes()
    return found


# ---- interruptions ---------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


@dataclass(slots=True)
class SmallSteps(LocalBackend):
    """Does one child a task, and crashes after some tasks: before or after the ledger knows of the last one."""

    steps: int = 1 << 30
    recorded: bool = True

    def run_phase(self, phase: Phase, on_progress: OnProgress) -> Totals:
        shard = Shard(phase.shard_plan(0, 1, 0))
        try:
            while (task := shard.next_task()) is not None:
                result = process(replace(task, seconds=-1.0))
                self.steps -= 1
                if self.steps < 0 and not self.recorded:
                    raise Crash
                shard.record([(task, result)])
                on_progress(progress_of(phase.name, shard.totals, 0.0, Control(), self, 0))
                if self.steps < 0:
                    raise Crash
        finally:
            shard.close()
        return shard.totals


def steps_of_a_run(source: str, target: Path) -> int:
    backend = SmallSteps()
    migrate(source, target, backend)
    return (1 << 30) - backend.steps


def test_one_child_a_task_gives_the_same_tree(source: str, whole: Files, tmp_path: Path) -> None:
    migrate(source, tmp_path / "new", SmallSteps())
    assert files(tmp_path / "new") == whole


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_that_crashed_anywhere_is_carried_on_to_the_same_bytes(
    source: str, whole: Files, tmp_path: Path, recorded: bool
) -> None:
    steps = steps_of_a_run(source, tmp_path / "count")
    assert steps > 40
    for crash in range(0, steps, 9):
        target = tmp_path / f"new{crash}"
        with pytest.raises(Crash):
            migrate(source, target, SmallSteps(steps=crash, recorded=recorded))
        migrate(source, target)
        assert files(target) == whole, crash


def test_a_run_that_crashes_again_and_again_comes_to_its_end(source: str, whole: Files, tmp_path: Path) -> None:
    random = Random(1)
    most = steps_of_a_run(source, tmp_path / "count")
    crashes = 0
    for steps in (random.randrange(most) for _ in range(12)):
        with suppress(Crash):
            migrate(source, tmp_path / "new", SmallSteps(steps=steps, recorded=random.random() < 0.7))
            break
        crashes += 1
    assert crashes >= 3
    migrate(source, tmp_path / "new")
    assert files(tmp_path / "new") == whole


def test_a_run_whose_journal_was_torn_is_carried_on(source: str, whole: Files, tmp_path: Path) -> None:
    for cut in (1, 11, 200):
        target = tmp_path / f"new{cut}"
        with pytest.raises(Crash):
            migrate(source, target, SmallSteps(steps=30))
        (journal,) = journals(State(os.fspath(target)).ledger)
        os.truncate(journal, os.path.getsize(journal) - cut)
        report = migrate(source, target)
        assert files(target) == whole
        assert report.exit_code == 0


def test_a_run_stopped_by_whoever_watches_it_is_carried_on(source: str, whole: Files, tmp_path: Path) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(source, tmp_path / "new", on_progress=stop)
    state = State(os.fspath(tmp_path / "new")).read("run.json")
    assert state is not None
    assert state["outcome"] == "interrupted"
    report = migrate(source, tmp_path / "new")
    assert (files(tmp_path / "new"), report.run) == (whole, 2)


def test_a_second_run_changes_nothing_and_reports_the_same(source: str, whole: Files, tmp_path: Path) -> None:
    first = migrate(source, tmp_path / "new")
    second = migrate(source, tmp_path / "new", SmallSteps())
    assert files(tmp_path / "new") == whole
    for name in ("counts", "files", "users", "bytes", "issues", "units"):
        assert getattr(second, name) == getattr(first, name)
    assert second.resumed == first.counts["sessions"]


@pytest.mark.slow
def test_two_runs_at_once_are_refused(source: str, tmp_path: Path) -> None:
    def second_run(_: object) -> None:
        with pytest.raises(BusyError):
            migrate(source, tmp_path / "new")

    migrate(source, tmp_path / "new", on_progress=second_run)


# ---- a disk that fails -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Faults:
    """One call fails, the k-th in all of those that are watched."""

    code: int
    at: int
    count: int = 0

    def watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **keywords)

        return call


@dataclass(frozen=True, slots=True)
class FaultyOs:
    """The `os` that a module sees."""

    faults: Faults
    calls: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self.faults.watched(real) if name in self.calls else real


Watched = dict[ModuleType, frozenset[str]]

WRITING: Watched = {
    migration.target: frozenset({"open", "write", "rename", "mkdir"}),
    migration.plain: frozenset({"write", "rename", "mkdir"}),  # what it opens is of the source too
}
READING: Watched = {
    migration.v2.read: frozenset({"open", "read", "scandir", "fstat", "lstat", "readlink"}),
    migration.target: frozenset({"read", "fstat"}),
    migration.users: frozenset({"scandir"}),
    migration.plain: frozenset({"scandir", "read", "fstat"}),
    migration.job: frozenset({"fstat", "readlink", "stat"}),
}
LEDGER: Watched = {migration.ledger: frozenset({"open", "write", "fsync"})}


@contextmanager
def failing(watched: Watched, code: int, at: int) -> Iterator[Faults]:
    faults = Faults(code, at)
    with pytest.MonkeyPatch.context() as patch:
        for module, calls in watched.items():
            patch.setattr(module, "os", FaultyOs(faults, calls))
        yield faults


def calls_of_a_run(source: str, target: Path, watched: Watched) -> int:
    with failing(watched, 0, 0) as faults:
        migrate(source, target)
    return faults.count


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_anywhere_stops_the_run_and_the_next_one_completes_it(
    source: str, whole: Files, tmp_path: Path, code: int
) -> None:
    calls = calls_of_a_run(source, tmp_path / "count", WRITING)
    assert calls > 300
    # A slow machine cuts a run into more tasks, each of which opens the target: so the count is about right.
    for at in range(1 + (code == errno.EIO) * 5, calls - 10, 13):
        target = tmp_path / f"new{at}"
        with failing(WRITING, code, at), pytest.raises(TargetError, match=os.strerror(code)):
            migrate(source, target)
        migrate(source, target)
        assert files(target) == whole, at


def test_a_ledger_that_cannot_be_written_stops_the_run_and_the_next_one_completes_it(
    source: str, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (1, 2, 5):
        target = tmp_path / f"new{at}"
        with failing(LEDGER, errno.ENOSPC, at), pytest.raises(TargetError, match=r"journal: No space left"):
            migrate(source, target)
        migrate(source, target)
        assert files(target) == whole


def test_what_stopped_a_run_is_said_even_when_that_cannot_be_noted(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        monkeypatch.setattr(State, "write", full)
        raise TargetError("/new/a", "No space left on device")

    def full(*_: object, **__: object) -> None:
        raise TargetError("/new/run.json", "No space left on device")

    with pytest.raises(TargetError, match="/new/a") as error:
        migrate(source, tmp_path / "new", on_progress=stop)
    assert "run.json" in error.value.__notes__[0]


# ---- a source that fails or changes ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_read_that_fails_anywhere_is_said_and_made_good_by_the_next_run(
    source: str, whole: Files, tmp_path: Path
) -> None:
    calls = calls_of_a_run(source, tmp_path / "count", READING)
    assert calls > 500
    silent = []
    for at in range(1, calls + 1, 11):
        target = tmp_path / f"new{at}"
        with failing(READING, errno.EIO, at), suppress(SourceError):
            report = migrate(source, target)
            said = "unread" in report.issues and report.exit_code == 1
            if not said and files(target) != whole:
                silent.append(at)
        migrate(source, target)
        after = files(target)
        assert {name: after.get(name) for name in whole} == whole, at
    assert silent == []


def test_an_unreadable_file_is_counted(source: str, tmp_path: Path) -> None:
    def deny(name: str, *arguments: Any, **keywords: Any) -> int:
        if name.endswith("notes.txt"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return os.open(name, *arguments, **keywords)

    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put("users/ada/notes.txt", b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migration.v2.read, "os", Denied(deny))
        report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert (report.files["u"], report.issues["unread"], report.exit_code) == (1, 1, 1)
    again = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert ("u" in again.files, again.exit_code) == (False, 0)
    assert (tmp_path / "new/attic/users/ada/notes.txt").read_bytes() == b"x"


@dataclass(frozen=True, slots=True)
class Denied:
    """An `os` whose `open` is another one."""

    open: Callable[..., int]

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_a_source_that_grows_while_it_is_read_ends_as_it_is_in_the_end(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for number in range(5):
        tree.session(f"users/ada/s{number}", messages=3)
    tree.put("users/ada/app.log", b"x" * 3_000_000)
    late = iter(range(10, 99))

    def grow(_: object) -> None:
        for path in [*(tmp_path / "v2/users/ada").glob("s*/messages.jsonl"), tmp_path / "v2/users/ada/app.log"]:
            with path.open("ab") as file:
                file.write(good(next(late)) + b"\n")

    migrate(os.fspath(tmp_path / "v2"), tmp_path / "new", SmallSteps(), on_progress=grow)
    with failing({}, 0, 0):
        grow(None)
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "fresh")
    assert files(tmp_path / "new") == files(tmp_path / "fresh")


def test_messages_of_both_sides_in_a_session_put_together_are_all_there(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put(f"users/eve/{SESSION}/session.json", session_record("ada"))
    tree.put(f"users/eve/{SESSION}/messages.jsonl", good(1) + b"\n")
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    (messages,) = (tmp_path / "new").glob("text_chat/sessions/ada/*/messages.jsonl")
    messages.write_bytes(messages.read_bytes() + b'{"id": "new"}\n')
    (tmp_path / "v2/users/eve" / SESSION / "messages.jsonl").write_bytes(good(7) + b"\n" + good(8) + b"\n")
    report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert report.exit_code == 0
    v2 = (good(7) + b"\n" + good(8) + b"\n").replace(b"message_id", b"id")
    assert messages.read_bytes() == v2 + b'{"id": "new"}\n'


def test_what_was_put_together_stays_so_when_its_home_changes(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/profile.json", profile_record())
    tree.session(messages=2)
    tree.put("users/eve/profile.json", profile_record("ada", username="E"))
    tree.put(f"users/eve/{SESSION}/session.json", session_record("ada", updated_at="2025-08-02T00:00:00"))
    tree.put(f"users/eve/{SESSION}/messages.jsonl", good(8) + b"\n")
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    tree.put("users/ada/notes.txt", b"beside the profile")
    tree.put(f"users/ada/{SESSION}/notes.txt", b"beside the session")
    with (tmp_path / "v2/users/ada" / SESSION / "messages.jsonl").open("ab") as file:
        file.write(good(3) + b"\n")
    with pytest.raises(Crash):  # between the redoing and the putting together
        migrate(os.fspath(tmp_path / "v2"), tmp_path / "new", SmallSteps(steps=4))
    report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert report.exit_code == 0
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "fresh")
    assert files(tmp_path / "new") == files(tmp_path / "fresh")


def test_messages_of_the_new_side_in_a_session_that_had_none_are_kept(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session(messages=0)
    migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    (metadata,) = (tmp_path / "new").glob("text_chat/sessions/ada/*/metadata.json")
    messages = metadata.with_name("messages.jsonl")
    messages.write_bytes(b'{"id": "new"}\n')
    (tmp_path / "v2/users/ada" / SESSION / "notes.txt").write_bytes(b"stray")
    report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert report.exit_code == 0
    assert messages.read_bytes() == b'{"id": "new"}\n'


def test_a_pipe_where_a_record_of_documents_should_be_is_not_waited_for(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    os.mkfifo(tree.path(f"users/ada/{SESSION}/documents/metadata.json"))
    os.mkfifo(tree.path("users/default/profile.json"))
    tree.put(f"users/default/sessions/{SESSION}/vectors/vector_index.jsonl", b'{"chunk_id": "a", "document_id": "d"}\n')
    report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert (report.counts["vector_sets"], report.counts["special"]) == (1, 2)


def test_names_that_are_shown_alike_are_two(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for name in (b"users/ada/x\xff.txt", b"users/ada/x%FF.txt"):
        tree.put(name, name)
    tree.put(b"users/ada/s\xff/messages.jsonl", good(1) + b"\n")
    tree.put(b"users/ada/s%FF/messages.jsonl", good(2) + b"\n" + good(3) + b"\n")
    first = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert (first.files, first.counts["sessions"], first.exit_code) == ({"a": 2, "m": 2}, 2, 0)
    second = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert (second.files, second.resumed) == (first.files, 2)


def test_a_document_entry_of_any_key_is_carried_over(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put(f"users/ada/{SESSION}/documents/metadata.json", b'{"\\ud800": {"filename": "x"}}')
    report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
    assert (report.counts["documents"], report.exit_code) == (1, 0)


def test_the_owner_of_a_set_is_found_below_a_source_called_sessions(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "sessions/v2")
    tree.session()
    tree.put("users/default/profile.json", profile_record("dee"))
    tree.put("users/default/sessions/lost/vectors/vector_index.jsonl", b"{}\n")
    migrate(os.fspath(tmp_path / "sessions/v2"), tmp_path / "new")
    (mapping,) = (tmp_path / "new").glob("rag/embeddings/*/mapping.json")
    assert b'"user_id": "dee"' in mapping.read_bytes()


def test_a_persona_in_both_places_is_taken_from_the_first_whichever_is_done_first(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("personas_global/x.json", {"name": "first"})
    tree.put("personas/x.json", {"name": "second"})
    tree.put("personas/y.json", {"name": "only"})
    for _ in range(2):
        report = migrate(os.fspath(tmp_path / "v2"), tmp_path / "new")
        assert (report.counts["personas"], report.files) == (2, {"m": 2, "a": 1})
        (tmp_path / "v2/personas/y.json").write_bytes(b'{"name":   "changed"}')
    assert b"first" in (tmp_path / "new/persona/definitions/x/original.json").read_bytes()
