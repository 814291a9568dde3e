"""The ledger: what was acknowledged is found again, a torn end is passed over, damage is never taken for an end."""

from __future__ import annotations

import errno
import os
import pickle
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.issues import Issue
from migration.items import shard_of_span
from migration.ledger import (
    MAGIC,
    Journal,
    LedgerError,
    LedgerReader,
    Place,
    Span,
    encode_record,
    entries,
    index,
    journals,
)
from migration.target import TargetError
from migration.unit import COUNTS, Unit
from tests.examples import examples

ADA, EVE = Span("user", b"ada"), Span("user", b"eve")


def unit(name: str, digest: bytes = b"d") -> Unit:
    return Unit(
        name,
        [(f"{name}/session.json", 1, 2, "m")],
        [0] * len(COUNTS),
        digest,
        written={f"text_chat/sessions/ada/{name}": 7},
        issues=[Issue("attic", "a", "b")],
        facts=[["vectors", "00"]],
    )


def put(ledger: Path, name: str, *records: bytes) -> Path:
    ledger.mkdir(exist_ok=True)
    path = ledger / f"{name}.journal"
    journal = Journal(os.fspath(path))
    for record in records:
        journal.append(record)
    journal.close()
    return path


def found(ledger: Path, span: Span = ADA, low: bytes | None = None, high: bytes | None = None) -> dict[str, bytes]:
    places = index(os.fspath(ledger), lambda *_: True)
    with closing(LedgerReader()) as reader:
        units = reader.units_at(places.get((span.kind, span.name), ()), low, high)
    return {name: unit.digest for name, unit in units.items()}


def test_what_was_appended_is_found_again_whole(tmp_path: Path) -> None:
    put(tmp_path / "l", "a", encode_record(ADA, 1, 1, [unit("s"), unit("t")]), encode_record(EVE, 1, 1, [unit("u")]))
    (first, second) = entries(os.fspath(tmp_path / "l"))
    assert (first.span, first.run, first.phase, first.units) == (ADA, 1, 1, [unit("s"), unit("t")])
    assert (second.span, second.units) == (EVE, [unit("u")])
    assert found(tmp_path / "l") == {"s": b"d", "t": b"d"}


def test_a_journal_is_made_with_its_first_record(tmp_path: Path) -> None:
    journal = Journal(os.fspath(tmp_path / "a.journal"))
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_is_there_is_never_written_again(tmp_path: Path) -> None:
    path = put(tmp_path, "a", encode_record(ADA, 1, 1, []))
    before = path.read_bytes()
    with pytest.raises(TargetError, match="File exists"):
        Journal(os.fspath(path)).append(b"x")
    assert path.read_bytes() == before


def test_no_ledger_and_an_empty_one_hold_nothing(tmp_path: Path) -> None:
    assert journals(os.fspath(tmp_path / "absent")) == []
    (tmp_path / "other.txt").write_bytes(b"x")
    assert list(entries(os.fspath(tmp_path))) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_later_runs_and_phases_win_whatever_the_order_of_writing(tmp_path: Path, reverse: bool) -> None:
    records = [
        encode_record(ADA, run, phase, [unit("s", b"%d%d" % (run, phase))]) for run in (1, 2) for phase in (1, 2)
    ]
    for number, record in enumerate(reversed(records) if reverse else records):
        put(tmp_path / "l", f"{number}", record)
    assert found(tmp_path / "l") == {"s": b"22"}


