"""One session of any shape: reads its files, wherever they stand, and writes it; metadata.json last."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migration.documents import DocumentFacts, document_metadata, registry_row
from migration.embed import SourceObject, display_name, source_object
from migration.job import Job
from migration.lines import Conversation, LineRules, timestamp_of
from migration.new_side import CONFLICTS, NewSide, locked
from migration.transform import (
    Part,
    SessionFacts,
    archived_at,
    newest,
    session_generation,
    session_metadata,
    shared_conversation,
)
from migration.unit import ELSEWHERE, MIGRATED, UnitDraft, ledger_name, path_fact, printable, text_fact
from migration.v2.layout import SessionFiles, is_redirected
from migration.v2.read import FileFacts
from modules.core.layout import component


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A session directory of v2: the user directory it is below, its files, and the name it has in the ledger."""

    user_dir: str
    under_users: bool
    files: SessionFiles
    facts: dict[str, FileFacts]
    prefix: str = ""
    counted: bool = True

    @property
    def directory(self) -> str:
        return f"{self.user_dir}/{self.files.directory}"

    def path(self, file: str) -> str:
        return f"{self.user_dir}/{file}"

    def name(self, file: str) -> str:
        return self.prefix + ledger_name(file)

    @property
    def disposition(self) -> str:
        return MIGRATED if self.counted else ELSEWHERE


@dataclass(slots=True)
class _Places:
    """Where a session's files go: a live session's are spread over the modules, an archived one's stay together."""

    session: str
    context: str
    history: str
    documents: str


