"""The outcome of a run, as figures, as text and as an exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from migration.issues import KINDS, Issue, Severity
from migration.job import RunSettings
from migration.report import NOT_ON_DISK, RunReport
from migration.shard import Totals
from migration.unit import COUNTS
from migration.worker import Result


def report(*issues: Issue, **counts: int) -> RunReport:
    totals = Totals()
    result = Result(issues=list(issues), files={"m": 5, "a": 2, "i": 1}, bytes=1_234_567, users=3)
    result.counts = [counts.get(name, 0) for name in COUNTS]
    totals.add(result)
    return RunReport.of(totals, RunSettings("/old", "/new"), run=2, elapsed_s=1.25, workers=4, shards=1)


def test_every_count_is_a_figure() -> None:
    figures = report(**{name: number for number, name in enumerate(COUNTS, 1)}).to_json()
    assert {name: figures[name] for name in COUNTS} == {name: number for number, name in enumerate(COUNTS, 1)}
    assert (figures["migrated_files"], figures["attic"], figures["ignored"], figures["unread"]) == (5, 2, 1, 0)
    assert (figures["users"], figures["bytes"], figures["run"], figures["elapsed_s"]) == (3, 1_234_567, 2, 1.25)
    json.dumps(figures)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_a_person_must_look_at_changes_the_exit_code(kind: str) -> None:
    found = report(Issue(kind, "users/ada/x", "why"))
    assert found.exit_code == (KINDS[kind][0] is Severity.ATTENTION)
    assert found.to_json()["exit_code"] == found.exit_code
    assert found.notices == [f"{KINDS[kind][0].value}: {kind} (1): {KINDS[kind][1]}; e.g. users/ada/x: why"]


def test_a_run_without_findings_says_so() -> None:
    found = report(sessions=1234)
    assert (found.exit_code, found.notices) == (0, [])
    assert "Nothing unusual was found." in found.text()
    assert "1,234" in found.text()
    assert "Migrated /old to /new in 1.25 s (run 2)" in found.text()
    assert NOT_ON_DISK in found.text()


def test_the_text_shows_some_examples_and_says_how_many_there_are() -> None:
    text = report(*(Issue("attic", f"file{number}") for number in range(12))).text()
    assert "[notice] attic (12)" in text
    assert "file9" in text
    assert "file10" not in text
    assert "all 12 are in" in text


def test_every_figure_of_the_text_is_one_of_the_object() -> None:
    found = report(messages=7)
    figures = found.to_json()
    shown = {line.rsplit(None, 1)[0].strip() for line in found.text().split("\n") if line.startswith("  ")}
    assert {name.replace(" ", "_") for name in shown} <= figures.keys()


def test_a_report_is_kept_as_text_and_as_an_object_with_its_examples(tmp_path: Path) -> None:
    found = report(Issue("link", "a\\udcff", "to b"), Issue("link", "c", ""))
    base = found.write(f"{tmp_path}/reports")
    assert base == f"{tmp_path}/reports/run-000002"
    kept = json.loads(Path(f"{base}.json").read_bytes())
    assert kept["examples"] == {"link": [["a\\udcff", "to b"], ["c", ""]]}
    assert kept["issues"] == {"link": 2}
    assert Path(f"{base}.txt").read_text() == found.text()


def test_a_path_that_is_not_utf8_can_be_kept(tmp_path: Path) -> None:
    found = replace(report(), source="/old\udcff")
    assert "/old\\udcff" in Path(found.write(str(tmp_path)) + ".txt").read_text()
