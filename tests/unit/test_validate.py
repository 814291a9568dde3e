"""What the validator says, writes and asks for; sampling, changing sources, time zones, the command."""

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from migration import validate
from migration.validate import MigrationValidator, main
from migration.verify.comparison import Symbol
from migration.verify.report import write_report
from tests.corruptions import CORRUPTIONS
from tests.unit.test_validate_pair import FIRST, NAMES, RICH, Pair, T, findings, line, lines, make_pair, put, words

X = TypeVar("X")
R = TypeVar("R")


class OtherProcess:
    """A fan-out whose calls, items and results travel as they would between processes."""

    def __init__(self) -> None:
        self.calls = 0

    def map(self, function: Callable[[X], R], items: Iterable[X]) -> Iterator[R]:
        for item in items:
            self.calls += 1
            call, argument = pickle.loads(pickle.dumps((function, item)))
            result: R = pickle.loads(pickle.dumps(call(argument)))
            yield result


def snapshot(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


# -- the seed's interface


def test_validate_all_gives_true_and_no_errors_for_an_equal_tree(pair: Pair) -> None:
    assert pair.validator().validate_all() == (True, [], [])


def test_validate_all_gives_false_and_says_what_differs(pair: Pair) -> None:
    CORRUPTIONS["changed_title"](pair.new)

    equal, errors, _ = pair.validator().validate_all()

    assert not equal
    assert any("title" in error for error in errors)


def test_each_part_reports_its_own_findings_and_no_others(pair: Pair) -> None:
    CORRUPTIONS["changed_title"](pair.new)
    CORRUPTIONS["changed_message_id"](pair.new)
    CORRUPTIONS["flipped_bit_in_document"](pair.new)
    (pair.new / "attic/notes.txt").write_text("?")

    def errors_of(part: str) -> str:
        validator = pair.validator()
        getattr(validator, f"validate_{part}")()
        return words(validator.errors)

    assert "title" in errors_of("sessions")
    assert "document" not in errors_of("sessions")
    assert "msg_another" in errors_of("messages")
    assert "title" not in errors_of("messages")
    assert "original" in errors_of("documents")
    assert "notes.txt" in errors_of("config")


def test_a_sample_outside_its_range_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        MigrationValidator(pair.old, pair.new, sample=0)


def test_a_root_that_is_not_there_is_an_error_and_not_an_empty_tree(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MigrationValidator(tmp_path / "none", tmp_path).validate_all()


# -- nothing is written


def test_comparing_writes_nothing_on_either_side(pair: Pair) -> None:
    before = snapshot(pair.old), snapshot(pair.new)

    pair.validator().validate_all()

    assert (snapshot(pair.old), snapshot(pair.new)) == before


# -- what stands beside


def test_sessions_of_the_new_platform_are_named_and_are_no_error(pair: Pair) -> None:
    put(pair.new, "text_chat/sessions/alice/sess_new/metadata.json", '{"id": "sess_new", "user_id": "alice"}')
    put(pair.new, "text_chat/sessions/newcomer/sess_new/metadata.json", '{"id": "sess_new", "user_id": "newcomer"}')

    report = pair.validator().report()

    assert report.equal
    assert {f.path for f in report.findings} == {
        "text_chat/sessions/alice/sess_new",
        "text_chat/sessions/newcomer/sess_new",
    }
    assert not any(finding.is_error for finding in report.findings)


def test_messages_written_since_are_counted_as_new(pair: Pair) -> None:
    home = pair.new / f"text_chat/sessions/alice/{FIRST}"
    with (home / "messages.jsonl").open("a") as file:
        file.write(line("since", key="id", id_="msg_since") + "\n")
    (home / "state.json").write_text("{}")

    report = pair.validator().report()

    assert report.equal
    assert report.lines["new"] == 1
    assert words(map(str, report.findings)) == f"+ session users/alice/{FIRST}: 1 new messages"


def test_what_belongs_to_the_platform_is_left_alone(pair: Pair) -> None:
    for path in ("indices/master_index.json", "trace_logger/x/y.jsonl", "memory/long_term/alice/memory_bank.jsonl"):
        put(pair.new, path, "{}")
    put(pair.new, f"text_chat/sessions/alice/{FIRST}/state.json", "{}")

    assert not findings(pair)


# -- links, special files, what cannot be read


def test_links_and_special_files_are_named_and_never_opened(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair.old / "users/alice/link").symlink_to("/etc")
    (pair.old / f"users/alice/{FIRST}/link.json").symlink_to("session.json")
    os.mkfifo(pair.old / "users/alice/pipe")
    monkeypatch.chdir(pair.old)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        report = pair.validator().report()

    assert report.equal
    assert (report.files["links"], report.files["special"]) == (2, 2)
    assert len(report.notices) == 4


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(pair: Pair) -> None:
    path = pair.old / f"users/alice/{FIRST}/messages.jsonl"
    path.unlink()
    os.mkfifo(path)

    report = pair.validator().report()

    assert f"users/alice/{FIRST}/messages.jsonl is no regular file" in words(report.notices)
    assert not report.equal


def test_what_cannot_be_read_is_an_error_and_no_absence(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def failing(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(path).endswith(f"{RICH}/messages.jsonl") and str(path).startswith("users"):
            raise OSError(5, "Input/output error", path)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", failing)
    report = pair.validator().report()

    assert [f.symbol for f in report.errors] == [Symbol.UNREAD]
    assert "Input/output error" in report.errors[0].what


def test_a_directory_that_cannot_be_listed_is_an_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def failing(fd: Any) -> Any:
        if isinstance(fd, int) and os.readlink(f"/proc/self/fd/{fd}").endswith("old/users/bob"):
            raise OSError(5, "Input/output error")
        return real(fd)

    monkeypatch.setattr(os, "scandir", failing)
    report = pair.validator().report()

    assert any(f.symbol is Symbol.UNREAD and f.path == "users/bob" for f in report.errors)


# -- a source that is written to


def test_a_session_that_grew_in_both_trees_while_it_was_compared_is_looked_at_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pair.old / f"users/alice/{RICH}/dr_who_messages.jsonl"
    target = pair.new / f"text_chat/sessions/alice/{RICH}/shards/dr_who_messages.jsonl"
    real = os.open
    opened: list[str] = []

    def writing(path: Any, flags: int, *args: Any, **options: Any) -> int:
        fd = real(path, flags, *args, **options)
        if str(path).endswith("shards/dr_who_messages.jsonl") and not opened:
            # the writer is faster than the reader, once
            opened.append(str(path))
            for file in (source, target):
                file.write_bytes(file.read_bytes() + b'{"a": 1}\n')
        return fd

    monkeypatch.setattr(os, "open", writing)
    assert not findings(pair)
    assert opened


# -- sampling


def test_a_sample_compares_in_depth_only_users_of_its_share_and_existence_for_all(pair: Pair) -> None:
    shutil.rmtree(pair.new / f"text_chat/sessions/alice/{FIRST}")
    for user in ("alice", "bob"):
        profile = pair.new / f"text_chat/users/{user}/profile.json"
        profile.write_text(profile.read_text().replace(user.title(), "Another"))

    everything = words(findings(pair))
    a_little = pair.validator(sample=1e-9).report()

    assert "username" in everything
    assert "username" not in words(map(str, a_little.findings))
    assert [f.what for f in a_little.errors] == ["metadata.json"]
    assert not a_little.equal


def test_a_sample_of_everybody_is_the_whole(pair: Pair) -> None:
    CORRUPTIONS["missing_profile"](pair.new)

    assert findings(pair, sample=1.0) == findings(pair) != []


# -- time zones


def in_zone(pair: Pair, offset: str) -> None:
    for path in pair.new.rglob("*.jsonl"):
        if path.name in ("messages.jsonl", "transcript.jsonl"):
            path.write_text(path.read_text().replace(f'"timestamp": "{T}"', f'"timestamp": "{T}{offset}"'))


def test_times_that_got_the_offset_of_the_source_zone_are_equal(pair: Pair) -> None:
    in_zone(pair, "-05:00")

    assert not findings(pair, source_timezone="America/New_York")
    assert "timestamp" in words(findings(pair))


def test_times_without_the_offset_differ_when_a_zone_was_given(pair: Pair) -> None:
    assert "timestamp" in words(findings(pair, source_timezone="America/New_York"))


def test_a_wrong_offset_differs(pair: Pair) -> None:
    in_zone(pair, "-04:00")

    assert "timestamp" in words(findings(pair, source_timezone="America/New_York"))


def test_the_zone_that_the_run_has_recorded_is_used(pair: Pair) -> None:
    in_zone(pair, "-05:00")
    put(pair.new, ".migration/run.json", '{"source_timezone": "America/New_York"}')

    assert not findings(pair)


def test_an_unknown_zone_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        pair.validator(source_timezone="Nowhere/Land")


# -- extra roots


def test_vectors_from_an_extra_root_must_be_with_the_owner_of_their_session(pair: Pair, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    shutil.move(pair.old / "users/default", extra / "users/default")

    with_root = pair.validator(extra_roots=[extra]).report()
    without = pair.validator().report()

    assert with_root.equal, words(map(str, with_root.findings))
    assert [f.symbol for f in without.errors] == [Symbol.EXTRA]


def test_vectors_of_an_extra_root_that_belong_to_nobody_here_are_named(pair: Pair, tmp_path: Path) -> None:
    put(tmp_path / "extra", "users/default/sessions/unknown/vectors/vector_index.jsonl", "{}\n")

    report = pair.validator(extra_roots=[tmp_path / "extra"]).report()

    assert report.equal
    assert "belongs to no single user" in words(report.notices)


# -- processes


def test_work_and_results_travel_between_processes(pair: Pair) -> None:
    fan_out = OtherProcess()
    CORRUPTIONS["flipped_bit_in_document"](pair.new)

    elsewhere = pair.validator(fan_out=fan_out).report()
    here = pair.validator().report()

    assert fan_out.calls > 1
    assert (elsewhere.root, elsewhere.counts, set(elsewhere.findings)) == (here.root, here.counts, set(here.findings))


# -- the report and the command


def test_the_report_is_written_as_text_and_json_and_never_over_another(pair: Pair) -> None:
    from datetime import UTC, datetime

    stamp = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    path = Path(write_report(pair.validator().report(), stamp))

    assert path.parent == pair.new / ".migration/reports"
    assert path.name == "validate-20260102T030405.000006Z.txt"
    assert json.loads(path.with_suffix(".json").read_text())["equal"] is True
    with pytest.raises(FileExistsError):
        write_report(pair.validator().report(), stamp)


def test_a_report_shows_no_line_feeds_of_names(pair: Pair) -> None:
    put(pair.old, "users/alice/two\nlines.txt", "x")

    text = pair.validator().report().to_text()

    assert "two\\x0alines.txt" in text


def plain_arguments(pair: Pair) -> list[str]:
    return ["--from", str(pair.old), "--to", str(pair.new), "--users-dir", "people"]


def test_the_command_ends_with_0_and_a_report_when_all_is_equal(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plain_arguments(pair), {}) == 0
    assert ": equal" in capsys.readouterr().out
    assert len(list((pair.new / ".migration/reports").glob("validate-*"))) == 2


def test_the_command_ends_with_1_when_something_differs(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    CORRUPTIONS["changed_title"](pair.new)

    assert main([*plain_arguments(pair), "--json", "--no-report"], {}) == 1
    assert json.loads(capsys.readouterr().out)["equal"] is False
    assert not (pair.new / ".migration").exists()


def test_the_command_takes_its_trees_from_the_environment(pair: Pair) -> None:
    environ = {validate.SOURCE_VARIABLE: str(pair.old), validate.TARGET_VARIABLE: str(pair.new)}

    assert main(["--users-dir", "people", "--no-report"], environ) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "CHAT_MIGRATION__SOURCE"),
        (["--from", "."], "CHAT_MIGRATION__TARGET"),
        (["--from", "/nowhere", "--to", "."], "/nowhere"),
        (["--from", ".", "--to", ".", "--sample", "2"], "sample"),
        (["--from", ".", "--to", ".", "--source-timezone", "Nowhere/Land"], "Nowhere/Land"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_to_give(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, {}) == 2
    assert named in capsys.readouterr().err


def test_many_findings_are_counted_and_the_first_are_kept(pair: Pair) -> None:
    for number in range(1200):
        put(pair.new, f"attic/extra {number}", "x")

    report = pair.validator().report()

    assert (len(report.findings), report.omitted) == (1000, 200)
    assert report.counts["target"]["+"] == 1200
    assert not report.equal


def test_names_of_another_configuration_are_followed(pair: Pair, tmp_path: Path) -> None:
    from dataclasses import replace

    for path in pair.old.rglob("session.json"):
        path.rename(path.with_name("conversation.json"))

    names = replace(NAMES, session="conversation.json")
    report = MigrationValidator(pair.old, pair.new, names=names).report()

    # only what names the file itself differs
    assert {f.what for f in report.errors} == {"legacy.exact of conversation.json, suffix"}


def test_lines_of_a_quarantined_file_sum_up(pair: Pair) -> None:
    put(pair.old, f"users/bob/{RICH}/messages.jsonl", lines("", "{", "[]", line("x", id_="m")))
    report = pair.validator().report()

    assert report.lines["physical"] == sum(
        report.lines[kind] for kind in ("message", "salvaged", "quarantined", "blank")
    )