@dataclass(slots=True)
class SessionWriter:
    """Migrates one session made of one or more parts, and accounts for its files in *draft*.

    The keys are what the path components are made of: the ids, or the bytes of names that are not UTF-8.
    """

    job: Job
    draft: UnitDraft
    user_id: str
    user_key: str | bytes
    session_id: str
    session_key: str | bytes
    parts: Sequence[SourcePart]
    records: Sequence[SourceObject | None]
    stamp: str | None = None
    split_with: Sequence[str] = ()
    _exact: dict[str, Any] = field(default_factory=dict)
    _mtimes: list[int] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _counted_before: dict[str, int] = field(default_factory=dict)

    def write(self) -> None:
        places = self._places()
        messages, metadata = f"{places.session}/messages.jsonl", f"{places.session}/metadata.json"
        if self.stamp is not None:
            self._write(places, NewSide())
            return
        with locked(self.job.target, messages, metadata) as new_side:
            self._write(places, new_side)

    def _write(self, places: _Places, new_side: NewSide) -> None:
        existing = set(self.job.target.names(places.session))
        conversation, lines, text = self._messages()
        self._shards(places)
        added = new_side.merged(text, conversation.ids)
        self._keep_conflicts(places, added.conflicts)
        written = set()
        if text is not None or added.lines:
            whole = (text or b"") + b"".join(line + b"\n" for line in added.lines)
            self.job.target.write(f"{places.session}/messages.jsonl", whole, merged=True)
            written.add("messages.jsonl")
        if conversation.quarantine:
            self.job.target.write(f"{places.session}/quarantine.jsonl", b"".join(conversation.quarantine))
            written.add("quarantine.jsonl")
        self._contexts(places)
        generation = self._generation(conversation)
        self._documents(places, generation)
        for name in (existing - written) & {"messages.jsonl", "quarantine.jsonl"}:
            self.job.target.remove(f"{places.session}/{name}")
        kept = conversation.exact()
        if kept:
            self._exact[self.job.names.messages] = kept
        metadata = self._metadata(conversation, lines, generation, new_side, len(added.lines))
        self.job.target.write(f"{places.session}/metadata.json", metadata, merged=True)
        if self.stamp is None:
            self.draft.written[places.session] = len(text) if text is not None else -1
        self._count(conversation)

    def _keep_conflicts(self, places: _Places, lines: Sequence[bytes]) -> None:
        """Keeps what the platform says otherwise than v2."""
        if not lines:
            return
        path = f"{places.session}/{CONFLICTS}"
        kept = self.job.target.read(path) or b""
        known = set(kept.split(b"\n"))
        kept += b"".join(line + b"\n" for line in lines if line not in known)
        self.job.target.write(path, kept, merged=True)
        self.draft.issue("conflict", self.job.shown(self.parts[0].directory), f"{len(lines)} messages in {CONFLICTS}")

    def _places(self) -> _Places:
        user, session = component(self.user_key), component(self.session_key)
        if self.stamp is not None:
            home = f"text_chat/archive/{user}/{session}/{self.stamp}"
            return _Places(home, home, f"{home}/history", f"{home}/documents")
        memory = f"memory/short_term/{user}/{session}"
        return _Places(f"text_chat/sessions/{user}/{session}", memory, f"{memory}/history", "rag/documents")

    def _messages(self) -> tuple[Conversation, list[int], bytes | None]:
        """The conversation of all parts, the physical lines of each, and the migrated text (None: no file)."""
        conversation = Conversation(LineRules(self.user_id, self.session_id, self.job.settings.source_timezone))
        texts: list[bytes] = []
        lines: list[int] = []
        found = False
        for part in self.parts:
            before = _sums(conversation)
            if part.files.messages is not None:
                data = self._read(part, part.files.messages)
                if data is not None:
                    found = True
                    texts.append(conversation.add(data))
                    self._note_time(part, part.files.messages)
            lines.append(conversation.lines - before["lines"])
            if not part.counted:
                for name, value in _sums(conversation).items():
                    self._counted_before[name] = self._counted_before.get(name, 0) + value - before[name]
        return conversation, lines, b"".join(texts) if found else None

    def _shards(self, places: _Places) -> None:
        known: set[bytes] | None = None
        for part in self.parts:
            for name, file in part.files.shards.items():
                to = f"{places.session}/shards/{component(os.fsencode(name))}"
                data = self._read(part, file) if self._takes(part, file, to) else None
                if data is None:
                    continue
                self.job.target.write(to, data)
                self._note_time(part, file)
                if known is None:
                    known = self._known_lines()
                missing = [line for line in data.split(b"\n") if line.strip() and line not in known]
                if missing:
                    self.draft.issue("shard_differs", self.job.shown(part.path(file)), f"{len(missing)} lines")

    def _known_lines(self) -> set[bytes]:
        known: set[bytes] = set()
        for part in self.parts:
            if part.files.messages is not None:
                scratch = UnitDraft("")
                data = self.job.read(scratch, part.path(part.files.messages), part.files.messages)
                known.update((data or b"").split(b"\n"))
        return known

    def _contexts(self, places: _Places) -> None:
        for part in self.parts:
            files = [(f"{places.context}/context.json", part.files.context)] if part.files.context else []
            files += [(f"{places.history}/{component(os.fsencode(n))}", f) for n, f in part.files.history.items()]
            for to, file in files:
                if not self._takes(part, file, to):
                    continue
                record = self.job.read_object(self.draft, part.path(file), part.name(file), part.disposition)
                if record is None:
                    continue
                text = record.prefix.encode() + record.raw + record.suffix.encode()
                self.job.target.write(to, text)
                if record.encoding != "utf-8":
                    self._exact[self._relative(part, file)] = {"encoding": record.encoding}
                if part.counted:
                    self.draft.count("contexts")
                self._note_time(part, file)

    def _documents(self, places: _Places, generation: str) -> None:
        for part in self.parts:
            entries = self._entries(part)
            for name in sorted({*part.files.documents, *entries}):
                self._document(places, part, name, entries.get(name), generation)

    def _entries(self, part: SourcePart) -> dict[str, SourceObject]:
        """The entries of the part's documents/metadata.json that are objects, by document id."""
        if part.files.document_index is None:
            return {}
        path = part.path(part.files.document_index)
        index = self.job.read_object(self.draft, path, part.name(part.files.document_index), part.disposition)
        if index is None:
            return {}
        kept = {"record": index.raw, **(index.exact() or {})}
        self._exact[self._relative(part, part.files.document_index)] = kept
        self._note_time(part, part.files.document_index)
        entries = {}
        for name in index.value:
            entry = source_object(index.raw_of(name) or b"")
            if isinstance(entry, str):
                self.draft.issue("attic_json", self.job.shown(path), f"entry {name[:80]!r} is no object; kept as it is")
            else:
                entries[name] = entry
        return entries

    def _document(
        self, places: _Places, part: SourcePart, name: str, entry: SourceObject | None, generation: str
    ) -> None:
        file = part.files.documents.get(name)
        shown = display_name(name)
        path = f"{self.job.shown(part.directory)}/{self.job.names.documents}/{shown}"
        facts = DocumentFacts(
            user_id=self.user_id,
            session_id=self.session_id,
            name=shown,
            path=path,
            generation=generation,
            entry=entry,
            size=None,
            sha256=None,
            mtime_ns=max(self._mtimes, default=0),
            source_timezone=self.job.settings.source_timezone,
        )
        home = f"{places.documents}/{facts.id}"
        if file is not None:
            to = f"{home}/original{extension_of(name)}"
            if not self._takes(part, file, to):
                return
            copied = self.job.copy(self.draft, part.path(file), part.name(file), to, part.disposition)
            if copied is None:
                return
            facts = replace(facts, size=copied[0], sha256=copied[1], mtime_ns=part.facts[file].mtime_ns)
            self._note_time(part, file)
        if entry is None or file is None:
            self.draft.issue("document_without_entry" if entry is None else "entry_without_file", path)
        self.job.target.write(f"{home}/metadata.json", document_metadata(facts))
        if part.counted:
            self.draft.count("documents" if self.stamp is None else "archived_documents")
        if self.stamp is None:
            self.draft.facts.append([printable(value) for value in registry_row(facts)])

    def _generation(self, conversation: Conversation) -> str:
        own_ids = bool(conversation.own_id_lines) if conversation.lines else None
        record = next((record for record in self.records if record is not None), None)
        return session_generation(record, self.session_id, under_users=self.parts[0].under_users, own_ids=own_ids)

    def _metadata(
        self, conversation: Conversation, lines: list[int], generation: str, new_side: NewSide, new_messages: int
    ) -> bytes:
        parts = []
        for part, record, part_lines in zip(self.parts, self.records, lines, strict=True):
            if part.files.session:
                self._note_time(part, part.files.session)
                kept = record.exact() if record is not None else None
                if kept:
                    self._exact[self._relative(part, part.files.session)] = kept
            files = [self._within(part, file) for file in all_files(part.files)]
            parts.append(Part(self.job.shown(part.directory), record, tuple(files), part_lines))
        record = newest(parts)
        changed, both = new_side.changes(record)
        for name in both:
            self.draft.issue("conflict", self.job.shown(self.parts[0].directory), f"{name}: the platform's stays")
        needs_times = record is None or not (record.text("created_at") and record.text("updated_at"))
        return session_metadata(
            SessionFacts(
                user_id=self.user_id,
                session_id=self.session_id,
                parts=parts,
                generation=generation,
                messages=conversation.written,
                first_timestamp=timestamp_of(conversation.first) if needs_times else None,
                last_timestamp=timestamp_of(conversation.last) if needs_times else None,
                mtime_ns=max(self._mtimes, default=0),
                shared_conversation=shared_conversation(self.user_id, self.session_id),
                split_with=self.split_with,
                exact=self._exact,
                archived_at=archived_at(self.stamp) if self.stamp is not None else None,
                source_timezone=self.job.settings.source_timezone,
                new_messages=new_messages,
                new_side=changed,
            )
        )

    def _count(self, conversation: Conversation) -> None:
        draft = self.draft
        shown = self.job.shown(self.parts[0].directory)
        if self.stamp is not None:
            draft.count("archived")
        elif all(part.counted for part in self.parts):
            draft.count("sessions")
        for name, value in _sums(conversation).items():
            counted = "archived_messages" if name == "messages" and self.stamp is not None else name
            draft.count(counted, value - self._counted_before.get(name, 0))
        for kind, count in (("salvaged", conversation.salvaged), ("quarantined", conversation.quarantined)):
            if count:
                draft.issue(kind, f"{shown}/{self.job.names.messages}", f"{count} lines")
        if conversation.duplicate_ids:
            draft.issue("duplicate_ids", f"{shown}/{self.job.names.messages}", f"{conversation.duplicate_ids}")
        if self.split_with:
            draft.issue("split", shown, f"with {', '.join(self.split_with)}")
        if len(self.parts) > 1:
            draft.issue("merged", shown, ", ".join(self.job.shown(part.directory) for part in self.parts[1:]))
        has_data = any(part.files.session or part.files.messages for part in self.parts)
        if not has_data and self.stamp is None and is_redirected(self.user_id):
            part = self.parts[0]
            child = part.files.directory.partition("/")[0]
            directory = os.path.basename(part.user_dir)
            draft.facts.append(
                ["half", self.session_id, text_fact(self.user_id), path_fact(directory), path_fact(child)]
            )

    def _read(self, part: SourcePart, file: str) -> bytes | None:
        return self.job.read(self.draft, part.path(file), part.name(file), part.disposition)

    def _takes(self, part: SourcePart, file: str, to: str) -> bool:
        """Whether the file may be written there; one whose place another part has taken goes to the attic."""
        if to not in self._taken:
            self._taken.add(to)
            return True
        self.job.to_attic(self.draft, part.path(file), part.name(file))
        return False

    def _note_time(self, part: SourcePart, file: str) -> None:
        self._mtimes.append(part.facts[file].mtime_ns)

    def _within(self, part: SourcePart, file: str) -> str:
        return display_name(file[len(part.files.directory) + 1 :])

    def _relative(self, part: SourcePart, file: str) -> str:
        """The key of a file in `legacy.exact`: relative to the session directory, or its whole path in a later part."""
        within = self._within(part, file)
        return within if part is self.parts[0] else f"{self.job.shown(part.directory)}/{within}"


def _sums(conversation: Conversation) -> dict[str, int]:
    """The lines so far by what became of them; ``messages`` counts the salvaged ones too."""
    return {
        "lines": conversation.lines,
        "messages": conversation.written,
        "salvaged": conversation.salvaged,
        "quarantined": conversation.quarantined,
        "blank": len(conversation.blank),
    }


def extension_of(name: str) -> str:
    """The extension of a document's file name as a safe part of a path; empty when there is none."""
    extension = os.path.splitext(name)[1]
    return "." + component(os.fsencode(extension[1:])) if 1 < len(extension) <= 32 else ""


def all_files(files: SessionFiles) -> list[str]:
    single = [files.session, files.messages, files.context, files.document_index]
    many = [*files.shards.values(), *files.history.values(), *files.documents.values()]
    return sorted([file for file in single if file is not None] + many)
