from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.core.errors import Conflict, StorageError, Unavailable, ValidationError
from modules.core.storage import FlatFiles
from modules.trace_logger.audit_chain import HEAD, ROOT, Head
from modules.trace_logger.audit_check import AuditReport, verify
from modules.trace_logger.audit_trail import AuditDraft, AuditTrail
from modules.trace_logger.audit_writer import AuditWriter
from tests.examples import examples

CHAIN = f"{ROOT}/2024-01.jsonl"


class Clock:
    def __init__(self) -> None:
        self.moment = datetime(2024, 1, 15, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.moment += timedelta(seconds=1)
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


@pytest.fixture
def files(tmp_path: Path) -> FlatFiles:
    return FlatFiles(tmp_path)


def draft(number: int, user_id: str = "ann", **more: Any) -> AuditDraft:
    return AuditDraft("tool.execute", user_id, f"tool:{number}", {"number": number}, **more)


def recorded(files: FlatFiles, *drafts: AuditDraft, clock: Clock | None = None) -> AuditReport:
    trail = AuditTrail(files, clock or Clock())
    trail.append(drafts)
    trail.close()
    return verify(files)


def three(files: FlatFiles) -> AuditReport:
    return recorded(files, draft(1), draft(2, "bob"), draft(3))


def test_an_entry_says_who_did_what_and_is_found_again(files: FlatFiles) -> None:
    three(files)
    trail = AuditTrail(files, Clock())
    entries = trail.entries(user_id="ann")
    assert [(one.seq, one.user_id, one.resource, one.details) for one in entries] == [
        (3, "ann", "tool:3", {"number": 3}),
        (1, "ann", "tool:1", {"number": 1}),
    ]
    assert [one.seq for one in trail.entries(before=3, limit=1)] == [2]
    assert trail.entries(action="no.such") == trail.entries(user_id="nobody") == []
    trail.close()


def test_an_untouched_trail_is_intact_across_restarts_and_months(files: FlatFiles) -> None:
    clock = Clock()
    recorded(files, draft(1), clock=clock)
    clock.moment += timedelta(days=30)
    report = recorded(files, draft(2), draft(3), clock=clock)
    assert (report.is_intact, report.entries, report.head.seq) == (True, 3, 3)
    assert files.exists(f"{ROOT}/2024-02.jsonl")


def test_a_clock_that_goes_back_a_month_does_not_part_the_chain(files: FlatFiles) -> None:
    clock = Clock()
    recorded(files, draft(1), clock=clock)
    clock.moment -= timedelta(days=60)
    assert recorded(files, draft(2), clock=clock).is_intact
    assert not files.exists(f"{ROOT}/2023-11.jsonl")


def test_the_chain_names_no_user_and_holds_no_content(files: FlatFiles) -> None:
    three(files)
    chain = files.read(CHAIN)
    assert not any(word in chain for word in (b"ann", b"bob", b"tool:1", b"number"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(150))
@given(data=st.data())
def test_any_changed_byte_is_found_and_its_line_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("audit")
    files = FlatFiles(base)
    three(files)
    path = base / CHAIN
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    report = verify(files)
    line = whole[:place].count(b"\n") + 1
    assert not report.is_intact
    assert line in {finding.line for finding in report.findings}
    assert line in {finding.entry for finding in report.findings}
    # Going on writing neither hides it nor fails.
    recorded(files, draft(4))
    assert not verify(files).is_intact


@pytest.mark.parametrize("key", ["private", "head"])
def test_a_changed_byte_beside_the_chain_is_found_too(files: FlatFiles, key: str) -> None:
    three(files)
    name = (
        HEAD if key == "head" else next(one for one in files.list(f"{ROOT}/private/") if b"tool:2" in files.read(one))
    )
    content = files.read(name)
    place = content.index(b"tool:2") if key == "private" else content.index(b'"hash": "') + 9
    changed = b"X" if content[place : place + 1] != b"X" else b"Y"
    (files.base / name).write_bytes(content[:place] + changed + content[place + 1 :])
    (finding, *_) = verify(files).findings
    assert name in str(finding)


def test_a_line_that_was_taken_out_is_named(files: FlatFiles) -> None:
    three(files)
    lines = files.read(CHAIN).splitlines(keepends=True)
    (files.base / CHAIN).write_bytes(lines[0] + lines[2])
    assert "entries 2 to 2 are missing" in str(verify(files).findings[0])


def test_lines_that_were_exchanged_or_put_in_are_found(files: FlatFiles) -> None:
    three(files)
    lines = files.read(CHAIN).splitlines(keepends=True)
    (files.base / CHAIN).write_bytes(lines[0] + lines[2] + lines[1])
    assert not verify(files).is_intact
    (files.base / CHAIN).write_bytes(lines[0] + lines[1] + b"{}\n" + lines[2])
    (finding,) = verify(files).findings
    assert (finding.line, finding.message) == (3, "was changed: it is no entry")


def test_an_end_that_was_cut_off_is_missed(files: FlatFiles) -> None:
    three(files)
    lines = files.read(CHAIN).splitlines(keepends=True)
    (files.base / CHAIN).write_bytes(b"".join(lines[:2]))
    assert "ends with entry 2, and had 3" in str(verify(files).findings[0])


def test_a_month_that_was_removed_is_missed(files: FlatFiles) -> None:
    clock = Clock()
    recorded(files, draft(1), clock=clock)
    clock.moment += timedelta(days=31)
    recorded(files, draft(2), clock=clock)
    files.delete(CHAIN)
    assert "entries 1 to 1 are missing" in str(verify(files).findings[0])


def test_a_chain_that_was_computed_anew_does_not_have_the_head_that_was_kept_elsewhere(
    files: FlatFiles, tmp_path: Path
) -> None:
    kept = three(files).head
    forged = FlatFiles(tmp_path / "forged")
    assert recorded(forged, draft(7), draft(8), draft(9)).is_intact
    assert not verify(forged, expected=kept).is_intact
    assert verify(files, expected=Head.parse(str(kept))).is_intact


@pytest.mark.parametrize("text", ["", "3", "x:y", f"3:{'g' * 64}"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="NUMBER:HASH"):
        Head.parse(text)


def test_erasing_a_user_leaves_a_whole_chain_and_nothing_of_the_user(files: FlatFiles) -> None:
    three(files)
    trail = AuditTrail(files, Clock())
    assert trail.erase("ann") == 2
    assert trail.erase("ann") == 0
    assert [one.user_id for one in trail.entries(action="tool.execute")] == [None, "bob", None]
    trail.append([draft(4)])  # the same name again is somebody new
    trail.close()
    report = verify(files)
    assert (report.is_intact, report.erased, report.entries) == (True, 2, 5)
    left = b"".join(files.read(key) for key in files.list(f"{ROOT}/"))
    assert b"tool:1" not in left
    assert b"tool:3" not in left
    assert b"tool:4" in left


def test_a_private_record_that_is_missing_without_an_erasure_is_named(files: FlatFiles) -> None:
    three(files)
    for key in files.list(f"{ROOT}/private/"):
        if b"bob" in files.read(key):
            files.delete(key)
    (finding,) = verify(files).findings
    assert (finding.entry, "private record is missing" in finding.message) == (2, True)


@pytest.mark.parametrize("survives", ["both", "private"])
def test_an_erasure_that_a_crash_broke_off_is_finished_at_the_next_start(files: FlatFiles, survives: str) -> None:
    three(files)
    kept = {key: files.read(key) for key in files.list(f"{ROOT}/") if "private/" in key or "people/" in key}
    trail = AuditTrail(files, Clock())
    trail.erase("ann")
    trail.close()
    for key, content in kept.items():
        if survives == "both" or "private/" in key:
            files.write(key, content)
    assert not verify(files).is_intact
    trail = AuditTrail(files, Clock())
    assert trail.subject_of("ann") is None
    assert trail.subject_of("bob") is not None
    trail.close()
    assert verify(files).is_intact


def test_an_idempotency_key_is_known_after_a_restart(files: FlatFiles) -> None:
    trail = AuditTrail(files, Clock())
    (first,) = trail.append([draft(1, idempotency_key="k")])
    trail.close()
    trail = AuditTrail(files, Clock())
    again, other, same = trail.append(
        [draft(1, idempotency_key="k"), draft(2, idempotency_key="l"), draft(2, idempotency_key="l")]
    )
    trail.close()
    assert again == first
    assert other == same
    assert verify(files).entries == 2


def test_what_a_crash_left_of_a_line_is_set_aside(files: FlatFiles) -> None:
    three(files)
    with (files.base / CHAIN).open("ab") as file:
        file.write(b'{"seq":4,"at":"20')
    assert verify(files).is_intact, "it may be being written"
    assert recorded(files, draft(4)).is_intact
    assert files.read(f"{ROOT}/torn.jsonl") == b'{"seq":4,"at":"20\n'


def test_a_line_whose_end_was_changed_is_no_crash(files: FlatFiles) -> None:
    three(files)
    content = files.read(CHAIN)
    (files.base / CHAIN).write_bytes(content[:-1] + b"x")
    report = recorded(files, draft(4))
    assert any(finding.line == 3 for finding in report.findings)


def test_one_process_writes_at_a_time(files: FlatFiles) -> None:
    trail = AuditTrail(files, Clock())
    with pytest.raises(Conflict, match="one writer"):
        AuditTrail(files, Clock())
    trail.close()
    AuditTrail(files, Clock()).close()


@pytest.mark.slow
def test_entries_that_were_acknowledged_survive_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys; from modules.core.clock import SystemClock; from modules.core.storage import FlatFiles\n"
        "from modules.trace_logger.audit_trail import AuditDraft, AuditTrail\n"
        "trail = AuditTrail(FlatFiles(sys.argv[1]), SystemClock())\n"
        "while True:\n"
        "    print(trail.append([AuditDraft('a.b', 'ann', 'r', {})])[0].seq, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
    files = FlatFiles(tmp_path)
    AuditTrail(files, Clock()).close()
    report = verify(files)
    assert report.is_intact
    assert report.entries >= acknowledged[-1] == 20


def test_a_disk_that_refuses_is_an_error_and_the_chain_goes_on_from_what_is_there(
    files: FlatFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(files, Clock())
    trail.append([draft(1)])
    failing = {"after": 0}
    fsync = os.fsync

    def broken(fd: int) -> None:
        failing["after"] -= 1
        if failing["after"] < 0:
            raise OSError(28, "No space left on device")
        fsync(fd)

    for after in range(4):
        failing["after"] = after
        with monkeypatch.context() as patch:
            patch.setattr("modules.core.storage.os.fsync", broken)
            with suppress(StorageError):  # the first fsyncs are enough for some of it
                trail.append([draft(2, "bob", idempotency_key=f"k{after}")])
        trail.append([draft(2, "bob", idempotency_key=f"k{after}")])
    trail.close()
    report = verify(files)
    assert (report.is_intact, report.entries) == (True, 5)


async def test_many_callers_share_the_disk_and_each_gets_its_own_entry(files: FlatFiles) -> None:
    writer = AuditWriter(AuditTrail(files, Clock()))
    entries = await asyncio.gather(*(writer.record(draft(number)) for number in range(100)))
    assert [entry.details for entry in entries] == [{"number": number} for number in range(100)]
    await writer.close()
    assert verify(files).entries == 100
    with pytest.raises(Unavailable):
        await writer.record(draft(1))


async def test_an_entry_that_cannot_be_recorded_takes_no_other_with_it(files: FlatFiles) -> None:
    writer = AuditWriter(AuditTrail(files, Clock()))
    huge = AuditDraft("a.b", "ann", "r", {"x": "y" * 100_000})
    first, second, third = await asyncio.gather(
        writer.record(draft(1)), writer.record(huge), writer.record(draft(3)), return_exceptions=True
    )
    assert isinstance(second, ValidationError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    await writer.close()
    assert (verify(files).is_intact, verify(files).entries) == (True, 2)


async def test_a_caller_that_goes_away_leaves_its_entry_to_be_finished(files: FlatFiles) -> None:
    writer = AuditWriter(AuditTrail(files, Clock()))
    caller = asyncio.create_task(writer.record(draft(1)))
    await asyncio.sleep(0)
    caller.cancel()
    await writer.close()
    assert verify(files).entries == 1
