"""A small v2 store that lives on, its cut-over, and commands that leave a mark where a service would start or stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migration.cutover import CutOver, Outcome
from migration.cutover_hooks import Hooks
from migration.cutover_options import Options
from migration.cutover_serving import Serving, Side
from migration.cutover_sync import LocalSyncer
from migration.job import RunSettings
from migration.validate import MigrationValidator
from modules.core.storage import FlatFiles
from tests.hostile_case import SESSION, Tree, good, profile_record, session_record

OTHER = "chat_session_20250802_100000_000001"
USERS = ("ada", "bob", "cyd")


class World:
    """Both stores below *root*, and which of the two services is up."""

    def __init__(self, root: Path, users: tuple[str, ...] = USERS) -> None:
        self.root, self.v2, self.new = root, root / "v2", root / "new"
        self.old_up, self.new_up = root / "old.up", root / "new.up"
        self.users = users
        self.tree = Tree(self.v2)
        for user in users:
            self.tree.put(f"users/{user}/profile.json", profile_record(user))
            for session in (SESSION, OTHER):
                self.tree.put(f"users/{user}/{session}/session.json", session_record(user, session))
                self.tree.put(f"users/{user}/{session}/messages.jsonl", good(1) + b"\n" + good(2) + b"\n")
        self.old_up.touch()

    @property
    def settings(self) -> RunSettings:
        return RunSettings(os.fspath(self.v2), os.fspath(self.new))

    @property
    def serving(self) -> Serving:
        return Serving(self.new)

    def hooks(self, **more: str) -> Hooks:
        commands = {
            "stop_old": f"rm -f {self.old_up}",
            "start_old": f"touch {self.old_up}",
            "stop_new": f"rm -f {self.new_up}",
            "start_new": f"touch {self.new_up}",
            "health": f"test -e {self.new_up}",
        }
        return Hooks.of({**commands, **more})

    def options(self, hooks: Hooks | None = None, **more: Any) -> Options:
        return Options(hooks=hooks or self.hooks(), **more)

    def cut_over(self, **more: Any) -> CutOver:
        return CutOver(os.fspath(self.new), LocalSyncer(1), sleep=lambda _: None, **more)

    def begin(self, options: Options | None = None, **more: Any) -> Outcome:
        return self.cut_over(**more).begin(self.settings, options or self.options())

    def say(self, name: str, user: str = "ada", session: str = SESSION) -> None:
        """v2 takes a message."""
        with (self.v2 / "users" / user / session / "messages.jsonl").open("ab") as file:
            file.write(good(0, message_id=name) + b"\n")

    def say_new(self, name: str, user: str = "ada", session: str = SESSION) -> None:
        """The platform takes a message."""
        line = json.dumps({"id": name, "role": "user", "content": f"said on the platform: {name}"}).encode()
        FlatFiles(self.new).append(f"text_chat/sessions/{user}/{session}/messages.jsonl", line + b"\n")

    def lines_of_new(self, user: str = "ada", session: str = SESSION) -> list[str]:
        path = self.new / "text_chat/sessions" / user / session / "messages.jsonl"
        return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]

    def lines_of_old(self, user: str = "ada", session: str = SESSION) -> list[str]:
        path = self.v2 / "users" / user / session / "messages.jsonl"
        return [json.loads(line)["message_id"] for line in path.read_bytes().splitlines()]

    def is_equal(self) -> bool:
        return MigrationValidator(os.fspath(self.v2), os.fspath(self.new)).report().equal

    def served_by(self) -> Side:
        """The side that serves everybody; fails when the services do not agree with the routes."""
        side = self.serving.routes().default
        assert side is not Side.FENCED
        assert (self.old_up.exists(), self.new_up.exists()) == (side is Side.OLD, side is Side.NEW)
        return side


class Points:
    """Hears every step, and ends the process with SIGKILL before the one numbered *fatal* (from 0)."""

    def __init__(self, fatal: int | None = None) -> None:
        self.names: list[str] = []
        self._fatal = fatal

    def __call__(self, name: str) -> None:
        if len(self.names) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)


def in_a_process(work: Callable[[], object]) -> int:
    """Does *work* in a fork of this process: 0 when it ended, 1 when it raised, minus the signal when it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
