"""``modchat audit verify``, as the command line gives it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import modchat
from modules.core.clock import SystemClock
from modules.core.storage import FlatFiles
from modules.trace_logger.audit_chain import ROOT
from modules.trace_logger.audit_trail import AuditDraft, AuditTrail

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    trail = AuditTrail(FlatFiles(tmp_path), SystemClock())
    trail.append([AuditDraft("tool.execute", "ann", f"tool:{number}") for number in range(3)])
    trail.close()
    return tmp_path


def verify(base: Path, *words: str) -> int:
    return modchat.main(["audit", "verify", "--base", str(base), *words])


def test_an_intact_trail_is_said_to_be_with_its_head(base: Path, capsys: Captured) -> None:
    assert verify(base, "--json") == 0
    head = json.loads(capsys.readouterr().out)["head"]
    assert verify(base, "--expect", head) == 0
    assert capsys.readouterr().out == f"intact: 3 entries, 0 of them with their users erased\nhead: {head}\n"


def test_a_changed_byte_is_named_by_file_line_and_entry(base: Path, capsys: Captured) -> None:
    (chain,) = (base / ROOT).glob("2*.jsonl")
    content = chain.read_bytes()
    place = content.index(b'"seq":2') + 200
    chain.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert verify(base) == 1
    shown = capsys.readouterr().out
    assert "NOT INTACT" in shown
    assert f"{ROOT}/{chain.name}, line 2 (bytes " in shown
    assert "entry 2: was changed" in shown


def test_checking_changes_nothing(base: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    verify(base)
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before


@pytest.mark.parametrize("words", [["--expect", "nonsense"], []])
def test_wrong_use_is_said_to_be(tmp_path: Path, base: Path, words: list[str], capsys: Captured) -> None:
    where = base if words else tmp_path / "nowhere"
    assert verify(where, *words) == 2
    assert capsys.readouterr().err


def test_a_directory_without_a_trail_is_not_taken_for_one_that_is_intact(tmp_path: Path, capsys: Captured) -> None:
    assert verify(tmp_path) == 2
    assert "no audit trail" in capsys.readouterr().err


def test_a_trail_that_is_gone_is_missed_where_its_head_was_kept(tmp_path: Path, capsys: Captured) -> None:
    assert verify(tmp_path, "--expect", f"3:{'a' * 64}") == 1
    assert "ends with entry 0, and had 3" in capsys.readouterr().out
