"""The session mapper of the migration guide, section 3.1: what the migration is measured against.

    python -m benchmarks.guide_mapper OLD NEW

It does what the guide does and no more, with the guide's means: one session after the other; only directories named
``chat_session_*`` with a ``session.json``; six fields of metadata; the messages copied as they are. Nothing is made
durable, checked or remembered. The command prints the seconds that the mapping took, without the start of Python.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

SESSIONS = "users/*/chat_session_*/session.json"
"""What the mapper takes to be a session, below the old store."""


class GuideMapper:
    """Maps the sessions below *old_base* to their places below *new_base*."""

    def __init__(self, old_base: Path, new_base: Path) -> None:
        self.old_base = old_base
        self.new_base = new_base

    def migrate_sessions(self) -> int:
        """Maps every session and says how many. Raises `OSError`, and `ValueError` for JSON that does not parse."""
        mapped = 0
        for user_dir in (self.old_base / "users").iterdir():
            if not user_dir.is_dir():
                continue
            (self.new_base / "text_chat" / "sessions" / user_dir.name).mkdir(parents=True, exist_ok=True)
            for session_file in user_dir.glob("chat_session_*/session.json"):
                self._migrate_session(user_dir.name, session_file.parent.name)
                mapped += 1
        return mapped

    def _migrate_session(self, user_id: str, session_id: str) -> None:
        old = self.old_base / "users" / user_id / session_id
        new = self.new_base / "text_chat" / "sessions" / user_id / session_id
        new.mkdir(parents=True, exist_ok=True)
        old_meta = old / "session.json"
        if old_meta.exists():
            with open(old_meta, encoding="utf-8") as file:
                data = json.load(file)
            new_meta = {
                "id": session_id,
                "user_id": user_id,
                "title": data.get("session_name", "Untitled"),
                "created_at": data.get("created_at"),
                "updated_at": data.get("updated_at"),
                "metadata": data.get("metadata", {}),
            }
            with open(new / "metadata.json", "w", encoding="utf-8") as file:
                json.dump(new_meta, file, indent=2)
        old_messages = old / "messages.jsonl"
        if old_messages.exists():
            shutil.copy(old_messages, new / "messages.jsonl")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints ``{"seconds", "sessions"}``."""
    parser = argparse.ArgumentParser(prog="guide_mapper", description="The guide's sequential mapper of sessions.")
    parser.add_argument("old", metavar="OLD", type=Path)
    parser.add_argument("new", metavar="NEW", type=Path)
    args = parser.parse_args(argv)
    mapper = GuideMapper(args.old, args.new)
    started = time.perf_counter()
    mapped = mapper.migrate_sessions()
    print(json.dumps({"seconds": time.perf_counter() - started, "sessions": mapped}))


if __name__ == "__main__":
    main()
