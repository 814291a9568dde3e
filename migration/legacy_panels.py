"""Panels of the old API: conversations of the platform, in the form of those that were migrated. Synchronous; called
from threads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from migration.definitions import PanelFacts, panel_metadata
from migration.embed import SourceObject, source_object
from migration.legacy_people import LegacyPeople, snapshots
from migration.legacy_sessions import message_fields
from migration.legacy_store import LegacyStore, Record, below, decoded, json_file
from modules.core.errors import NotFound
from modules.core.layout import component
from modules.text_chat.raw_object import RawObject

log = logging.getLogger(__name__)

ROOT = "multi_agent/conversations"
INSIGHTS = ".migration/adapter/insights"


class LegacyPanels:
    def __init__(self, store: LegacyStore, people: LegacyPeople) -> None:
        self._store = store
        self._files = store.files
        self._people = people

    def create(
        self, panel_type: str, personas: Sequence[str], config: Mapping[str, Any] | None, panel_id: str | None = None
    ) -> str:
        """The new panel's id; ``""`` for too many personas. Raises ValueError for none. With *panel_id* that one, made
        unless it is there."""
        if not personas:
            raise ValueError("a panel needs a persona")
        most = self._store.settings.max_personas
        if len(personas) > most:
            log.warning("a panel of %d personas is over the limit of %d", len(personas), most)
            return ""
        moment = self._store.now()
        while True:
            new_id = panel_id if panel_id is not None else f"panel_{moment:%Y%m%d_%H%M%S_%f}"
            with self._store.locks.held(_lock(new_id)):
                if panel_id is not None and self._files.exists(f"{below(ROOT, new_id)}/metadata.json"):
                    return new_id
                if panel_id is not None or self._files.make_directory(below(ROOT, new_id), fsync=True):
                    self._write(new_id, panel_type, personas, config)
                    return new_id
            moment += timedelta(microseconds=1)  # somebody has this one

    def _write(self, panel_id: str, panel_type: str, personas: Sequence[str], config: Mapping[str, Any] | None) -> None:
        home, now = below(ROOT, panel_id), self._store.now().isoformat()
        record = {
            "id": panel_id,
            "type": panel_type,
            "personas": list(personas),
            "created_at": now,
            "updated_at": now,
            "message_count": 0,
            "config": dict(config or {}),
            "metadata": {},
        }
        found = source_object(json_file(record))
        if isinstance(found, str):
            raise ValueError(f"a panel's configuration is no JSON: {found}")
        for persona_id, persona in snapshots(self._people, personas).items():
            self._store.write_object(f"{home}/participants/{component(persona_id)}.json", persona)
        self._write_lists(panel_id, found, list(personas))

    def _write_lists(self, panel_id: str, record: SourceObject | None, personas: Sequence[str]) -> None:
        home = below(ROOT, panel_id)
        self._store.write_object(f"{home}/participants.json", list(personas))
        if not self._files.exists(f"{home}/decisions.json"):
            self._files.write(f"{home}/decisions.json", b"[]\n", fsync=True)
        facts = PanelFacts(
            panel_id=panel_id,
            path=f"panel_sessions/{panel_id}",
            record=record,
            messages=0,
            participants=len(personas),
            insights=(),
            first_timestamp=None,
            last_timestamp=None,
            mtime_ns=int(self._store.now().timestamp() * 1e9),
            generation="G3",
        )
        metadata = json.loads(panel_metadata(facts))
        del metadata["legacy"]  # nothing that was migrated
        self._store.write_object(f"{home}/metadata.json", metadata)

    def add(self, panel_id: str, message: Mapping[str, Any], *, once: bool = False) -> bool:
        """Append a message, also to a panel that nobody made. False for what is no JSON. *once*: as for sessions."""
        self._ensure(panel_id)
        line = {"id": message["message_id"], **{name: value for name, value in message.items() if name != "message_id"}}
        key = f"{below(ROOT, panel_id)}/transcript.jsonl"
        try:
            self._store.append(key, line, unless_there=message["message_id"] if once else None)
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("a message of panel %r is no JSON: %s", panel_id, type(error).__name__)
            return False
        return True

    def messages(self, panel_id: str) -> Iterator[Record]:
        for record in self._store.records(f"{below(ROOT, panel_id)}/transcript.jsonl"):
            message = message_fields(record)
            if message is not None:
                level = record.get("consensus_level")
                yield {
                    **message,
                    "persona_id": str(record.get("persona_id") or message["role"]),
                    "response_to": record.get("response_to"),
                    "consensus_level": level if isinstance(level, int | float) else None,
                }

    def page(self, panel_id: str, limit: int | None) -> list[Record]:
        count = limit or self._store.settings.page_size
        return list(islice(self.messages(panel_id), max(0, count)))

    def save_insight(self, panel_id: str, insight: Mapping[str, Any]) -> bool:
        """Keep an insight among the conversation's decisions; one of the same id is replaced. What a migration brought
        keeps its bytes, so those of a migrated panel go into a file of their own, below `INSIGHTS`."""
        self._ensure(panel_id)
        home = below(ROOT, panel_id)
        json_file(dict(insight))  # refused before anything is written
        with self._store.locks.held(_lock(panel_id)):
            metadata = RawObject.parse(self._files.read(f"{home}/metadata.json"))
            if metadata.get("legacy") is not None:
                self._store.append(f"{below(INSIGHTS, panel_id)}.jsonl", insight, unless_there=insight["id"])
                return True
            try:
                decisions = decoded(self._files.read(f"{home}/decisions.json"))
            except NotFound:
                decisions = []
            if not isinstance(decisions, list):
                raise ValueError(f"decisions.json of panel {panel_id!r} is no list; it is left as it is")
            kept = [one for one in decisions if not (isinstance(one, dict) and one.get("id") == insight["id"])]
            self._store.write_object(f"{home}/decisions.json", [*kept, dict(insight)])
            changed = metadata.replaced(decisions=len(kept) + 1, updated_at=self._store.now().isoformat())
            self._files.write(f"{home}/metadata.json", changed.to_bytes(), fsync=True)
        return True

    def _ensure(self, panel_id: str) -> None:
        if self._files.exists(f"{below(ROOT, panel_id)}/metadata.json"):
            return
        with self._store.locks.held(_lock(panel_id)):
            if not self._files.exists(f"{below(ROOT, panel_id)}/metadata.json"):
                self._write_lists(panel_id, None, ())


def _lock(panel_id: str) -> str:
    return f"panel\0{panel_id}"
