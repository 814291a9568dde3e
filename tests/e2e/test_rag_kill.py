"""Killed at any moment, the module comes back with an index that agrees with its documents, and with all that it had
acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("work", ["add", "delete", "erase", "renew", "save", "any"])
def test_a_killed_process_leaves_what_can_be_gone_on_with(tmp_path: Path, work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rag_crash", str(tmp_path), work],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) >= 8, "it was not killed often enough to prove anything"
