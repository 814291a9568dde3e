from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modules.core.bus import DEAD_LETTERS
from modules.core.errors import StorageError
from modules.core.storage import FlatFiles
from modules.trace_logger.dead_letters import erase_letters, letters_of
from modules.trace_logger.pseudonyms import KEY, Pseudonyms
from modules.trace_logger.trace_files import ROOT, TraceFiles, lines_with

NOON = datetime(2024, 1, 15, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def files(tmp_path: Path) -> FlatFiles:
    return FlatFiles(tmp_path)


def everything(traces: TraceFiles, since: datetime | None = None) -> list[bytes]:
    return [line for file in traces.found(since) for line in traces.read(file).splitlines()]


@pytest.mark.parametrize(
    ("rotate", "names"),
    [("day", ["day-000.jsonl"]), ("hour", ["12-000.jsonl", "13-000.jsonl"])],
)
def test_lines_stand_in_the_file_of_the_time_of_writing(files: FlatFiles, rotate: str, names: list[str]) -> None:
    traces = TraceFiles(files, rotate)
    traces.append(b"one\n", NOON)
    traces.append(b"two\n", NOON + timedelta(hours=1))
    assert files.list(f"{ROOT}/") == [f"{ROOT}/2024-01-15/{name}" for name in names]
    assert everything(traces) == [b"one", b"two"]


def test_a_file_that_has_grown_large_is_followed_by_another_also_after_a_restart(files: FlatFiles) -> None:
    for number in range(4):
        TraceFiles(files, "day", large_bytes=15).append(b"%d\n" % number * 5, NOON)
    assert [file.part for file in TraceFiles(files, "day").found()] == [0, 1]
    traces = TraceFiles(files, "day", large_bytes=15)
    for number in range(4):
        traces.append(b"%d\n" % number * 5, NOON)
    assert len(everything(traces)) == 40


def test_old_files_are_compressed_and_read_as_before(files: FlatFiles) -> None:
    traces = TraceFiles(files, "day")
    traces.append(b"old\n", NOON - 3 * DAY)
    traces.append(b"new\n", NOON)
    assert traces.tidy(NOON, compress_after=DAY, keep_for=30 * DAY) == (1, 0)
    assert [key.rpartition("/")[2] for key in files.list(f"{ROOT}/")] == ["day-000.jsonl.zst", "day-000.jsonl"]
    assert everything(traces) == [b"old", b"new"]
    assert traces.tidy(NOON, compress_after=DAY, keep_for=30 * DAY) == (0, 0)


def test_a_compression_that_a_crash_broke_off_is_done_again_and_nothing_comes_twice(files: FlatFiles) -> None:
    traces = TraceFiles(files, "day")
    traces.append(b"old\n", NOON - 3 * DAY)
    files.write(f"{ROOT}/2024-01-12/day-000.jsonl.zst", b"half")
    assert everything(traces) == [b"old"]
    traces.tidy(NOON, compress_after=DAY, keep_for=30 * DAY)
    assert everything(traces) == [b"old"]
    assert not files.exists(f"{ROOT}/2024-01-12/day-000.jsonl")


def test_days_beyond_the_retention_are_deleted_and_no_other(files: FlatFiles) -> None:
    traces = TraceFiles(files, "hour")
    for days in (0, 29, 30, 31, 40):
        traces.append(b"%d\n" % days, NOON - days * DAY)
    files.write(f"{ROOT}/not-a-day/file", b"kept")
    _, deleted = traces.tidy(NOON, compress_after=100 * DAY, keep_for=30 * DAY)
    assert deleted == 2
    assert everything(traces) == [b"30", b"29", b"0"]
    assert files.exists(f"{ROOT}/not-a-day/file")


def test_only_files_that_may_hold_something_since_then_are_looked_at(files: FlatFiles) -> None:
    traces = TraceFiles(files, "hour")
    for hours in (3, 1, 0):
        traces.append(b"%d\n" % hours, NOON - timedelta(hours=hours))
    assert everything(traces, NOON - timedelta(hours=1)) == [b"1", b"0"]


def test_lines_are_removed_from_plain_and_from_compressed_files(files: FlatFiles) -> None:
    traces = TraceFiles(files, "day")
    for moment in (NOON - 3 * DAY, NOON):
        traces.append(b"ann\nbob\nann\n", moment)
    traces.tidy(NOON, compress_after=DAY, keep_for=30 * DAY)
    assert traces.remove(lambda line: b"ann" in line) == 4
    assert everything(traces) == [b"bob", b"bob"]


def test_a_damaged_file_is_an_error_and_not_an_empty_one(files: FlatFiles) -> None:
    traces = TraceFiles(files, "day")
    files.write(f"{ROOT}/2024-01-12/day-000.jsonl.zst", b"no zstd")
    with pytest.raises(StorageError, match="is damaged"):
        everything(traces)
    with pytest.raises(StorageError, match="is damaged"):
        traces.remove(lambda line: False)


def test_lines_with_a_text_are_found_once_wherever_they_stand() -> None:
    content = b"ax x\nb\nxc\nd\nx"
    assert list(lines_with(content, b"x")) == [b"ax x", b"xc", b"x"]
    assert list(lines_with(b"", b"x")) == []


def test_a_users_pseudonym_is_the_same_after_a_restart_and_elsewhere_another(files: FlatFiles, tmp_path: Path) -> None:
    first = Pseudonyms(files)("ann")
    assert Pseudonyms(files)("ann") == first != Pseudonyms(files)("bob")
    assert Pseudonyms(FlatFiles(tmp_path / "other"))("ann") != first
    assert (files.base / KEY).stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_an_error_and_is_not_made_anew(files: FlatFiles) -> None:
    files.write(KEY, b"short")
    with pytest.raises(StorageError, match="has 5 bytes"):
        Pseudonyms(files)
    assert files.read(KEY) == b"short"


def test_a_users_dead_letters_are_found_and_erased_and_the_others_kept(files: FlatFiles) -> None:
    letters = [
        b'{"handler": "h", "data": {"user_id": "ann", "text": "hers"}}\n',
        b'{"handler": "h", "data": {"session": {"user_id": "ann"}}}\n',
        b'{"handler": "h", "data": {"user_id": "bob", "text": "ann"}}\n',
        b'{"handler": "torn\n',
    ]
    files.append(DEAD_LETTERS, b"".join(letters))
    assert len(letters_of(files, "ann")) == 2
    assert erase_letters(files, "ann", sleep=lambda _: None) == 3
    assert files.read(DEAD_LETTERS) == letters[2]
    assert erase_letters(files, "ann", sleep=lambda _: None) == 0


def test_a_letter_that_comes_in_during_an_erasure_is_kept(files: FlatFiles) -> None:
    files.append(DEAD_LETTERS, b'{"data": {"user_id": "ann"}}\n')
    late = b'{"data": {"user_id": "bob"}}\n'
    assert erase_letters(files, "ann", sleep=lambda _: files.append(DEAD_LETTERS, late) and None) == 1
    assert files.read(DEAD_LETTERS) == late
