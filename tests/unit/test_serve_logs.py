"""Log lines wait for one another, and none of them for long."""

from __future__ import annotations

import io
import json
import logging
import threading
from pathlib import Path

import pytest

from serve.logs import JoinedLines, JsonLines


class Written(io.StringIO):
    """Counts how often it was written to, and says when."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0
        self.happened = threading.Event()

    def write(self, text: str) -> int:
        self.times += 1
        self.happened.set()
        return super().write(text)


def logger_to(stream: io.StringIO, wait_s: float) -> tuple[logging.Logger, JoinedLines]:
    handler = JoinedLines(stream, wait_s=wait_s)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("any")
    logger.addHandler(handler)
    return logger, handler


def messages(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


def test_lines_are_written_together_and_in_order() -> None:
    stream = Written()
    logger, handler = logger_to(stream, wait_s=60.0)
    for number in range(5):
        logger.info("line %d", number)
    assert stream.times == 0
    handler.flush()
    assert (stream.times, messages(stream)) == (1, [f"line {number}" for number in range(5)])


def test_a_warning_is_written_at_once_with_what_waits_before_it() -> None:
    stream = Written()
    logger, _ = logger_to(stream, wait_s=60.0)
    logger.info("first")
    logger.warning("second")
    assert (stream.times, messages(stream)) == (1, ["first", "second"])


def test_nothing_waits_longer_than_it_may() -> None:
    stream = Written()
    logger, _ = logger_to(stream, wait_s=0.01)
    for text in ("first", "second"):
        stream.happened.clear()
        logger.info(text)
        assert stream.happened.wait(10)
    assert messages(stream) == ["first", "second"]


def test_many_lines_do_not_wait() -> None:
    stream = Written()
    logger, _ = logger_to(stream, wait_s=60.0)
    for number in range(1000):
        logger.info("%d", number)
    assert len(messages(stream)) >= 700
    assert stream.times < 10


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Path("a/b"), "a/b"),
        (1 << 70, 1 << 70),
        ("half \ud83d", "half \ud83d"),
        (float("nan"), None),
        ([1, {"a": "ß"}],) * 2,
    ],
)
def test_whatever_a_record_carries_is_told(given: object, told: object) -> None:
    stream = Written()
    logger, handler = logger_to(stream, wait_s=60.0)
    logger.info("here", extra={"given": given})
    handler.flush()
    assert json.loads(stream.getvalue())["given"] == told


def test_a_stream_that_refuses_ends_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    logger, _ = logger_to(stream, wait_s=60.0)
    stream.close()
    logger.warning("nobody reads this")
    assert "ValueError" in capsys.readouterr().err
