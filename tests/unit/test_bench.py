"""The benchmark compares with what the guide does, counts right, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_migration import main
from benchmarks.bulk_store import BulkStore, missing_room, wait_until_settled, write_store
from benchmarks.guide_mapper import GuideMapper
from benchmarks.machine import Machine, file_system_of, free_room, peak_rss
from benchmarks.migration_runs import (
    AGAIN,
    COPY,
    GUIDE,
    MIGRATE,
    VALIDATE,
    BenchmarkError,
    MigrationRuns,
    Outcome,
    Peaks,
    growth_tables,
    ratios_table,
    run_module,
    times_table,
)
from benchmarks.side_by_side import Contestant, Timings, in_turns, median_of_ratios, ratio_of_medians
from benchmarks.tables import Cell, Table, shown, with_section
from migration.engine import LocalBackend
from migration.fanout import LocalFanOut

SESSION = "chat_session_20240115_100000_123456"


@pytest.fixture
def guide_store(tmp_path: Path) -> tuple[Path, Path]:
    """The store that the guide's own test makes."""
    old = tmp_path / "old"
    session = old / "users" / "test_user" / SESSION
    session.mkdir(parents=True)
    data = {"session_id": SESSION, "session_name": "Test Chat", "created_at": "2024-01-15T10:00:00Z"}
    (session / "session.json").write_text(json.dumps(data))
    return old, tmp_path / "new"


# ---- the guide's mapper


def test_the_mapper_passes_the_test_of_the_guide(guide_store: tuple[Path, Path]) -> None:
    old, new = guide_store

    GuideMapper(old, new).migrate_sessions()

    migrated = new / "text_chat" / "sessions" / "test_user" / SESSION
    assert migrated.exists()
    metadata = json.loads((migrated / "metadata.json").read_text())
    assert metadata["title"] == "Test Chat"
    assert metadata["user_id"] == "test_user"


def test_the_mapper_writes_the_six_fields_of_the_guide_and_copies_the_messages(guide_store: tuple[Path, Path]) -> None:
    old, new = guide_store
    messages = b'{"role": "user", "message_id": "msg_1"}\nnot JSON\n'
    (old / "users" / "test_user" / SESSION / "messages.jsonl").write_bytes(messages)

    mapped = GuideMapper(old, new).migrate_sessions()

    migrated = new / "text_chat" / "sessions" / "test_user" / SESSION
    expected: dict[str, object] = {
        "id": SESSION,
        "user_id": "test_user",
        "title": "Test Chat",
        "created_at": "2024-01-15T10:00:00Z",
        "updated_at": None,
        "metadata": {},
    }
    assert mapped == 1
    assert (migrated / "metadata.json").read_text() == json.dumps(expected, indent=2)
    assert (migrated / "messages.jsonl").read_bytes() == messages


def test_the_mapper_takes_only_what_the_guide_takes(guide_store: tuple[Path, Path]) -> None:
    old, new = guide_store
    for name in ("panel_session_20240115_100000_1", "chat_session_of_messages_only"):
        (old / "users" / "test_user" / name).mkdir()
        (old / "users" / "test_user" / name / "messages.jsonl").write_text("{}\n")
    (old / "users" / "test_user" / "panel_session_20240115_100000_1" / "session.json").write_text("{}")
    (old / "users" / "note.txt").write_text("no user")

    assert GuideMapper(old, new).migrate_sessions() == 1
    assert [path.name for path in (new / "text_chat" / "sessions" / "test_user").iterdir()] == [SESSION]


# ---- statistics


def test_the_two_ways_to_compare_differ_where_rounds_do() -> None:
    slow, fast = Timings((2.0, 6.0, 4.0)), Timings((1.0, 1.0, 4.0))

    assert ratio_of_medians(slow, fast) == 4.0 / 1.0
    assert median_of_ratios(slow, fast) == 2.0  # of 2, 6 and 1


def test_a_machine_that_slows_down_for_all_does_not_change_the_ratio_within_rounds() -> None:
    steady = Timings((1.0, 1.1, 0.9))
    other = Timings((3.0, 3.3, 2.7))
    slowed = [
        Timings(tuple(s * factor for s, factor in zip(t.seconds, (1, 5, 2), strict=True))) for t in (other, steady)
    ]

    assert median_of_ratios(*slowed) == pytest.approx(median_of_ratios(other, steady)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [((3.0,), (3.0, 3.0, 3.0)), ((5.0, 1.0, 2.0), (2.0, 1.0, 5.0)), ((4.0, 1.0, 2.0, 9.0), (3.0, 1.0, 9.0))],
)
def test_a_row_shows_median_shortest_and_longest(seconds: tuple[float, ...], expected: tuple[float, ...]) -> None:
    timings = Timings(seconds)

    assert (timings.median, timings.shortest, timings.longest) == expected


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0), (1.0, -1.0), (float("nan"),)])
def test_times_that_cannot_be_are_refused(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="round"):
        Timings(seconds)


