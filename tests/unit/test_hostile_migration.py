"""Every case of bad input is migrated whole: each figure is as expected, and nothing is lost, changed or done twice."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migration.engine import Engine, LocalBackend
from migration.issues import Issue
from migration.job import RunSettings
from migration.report import RunReport
from migration.v2.names import V2Names
from tests.hostile import CASES, Expectation, folder_cases
from tests.hostile_case import shown

ALL = CASES | folder_cases()

USER_PERSONAS = "persona/users/*/*/profile.json"

Snapshot = dict[str, tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True)
class Migrated:
    """A case, migrated once."""

    source: Path
    target: Path
    settings: RunSettings
    expected: Expectation
    report: RunReport
    source_before: Snapshot

    @property
    def figures(self) -> dict[str, Any]:
        return self.report.to_json()

    def issues(self, *kinds: str) -> list[Issue]:
        return [issue for kind in kinds for issue in self.report.examples.get(kind, ())]


def snapshot(root: Path, without: str = "") -> Snapshot:
    """Kind, mtime (ns) and bytes of everything below *root*; links are not followed, pipes not opened."""
    found: Snapshot = {}
    for directory, directories, files in os.walk(root):
        if without in directories:
            directories.remove(without)
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.fsencode(os.readlink(path))
            found[os.path.relpath(path, root)] = (stat.S_IFMT(status.st_mode), status.st_mtime_ns, content)
    return found


def regular(found: Snapshot) -> set[str]:
    return {path for path, (kind, _, _) in found.items() if kind == stat.S_IFREG}


def run(settings: RunSettings) -> RunReport:
    return Engine(settings, LocalBackend()).run()


@pytest.fixture(params=ALL)
def migrated(request: pytest.FixtureRequest, tmp_path: Path) -> Migrated:
    source, target = tmp_path / "v2", tmp_path / "new"
    expected = ALL[request.param](source)
    names = V2Names()
    if expected.v2_config is not None:
        sections = expected.v2_config.values()
        names = V2Names.from_config({key: value for section in sections for key, value in section.items()})
    settings = RunSettings(os.fspath(source), os.fspath(target), names)
    before = snapshot(source)
    report = run(settings)
    assert snapshot(source) == before, "the source was changed"
    assert {path.name for path in tmp_path.iterdir()} == {"v2", "new"}, "something was written beside the target"
    return Migrated(source, target, settings, expected, report, before)


def test_a_case_is_migrated_as_expected(migrated: Migrated) -> None:
    """All that is asked of one case, since building and migrating it is what takes the time."""
    check_figures(migrated)
    check_conservation(migrated)
    check_sessions(migrated)
    check_other_homes(migrated)
    check_attic(migrated)
    check_report(migrated)
    check_second_run(migrated)


def check_figures(case: Migrated) -> None:
    expected = case.expected
    wanted = {
        "sessions": len(expected.sessions),
        "messages": expected.messages,
        "archived": len(expected.archived),
        "archived_messages": expected.archived_messages,
        "panel_messages": expected.panel_messages,
        "salvaged": expected.salvaged,
        "quarantined": expected.quarantined,
        "blank": expected.blank,
        "documents": expected.documents,
        "contexts": expected.contexts + expected.snapshots,
        "profiles": len(expected.profiles),
        "personas": expected.personas,
        "panels": expected.panels,
        "vector_sets": expected.vector_sets,
        "attic": len(expected.attic),
        "ignored": len(expected.ignored),
        "links": len(expected.links),
        "special": len(expected.special),
        "unread": 0,
        "exit_code": 0,
    }
    assert {name: case.figures[name] for name in wanted} == wanted


def check_conservation(case: Migrated) -> None:
    figures, files = case.figures, regular(snapshot(case.source))
    assert figures["migrated_files"] + figures["attic"] + figures["ignored"] + figures["unread"] == len(files)
    assert figures["migrated_files"] == len(files - case.expected.attic - case.expected.ignored)
    assert figures["bytes"] == sum((case.source / path).stat().st_size for path in files)
    ends = ("messages", "archived_messages", "panel_messages", "quarantined", "blank")
    assert figures["lines"] == sum(figures[end] for end in ends)


def check_sessions(case: Migrated) -> None:
    live = {path.parent: load(path) for path in case.target.glob("text_chat/sessions/*/*/metadata.json")}
    assert {(record["user_id"], record["id"]) for record in live.values()} == case.expected.sessions
    assert sum(record["message_count"] for record in live.values()) == case.expected.messages
    ids = {}
    for home, record in live.items():
        ids[record["user_id"], record["id"]] = found = message_ids(home / "messages.jsonl")
        assert len(found) == record["message_count"] == record["legacy"]["messages"]
        assert record["active"] is True
    for session, wanted in (case.expected.ids or {}).items():
        assert ids[session] == wanted
    archived = {path.parent: load(path) for path in case.target.glob("text_chat/archive/*/*/*/metadata.json")}
    found_archived = {(record["user_id"], record["id"], home.name) for home, record in archived.items()}
    assert found_archived == case.expected.archived
    assert not any(record["active"] for record in archived.values())
    quarantine = [
        load_line(line) for path in case.target.rglob("quarantine.jsonl") for line in path.read_bytes().splitlines()
    ]
    salvaged = sum(row["salvaged_id"] is not None for row in quarantine)
    assert (salvaged, len(quarantine) - salvaged) == (case.expected.salvaged, case.expected.quarantined)


def check_other_homes(case: Migrated) -> None:
    expected, target = case.expected, case.target
    profiles = [load(path)["user_id"] for path in target.glob("text_chat/users/*/profile.json")]
    assert sorted(profiles) == sorted(expected.profiles)
    insights = [record for path in target.glob("multi_agent/conversations/*/decisions.json") for record in load(path)]
    found = {
        "shards": len(list(target.glob("text_chat/sessions/*/*/shards/*"))),
        "contexts": len(list(target.glob("memory/short_term/*/*/context.json"))),
        "snapshots": len(list(target.glob("memory/short_term/*/*/history/*"))),
        "documents": len(list(target.glob("rag/documents/*/metadata.json"))),
        "vector_sets": len(list(target.glob("rag/embeddings/*/mapping.json"))),
        "personas": sum(
            len(list(target.glob(f"persona/{home}/profile.json"))) for home in ("definitions/*", "users/*/*")
        ),
        "panels": len(list(target.glob("multi_agent/conversations/*/metadata.json"))),
        "insights": len(insights),
    }
    assert found == {name: getattr(expected, name) for name in found}
    registry = target / "rag/indices/document_registry.json"
    registered = load(registry)["documents"] if registry.exists() else {}
    assert registered.keys() == {path.parent.name for path in target.glob("rag/documents/*/metadata.json")}


def check_attic(case: Migrated) -> None:
    attic = case.target / "attic"
    assert regular(snapshot(attic)) == case.expected.attic
    for path in case.expected.attic:
        assert (attic / path).read_bytes() == (case.source / path).read_bytes()


def check_report(case: Migrated) -> None:
    expected = case.expected
    in_attic = {issue.path for issue in case.issues("attic", "attic_json", "temporary")}
    assert {shown(path) for path in expected.attic} <= in_attic
    assert {issue.path for issue in case.issues("link")} == {shown(path) for path in expected.links}
    assert {issue.path for issue in case.issues("special")} == {shown(path) for path in expected.special}
    for notice in expected.notices:
        assert any(notice.path in (issue.path, *issue.detail.split(", ")) for issue in case.issues(notice.kind)), notice
    kept = Path(case.target, ".migration/reports/run-000001.json")
    assert load(kept)["issues"] == case.report.issues
    assert shown(os.fspath(case.target)) in kept.with_suffix(".txt").read_text()


def check_second_run(case: Migrated) -> None:
    before = snapshot(case.target, without=".migration")
    assert not any(name.rpartition("/")[2].startswith(".tmp-") for name in before)
    again = run(case.settings)
    assert snapshot(case.source) == case.source_before
    assert snapshot(case.target, without=".migration") == before
    varying = {"run", "elapsed_s", "tasks", "work_s", "resumed"}
    first, second = case.figures, again.to_json()
    assert {key: value for key, value in second.items() if key not in varying} == {
        key: value for key, value in first.items() if key not in varying
    }
    assert second["resumed"] == first["sessions"]


def load(path: Path) -> Any:
    return json.loads(path.read_bytes(), parse_int=_int)


def load_line(line: bytes) -> Any:
    return json.loads(line, parse_int=_int)


def _int(text: str) -> int | str:
    return int(text) if len(text) < 4000 else text


def message_ids(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b"", "the last line has no newline"
    return tuple(load_line(line)["id"] for line in lines)
