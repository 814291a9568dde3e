"""The log of routes: no content, only what became of each. Synchronous; called from threads.

``topic_router/routes/<user>/<day>.jsonl``: a line for each route, and one for its outcome when that is told. A user's
directory has one writer, and goes as a whole when the user is erased.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from modules.core.clock import moment_of
from modules.core.errors import NotFound
from modules.core.layout import component
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)

ROOT = "topic_router/routes"


class RoutingLog:
    def __init__(self, files: FlatFiles) -> None:
        self._files = files

    def append(self, user_id: str, at: datetime, record: Mapping[str, Any], *, begins: bool = True) -> None:
        """*begins* False: where nothing is logged of the user any more, this is not either (NotFound)."""
        line = json.dumps({"at": at.isoformat(), **record}, ensure_ascii=False).encode() + b"\n"
        self._files.append(
            f"{ROOT}/{component(user_id)}/{at.astimezone(UTC):%Y-%m-%d}.jsonl", line, create_parents=begins
        )

    def records(self, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """Of all users, those from *start* up to and without *end*, by user and day. Lines that cannot be read are
        left out, and logged."""
        first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
        for user in self._files.directories(ROOT):
            for key in self._files.list(f"{ROOT}/{user}/"):
                day = _day_of(key)
                if day is not None and first <= day <= last:
                    yield from self._in(key, start, end)

    def knows(self, user_id: str, route_id: str) -> bool:
        """Whether a route of the user is in the log."""
        return any(one.get("route_id") == route_id and one.get("kind") == "route" for one in self.export(user_id))

    def export(self, user_id: str) -> list[dict[str, Any]]:
        keys = self._files.list(f"{ROOT}/{component(user_id)}/")
        always = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
        return [record for key in keys for record in self._in(key, *always)]

    def erase(self, user_id: str) -> int:
        """How many records went."""
        count = len(self.export(user_id))
        self._files.delete_tree(f"{ROOT}/{component(user_id)}")
        return count

    def prune(self, today: date, keep_days: int) -> int:
        """Delete the days before the last *keep_days*. How many files went."""
        oldest = today - timedelta(days=keep_days - 1)
        old = [key for key in self._files.list(ROOT + "/") if (day := _day_of(key)) is not None and day < oldest]
        return sum(self._files.delete(key) for key in old)

    def _in(self, key: str, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        try:
            lines = self._files.read(key).split(b"\n")
        except NotFound:
            return  # pruned or erased at this moment
        unreadable = 0
        for line in lines:
            if line.strip():
                record = _parsed(line)
                at = moment_of(str(record.get("at"))) if record is not None else None
                if record is None or at is None:
                    unreadable += 1
                elif start <= at < end:
                    yield record
        if unreadable:
            log.warning("%s: %d unreadable lines are not counted", key, unreadable)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _day_of(key: str) -> date | None:
    try:
        return date.fromisoformat(key.rpartition("/")[2].removesuffix(".jsonl"))
    except ValueError:
        return None
