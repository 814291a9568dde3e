"""Which side serves whom: ``<target>/.migration/cutover/serving.json``, replaced in one step.

    {"default": "old" | "new" | "fenced", "users": {"<user id>": "old" | "new" | "fenced"}}

*fenced* lasts for the minutes of a cut-over: neither side may be written to. An application that writes asks inside
`Serving.writing`, which holds a lock shared with all other writers; the fence waits until those have let go who were
told something else. So between the answer and the write nothing can change. An application that only reads asks
`side_of`. Where there is no file, nobody has been cut over: the old side serves.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from migration.cutover_journal import cutover_directory
from migration.durable import replace_file
from migration.state import RefusedError
from migration.target import TargetError

_ASK_AGAIN_S = 0.02


class Side(StrEnum):
    OLD = "old"
    NEW = "new"
    FENCED = "fenced"


class FencedError(ConnectionError):
    """The user is being cut over: neither side may be written to. Try again in a moment."""

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return f"user {self.user_id!r} is being cut over; try again in a moment"


class WritersStay(Exception):
    """Writers did not let go in time."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Who is served where. Users that are not named are served by *default*."""

    default: Side = Side.OLD
    users: Mapping[str, Side] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", Side(self.default))
        users = {str(user): Side(side) for user, side in self.users.items()}
        object.__setattr__(self, "users", MappingProxyType(users))

    def side_of(self, user_id: str) -> Side:
        return self.users.get(user_id, self.default)

    def moved(self, users: Iterable[str], side: Side) -> Routes:
        """The routes with these users, or with nobody named everybody, on another side."""
        named = tuple(users)
        if not named:
            return Routes(side)
        return replace(self, users={**self.users, **dict.fromkeys(named, side)})

    @property
    def on_new(self) -> frozenset[str]:
        """The users that are named as served by the new side."""
        return frozenset(user for user, side in self.users.items() if side is Side.NEW)

    def to_json(self) -> dict[str, Any]:
        return {"default": self.default.value, "users": {user: side.value for user, side in sorted(self.users.items())}}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Routes:
        """Raises `ValueError` or `KeyError` for what is no routes."""
        return cls(value["default"], value["users"])


class Serving:
    """The routes of one target, on disk. Any process may ask; only a cut-over sets."""

    def __init__(self, target: str | Path) -> None:
        self.directory = cutover_directory(target)
        self.path = self.directory / "serving.json"
        self._writers = self.directory / "writers"
        self._known: tuple[tuple[int, int, int], Routes] | None = None

    def routes(self) -> Routes:
        """Raises `RefusedError` when the file is damaged: then nobody is sent anywhere."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._known is not None and self._known[0] == stamp:
                return self._known[1]
            routes = Routes.of(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Routes()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"{self.path}: damaged ({error}); see `modchat migrate cutover status`") from error
        self._known = (stamp, routes)
        return routes

    def side_of(self, user_id: str) -> Side:
        return self.routes().side_of(user_id)

    @contextmanager
    def writing(self, user_id: str) -> Iterator[Side]:
        """The side that the user's write belongs to, which does not change before the block is left.

        Raises `FencedError` while that is neither. Waits for no longer than it takes to set a route.
        """
        descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            side = self.side_of(user_id)
            if side is Side.FENCED:
                raise FencedError(user_id)
            yield side
        finally:
            os.close(descriptor)

    def prepare(self) -> None:
        """Makes what `writing` needs, so that applications of other users of the system need only read here. Raises
        `TargetError`."""
        try:
            os.close(self._opened())
            os.chmod(self._writers, 0o644)
        except OSError as error:
            raise TargetError.of(str(self.directory), self._writers.name, error) from error

    def _opened(self) -> int:
        try:
            return os.open(self._writers, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.directory.mkdir(parents=True, exist_ok=True)
            return os.open(self._writers, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def set(self, routes: Routes) -> None:
        """Durably. Raises `TargetError`."""
        text = json.dumps(routes.to_json(), indent=2, ensure_ascii=True) + "\n"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, text.encode())
        except OSError as error:
            raise TargetError.of(str(self.directory), self.path.name, error) from error

    def wait_for_writers(self, timeout_s: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Returns when nobody writes any more who asked before the routes were set. Raises `WritersStay`."""
        end = time.monotonic() + timeout_s
        descriptor = self._opened()
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise WritersStay(f"{self._writers}: writers did not let go within {timeout_s:g} s") from None
                    sleep(_ASK_AGAIN_S)
        finally:
            os.close(descriptor)
