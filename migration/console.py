"""Progress on a terminal or in a log. It goes to standard error, so standard output holds the result alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

from migration.engine import OnProgress
from migration.progress import Progress

_LOG_EVERY_S = 5.0


@contextmanager
def shown_progress(stream: TextIO) -> Iterator[OnProgress]:
    """A receiver of progress: a live line on a terminal, else a plain line every few seconds."""
    if stream.isatty():
        with _live(stream) as receiver:
            yield receiver
    else:
        yield _PlainLines(stream)


class _PlainLines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= _LOG_EVERY_S:
            self._last = now
            self._stream.write(progress.line() + "\n")
            self._stream.flush()


@contextmanager
def _live(stream: TextIO) -> Iterator[OnProgress]:
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
    with RichProgress(*columns, console=Console(file=stream), transient=True) as bars:
        bar = bars.add_task("starting", total=None)

        def receive(progress: Progress) -> None:
            bars.update(bar, description=progress.line(), completed=progress.users, total=progress.users_total)

        yield receive