def test_of_one_run_and_phase_the_later_record_wins(tmp_path: Path) -> None:
    put(tmp_path / "l", "000001-1-0000-000", encode_record(ADA, 1, 1, [unit("s", b"a")]))
    put(
        tmp_path / "l",
        "000001-1-0000-001",
        encode_record(ADA, 1, 1, [unit("s", b"b")]),
        encode_record(ADA, 1, 1, [unit("s", b"c")]),
    )
    assert found(tmp_path / "l") == {"s": b"c"}


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (None, None, "abc"),
        (None, b"m", "ab"),
        (b"m", None, "c"),
        (b"m", b"p", "c"),
        (b"a", b"b", "ab"),
        (b"z", None, ""),
    ],
)
def test_only_records_that_can_hold_the_range_are_read(
    tmp_path: Path, low: bytes | None, high: bytes | None, names: str
) -> None:
    put(
        tmp_path / "l",
        "1",
        encode_record(Span("user", b"ada", None, b"m"), 1, 1, [unit("a"), unit("b")]),
        encode_record(Span("user", b"ada", b"m", b"z"), 1, 1, [unit("c")]),
    )
    assert "".join(sorted(found(tmp_path / "l", ADA, low, high))) == names


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_any_number_of_shards_finds_all_that_another_number_wrote(tmp_path: Path, shards: int) -> None:
    spans = [Span("user", b"u%d" % number) for number in range(20)]
    for shard in range(3):
        mine = [span for span in spans if shard_of_span(span.kind, span.name, 3) == shard]
        put(tmp_path / "l", f"{shard}", *(encode_record(span, 1, 1, [unit("s")]) for span in mine))
    seen: list[bytes] = []
    for shard in range(shards):
        places = index(
            os.fspath(tmp_path / "l"),
            lambda kind, name, shard=shard: shard_of_span(kind, name, shards) == shard,  # type: ignore[misc]
        )
        seen += [name for _, name in places]
    assert sorted(seen) == sorted(span.name for span in spans)


RECORDS = [encode_record(Span("user", b"u%d" % number), 1, 1, [unit("s")]) for number in range(3)]
WHOLE = MAGIC + b"".join(RECORDS)
ENDS = [len(MAGIC) + sum(map(len, RECORDS[:count])) for count in range(len(RECORDS) + 1)]


LENGTH_AND_CHECK = 8


def read_back(folder: Path, content: bytes) -> list[bytes]:
    (folder / "a.journal").write_bytes(content)
    return [entry.span.name for entry in entries(os.fspath(folder))]


def test_a_journal_torn_at_any_byte_gives_the_whole_records_before(tmp_path: Path) -> None:
    for length in range(len(WHOLE) + 1):
        whole = sum(end <= length for end in ENDS[1:])
        assert read_back(tmp_path, WHOLE[:length]) == [b"u0", b"u1", b"u2"][:whole], length


def test_a_flipped_bit_is_damage_except_in_the_last_record(tmp_path: Path) -> None:
    """In the last record it cannot be told from a write that was never acknowledged."""
    for position in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 0x10
        if position < ENDS[2] + LENGTH_AND_CHECK:  # in a length, more follows the head than a torn record has
            with pytest.raises(LedgerError) as error:
                read_back(tmp_path, bytes(damaged))
            assert error.value.path == os.fspath(tmp_path / "a.journal")
        else:
            assert read_back(tmp_path, bytes(damaged)) == [b"u0", b"u1"]


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=examples(60))
def test_rubbish_is_never_taken_for_records(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    folder = tmp_path_factory.mktemp("l")
    try:
        found = read_back(folder, MAGIC + rubbish)
    except LedgerError:
        return
    assert found == []


def test_a_journal_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not a journal of this program's version"):
        read_back(tmp_path, b"modchat ledger 9\n" + RECORDS[0])


def test_a_place_without_a_record_is_damage(tmp_path: Path) -> None:
    path = put(tmp_path, "a", RECORDS[0])
    with closing(LedgerReader()) as reader, pytest.raises(LedgerError, match="no record at"):
        reader.units_at([Place((1, 1), os.fspath(path), len(WHOLE), 64, None, None)])


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_journal_that_cannot_be_written_is_an_error_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(os.fspath(tmp_path / "a.journal"))
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(TargetError, match=r"a\.journal: No space left on device; free some space"):
            journal.append(RECORDS[0])
    journal.close()


def test_a_write_that_is_cut_short_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as short:
        short.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 3)]))
        put(tmp_path / "l", "a", *RECORDS)
    assert len(list(entries(os.fspath(tmp_path / "l")))) == 3


def test_a_record_is_durable_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    path = put(tmp_path / "l", "a", RECORDS[0], RECORDS[1])
    assert synced[-1] == path.stat().st_size
    assert ENDS[1] in synced


def test_the_error_travels_between_processes_and_says_what_to_do() -> None:
    error = pickle.loads(pickle.dumps(LedgerError("/new/a.journal", "is damaged")))
    assert str(error).startswith("/new/a.journal: is damaged; restore it from a backup")
