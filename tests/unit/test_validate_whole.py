"""Both trees whole: a right migration is equal, and every known way of being wrong is found."""

import base64
import gc
import json
import os
from pathlib import Path

import pytest

from migration.verify.plain import PlainProver
from migration.verify.tree import Tree
from migration.verify.users import BatchResult, Job, UserDirectory
from tests.corruptions import CORRUPTIONS
from tests.unit.test_validate_pair import FIRST, NAMES, findings, make_pair, plain_session, put, words


def test_the_hand_made_migration_is_equal_to_its_source(tmp_path: Path) -> None:
    report = make_pair(tmp_path).validator().report()

    assert not report.findings, words(map(str, report.findings))
    assert report.equal
    assert report.root.source == report.root.target


def test_every_file_and_every_line_is_accounted_for(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)

    report = pair.validator().report()

    in_source = sum(len(files) for _, _, files in os.walk(pair.old))
    assert report.files["source"] == in_source
    assert report.files["migrated"] + report.files["attic"] + report.files["ignored"] == in_source
    assert (report.files["attic"], report.files["ignored"]) == (4, 1)
    counted = {key: report.lines[key] for key in ("message", "salvaged", "quarantined", "blank", "physical")}
    assert counted == {"message": 20, "salvaged": 1, "quarantined": 1, "blank": 1, "physical": 23}


def test_a_raw_line_that_is_not_utf8_stands_in_quarantine_as_base64(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    raw = b'{"role": "\xff"}'
    with (pair.old / f"users/alice/{FIRST}/messages.jsonl").open("ab") as file:
        file.write(raw + b"\n")
    offset = (pair.old / f"users/alice/{FIRST}/messages.jsonl").stat().st_size - len(raw) - 1
    row = {"line": 4, "offset": offset, "reason": "not UTF-8", "raw": base64.b64encode(raw).decode()}
    rows = json.dumps({**row, "raw_encoding": "base64", "salvaged_id": None}) + "\n"

    assert "row of quarantine.jsonl" in words(findings(pair))
    put(pair.new, f"text_chat/sessions/alice/{FIRST}/quarantine.jsonl", rows)
    assert not findings(pair)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_found(name: str, tmp_path: Path) -> None:
    pair = make_pair(tmp_path)

    CORRUPTIONS[name](pair.new)
    report = pair.validator().report()

    assert report.errors
    assert not report.equal
    assert report.root.source != report.root.target
    assert all(len(finding.expected) <= 40 and len(finding.found) <= 40 for finding in report.findings)


@pytest.mark.slow
def test_the_source_root_is_of_the_source_alone(tmp_path: Path) -> None:
    roots = {make_pair(tmp_path / "whole").validator().report().root.source}
    # only the target says in which order the messages of parts stand
    for name in CORRUPTIONS.keys() - {"lost_part"}:
        pair = make_pair(tmp_path / name)
        CORRUPTIONS[name](pair.new)
        roots.add(pair.validator().report().root.source)

    assert len(roots) == 1


class Doubting(PlainProver):
    """Shows nothing, so that everything is compared member by member."""

    def messages(self, source: bytes, target: bytes) -> int | None:
        return None

    def session(self, user: str, id_: str, path: str, source: bytes, target: bytes, messages: int) -> bool:
        return False

    def profile(self, user: str, path: str, source: bytes, target: bytes) -> bool:
        return False


@pytest.mark.parametrize("name", [None, "changed_title", "changed_message_id", "missing_profile"])
def test_the_proof_by_bytes_gives_what_the_close_look_gives(name: str | None, tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    if name is not None:
        CORRUPTIONS[name](pair.new)

    results = []
    job = Job(str(pair.old), str(pair.new), NAMES)
    with Tree(job.source) as source, Tree(job.target) as target:
        for prover in (PlainProver(), Doubting()):
            result = BatchResult()
            for user in ("users/alice", "users/bob", "users/root", "gina"):
                UserDirectory(job, job.sides(source, target), prover, user, result).run()
            shown = sum(map(len, result.proved.values()))
            result.seal()
            results.append((shown, result))
    (shown, by_bytes), (doubted, closely) = results

    assert shown >= 3
    assert doubted == 0
    assert sorted(map(str, by_bytes.nodes)) == sorted(map(str, closely.nodes))
    assert by_bytes.tally == closely.tally
    assert (by_bytes.unclaimed, by_bytes.visited) == (closely.unclaimed, closely.visited)


@pytest.mark.parametrize("what", ["file", "directory", "link", "pipe"])
def test_whatever_stands_beside_the_files_of_a_plain_session_is_found(what: str, tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    path = pair.new / f"text_chat/sessions/alice/{FIRST}/beside"
    match what:
        case "file":
            path.write_text("{}")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("metadata.json")
        case "pipe":
            os.mkfifo(path)

    assert "beside comes from nothing in the source" in words(findings(pair))


@pytest.mark.parametrize("name", ["messages.jsonl", "metadata.json"])
def test_a_link_in_the_place_of_a_plain_sessions_file_is_not_followed(name: str, tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    path = pair.new / f"text_chat/sessions/alice/{FIRST}/{name}"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert name in words(findings(pair))


def test_a_session_outside_users_is_of_the_first_generation(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    plain_session(pair, "", "gina", FIRST)

    assert "legacy.generation: expected G1, found G3" in words(findings(pair))


def test_comparing_leaves_the_garbage_collector_as_it_was(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    before = gc.isenabled()
    gc.enable()
    try:
        findings(pair)
        after = gc.isenabled()
        gc.disable()
        findings(pair)
        assert (after, gc.isenabled()) == (True, False)
    finally:
        if before:
            gc.enable()


def test_the_corruptions_are_many() -> None:
    assert len(CORRUPTIONS) >= 80
