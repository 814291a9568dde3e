"""Panel conversations: metadata, participants, snapshots, transcript, decisions."""

from __future__ import annotations

from itertools import zip_longest

from migration.verify.comparison import Item, Tally
from migration.verify.exact import compare_exact_lines, compare_exact_object
from migration.verify.jsontext import (
    ObjectFile,
    integer,
    list_items,
    named,
    object_values,
    string,
)
from migration.verify.messages import MessageRules, Transcript, compare_messages, compare_quarantine, transcript
from migration.verify.names import Name, shown
from migration.verify.sides import Sides
from migration.verify.source import PanelDir
from migration.verify.tree import join

_MEMBERS = frozenset(
    [
        "id",
        "title",
        "type",
        "created_at",
        "updated_at",
        "config",
        "metadata",
        "message_count",
        "participants",
        "decisions",
        "legacy",
    ]
)
_OWN_FILES = frozenset(
    ("metadata.json", "participants.json", "decisions.json", "transcript.jsonl", "quarantine.jsonl", "state.json")
)


def panel_home(panel: PanelDir) -> str:
    """The directory of a panel in the target."""
    return f"multi_agent/conversations/{Name.of_path(panel.name).component}"


class PanelComparison:
    """Compares one panel; what it finds goes to *tally*."""

    def __init__(self, sides: Sides, tally: Tally, panel: PanelDir) -> None:
        self._sides = sides
        self._tally = tally
        self._panel = panel
        self._name = Name.of_path(panel.name)
        self._home = panel_home(panel)
        self._item = Item("panel", "", shown(panel.path))

    def run(self) -> None:
        """Raises `OSError` when a file cannot be read."""
        item, sides, tally, panel = self._item, self._sides, self._tally, self._panel
        tally.claims.add(self._home)
        listing = sides.target.list_or_none(self._home)
        values = sides.expect_object(item, join(self._home, "metadata.json"))
        self._snapshots()
        record = None
        if panel.panel:
            record = sides.object_or_attic(tally, "", join(panel.path, sides.names.panel))
        insights = self._insights()
        if sides.deep:
            with item.quietly(listing is None):
                lines = self._transcript(values)
                with item.quietly(not values):
                    self._fields(values, record, insights, lines)
                self._participants(record)
                self._decisions(insights)
        elif panel.messages:
            tally.files["migrated"] += 1
        if listing is not None:
            for name in sorted(set(listing.files) - _OWN_FILES):
                item.extra(f"{name} comes from nothing in the source")
            for name in sorted(set(listing.dirs) - {"participants"}):
                item.extra(f"{name} comes from nothing in the source")
        tally.close(item, absent=listing is None)

    def _fields(
        self,
        values: dict[str, bytes],
        record: ObjectFile | None,
        insights: list[tuple[str, ObjectFile]],
        lines: Transcript,
    ) -> None:
        item, source = self._item, record.values if record is not None else {}
        item.same("id", self._name.text, string(values.get("id")))
        title = named(source.get("title")) or named(source.get("name"))
        if title is not None:
            item.same("title", title, string(values.get("title")))
        if "type" in source:
            item.same("type", source["type"], values.get("type"))
        for key in ("created_at", "updated_at"):
            given, found = string(source.get(key)), string(values.get(key))
            if given:
                item.same(key, given, found, also=self._sides.with_zone(given, found))
        for key in ("config", "metadata"):
            own = source.get(key)
            item.same(key, own if own is not None and own.startswith(b"{") else b"{}", values.get(key))
        count = len(lines.messages)
        found_count = integer(values.get("message_count"))
        grown = found_count is not None and found_count > count and self._has_state()
        item.same("message_count", count, found_count, also=(found_count,) if grown else ())
        # the page gives the members, as lists or as how many there are
        for key, wanted in (("participants", self._ids(record)), ("decisions", insights)):
            found_list = list_items(values.get(key, b""))
            size = len(found_list) if found_list is not None else integer(values.get(key))
            item.same(key, len(wanted), size)
        for key in sorted(_MEMBERS - values.keys()):
            item.missing(f"member {key}")
        for key in sorted(values.keys() - _MEMBERS):
            item.extra(f"member {key}", values[key])
        self._legacy(object_values(values.get("legacy")) or {}, record, insights)

    def _legacy(
        self, legacy: dict[str, bytes], record: ObjectFile | None, insights: list[tuple[str, ObjectFile]]
    ) -> None:
        item, panel, names = self._item, self._panel, self._sides.names
        item.same("legacy.path", shown(panel.path), string(legacy.get("path")))
        item.same("legacy.record", record.record if record is not None else b"null", legacy.get("record"))
        if named(legacy.get("generation")) is None:
            item.missing("legacy.generation")
        found = [string(name) or "" for name in list_items(legacy.get("insights") or b"[]") or []]
        item.same("legacy.insights", "\0".join(shown(n) for n, _ in insights), "\0".join(found))
        exact = object_values(legacy.get("exact")) or {}
        if record is not None:
            compare_exact_object(item, names.panel, record, exact)
        if panel.messages:
            data = self._sides.source.read(join(panel.path, names.messages))
            compare_exact_lines(item, names.messages, data, exact)

    def _has_state(self) -> bool:
        return self._sides.target.stat_or_none(join(self._home, "state.json")) is not None

    def _ids(self, record: ObjectFile | None) -> list[bytes]:
        if record is not None and "personas" in record.values:
            return list_items(record.values["personas"]) or []
        return []

    def _participants(self, record: ObjectFile | None) -> None:
        data = self._sides.target.read_or_none(join(self._home, "participants.json"))
        if data is None:
            self._item.missing("participants.json", self._home)
            data = b"[]"
        wanted = [string(value) if string(value) is not None else value.decode() for value in self._ids(record)]
        items = list_items(data.strip())
        found = [string(value) if string(value) is not None else value.decode() for value in items or []]
        if items is None:
            self._item.differs("participants.json", "a list", data)
        elif wanted or record is not None:
            self._item.same("participants.json", repr(wanted), repr(found))

    def _snapshots(self) -> None:
        """Each persona as it was when the panel began: bytes unchanged."""
        folder, cut = join(self._home, "participants"), len(self._sides.names.panel_personas) + 1
        expected: set[str] = set()
        for path in self._panel.snapshots:
            source = join(self._panel.path, path)
            name = Name.of_path(path[cut:].removesuffix(".json")).component + ".json"
            expected.add(name)
            item = Item("participant", "", shown(source))
            self._tally.files["migrated"] += 1
            present = self._sides.same_file(item, "bytes", source, join(folder, name))
            self._tally.close(item, absent=not present)
        listing = self._sides.target.list_or_none(folder)
        for name in sorted({*listing.files, *listing.dirs} - expected) if listing else ():
            self._item.extra(f"participants/{name} comes from nothing in the source")

    def _insights(self) -> list[tuple[str, ObjectFile]]:
        cut = len(self._sides.names.insights) + 1
        found = []
        for path in self._panel.insights:
            file = self._sides.object_or_attic(self._tally, "", join(self._panel.path, path))
            if file is not None:
                found.append((path[cut:], file))
        return found

    def _decisions(self, insights: list[tuple[str, ObjectFile]]) -> None:
        data = self._sides.target.read_or_none(join(self._home, "decisions.json"))
        if data is None:
            self._item.missing("decisions.json", self._home)
            data = b"[]"
        found = list_items(data.strip())
        if found is None:
            self._item.differs("decisions.json", "a list", data)
            return
        self._item.same("decisions counted", len(insights), len(found))
        for (name, file), decision in zip_longest(insights, found[: len(insights)]):
            with self._item.quietly(decision is None):
                self._item.same(f"decision {shown(name)}", file.record, decision)

    def _transcript(self, values: dict[str, bytes]) -> Transcript:
        sides, item, path = self._sides, self._item, join(self._panel.path, self._sides.names.messages)
        if not self._panel.messages:
            if sides.target.stat_or_none(join(self._home, "transcript.jsonl")) is not None and not self._has_state():
                item.extra("transcript.jsonl comes from nothing in the source")
            return transcript([])
        self._tally.files["migrated"] += 1
        lines = transcript([sides.source.read(path)])
        self._tally.lines.update(lines.count())
        self._tally.lines["physical"] += lines.physical
        rules = MessageRules(Name.of_text(""), self._name, sides.zone)
        target = sides.target.read_or_none(join(self._home, "transcript.jsonl"))
        legacy = object_values(values.get("legacy")) or {}
        recorded = integer(legacy.get("messages")) if values else len(lines.messages)
        new = compare_messages(item, lines, target, rules, recorded)
        if new:
            item.extra(f"{new} new messages", is_error=False)
        rows = sides.target.read_or_none(join(self._home, "quarantine.jsonl"))
        if rows is not None or lines.quarantined:
            compare_quarantine(item, lines, rows, rules, appended=new > 0)
        return lines
