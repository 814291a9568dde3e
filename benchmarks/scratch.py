"""A directory for the length of a benchmark, gone at its end however it ends, short of SIGKILL."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREFIX = "modchat-bench-"


@contextmanager
def scratch(parent: str) -> Iterator[str]:
    """A new directory below *parent*. Ctrl-C and SIGTERM end the block, then the directory is removed; while that is
    done, a second Ctrl-C is not heard. Raises `OSError`. Only for the main thread, where signals are handled."""
    before = signal.signal(signal.SIGTERM, _leave)
    path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    try:
        yield path
    finally:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            remove(path)
        finally:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, before)


def remove(path: str, patience_s: float = 10.0) -> None:
    """Removes a tree, if it is there. A worker that was just stopped may still write its last file into it, so this
    is tried again for a while. Raises the `OSError` of the last try."""
    end = time.monotonic() + patience_s
    while os.path.lexists(path):
        try:
            shutil.rmtree(path)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
