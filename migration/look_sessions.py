"""What a run would make of one session: the same counts as `migration.sessions` gives, from names and records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from migration.embed import SourceObject, display_name
from migration.look import PLAIN, Look, Record, record_in
from migration.sessions import SourcePart, all_files, extension_of
from migration.survey import Largest
from migration.transform import plain_session, session_generation
from migration.unit import MIGRATED

# What a session's name tells about who made it. V2 gives the first two; the last two are other programs'.
_LAYOUTS = re.compile(
    r"(?P<chat>chat_session_.*)"
    r"|(?P<typed>(?:panel|debate|problem_solving)_.*)"
    r"|(?P<persona>persona_.*)"
    r"|(?P<uuid>[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What session.json says, as far as a plan needs it; *source* is None when there is no such file."""

    user_id: str | None = None
    has_times: bool = False
    generation: str | None = None
    source: Record | None = None

    @classmethod
    def of(cls, look: Look, part: SourcePart) -> SessionRecord:
        """Reads the record of a part. One that v2 wrote itself is not parsed whole."""
        if part.files.session is None:
            return cls()
        data = look.content(part.path(part.files.session))
        if isinstance(data, Record):
            return cls(source=data)
        plain = plain_session(data)
        if plain is not None:
            generation = "G6" if isinstance(plain.session_type, str) else "G3"
            return cls(plain.user_id, True, generation if part.under_users else "G1", PLAIN)
        record = record_in(data)
        found = record.found
        if found is None:
            return cls(source=record)
        generation = session_generation(found, part.files.directory, under_users=part.under_users, own_ids=None)
        dated = found.text("created_at") is not None and found.text("updated_at") is not None
        return cls(found.text("user_id"), dated, generation, record)

    @property
    def is_usable(self) -> bool:
        """Whether there is an object in the file."""
        return self.source is not None and self.source.end == MIGRATED


@dataclass(slots=True)
class SessionLook:
    """Counts one session made of one or more parts. *stamp*: it is an archived one."""

    look: Look
    session: str
    parts: Sequence[SourcePart]
    records: Sequence[SessionRecord]
    stamp: str | None = None
    _taken: set[tuple[str, ...]] = field(default_factory=set)

    def count(self) -> None:
        survey, counts = self.look.survey, self.look.survey.counts
        for part, record in zip(self.parts, self.records, strict=True):
            self._record(part, record)
            self._messages(part)
            for name, file in part.files.shards.items():
                if self._takes(part, file, ("shard", name)) and self.look.take(
                    part.path(file), part.facts[file], part.counted
                ):
                    counts["shards"] += part.counted
            self._contexts(part)
            self._documents(part)
        if self.stamp is not None:
            counts["archived"] += 1
        elif all(part.counted for part in self.parts):
            counts["sessions"] += 1
            self._kind()
        if len(self.parts) > 1:
            others = ", ".join(self.look.shown(part.directory) for part in self.parts[1:])
            survey.find("merged", self.look.shown(self.parts[0].directory), others)
        size = sum(part.facts[file].size for part in self.parts for file in all_files(part.files))
        if size > survey.largest_session.bytes:
            survey.largest_session = Largest(size, 1, self.look.shown(self.parts[0].directory))

    def _kind(self) -> None:
        survey = self.look.survey
        usable = next((record for record in self.records if record.is_usable), None)
        if usable is None or not usable.has_times:
            kind = "no_record" if usable is None else "no_times"
            survey.find(kind, self.look.shown(self.parts[0].directory))
        generation = usable.generation if usable is not None else None
        if generation is None:
            under_users = self.parts[0].under_users
            generation = session_generation(None, display_name(self.session), under_users=under_users, own_ids=None)
        survey.generations[generation] += 1
        named = _LAYOUTS.fullmatch(self.session)
        survey.layouts[(named and named.lastgroup) or "other"] += 1

    def _record(self, part: SourcePart, record: SessionRecord) -> None:
        if part.files.session is not None and record.source is not None:
            self.look.settle(part.path(part.files.session), part.facts[part.files.session], record.source, part.counted)

    def _messages(self, part: SourcePart) -> None:
        file = part.files.messages
        if file is None:
            return
        facts = part.facts[file]
        if self.look.take(part.path(file), facts, part.counted) and part.counted:
            self.look.survey.counts["message_files"] += 1
            self.look.survey.counts["message_bytes"] += facts.size

    def _contexts(self, part: SourcePart) -> None:
        files = [(("context",), part.files.context)] if part.files.context is not None else []
        of_history = [(("history", name), file) for name, file in part.files.history.items()]
        for to, file in [*files, *of_history]:
            if not self._takes(part, file, to):
                continue
            record = self.look.read(part.path(file), part.facts[file], part.counted)
            if record is not None and part.counted:
                self.look.survey.counts["contexts"] += 1

    def _documents(self, part: SourcePart) -> None:
        if part.files.document_index is None and not part.files.documents:
            return
        counts = self.look.survey.counts
        entries = self._entries(part)
        for name in sorted({*part.files.documents, *entries}):
            shown = display_name(name)
            file = part.files.documents.get(name)
            if file is not None:
                if not self._takes(part, file, ("document", shown, extension_of(name))):
                    continue
                if not self.look.take(part.path(file), part.facts[file], part.counted):
                    continue
                counts["document_files"] += part.counted
            counts["documents" if self.stamp is None else "archived_documents"] += part.counted
            if file is None or name not in entries:
                kind = "document_without_entry" if file is not None else "entry_without_file"
                directory = f"{self.look.shown(part.directory)}/{self.look.settings.names.documents}"
                self.look.survey.find(kind, f"{directory}/{shown}")

    def _entries(self, part: SourcePart) -> set[str]:
        """The v2 document ids that the part's documents/metadata.json has an entry for."""
        file = part.files.document_index
        index: SourceObject | None = None
        if file is not None:
            index = self.look.read(part.path(file), part.facts[file], part.counted)
        return set() if index is None else {name for name, entry in index.value.items() if isinstance(entry, dict)}

    def _takes(self, part: SourcePart, file: str, to: tuple[str, ...]) -> bool:
        """Whether the file may be written there; one whose place another part has taken goes to the attic."""
        if to not in self._taken:
            self._taken.add(to)
            return True
        self.look.attic(part.path(file), part.facts[file])
        return False
