"""However a benchmark ends, its trees are gone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.migration_runs import BenchmarkError
from benchmarks.scratch import remove, scratch


def failed() -> None:
    raise BenchmarkError("no figure")


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        (partial(signal.raise_signal, signal.SIGINT), KeyboardInterrupt),
        (partial(signal.raise_signal, signal.SIGTERM), SystemExit),
        (failed, BenchmarkError),
    ],
)
def test_however_a_benchmark_ends_its_trees_are_gone(
    tmp_path: Path, ends: Callable[[], None], error: type[BaseException]
) -> None:
    # As in a terminal: whoever is started in the background ignores it.
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def benchmark() -> None:
        with scratch(str(tmp_path)) as directory:
            Path(directory, "new", "deep").mkdir(parents=True)
            Path(directory, "new", "deep", "file").write_text("x")
            ends()

    try:
        with pytest.raises(error):
            benchmark()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    finally:
        signal.signal(signal.SIGINT, outside)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_cannot_be_removed_is_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no directory")

    with pytest.raises(NotADirectoryError):
        remove(str(file), patience_s=0.0)
    remove(str(tmp_path / "absent"))


# ---- the command
