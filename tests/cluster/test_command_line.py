"""`modchat` as an operator calls it: what it prints, what it writes, and the exit code that a script acts on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.sample import write_bulk, write_sample
from migration.state import Control, State
from migration.validate import MigrationValidator
from tests.cluster.conftest import (
    Command,
    CommandLine,
    Stamps,
    differences,
    eventually,
    progress,
    report_of,
    snapshot,
)

pytestmark = [pytest.mark.cluster]

_PACKAGES = ("config", "modules", "actors", "migration", "serve")

# Root reads every file. Without two capabilities (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; prctl's PR_CAPBSET_DROP takes
# them from what is executed next) it is held by a file's mode like anybody else.
_HELD_BY_FILE_MODES = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Clean:
    """A run that ended well, called from a directory that holds other packages of our packages' names."""

    command: Command
    source: Path
    target: Path


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clean]:
    base = tmp_path_factory.mktemp("clean")
    write_sample(base / "v2", users=4)
    for package in _PACKAGES:
        (base / "cwd" / package).mkdir(parents=True)
        (base / "cwd" / package / "__init__.py").write_text("raise ImportError('of another project')\n")
    commands = CommandLine(base)
    try:
        command = run(commands, base / "v2", base / "new", "--json", cwd=base / "cwd")
        command.wait()
        yield Clean(command, base / "v2", base / "new")
    finally:
        commands.clean_up()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_bulk(tmp_path / "v2", users=2, sessions=2, messages=3)
    return tmp_path / "v2"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def run(modchat: CommandLine, source: Path, target: Path, *more: object, cwd: Path | None = None) -> Command:
    arguments = ("--from", source, "--to", target, "--execute", "--workers", 2, *more)
    return modchat.start("migrate", "run", *arguments, cwd=cwd)


def everything(base: Path, without: str) -> Stamps:
    """Path, inode, mtime (ns) and size of all below *base*, directories too."""
    found = {}
    for directory, below, files in os.walk(base):
        if without in below:
            below.remove(without)
        for name in [*below, *files]:
            status = os.lstat(os.path.join(directory, name))
            path = os.path.relpath(os.path.join(directory, name), base)
            found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


# ---- a clean run


def test_a_clean_run_ends_with_0_and_prints_one_json_object_alone(clean: Clean) -> None:
    assert clean.command.wait() == 0, clean.command.stderr
    assert clean.command.stdout.count("\n") == 1
    report = report_of(clean.command)
    assert (report["source"], report["target"], report["exit_code"]) == (str(clean.source), str(clean.target), 0)
    assert report["sessions"] > 16


def test_its_workers_use_this_program_whatever_the_current_directory_holds(clean: Clean, tmp_path: Path) -> None:
    Engine(RunSettings(os.fspath(clean.source), os.fspath(tmp_path / "new")), LocalBackend()).run()
    assert differences(snapshot(clean.target), snapshot(tmp_path / "new")) == []


def test_the_validator_finds_both_trees_equal(clean: Clean, modchat: CommandLine) -> None:
    command = modchat.run("migrate", "validate", "--from", clean.source, "--to", clean.target)
    assert command.wait() == 0, command.stdout
    assert MigrationValidator(clean.source, clean.target).report().equal


