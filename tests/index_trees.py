"""A migrated tree, written by hand, and its indices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from migration.fanout import LocalFanOut
from migration.index_builder import IndexReport, build, search_messages
from modules.core.layout import component


class Tree:
    """A migrated tree, written by hand."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir()

    def session(self, user: str, session: str, *lines: dict[str, Any] | bytes) -> Path:
        where = self.base / "text_chat/sessions" / component(user) / component(session)
        where.mkdir(parents=True)
        raw = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        (where / "messages.jsonl").write_bytes(b"".join(line + b"\n" for line in raw))
        (where / "metadata.json").write_text(json.dumps({"id": session, "user_id": user}))
        return where

    def document(self, identity: str, **metadata: Any) -> Path:
        where = self.base / "rag/documents" / identity
        where.mkdir(parents=True)
        (where / "metadata.json").write_text(json.dumps({"id": identity, **metadata}))
        return where

    def build(self, **how: Any) -> IndexReport:
        return build(self.base, how.pop("fan_out", LocalFanOut()), **how)

    def read(self, path: str) -> Any:
        return json.loads((self.base / path).read_bytes())

    def lines_found(self, query: str, user_id: str | None = None) -> list[tuple[str, str, int]]:
        hits = search_messages(self.base, query, user_id, limit=1000)
        return sorted((hit.user_id, hit.session_id, hit.line) for hit in hits)


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"id": "m", "role": "user", "content": content, "timestamp": "2024-01-15T10:00:00", **more}