def test_time_is_shared_by_the_units_of_work() -> None:
    assert Timings((2.0, 4.0)).per(4) == Timings((0.5, 1.0))
    with pytest.raises(ValueError, match="at least one unit"):
        Timings((2.0,)).per(0)


def test_rounds_of_different_numbers_are_not_compared_in_pairs() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        median_of_ratios(Timings((1.0, 2.0)), Timings((1.0,)))


def test_contestants_take_turns() -> None:
    order: list[str] = []
    heard: list[tuple[str, int, float]] = []

    def takes(name: str, *seconds: float) -> Contestant:
        left = iter(seconds)

        def run() -> float:
            order.append(name)
            return next(left)

        return Contestant(name, run, sessions=1, bytes=1)

    timings = in_turns([takes("a", 1.0, 2.0), takes("b", 3.0, 4.0)], 2, lambda *what: heard.append(what))

    assert order == ["a", "b", "a", "b"]
    assert timings == {"a": Timings((1.0, 2.0)), "b": Timings((3.0, 4.0))}
    assert heard == [("a", 1, 1.0), ("b", 1, 3.0), ("a", 2, 2.0), ("b", 2, 4.0)]


def test_no_rounds_and_equal_names_are_refused() -> None:
    one = Contestant("a", lambda: 1.0, 1, 1)

    with pytest.raises(ValueError, match="at least one round"):
        in_turns([one], 0, lambda *_: None)
    with pytest.raises(ValueError, match="same name"):
        in_turns([one, one], 1, lambda *_: None)


# ---- the figures

TAKEN = {
    COPY: Timings((1.0, 1.0, 1.0)),
    GUIDE: Timings((6.0, 6.0, 6.0)),
    MIGRATE: Timings((1.0, 2.0, 3.0)),
    AGAIN: Timings((0.5, 0.5, 0.5)),
    VALIDATE: Timings((3.0, 3.0, 3.0)),
}


def field_of() -> tuple[Contestant, ...]:
    """The five contestants on a store of 1000 sessions, half of which the guide's mapper takes."""
    sessions = {GUIDE: 500}
    read = {GUIDE: 30_000_000, AGAIN: 0}
    return tuple(Contestant(name, lambda: 1.0, sessions.get(name, 1000), read.get(name, 60_000_000)) for name in TAKEN)


def by_name(table: Table) -> dict[Cell, Any]:
    return {row[0]: row[1:] for row in table.rows}


def test_rates_are_of_the_sessions_and_bytes_that_each_run_goes_through() -> None:
    rows = by_name(times_table(field_of(), TAKEN))

    assert rows[MIGRATE] == (1000, 2.0, 1.0, 3.0, 500.0, 30.0)
    assert rows[GUIDE] == (500, 6.0, 6.0, 6.0, pytest.approx(500 / 6), 5.0)
    assert rows[AGAIN] == (1000, 0.5, 0.5, 0.5, 2000.0, None)  # it reads nothing


def test_ratios_are_of_whole_runs_and_by_the_session() -> None:
    rows = by_name(ratios_table(field_of(), TAKEN))

    assert rows[f"{MIGRATE} / {COPY}"] == (2.0, 2.0, pytest.approx(2.0))
    assert rows[f"{GUIDE} / {MIGRATE}"] == (3.0, 3.0, pytest.approx(6.0))
    assert rows[f"{VALIDATE} / {MIGRATE}"] == (1.5, 1.5, pytest.approx(1.5))
    assert rows[f"{AGAIN} / {MIGRATE}"] == (0.25, 0.25, pytest.approx(0.25))


def test_growth_is_the_cost_of_a_session_and_the_peak_of_each_process() -> None:
    contestants = (Contestant(MIGRATE, lambda: 1.0, 100, 1),)
    tenfold = (Contestant(MIGRATE, lambda: 1.0, 1000, 1),)
    small = Outcome(100, contestants, {MIGRATE: Timings((1.0,))}, Peaks(100_000_000, 50_000_000, 60_000_000), 1)
    large = Outcome(1000, tenfold, {MIGRATE: Timings((5.0,))}, Peaks(110_000_000, 50_000_000, 90_000_000), 1)

    costs, peaks = growth_tables(small, large)

    assert by_name(costs) == {MIGRATE: (pytest.approx(10_000), pytest.approx(5_000), pytest.approx(0.5))}
    assert by_name(peaks) == {
        "coordinator (highest of 1)": (100.0, 110.0, 1.1),
        "driver, migrating": (50.0, 50.0, 1.0),
        "driver, also validating": (60.0, 90.0, 1.5),
    }


