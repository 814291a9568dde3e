"""Panels of v2 (conversations of personas) and global personas."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from migration.definitions import PanelFacts, panel_metadata
from migration.embed import SourceObject, display_name
from migration.job import Job
from migration.lines import Conversation, LineRules, timestamp_of
from migration.new_side import CONFLICTS, NewSide, locked
from migration.people import write_persona
from migration.source_files import files_below
from migration.unit import Unit, UnitDraft, ledger_name
from migration.v2.names import BACKUP
from migration.v2.read import FileFacts, list_below, scan
from modules.core.layout import component


def migrate_panel(job: Job, path: str, known: Unit | None) -> tuple[Unit, bool]:
    """Migrates the panel at *path* (absolute) into a conversation, unless *known* says that it was.

    Returns the unit, and whether it is the known one. What is no panel's file is a stray.
    """
    if known is not None and _is_unchanged(job, known, path):
        return known, True
    panel = os.path.basename(path)
    draft = UnitDraft("")
    listing = list_below(path)
    job.note_listing(draft, listing, path)
    files = sorted(listing.files)
    if BACKUP.fullmatch(panel) or not any(_is_of_a_panel(job, file) for file in files):
        for file in files:
            job.stray(draft, f"{path}/{file}", ledger_name(file))
        return job.finished(draft), False
    _PanelWriter(job, draft, path, panel, listing.files).write(files)
    return job.finished(draft), False


def migrate_global_personas(job: Job, directory: str, known: Unit | None) -> tuple[Unit, bool]:
    """Migrates the persona files directly in a directory of global personas; everything else there is a stray."""
    if known is not None and _is_unchanged(job, known, directory):
        return known, True
    draft = UnitDraft("")
    try:
        entries = sorted(scan(directory), key=lambda entry: entry.name)
    except OSError as error:
        draft.issue("unread", job.shown(directory), error.strerror or str(error))
        return job.finished(draft), False
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            listing = list_below(entry.path)
            job.note_listing(draft, listing, entry.path)
            for file in sorted(listing.files):
                job.stray(draft, f"{entry.path}/{file}", ledger_name(f"{entry.name}/{file}"))
        elif job.is_file(draft, entry):
            if _is_persona(job, entry.name):
                stem = entry.name[: -len(".json")]
                home = f"persona/definitions/{component(os.fsencode(stem))}"
                if _is_in_earlier_place(job, directory, entry.name):
                    job.to_attic(draft, entry.path, ledger_name(entry.name))
                    continue
                write_persona(job, draft, entry.path, ledger_name(entry.name), stem, home, None, "G3")
            else:
                job.stray(draft, entry.path, ledger_name(entry.name))
    return job.finished(draft), False


def _is_unchanged(job: Job, known: Unit, directory: str) -> bool:
    files = files_below(directory, "")
    return files is not None and job.is_unchanged(known, files)


def _is_in_earlier_place(job: Job, directory: str, name: str) -> bool:
    """Whether another directory of global personas, which goes before this one, has a persona of that name."""
    places = [f"{job.settings.source}/{place}" for place in job.names.global_persona_dirs]
    return any(os.path.isfile(f"{place}/{name}") for place in places[: places.index(directory)])


def _is_persona(job: Job, name: str) -> bool:
    return name.endswith(".json") and name != ".json" and not job.names.is_temporary(name)


def _is_of_a_panel(job: Job, file: str) -> bool:
    names = job.names
    head, _, rest = file.partition("/")
    return file in {names.panel, names.messages} or bool(rest and head in {names.insights, names.panel_personas})


class _PanelWriter:
    def __init__(self, job: Job, draft: UnitDraft, path: str, panel: str, facts: Mapping[str, FileFacts]) -> None:
        self.job, self.draft, self.path, self.facts = job, draft, path, facts
        self.id = display_name(panel)
        self.home = f"multi_agent/conversations/{component(os.fsencode(panel))}"
        self.exact: dict[str, Any] = {}

    def write(self, files: Sequence[str]) -> None:
        with locked(self.job.target, f"{self.home}/transcript.jsonl", f"{self.home}/metadata.json") as new_side:
            self._write(files, new_side)

    def _write(self, files: Sequence[str], new_side: NewSide) -> None:
        job, names = self.job, self.job.names
        record: SourceObject | None = None
        text: bytes | None = None
        conversation = Conversation(LineRules("", self.id, job.settings.source_timezone))
        insights: list[tuple[str, bytes]] = []
        for file in files:
            head, _, rest = file.partition("/")
            if file == names.panel:
                record = self._object(file)
            elif file == names.messages:
                text = self._transcript(conversation, file)
            elif head == names.insights and rest.endswith(".json") and "/" not in rest:
                insight = self._object(file)
                if insight is not None:
                    insights.append((display_name(rest), insight.raw))
            elif head == names.panel_personas and rest.endswith(".json"):
                snapshot = component(os.fsencode(rest[: -len(".json")]))
                job.copy(
                    self.draft, f"{self.path}/{file}", ledger_name(file), f"{self.home}/participants/{snapshot}.json"
                )
            else:
                job.stray(self.draft, f"{self.path}/{file}", ledger_name(file))
        added = new_side.merged(text, conversation.ids)
        if text is not None or added.lines:
            whole = (text or b"") + b"".join(line + b"\n" for line in added.lines)
            job.target.write(f"{self.home}/transcript.jsonl", whole, merged=True)
        if added.conflicts:
            conflicts = b"".join(line + b"\n" for line in added.conflicts)
            job.target.write(f"{self.home}/{CONFLICTS}", conflicts, merged=True)
            self.draft.issue("conflict", job.shown(self.path), f"{len(added.conflicts)} messages in {CONFLICTS}")
        self._write_lists(record, insights)
        job.target.write(f"{self.home}/metadata.json", self._metadata(record, conversation, insights))
        self._count(conversation)

    def _object(self, file: str) -> SourceObject | None:
        found = self.job.read_object(self.draft, f"{self.path}/{file}", ledger_name(file))
        kept = found.exact() if found is not None else None
        if kept:
            self.exact[display_name(file)] = kept
        return found

    def _transcript(self, conversation: Conversation, file: str) -> bytes | None:
        data = self.job.read(self.draft, f"{self.path}/{file}", ledger_name(file))
        if data is None:
            return None
        text = conversation.add(data)
        if conversation.quarantine:
            self.job.target.write(f"{self.home}/quarantine.jsonl", b"".join(conversation.quarantine))
        kept = conversation.exact()
        if kept:
            self.exact[self.job.names.messages] = kept
        return text

    def _write_lists(self, record: SourceObject | None, insights: Sequence[tuple[str, bytes]]) -> None:
        listed = record.raw_if("personas", list, b"[]") if record else b"[]"
        self.job.target.write(f"{self.home}/participants.json", listed + b"\n")
        decisions = b"[\n" + b",\n".join(raw for _, raw in insights) + b"\n]\n" if insights else b"[]\n"
        self.job.target.write(f"{self.home}/decisions.json", decisions)

    def _metadata(
        self, record: SourceObject | None, conversation: Conversation, insights: Sequence[tuple[str, bytes]]
    ) -> bytes:
        listed = record.value.get("personas") if record is not None else None
        own_id = record is None or record.text("id") is not None
        return panel_metadata(
            PanelFacts(
                panel_id=self.id,
                path=self.job.shown(self.path),
                record=record,
                messages=conversation.written,
                participants=len(listed) if isinstance(listed, list) else 0,
                insights=[name for name, _ in insights],
                first_timestamp=timestamp_of(conversation.first),
                last_timestamp=timestamp_of(conversation.last),
                mtime_ns=max((facts.mtime_ns for facts in self.facts.values()), default=0),
                generation="G1" if conversation.own_id_lines and own_id else "G3",
                exact=self.exact,
                source_timezone=self.job.settings.source_timezone,
            )
        )

    def _count(self, conversation: Conversation) -> None:
        self.draft.count("panels")
        for name in ("lines", "salvaged", "quarantined"):
            self.draft.count(name, getattr(conversation, name))
        self.draft.count("panel_messages", conversation.written)
        self.draft.count("blank", len(conversation.blank))
        for kind in ("salvaged", "quarantined"):
            if count := getattr(conversation, kind):
                self.draft.issue(kind, f"{self.job.shown(self.path)}/{self.job.names.messages}", f"{count} lines")
        if conversation.duplicate_ids:
            self.draft.issue("duplicate_ids", self.job.shown(self.path), str(conversation.duplicate_ids))
