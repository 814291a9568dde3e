"""The state directory: one run at a time, damaged files refused, settings that outlive the run."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from migration.progress import Progress
from migration.state import BusyError, Control, RefusedError, State, wait_for_fence
from migration.target import TargetError


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(os.fspath(tmp_path / "new"))
    made.make()
    return made


def test_the_directory_is_made_once_and_kept(state: State) -> None:
    assert state.exists()
    state.write("run.json", {"run": 3})
    state.make()
    assert state.read("run.json") == {"run": 3}


def test_two_runs_cannot_hold_the_lock(state: State) -> None:
    held = state.lock()
    assert state.is_active()
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        state.lock()
    os.close(held)
    assert not state.is_active()
    os.close(state.lock())


def test_asking_whether_a_run_is_active_does_not_stop_one_from_starting(state: State) -> None:
    os.close(state.lock())
    asking = os.open(f"{state.path}/lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [asking]).start()
    os.close(state.lock())


def test_no_run_is_active_where_there_never_was_one(tmp_path: Path) -> None:
    assert not State(os.fspath(tmp_path)).is_active()
    assert not State(os.fspath(tmp_path)).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"7"])
def test_a_damaged_file_is_refused_and_not_taken_for_an_absent_one(state: State, content: bytes) -> None:
    Path(state.path, "run.json").write_bytes(content)
    with pytest.raises(RefusedError, match=r"run\.json: damaged"):
        state.read("run.json")
    assert state.read("other.json") is None


def test_a_write_that_fails_leaves_the_old_file(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write("run.json", {"run": 1})

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(TargetError, match=r"run\.json: No space left"):
            state.write("run.json", {"run": 2})
    assert state.read("run.json") == {"run": 1}


def test_a_directory_that_cannot_be_made_is_an_error_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetError):
        State(os.fspath(tmp_path / "file/new")).make()
    with pytest.raises(TargetError):
        State(os.fspath(tmp_path / "absent")).fence(0)


def test_what_an_operator_set_outlives_the_run(state: State) -> None:
    assert state.control() == Control()
    state.set_control(Control(paused=True, workers=3, throttle_mb_s=1.5))
    assert State(state.target).control() == Control(True, 3, 1.5)


def test_the_status_is_there_for_another_process(state: State) -> None:
    state.write_status(Progress("migrate", 1.0, 2, 4, 6, 8, 10, 0, 1, False, None, 2))
    found = State(state.target).read("status.json")
    assert found is not None
    assert (found["users"], found["line"].split(":")[0]) == (2, "migrate")


def test_a_fence_is_waited_for_and_not_for_ever(state: State) -> None:
    fence = state.fence(0)
    held = os.open(fence, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    with pytest.raises(BusyError, match="a worker of an earlier run still writes"):
        state.wait_for_fences(0.05)
    threading.Timer(0.1, os.close, [held]).start()
    started = time.monotonic()
    wait_for_fence(fence, 10)
    assert time.monotonic() - started < 5
