"""What must hold before anything is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from migration.guards import check_same_run, check_source, check_target, identity, names_of
from migration.job import RunSettings
from migration.state import RefusedError, State
from migration.v2.names import V2Names
from migration.v2.read import SourceError


@pytest.fixture
def run(tmp_path: Path) -> RunSettings:
    (tmp_path / "v2/users/ada").mkdir(parents=True)
    return RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new"))


def test_a_store_with_a_user_a_panel_or_personas_is_one(run: RunSettings, tmp_path: Path) -> None:
    check_source(run)
    for name in ("panel_sessions/p", "personas_global", "people/x"):
        root = tmp_path / name.replace("/", "_")
        (root / name).mkdir(parents=True)
        names = V2Names(users_dirs=("people",))
        check_source(RunSettings(os.fspath(root), run.target, names))


def test_a_source_that_is_absent_or_cannot_be_read_is_an_error_of_the_source(
    run: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        check_source(replace(run, source=run.source + "x"))
    with pytest.raises(SourceError, match="--extra-root"):
        check_source(replace(run, extra_roots=(run.source + "x",)))
    monkeypatch.setattr(os, "scandir", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(SourceError, match="Permission denied"):
        check_source(run)


@pytest.mark.parametrize("name", ["", "other/ada", "logs"])
def test_a_directory_that_looks_like_no_store_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "v2" / name).mkdir(parents=True)
    with pytest.raises(RefusedError, match="nothing here looks like a v2 store"):
        check_source(RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new")))


def test_an_unknown_time_zone_is_refused_before_anything_is_written(run: RunSettings) -> None:
    check_source(replace(run, source_timezone="Europe/Berlin"))
    with pytest.raises(RefusedError, match="--source-timezone: no time zone is called 'Mars/Base'"):
        check_source(replace(run, source_timezone="Mars/Base"))


def test_a_new_an_empty_and_an_earlier_target_are_fine(run: RunSettings) -> None:
    check_target(run)
    os.mkdir(run.target)
    check_target(run)
    State(run.target).make()
    Path(run.target, "text_chat").mkdir()
    check_target(run)


def test_a_target_that_is_somebody_elses_is_refused(run: RunSettings) -> None:
    Path(run.target).mkdir()
    Path(run.target, "mine.txt").write_text("x")
    with pytest.raises(RefusedError, match="is not empty and was not made by a migration"):
        check_target(run)


def test_a_target_that_is_a_file_is_refused(run: RunSettings) -> None:
    Path(run.target).write_text("x")
    with pytest.raises(RefusedError, match="is not a directory"):
        check_target(run)


@pytest.mark.parametrize("target", ["v2", "v2/new", ".", "v2/users/ada", "link", "link/new"])
def test_source_and_target_may_not_contain_each_other_by_any_name(
    run: RunSettings, tmp_path: Path, target: str
) -> None:
    (tmp_path / "link").symlink_to("v2")
    with pytest.raises(RefusedError, match="must not contain each other"):
        check_target(replace(run, target=os.path.normpath(tmp_path / target)))


@pytest.mark.parametrize(("root", "target"), [("extra", "extra"), ("extra", "extra/new"), ("new/extra", "new")])
def test_an_extra_root_and_the_target_may_not_either(run: RunSettings, tmp_path: Path, root: str, target: str) -> None:
    (tmp_path / root).mkdir(parents=True)
    settings = replace(run, extra_roots=(os.fspath(tmp_path / root),), target=os.fspath(tmp_path / target))
    with pytest.raises(RefusedError, match="must not contain each other"):
        check_target(settings)


def test_a_directory_whose_name_begins_like_the_sources_is_another_one(run: RunSettings) -> None:
    check_target(replace(run, target=run.source + "-new"))


def test_a_target_is_continued_only_with_what_it_was_made_from(run: RunSettings) -> None:
    earlier = identity(run)
    check_same_run(run, None)
    check_same_run(run, earlier)
    check_same_run(replace(run, names=run.names.with_users_dirs(("people",))), earlier)
    for other, said in (
        (replace(run, source=os.path.dirname(run.source)), "--from"),
        (replace(run, source_timezone="UTC"), "--source-timezone"),
        (replace(run, names=V2Names(messages="log.jsonl")), "--config"),
    ):
        with pytest.raises(RefusedError, match=said):
            check_same_run(other, earlier)


def test_the_names_that_a_target_was_made_with_can_be_had_again(run: RunSettings) -> None:
    state = State(run.target)
    state.make()
    assert names_of(state) is None
    names = V2Names(users_dirs=("people", "users"), messages="log.jsonl")
    state.write("run.json", identity(replace(run, names=names)))
    assert names_of(state) == names