def test_a_difference_ends_a_validation_with_1(clean: Clean, modchat: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "new"
    shutil.copytree(clean.target, target)
    next(target.glob("text_chat/sessions/*/*/messages.jsonl")).unlink()
    command = modchat.run("migrate", "validate", "--from", clean.source, "--to", target, "--json")
    assert command.wait() == 1
    assert not report_of(command)["equal"]


# ---- 1: ended, with things a person should look at


@pytest.mark.slow
def test_a_file_that_cannot_be_read_ends_with_1_and_is_named(modchat: CommandLine, source: Path) -> None:
    unreadable = next(source.glob("users/*/*/messages.jsonl"))
    unreadable.chmod(0)
    arguments = ("--from", source, "--to", source.parent / "new", "--execute", "--workers", 2, "--json")
    command = modchat.start("migrate", "run", *arguments, through=[sys.executable, "-c", _HELD_BY_FILE_MODES])
    assert command.wait() == 1, command.stderr
    report = report_of(command)
    assert (report["unread"], report["issues"]["unread"], report["exit_code"]) == (1, 1, 1)
    assert any(str(unreadable.relative_to(source)) in notice for notice in report["notices"])
    assert report["sessions"] >= 3


# ---- 2: wrong use


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--from", "MISSING"], "MISSING: no such directory; name the v2 store's base path with --from"),
        (["--config", "MISSING"], "MISSING: no such file; it was named with --config"),
        (["--extra-root", "MISSING"], "MISSING: no such directory; it was named with --extra-root"),
        (["--workers", "0"], "0 is below 1"),
        (["--workers", "many"], "--workers"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_use_ends_with_2_and_names_what_is_wrong(
    more: list[str], told: str, modchat: CommandLine, source: Path, tmp_path: Path
) -> None:
    missing = os.fspath(tmp_path / "missing")
    more = [missing if word == "MISSING" else word for word in more]
    command = modchat.run("migrate", "run", "--from", source, "--to", tmp_path / "new", "--execute", *more)
    assert command.wait() == 2
    assert told.replace("MISSING", missing) in command.stderr
    assert "Traceback" not in command.stderr
    assert not (tmp_path / "new").exists()


def test_a_time_zone_that_nobody_knows_is_wrong_use(modchat: CommandLine, source: Path, tmp_path: Path) -> None:
    command = run(modchat, source, tmp_path / "new", "--source-timezone", "Mars/Olympus")
    assert command.wait() == 2
    assert "Mars/Olympus" in command.stderr
    assert not (tmp_path / "new").exists()


# ---- 3: another try may help


@pytest.mark.slow
def test_a_full_target_ends_with_3_and_a_run_with_more_room_goes_on(
    small_disk: Path, modchat: CommandLine, tmp_path: Path
) -> None:
    write_bulk(tmp_path / "big", users=60, sessions=10, messages=10)
    full = run(modchat, tmp_path / "big", small_disk / "new", "--json")
    assert full.wait() == 3, full.stderr
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert full.stdout == ""

    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    again = run(modchat, tmp_path / "big", small_disk / "new", "--json")
    assert again.wait() == 0, again.stderr
    assert report_of(again)["sessions"] == 600
    Engine(RunSettings(os.fspath(tmp_path / "big"), os.fspath(tmp_path / "local")), LocalBackend()).run()
    assert differences(snapshot(small_disk / "new"), snapshot(tmp_path / "local")) == []


@pytest.mark.slow
def test_a_second_run_is_refused_while_one_is_at_work_and_ctrl_c_ends_that_with_3(
    modchat: CommandLine, tmp_path: Path
) -> None:
    write_bulk(tmp_path / "v2", users=60, sessions=10, messages=10)
    target = tmp_path / "new"
    state = State(os.fspath(target))
    state.make()
    state.set_control(Control(paused=True))
    first = run(modchat, tmp_path / "v2", target)
    eventually(lambda: progress(target), "the first run is up")

    second = run(modchat, tmp_path / "v2", target)
    assert second.wait() == 4
    assert "a run is at work here" in second.stderr
    assert not first.ended

    os.killpg(first.process.pid, signal.SIGINT)  # as a terminal does: the command and the Ray that it started
    assert first.wait() == 3
    assert "run the same command again" in first.stderr
    assert modchat.run("migrate", "status", "--to", target).wait() == 3


# ---- 4: refused for safety


def test_a_target_in_the_source_is_refused(modchat: CommandLine, source: Path) -> None:
    before = everything(source, without="")
    for target in (source / "new", source, source.parent):
        command = run(modchat, source, target)
        assert command.wait() == 4
        assert "source and target must not contain each other" in command.stderr
    assert everything(source, without="") == before


def test_a_target_that_no_migration_has_made_is_refused(modchat: CommandLine, source: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.jpg").write_bytes(b"not ours")
    command = run(modchat, source, tmp_path / "photos")
    assert command.wait() == 4
    assert f"{tmp_path}/photos: is not empty and was not made by a migration" in command.stderr
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def test_another_source_for_the_same_target_is_refused(clean: Clean, modchat: CommandLine, source: Path) -> None:
    before = snapshot(clean.target)
    command = run(modchat, source, clean.target)
    assert command.wait() == 4
    assert str(clean.source) in command.stderr
    assert "--from" in command.stderr
    assert differences(snapshot(clean.target), before) == []


def test_a_source_that_is_no_v2_store_is_refused(modchat: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "songs/album").mkdir(parents=True)
    command = run(modchat, tmp_path / "songs", tmp_path / "new")
    assert command.wait() == 4
    assert "nothing here looks like a v2 store" in command.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_damaged_ledger_is_refused_and_named(clean: Clean, modchat: CommandLine, tmp_path: Path) -> None:
    target = tmp_path / "new"
    shutil.copytree(clean.target, target)
    journal = max((target / ".migration/ledger").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    journal.write_bytes(data)
    command = run(modchat, clean.source, target)
    assert command.wait() == 4, command.stderr
    assert str(journal) in command.stderr
    assert "Traceback" not in command.stderr


# ---- what writes nothing


@pytest.mark.parametrize("arguments", [["run"], ["run", "--json"], ["plan"], ["plan", "--json"]], ids=" ".join)
def test_without_execute_nothing_is_written(
    arguments: list[str], modchat: CommandLine, source: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path, without="commands")
    command = modchat.run("migrate", *arguments, "--from", source, "--to", tmp_path / "new")
    assert command.wait() == 0, command.stdout + command.stderr
    assert everything(tmp_path, without="commands") == before
    if "--json" in arguments:
        assert command.stdout.count("\n") == 1
        assert report_of(command)["sessions"] == 4
    else:
        assert os.fspath(source) in command.stdout
    assert ("Nothing was written" in command.stderr) == (arguments == ["run"])


def test_a_sample_is_not_written_over_anything(modchat: CommandLine, source: Path) -> None:
    before = everything(source, without="")
    command = modchat.run("sample", "--to", source)
    assert command.wait() == 4
    assert f"{source}: " in command.stderr
    assert everything(source, without="") == before


def test_a_sample_of_the_same_seed_is_the_same(modchat: CommandLine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = modchat.run("sample", "--to", tmp_path / name, "--users", 2, "--sessions", 1, "--seed", 7)
        assert command.wait() == 0, command.stderr
    assert differences(snapshot(tmp_path / "one"), snapshot(tmp_path / "two")) == []
