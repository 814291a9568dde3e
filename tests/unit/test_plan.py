"""A plan says what a run would do and what stands in its way, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.plan import Estimate, Plan, make_plan
from migration.preflight import Space
from migration.sample import write_sample
from migration.state import State
from migration.v2.read import SourceError
from tests.hostile import CASES
from tests.hostile_case import HOME, SESSION, Tree, good, session_record
from tests.plan_trees import NOBODY, PicklingFanOut, found, plan_of, settings_of, watched, without_privileges

T = TypeVar("T")
R = TypeVar("R")


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration.plan.check_dependencies", list)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that a process without privileges can reach and write to."""
    path = Path(tempfile.mkdtemp(prefix="plan-"))
    path.chmod(0o777)
    yield path
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


# ---- it only reads


def state_of(root: Path) -> dict[str, tuple[int, int, int]]:
    paths = [root, *root.rglob("*")]
    return {
        os.fspath(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in paths
    }


def test_nothing_is_written_and_no_message_document_or_vector_is_opened(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2")
    before = state_of(tmp_path)
    with watched() as opened:
        plan = plan_of(tmp_path)
    assert plan.survey.counts["sessions"] > 50
    assert state_of(tmp_path) == before
    assert (opened.writable, opened.changes) == ([], [])
    read = [path for path in opened.paths if path.startswith(os.fspath(tmp_path))]
    assert any(path.endswith("session.json") for path in read)
    contents = [p for p in read if "messages" in p or p.endswith((".npy", "vector_index.jsonl")) or "/documents/" in p]
    assert {os.path.basename(path) for path in contents} == {"metadata.json"}


def test_a_target_that_a_run_has_filled_stays_as_it_is(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    Engine(settings_of(tmp_path), LocalBackend()).run()
    before = state_of(tmp_path)
    plan = plan_of(tmp_path)
    assert state_of(tmp_path) == before
    assert (plan.resumes, plan.exit_code) == (True, 0)


# ---- how it ends


def test_a_sound_store_has_nothing_to_look_at(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    plan = plan_of(tmp_path)
    assert (plan.exit_code, plan.refusals, plan.needs_attention) == (0, (), [])


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        plan_of(tmp_path)


@pytest.mark.parametrize("wrong", [{"sessions_per_s": 0.0}, {"sessions_per_s": -1.0}, {"workers": 0}])
def test_an_estimate_from_no_rate_is_an_error(wrong: dict[str, Any], tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    with pytest.raises(ValueError, match="positive rate"):
        plan_of(tmp_path, **wrong)


def refused(settings: RunSettings) -> str:
    plan = make_plan(settings)
    assert plan.exit_code == 4
    assert "A run would refuse" in plan.text()
    return "; ".join(plan.refusals)


def test_what_is_no_store_of_v2_would_be_refused(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").put("readme.txt", b"text")
    assert "nothing here looks like a v2 store" in refused(settings_of(tmp_path))


def test_a_target_inside_the_source_would_be_refused(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    settings = replace(settings_of(tmp_path), target=os.fspath(tmp_path / "v2" / "new"))
    assert "must not contain each other" in refused(settings)
    assert not (tmp_path / "v2" / "new").exists()


def test_a_target_that_holds_something_else_would_be_refused(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    Tree(tmp_path / "new").put("precious.txt", b"text")
    assert "was not made by a migration" in refused(settings_of(tmp_path))


def test_a_target_made_from_another_source_would_be_refused(tmp_path: Path) -> None:
    for name in ("v2", "other"):
        Tree(tmp_path / name).session()
    Engine(settings_of(tmp_path), LocalBackend()).run()
    assert "was made with source" in refused(replace(settings_of(tmp_path), source=os.fspath(tmp_path / "other")))


def test_a_further_root_that_is_not_there_would_be_refused(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    assert "--extra-root" in refused(replace(settings_of(tmp_path), extra_roots=(os.fspath(tmp_path / "absent"),)))


def test_a_target_that_a_run_works_on_would_be_refused(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    settings = settings_of(tmp_path)
    Engine(settings, LocalBackend()).run()
    lock = State(settings.target).lock()
    try:
        assert "another run is at work" in refused(settings)
    finally:
        os.close(lock)
    assert make_plan(settings).exit_code == 0


def test_missing_dependencies_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tree(tmp_path / "v2").session()
    monkeypatch.setattr("migration.plan.check_dependencies", lambda: ["faiss-cpu"])
    plan = plan_of(tmp_path)
    assert plan.exit_code == 1
    assert any("faiss-cpu" in sentence for sentence in plan.needs_attention)


def test_too_little_space_is_looked_at_unless_a_run_has_begun_to_fill_it(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    plan = replace(plan_of(tmp_path), space=Space("/", 10, 20, None, 0))
    assert plan.exit_code == 1
    assert any("not enough free space" in sentence for sentence in plan.needs_attention)
    assert replace(plan, resumes=True).exit_code == 0


def test_a_target_that_cannot_be_made_is_looked_at(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    (tmp_path / "file").write_bytes(b"")
    plan = make_plan(replace(settings_of(tmp_path), target=os.fspath(tmp_path / "file" / "new")))
    assert plan.exit_code == 1
    assert any("it is not a directory" in sentence for sentence in plan.needs_attention)


# ---- what cannot be read, and what is gone


def test_files_and_directories_that_may_not_be_read_are_listed_and_counted_as_the_run_counts_them(
    open_to_all: Path,
) -> None:
    tree = Tree(open_to_all / "v2")
    tree.session()
    tree.session("users/ada/closed", messages=1)
    tree.put("users/ada/closed/situational_context.json", {"summary": "s"})
    tree.put("users/ada/no_record/session.json", session_record())
    tree.put("users/ada/hidden/session.json", session_record())
    tree.put("users/ada/stray.txt", b"text")
    closed = (
        "closed/messages.jsonl",
        "closed/situational_context.json",
        "no_record/session.json",
        "stray.txt",
        "hidden",
    )
    for name in closed:
        os.chmod(open_to_all / "v2/users/ada" / name, 0)
    tree.put("logs/a.log", b"line")
    os.chmod(open_to_all / "v2/logs", 0)
    with without_privileges():
        plan = plan_of(open_to_all)
        report = Engine(settings_of(open_to_all), LocalBackend()).run().to_json()
    assert [path for path, _ in found(plan, "unread")] == ["logs", *sorted(f"users/ada/{name}" for name in closed)]
    assert plan.exit_code == 1
    same = ("unread", "sessions", "contexts", "attic", "migrated_files", "bytes", "empty_dirs")
    planned = plan.to_json()
    assert {name: planned[name] for name in same} == {name: report[name] for name in same}
    assert (planned["unread"], planned["empty_dirs"]) == (4, 0)


def test_a_users_directory_that_cannot_be_listed_is_unreadable_and_would_be_refused(open_to_all: Path) -> None:
    Tree(open_to_all / "v2").session()
    os.chmod(open_to_all / "v2/users", 0)
    with without_privileges():
        plan = plan_of(open_to_all)
    assert plan.exit_code == 4
    assert [path for path, _ in found(plan, "unread")] == ["users"]
    assert [path for path, _ in found(plan, "stopped")] == ["users"]


def test_a_target_without_permission_is_looked_at(open_to_all: Path) -> None:
    Tree(open_to_all / "v2").session()
    (open_to_all / "locked").mkdir(mode=0o555)
    if os.geteuid() == 0:
        os.chown(open_to_all / "locked", NOBODY, NOBODY)
    settings = replace(settings_of(open_to_all), target=os.fspath(open_to_all / "locked" / "new"))
    with without_privileges():
        plan = make_plan(settings)
    assert plan.unwritable is not None
    assert "no permission to write" in plan.unwritable
    assert plan.exit_code == 1


class Remover:
    """Removes a directory between its being listed and its being looked at."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        listed = list(items)
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)
        return map(function, listed)


def test_directories_that_vanish_meanwhile_are_a_notice(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.session(f"users/eve/{SESSION}", "eve")
    tree.put("panel_sessions/p/panel.json", {"id": "p"})
    tree.put("logs/a.log", b"line")
    plan = plan_of(
        tmp_path, fan_out=Remover(*(tmp_path / "v2" / name for name in ("users/eve", "panel_sessions/p", "logs")))
    )
    assert plan.exit_code == 0
    assert [path for path, _ in found(plan, "vanished")] == ["eve", "logs", "panel_sessions/p"]
    assert plan.survey.counts["sessions"] == 1


# ---- what it tells


def test_the_largest_user_and_session_are_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for number in range(3):
        tree.session(f"users/ada/s{number}")
    tree.session("users/eve/big", "eve", messages=50)
    plan = plan_of(tmp_path)
    size = sum(path.stat().st_size for path in (tmp_path / "v2/users/eve/big").iterdir())
    assert plan.survey.largest_user == (size, 1, "users/eve")
    assert plan.survey.largest_session == (size, 1, "users/eve/big")


def test_sessions_are_told_apart_by_generation_and_name(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session(f"old/{SESSION}", "old")
    tree.session()
    tree.put("users/ada/panel_20250801_100000_000001/session.json", session_record(session_type="panel"))
    tree.put("users/ada/x/session.json", {"id": "x", "user_id": "ada"})
    for name in ("5d2fa851-a0ac-4550-93ed-9a65918e8157", "persona_p_1"):
        tree.put(f"users/ada/{name}/messages.jsonl", good(1) + b"\n")
    survey = plan_of(tmp_path).survey
    assert survey.generations == {"G1": 1, "G2": 1, "G3": 1, "G6": 1, "external": 2}
    assert survey.layouts == {"chat": 2, "typed": 1, "uuid": 1, "persona": 1, "other": 1}


def test_what_will_be_inferred_is_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/no_record/messages.jsonl", good(1) + b"\n")
    tree.put("users/ada/damaged/session.json", b"{")
    tree.put("users/ada/no_times/session.json", {"session_id": "no_times", "user_id": "ada"})
    plan = plan_of(tmp_path)
    assert [path for path, _ in found(plan, "no_record")] == ["users/ada/damaged", "users/ada/no_record"]
    assert [path for path, _ in found(plan, "no_times")] == ["users/ada/no_times"]
    assert [path for path, _ in found(plan, "no_profile")] == ["users/ada"]
    assert len(plan.to_json()["checklist"]["inferred"]) == 3


def test_a_store_in_use_shows_by_its_fresh_locks_and_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put(f"{HOME}/messages.jsonl.lock")
    tree.put("base.lock")
    newest_ns = (tmp_path / "v2/base.lock").stat().st_mtime_ns
    busy = plan_of(tmp_path, now_ns=newest_ns + 299 * 10**9)
    assert [path for path, _ in found(busy, "fresh_lock")] == ["base.lock", f"{HOME}/messages.jsonl.lock"]
    assert {path for path, _ in found(busy, "recent")} == {f"{HOME}/session.json", f"{HOME}/messages.jsonl"}
    assert "4 files were touched" in busy.text()
    idle = plan_of(tmp_path, now_ns=newest_ns + 301 * 10**9)
    assert idle.survey.findings.keys().isdisjoint({"fresh_lock", "recent"})
    assert "nothing was touched" in idle.text()
    assert (busy.exit_code, idle.exit_code) == (0, 0)


def test_time_is_a_range_from_the_rate_given(tmp_path: Path) -> None:
    estimate = Estimate.of(48_000, sessions_per_s=4000.0, workers=3)
    assert estimate.low_s == 4.0
    assert estimate.high_s > estimate.low_s
    Tree(tmp_path / "v2").session()
    slow = plan_of(tmp_path, sessions_per_s=0.1, workers=2)
    assert slow.estimate.low_s == 5.0
    assert "5 s to 20 s with 2 workers" in slow.text()


# ---- how it tells


@pytest.fixture
def sample(tmp_path: Path) -> Plan:
    write_sample(tmp_path / "v2")
    return plan_of(tmp_path)


def test_the_plan_is_one_json_object_with_every_point_of_the_checklist(sample: Plan) -> None:
    told = json.loads(json.dumps(sample.to_json()))
    assert told["exit_code"] == 0
    points = {"backup", "custom_configuration", "active_integrations", "breaking_changes", "test_environment"}
    assert points | {"rollback_plan", "inferred"} == told["checklist"].keys()
    assert all(told["checklist"].values())
    assert told["files"] == told["migrated_files"] + told["attic"] + told["ignored"] + told["unread"]
    assert told["examples"].keys() == told["findings"].keys()


def test_the_text_names_every_finding_and_the_way_back(sample: Plan) -> None:
    text = sample.text()
    assert text.endswith("\n")
    for finding in sample.survey.findings.values():
        assert all(issue.path in text for issue in finding.examples)
    for phrase in ("modchat migrate reverse", "RollbackManager", "LegacyStorageAdapter", "Back-up", "only in memory"):
        assert phrase in text


def test_examples_are_the_first_ten_and_the_rest_is_counted(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    for number in range(25):
        tree.put(f"logs/{24 - number:02d}.log", b"line")
    plan = plan_of(tmp_path)
    assert [path for path, _ in found(plan, "attic")] == [f"logs/{number:02d}.log" for number in range(10)]
    assert "... and 15 more" in plan.text()


@pytest.mark.parametrize("name", ["names_that_are_not_utf8", "user_id_with_newline", "links_of_every_sort"])
def test_names_of_any_bytes_can_be_printed(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path / "v2")
    plan = plan_of(tmp_path)
    plan.text().encode("utf-8")
    json.dumps(plan.to_json(), ensure_ascii=False).encode("utf-8")


def test_links_are_told_with_their_targets(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    (tmp_path / "v2/users/alias").symlink_to("ada")
    assert found(plan_of(tmp_path), "link") == [("users/alias", "to ada")]


# ---- on a cluster


def test_a_plan_made_elsewhere_in_another_order_is_the_same(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2", users=200, sessions=2, messages=1)
    fan_out = PicklingFanOut()
    here, there = plan_of(tmp_path), plan_of(tmp_path, fan_out=fan_out)
    volatile = ("elapsed_s", "space")
    assert {k: v for k, v in there.to_json().items() if k not in volatile} == {
        k: v for k, v in here.to_json().items() if k not in volatile
    }
    assert fan_out.largest_result < 64_000
