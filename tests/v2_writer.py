"""The old application while it lives: adds, edits and deletes sessions of a v2 store as v2 does, until it is told to
stop, and remembers what it has acknowledged."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from pathlib import Path

from tests.hostile_case import good, profile_record, session_record, v2_json


class Writer:
    """Ends when *stop* exists, and then makes *stopped*. `acknowledged`: by (user, session), the ids of the messages of
    every session that lives; `deleted`: the sessions that do not."""

    def __init__(self, store: Path, seed: int, stop: Path, stopped: Path) -> None:
        self._store, self._random = store, random.Random(seed)
        self._stop, self._stopped = stop, stopped
        self.acknowledged: dict[tuple[str, str], list[str]] = {}
        self.titles: dict[tuple[str, str], str] = {}
        self.deleted: set[tuple[str, str]] = set()
        self.writes = 0
        self._thread = threading.Thread(target=self._run)

    def start(self, sessions: int) -> None:
        """Makes that many sessions, then goes on in a thread."""
        for _ in range(sessions):
            self._add_session()
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        acts = (self._add_message, self._add_message, self._add_message, self._rename, self._add_session, self._delete)
        while not self._stop.exists():
            self._random.choice(acts)()
            time.sleep(self._random.random() * 0.004)
        self._stopped.touch()

    def _home(self, key: tuple[str, str]) -> Path:
        return self._store / "users" / key[0] / key[1]

    def _any(self) -> tuple[str, str] | None:
        return self._random.choice(sorted(self.acknowledged)) if self.acknowledged else None

    def _add_session(self) -> None:
        self.writes += 1
        user = f"user{self._random.randrange(6)}"
        key = (user, f"chat_session_20250801_100000_{self.writes:06d}")
        self._home(key).mkdir(parents=True)
        if not (self._store / "users" / user / "profile.json").exists():
            self._replace(self._store / "users" / user / "profile.json", v2_json(profile_record(user)))
        self._replace(self._home(key) / "session.json", v2_json(session_record(user, key[1], title="new")))
        self.acknowledged[key], self.titles[key] = [], "new"

    def _add_message(self) -> None:
        key = self._any()
        if key is None:
            return
        self.writes += 1
        name = f"msg_{self.writes}"
        with (self._home(key) / "messages.jsonl").open("ab") as file:
            file.write(good(0, message_id=name) + b"\n")
        self.acknowledged[key].append(name)

    def _rename(self) -> None:
        key = self._any()
        if key is None:
            return
        self.writes += 1
        title = f"title {self.writes}"
        self._replace(self._home(key) / "session.json", v2_json(session_record(key[0], key[1], title=title)))
        self.titles[key] = title

    def _delete(self) -> None:
        key = self._any()
        if key is None or len(self.acknowledged) < 6 or self._random.random() < 0.6:
            return
        self.writes += 1
        if self._random.random() < 0.5:
            self._home(key).rename(self._home(key).with_name(f"{key[1]}.backup_20250801_120000"))
        else:
            shutil.rmtree(self._home(key))
        del self.acknowledged[key], self.titles[key]
        self.deleted.add(key)

    def _replace(self, path: Path, text: str) -> None:
        draft = path.with_name(f"{path.name}.tmp.{self._random.randrange(16**8):08x}")
        draft.write_text(text, encoding="utf-8")
        os.rename(draft, path)


def new_side(base: Path) -> dict[tuple[str, str], list[str]]:
    """By (user, session), the ids of the messages of every session that lives in a migrated tree."""
    found = {}
    for metadata in sorted((base / "text_chat/sessions").glob("*/*/metadata.json")):
        messages = metadata.with_name("messages.jsonl")
        lines = messages.read_bytes().splitlines() if messages.exists() else []
        found[metadata.parts[-3], metadata.parts[-2]] = [json.loads(line)["id"] for line in lines]
    return found