# ---- tables


def test_a_table_is_markdown_for_people_and_a_json_object_a_row_for_programs() -> None:
    table = Table("times", "Times", ("run", "s", "MB/s"), (("a|b", 1234.5678, None), ("c", 0.123456, 1000)))

    assert table.to_markdown() == (
        "**Times**\n\n| run | s | MB/s |\n| :--- | ---: | ---: |\n| a\\|b | 1,235 | - |\n| c | 0.123 | 1,000 |\n"
    )
    assert [json.loads(line) for line in table.to_json_lines().splitlines()] == [
        {"table": "times", "title": "Times", "run": "a|b", "s": 1234.5678, "MB/s": None},
        {"table": "times", "title": "Times", "run": "c", "s": 0.123456, "MB/s": 1000},
    ]


@pytest.mark.parametrize(
    ("cell", "text"), [(0.00123456, "0.00123"), (1.0, "1"), (99.96, "100"), (999.4, "999"), (999.6, "1,000"), (7, "7")]
)
def test_figures_are_shown_with_three_digits_that_count(cell: float, text: str) -> None:
    assert shown(cell) == text


def test_a_row_must_fit_the_headings() -> None:
    with pytest.raises(ValueError, match="2 headings, and a row of 1"):
        Table("t", "T", ("a", "b"), (("x",),))


def test_a_section_of_a_document_is_replaced_and_nothing_else() -> None:
    document = "before\n<!-- begin x -->\nold\n<!-- end x -->\n<!-- begin x y -->\nkept\n<!-- end x y -->\n"

    once = with_section(document, "x", "new")

    assert once == document.replace("old", "\nnew")
    assert with_section(once, "x", "new") == once


@pytest.mark.parametrize(
    "document",
    ["", "<!-- begin x -->\n", "<!-- end x --><!-- begin x -->\n", 2 * "<!-- begin x -->\n<!-- end x -->\n"],
)
def test_a_document_without_its_section_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        with_section(document, "x", "new")


def test_the_page_of_figures_has_both_sections() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    for section in ("bench_migration", "bench_migration --large"):
        assert "| 1 |" in with_section(page, section, "| 1 |")


# ---- the store


def test_a_store_is_known_by_what_is_on_disk_and_what_the_guide_s_mapper_maps_of_it(tmp_path: Path) -> None:
    store = write_store(tmp_path / "old", users=6, sessions=6, messages=2)
    everything = list((tmp_path / "old").rglob("*"))
    files = [path for path in everything if path.is_file()]

    assert (store.sessions, store.messages, store.inodes) == (36, 72, 1 + len(everything))
    assert store.bytes == sum(path.stat().st_size for path in files)
    assert store.newest_mtime_ns == max(path.stat().st_mtime_ns for path in files)
    assert GuideMapper(tmp_path / "old", tmp_path / "new").migrate_sessions() == store.guide_sessions == 36
    assert 0 < store.guide_bytes < store.bytes


def aged(mtime_ns: int) -> BulkStore:
    return BulkStore("old", 1, 1, 1, 3_000_000, 300, 1, 1, mtime_ns)


def test_a_young_store_is_waited_for() -> None:
    assert [aged(0).unsettled_s(now) for now in (1_500_000_000, 2_000_000_000, 9_000_000_000)] == [0.5, 0, 0]


def test_a_store_from_the_future_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="from the future"):
        wait_until_settled(aged(time.time_ns() + 3600 * 10**9))


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "lacking"),
    [(4_000_000, 400, None), (4_000_000, None, None), (3_999_999, 400, "GB free"), (4_000_000, 399, "inodes needed")],
)
def test_a_file_system_needs_room_for_a_second_tree(
    free_bytes: int, free_inodes: int | None, lacking: str | None
) -> None:
    missing = missing_room(aged(0), free_bytes=free_bytes, free_inodes=free_inodes)

    assert missing is None if lacking is None else lacking in (missing or "")


# ---- the machine


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/dev/shm/x", "tmpfs"), ("/dev/shmem", "devtmpfs"), ("/home/a b/c", "xfs"), ("/home/a", "ext4"), ("/", "ext4")],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    mounts = (
        "/dev/a / overlay rw 0 0\n/dev/a / ext4 rw 0 0\nd /dev devtmpfs rw 0 0\n"
        "t /dev/shm tmpfs rw 0 0\n/dev/b /home/a\\040b xfs rw 0 0\n"
    )
    assert file_system_of(path, mounts) == kind


