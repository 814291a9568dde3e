"""Log records as one JSON object a line, each with the id of the request that it belongs to. No message contents:
records of requests name the route, never the path's ids, the query or the body."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from .exchange import request_id_of_now

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode


class JsonLines(logging.Formatter):
    """What a record was given by ``extra`` stands beside the usual members."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id_of_now.get(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _ENCODE(line).decode()
        except (UnicodeEncodeError, OverflowError):  # half a character, a number beyond 64 bits
            return json.dumps(line, default=str)


class JoinedLines(logging.StreamHandler[TextIO]):
    """Writes many lines at a time: what is below WARNING waits for others, *wait_s* at most. A warning, and what waits
    before it, is written at once. A process that is killed loses what waits."""

    _MOST = 256

    def __init__(self, stream: TextIO, *, wait_s: float = 0.2) -> None:
        super().__init__(stream)
        self._wait_s = wait_s
        self._lines: list[str] = []
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno >= logging.WARNING or len(self._lines) >= self._MOST:
                self._write()
            elif self._timer is None:
                timer = threading.Timer(self._wait_s, self._wait_is_over, [record])
                timer.daemon = True
                timer.start()
                self._timer = timer
        except Exception:  # noqa: BLE001 - as every handler: what cannot be logged must not end what it is about
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits; also done at the end of the process."""
        self.acquire()
        try:
            self._write()
        finally:
            self.release()

    def _wait_is_over(self, first: logging.LogRecord) -> None:
        self._timer = None
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - as in `emit`
            self.handleError(first)

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self.stream.write("".join(lines))
            self.stream.flush()


def log_as_json(level: int = logging.INFO, stream: TextIO = sys.stderr) -> None:
    """Make all loggers of this process write so. For whoever owns the process, and answers many requests in it."""
    handler = JoinedLines(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
