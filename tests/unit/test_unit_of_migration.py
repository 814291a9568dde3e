"""The unit of migration: sums that must match, and text for everything that the ledger keeps."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.issues import KINDS, Severity, severity_of
from migration.unit import (
    ATTIC,
    COUNTS,
    MIGRATED,
    Unit,
    UnitDraft,
    content_digest,
    counts_named,
    fact_path,
    fact_text,
    ledger_name,
    ledger_path,
    path_fact,
    printable,
    text_fact,
)

PATHS = st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)


def test_a_draft_becomes_a_unit_with_its_files_in_order() -> None:
    draft = UnitDraft("s", listed=2)
    draft.file("s/b", 1, 2, MIGRATED, b"B")
    draft.file("s/a", 3, 4, ATTIC, b"A")
    draft.count("sessions")
    unit = draft.finished()
    assert unit.files == [("s/a", 3, 4, ATTIC), ("s/b", 1, 2, MIGRATED)]
    assert unit.digest == content_digest([b"A", b"B"])
    assert counts_named(unit.counts)["sessions"] == 1
    assert unit.issues == []
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(unit), type=Unit) == unit


def test_a_file_ends_once() -> None:
    draft = UnitDraft("s")
    draft.file("s/a", 1, 2, MIGRATED)
    with pytest.raises(AssertionError, match="s/a was accounted for twice"):
        draft.file("s/a", 1, 2, ATTIC)


@pytest.mark.parametrize(("listed", "vanished", "balanced"), [(0, 0, True), (1, 0, True), (2, 0, False), (2, 1, True)])
def test_a_listed_file_without_an_end_is_an_issue(listed: int, vanished: int, balanced: bool) -> None:
    draft = UnitDraft("s", listed=listed, vanished=vanished)
    draft.file("s/a", 1, 2, MIGRATED)
    assert ([issue.kind for issue in draft.finished().issues] == []) is balanced


@pytest.mark.parametrize("end", ["messages", "archived_messages", "panel_messages", "quarantined", "blank"])
def test_every_line_has_one_end(end: str) -> None:
    draft = UnitDraft("s")
    draft.count("lines", 2)
    draft.count(end, 2)
    assert draft.finished().issues == []
    draft.count(end)
    (issue,) = draft.finished().issues
    assert (issue.kind, severity_of(issue.kind)) == ("unbalanced", Severity.ATTENTION)
    assert issue.detail == "2 lines were read and 3 accounted for"


def test_salvaged_lines_are_messages_already() -> None:
    draft = UnitDraft("s")
    for name in ("lines", "messages", "salvaged"):
        draft.count(name)
    assert draft.finished().issues == []


def test_the_digest_is_of_the_contents_in_order() -> None:
    digests = [[b"1", b"2"], [b"2", b"1"], [b"1"], []]
    assert len({*map(content_digest, digests)}) == 4


@given(PATHS)
def test_a_path_of_any_bytes_can_be_kept_and_read_back(path: str) -> None:
    assert fact_path(path_fact(path)) == path
    assert ledger_path(ledger_name(path)) == path
    msgspec.msgpack.encode([path_fact(path), ledger_name(path)])


@given(PATHS, PATHS)
def test_no_two_paths_share_a_name_in_the_ledger(one: str, other: str) -> None:
    assert (ledger_name(one) == ledger_name(other)) == (one == other)


@given(st.text(st.characters(), max_size=12))
def test_an_id_of_any_characters_can_be_kept_and_read_back(text: str) -> None:
    assert fact_text(text_fact(text)) == text
    msgspec.msgpack.encode([text_fact(text), printable(text)])


def test_text_that_utf8_cannot_hold_is_shown_as_escapes() -> None:
    assert (printable("plain é"), printable("a\ud800")) == ("plain é", "a\\ud800")


def test_issues_hold_text_that_can_be_written() -> None:
    draft = UnitDraft("s")
    draft.issue("attic", "a\udcff", "\ud800")
    assert (draft.issues[0].path, draft.issues[0].detail) == ("a\\udcff", "\\ud800")


def test_every_count_starts_at_nothing_and_every_kind_has_a_meaning() -> None:
    assert set(counts_named(UnitDraft("").counts).values()) == {0}
    assert len(set(COUNTS)) == len(COUNTS)
    assert all(meaning for _, meaning in KINDS.values())
