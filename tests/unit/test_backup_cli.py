"""The commands for backups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import modchat
from tests.backup_trees import contents, write_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = modchat.main(["migrate", "backup", *map(str, arguments), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def test_a_backup_is_made_verified_listed_and_restored(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backups = tmp_path / "backups"
    code, made = run(capsys, "create", "--of", source, "--backups", backups)
    assert (code, made["files"], made["source"]) == (0, 4, str(source))
    _, listed = run(capsys, "list", "--backups", backups)
    assert [row["name"] for row in listed["backups"]] == [made["name"]]
    assert listed["backups"][0]["age_s"] < 60
    before = contents(source)
    (source / "users/alice/messages.jsonl").write_text("spoilt")
    code, shown = run(capsys, "restore", made["name"], "--of", source, "--backups", backups)
    assert (code, shown["files"]) == (0, 4)
    assert (source / "users/alice/messages.jsonl").read_text() == "spoilt"
    code, restored = run(capsys, "restore", made["name"], "--of", source, "--backups", backups, "--execute")
    assert code == 0
    assert contents(source) == before
    assert Path(restored["kept"], "users/alice/messages.jsonl").read_text() == "spoilt"


def test_a_damaged_backup_is_4_and_is_not_restored(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backups = tmp_path / "backups"
    _, made = run(capsys, "create", "--of", source, "--backups", backups)
    (Path(made["path"]) / "users/alice/none").write_text("more")
    before = contents(source)
    assert run(capsys, "verify", "--backups", backups)[0] == 4
    assert run(capsys, "restore", made["name"], "--of", source, "--backups", backups, "--execute")[0] == 4
    assert contents(source) == before


def test_backups_are_pruned(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backups = tmp_path / "backups"
    names = [run(capsys, "create", "--of", source, "--backups", backups)[1]["name"] for _ in range(3)]
    assert run(capsys, "prune", "--backups", backups, "--keep", 1) == (0, {"removed": names[:2]})
    assert run(capsys, "prune", "--backups", backups, "--keep", 0)[0] == 2


def test_what_is_not_there_is_wrong_use(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "--backups", tmp_path / "none")[0] == 2
    assert run(capsys, "create", "--to", source, "--backups", tmp_path / "b")[0] == 2
    run(capsys, "create", "--of", source, "--backups", tmp_path / "b")
    assert run(capsys, "verify", "backup_1999", "--backups", tmp_path / "b")[0] == 2


def test_what_cannot_be_backed_up_is_said(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    os.mkfifo(source / "pipe")
    code, made = run(capsys, "create", "--of", source, "--backups", tmp_path / "b")
    assert (code, made["special"]) == (1, ["pipe"])


def test_there_is_nothing_to_recover(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(capsys, "recover", "--of", source)
    assert (code, found["outcome"]) == (0, "no rollback had been cut short")