def test_this_machine_is_described(tmp_path: Path) -> None:
    rows = by_name(Machine.here(str(tmp_path)).table())

    assert rows["cores"] == (len(os.sched_getaffinity(0)),)
    assert rows["file system"] != ("unknown",)
    assert free_room(str(tmp_path))[0] > 0


@pytest.mark.slow
def test_a_peak_rises_with_what_is_held_and_does_not_sink() -> None:
    tolerance = 4 << 20  # the kernel's own count of pages is not exact
    before = peak_rss()
    held = bytearray(b"x") * (before + (32 << 20))  # more than was ever resident, and each page written
    risen = peak_rss()
    del held

    assert risen >= before + (32 << 20) - tolerance
    assert peak_rss() >= risen - tolerance


# ---- runs


@pytest.fixture
def runs(tmp_path: Path) -> MigrationRuns:
    """On a small store, everything in this process."""
    store = write_store(tmp_path / "old", users=3, sessions=4, messages=2)
    (tmp_path / "scratch").mkdir()
    return MigrationRuns(store, str(tmp_path / "scratch"), LocalBackend(), LocalFanOut(), lambda: 7)


def run_of(runs: MigrationRuns, name: str) -> Callable[[], float]:
    return next(contestant.run for contestant in runs.contestants() if contestant.name == name)


def test_two_rounds_of_everything_take_time_and_are_tabulated(runs: MigrationRuns) -> None:
    contestants = runs.contestants()

    timings = in_turns(contestants, 2, lambda *_: None)

    assert all(0 < timings[name].longest < 60 for name in (COPY, GUIDE, MIGRATE, AGAIN, VALIDATE))
    assert os.listdir(runs.scratch) == ["new"]
    assert [row[1] for row in times_table(contestants, timings).rows] == [12, runs.store.guide_sessions, 12, 12, 12]
    assert 0 < runs.peaks.driver <= runs.peaks.driver_validating + (4 << 20)
    assert runs.peaks.coordinators == 7


def test_the_guide_s_mapper_has_no_figure_when_it_mapped_only_a_part(runs: MigrationRuns) -> None:
    next(Path(runs.store.path).glob("users/*/chat_session_*/session.json")).unlink()

    with pytest.raises(BenchmarkError, match="guide's mapper: sessions: "):
        run_of(runs, GUIDE)()


def test_a_migration_has_no_figure_when_a_session_is_missing(runs: MigrationRuns) -> None:
    shutil.rmtree(next(Path(runs.store.path).glob("users/*/*_session_*")))

    with pytest.raises(BenchmarkError, match="sessions: 11, expected 12"):
        run_of(runs, MIGRATE)()


def test_a_run_with_everything_to_do_is_no_run_again(runs: MigrationRuns) -> None:
    with pytest.raises(BenchmarkError, match="migrated before: 0, expected 12"):
        run_of(runs, AGAIN)()


def test_a_validation_that_finds_a_difference_has_no_figure(runs: MigrationRuns) -> None:
    run_of(runs, MIGRATE)()
    next(Path(runs.scratch).glob("new/text_chat/sessions/*/*/messages.jsonl")).write_text("")

    with pytest.raises(BenchmarkError, match="not equal to its source"):
        run_of(runs, VALIDATE)()


def test_a_process_that_fails_has_no_figure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BenchmarkError, match=r"benchmarks\.guide_mapper ended with 1"):
        run_module("benchmarks.guide_mapper", str(tmp_path / "nowhere"), str(tmp_path / "new"))
    assert "FileNotFoundError" in capfd.readouterr().err


# ---- what is left behind: nothing


def test_a_profile_names_the_functions_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--profile", "--users", "2", "--sessions", "2", "--messages", "2", "--dir", str(tmp_path)])

    printed = capsys.readouterr().out
    assert code == 0
    assert "4 sessions in one process" in printed
    assert "due to restriction <25>" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--repeat", "3"], ["--workers", "1"], ["--json", "f"], ["--into", "f"]])
def test_an_option_that_a_profile_would_not_use_is_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--profile", *option])

    assert stopped.value.code == 2
    assert f"without {option[0]}" in capsys.readouterr().err


def test_a_document_without_a_section_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("# Figures\n")

    code = main(["--into", str(tmp_path / "page.md"), "--dir", str(tmp_path)])

    assert code == 1
    assert "begin bench_migration" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
