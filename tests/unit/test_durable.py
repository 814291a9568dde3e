"""Locks that die with their holder, and names that change in one step."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from migration.durable import Busy, exchange, held
from tests.backup_trees import Killed


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Killed), held(tmp_path / "lock"):
        raise Killed

    with held(tmp_path / "lock"), pytest.raises(Busy), held(tmp_path / "lock", shared=True):
        pytest.fail("held twice")


def test_a_lock_file_that_was_removed_while_waiting_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    really_lock = fcntl.flock
    replaced: list[int] = []

    def lock_after_removal(descriptor: int, operation: int) -> None:
        if not replaced:
            replaced.append(descriptor)
            lock.unlink()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_removal)
    with held(lock), pytest.raises(Busy), held(lock):
        pytest.fail("held twice")


def test_exchange_swaps_two_names_or_says_that_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")

    swapped = exchange(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").read_text() == ("b" if swapped else "a")
    assert (tmp_path / "b").read_text() == ("a" if swapped else "b")


def test_exchange_with_a_name_that_is_not_there_is_an_error_naming_both(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("names cannot be exchanged here")

    with pytest.raises(FileNotFoundError, match=r"a' -> .*gone'"):
        exchange(tmp_path / "a", tmp_path / "gone")
