"""Sessions of v2 from the migrated ones: live ones, archived ones, and those made on the platform."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from migration.embed import display_name, source_bytes
from migration.lines import LineRules
from migration.reverse_messages import NewLine, OldLines, line_notes, new_line, old_lines, split_at
from migration.reverse_names import checked, encoded, name_by
from migration.reverse_raw import NotJson, count_of, elements, members, text_of, texts_of
from migration.reverse_records import Activity, changed_session, new_session, session_changes
from migration.reverse_work import Work
from migration.v2.layout import sanitised
from migration.v2.names import BACKUP, CONTEXT, HISTORY
from modules.core.layout import component

Exact = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class SessionPlace:
    """Where a migrated session stands: the components of its names, and the stamp of an archived one."""

    user: str
    session: str
    stamp: str | None = None

    @property
    def home(self) -> str:
        if self.stamp is not None:
            return f"text_chat/archive/{self.user}/{self.session}/{self.stamp}"
        return f"text_chat/sessions/{self.user}/{self.session}"

    @property
    def memory(self) -> str:
        """Where its contexts stand."""
        return self.home if self.stamp is not None else f"memory/short_term/{self.user}/{self.session}"


@dataclass(frozen=True, slots=True)
class PartOfV2:
    """A directory of v2 that a session came from. *files* is None when it is the only one."""

    shown: str
    directory: bytes
    record: bytes | None
    files: frozenset[str] | None = None
    lines: int = 0

    def holds(self, file: str) -> bool:
        return self.files is None or file in self.files


@dataclass(frozen=True, slots=True)
class Migrated:
    """What metadata.json says of a migrated session."""

    user_id: str
    session_id: str
    values: Mapping[str, bytes]
    record: bytes | None
    messages: int
    parts: Sequence[PartOfV2]
    exact: Exact

    def part_with(self, file: str) -> int:
        """The part whose file *file* was migrated: the first that has it; 0 for one that no part had."""
        return next((number for number, part in enumerate(self.parts) if part.holds(file)), 0)

    def notes(self, part: int, file: str) -> Mapping[str, bytes]:
        key = file if part == 0 else f"{self.parts[part].shown}/{file}"
        return self.exact.get(key, {})

    @property
    def newest(self) -> int:
        """The part whose record was taken for the session's."""
        return next((n for n, part in enumerate(self.parts) if part.record == self.record), 0)


def migrated_session(work: Work, place: SessionPlace, values: Mapping[str, bytes]) -> Migrated | None:
    """The session that a metadata.json describes; None when it was made on the platform.

    Raises `NotJson` when its ``legacy`` is damaged, `BadPathError` when it leads out of a v2 store.
    """
    if values.get("legacy", b"null") == b"null":
        return None
    legacy = members(values["legacy"])
    session_id = text_of(values.get("id")) or ""
    record = _present(legacy.get("record"))
    rows = [members(row) for row in elements(legacy["parts"])] if "parts" in legacy else [legacy]
    parts = []
    for row in rows:
        shown = text_of(row.get("path"))
        if shown is None:
            raise NotJson("legacy has no path")
        files = frozenset(texts_of(row["files"])) if "files" in row else None
        directory = work.path(shown, _known_names(shown, session_id, place))
        parts.append(PartOfV2(shown, directory, _present(row.get("record")), files, count_of(row.get("lines"))))
    return Migrated(
        user_id=text_of(values.get("user_id")) or "",
        session_id=session_id,
        values=values,
        record=record,
        messages=count_of(legacy.get("messages")),
        parts=parts,
        exact=exact_of(legacy),
    )


def exact_of(legacy: Mapping[str, bytes]) -> Exact:
    """``legacy.exact`` by source file. Raises `NotJson`."""
    return {file: members(notes) for file, notes in members(legacy.get("exact", b"{}")).items()}


def file_of(raw: bytes, notes: Mapping[str, bytes]) -> bytes:
    """The bytes of the v2 file in which the object *raw* stood; UTF-8 when its encoding cannot hold it any more."""
    texts = {key: text_of(notes.get(key)) for key in ("encoding", "prefix", "suffix")}
    kept = {key: text for key, text in texts.items() if text is not None}
    try:
        return source_bytes(raw, kept)
    except UnicodeEncodeError:
        return raw


def restore_session(work: Work, place: SessionPlace) -> None:
    """Writes a session's files except the documents of a live one; one made on the platform is noted for later."""
    values = work.read_members(f"{place.home}/metadata.json")
    if values is None or (place.stamp is not None and _was_deleted_in_v2(values)):
        return
    with work.reporting(place.home):
        session = migrated_session(work, place, values)
        if session is not None:
            _SessionOfV2(work, place, session).write()
        elif place.stamp is None:
            work.outcome.new_users.add(place.user)
        else:
            work.find("damaged", f"{place.home}/metadata.json", "archived, and without legacy")


def _was_deleted_in_v2(values: Mapping[str, bytes]) -> bool:
    """Whether a later run of the migration archived the session because v2 no longer had it."""
    try:
        legacy = json.loads(values.get("legacy", b"null"))
    except ValueError:
        return False
    return isinstance(legacy, dict) and legacy.get("deleted_from_v2") is True


def restore_new_session(work: Work, place: SessionPlace) -> None:
    """Writes a session that was made on the platform as one of late v2; a migrated one is left alone."""
    values = work.read_members(f"{place.home}/metadata.json")
    if values is None or values.get("legacy", b"null") != b"null":
        return
    with work.reporting(place.home):
        user_id, session_id = text_of(values.get("user_id")), text_of(values.get("id"))
        if user_id is None or session_id is None:
            raise NotJson("neither user_id nor id may be absent")
        users_dir = work.names.users_dirs[0]
        directory = checked(f"{users_dir}/{sanitised(user_id)}/".encode() + encoded(session_id))
        if _is_of_another(work, directory, user_id, session_id):
            work.find("in_the_way", directory, f"of user {user_id!r}")
            return
        text = work.read(f"{place.home}/messages.jsonl")
        rules = LineRules(user_id, session_id)
        updated_at = text_of(values.get("updated_at")) or ""
        lines = new_lines_of(work, f"{place.home}/messages.jsonl", text or b"", rules, 1, updated_at)
        activity = Activity(len(lines), lines[-1].timestamp if lines else "", len(lines))
        work.write(directory + b"/" + encoded(work.names.session), new_session(values, user_id, session_id, activity))
        if text is not None:
            messages = b"".join([line.text + b"\n" for line in lines])
            work.write(directory + b"/" + encoded(work.names.messages), messages)
        for stored, file in _contexts(work, place, {}):
            data = work.read(stored)
            if data is not None:
                work.write(checked(directory + b"/" + file), data)
        work.outcome.counts.update(sessions=1, new_sessions=1, messages=len(lines), new_messages=len(lines))


@dataclass(slots=True)
class _SessionOfV2:
    work: Work
    place: SessionPlace
    session: Migrated
    _stored_names: dict[str, bytes] = field(default_factory=dict)

    def write(self) -> None:
        activity = self._messages()
        self._records(activity)
        self._shards()
        self._context_files()
        self._document_indices()
        counts = self.work.outcome.counts
        if self.place.stamp is not None:
            counts["archived"] += 1
            for name in self.work.list(f"{self.place.home}/documents"):
                self._archived_document(f"{self.place.home}/documents/{name}")
        else:
            counts.update(sessions=1, messages=activity.messages, new_messages=activity.new_messages)

    def _put(self, part: int, file: bytes, data: bytes) -> None:
        self.work.write(checked(self.session.parts[part].directory + b"/" + file), data)

    def _messages(self) -> Activity:
        session, name = self.session, self.work.names.messages
        stored = f"{self.place.home}/messages.jsonl"
        text = self.work.read(stored)
        rules = LineRules(session.user_id, session.session_id, self.work.settings.source_timezone)
        migrated, written = split_at(text or b"", session.messages)
        lines = restore_lines(self.work, stored, migrated, session.messages, rules, session.notes(0, name))
        updated_at = text_of(session.values.get("updated_at")) or ""
        new = new_lines_of(self.work, stored, written, rules, session.messages + 1, updated_at)
        texts = self._by_part(lines, text is not None)
        if new:
            last = max(texts, default=session.newest)
            before = texts.get(last, b"")
            ended = before + b"\n" if before and not before.endswith(b"\n") else before
            texts[last] = ended + b"".join([line.text + b"\n" for line in new])
        for part, data in texts.items():
            self._put(part, encoded(name), data)
        return Activity(len(new), new[-1].timestamp if new else "", session.messages + len(new))

    def _by_part(self, lines: OldLines, is_there: bool) -> dict[int, bytes]:
        """The text of each part's message file; nothing for a part that had none."""
        parts, name = self.session.parts, self.work.names.messages
        if len(parts) == 1:
            return {0: without_open_end(lines)} if is_there else {}
        texts, rest, line = {}, lines.text, 0
        for number, part in enumerate(parts):
            if part.holds(name):
                line += part.lines
                own, rest = split_at(rest, part.lines)
                texts[number] = own[:-1] if line in lines.open_ends and part.lines else own
        return texts

    def _records(self, activity: Activity) -> None:
        session, name = self.session, self.work.names.session
        changes = {} if self.place.stamp is not None else session_changes(session.values, session.record, activity)
        for number, part in enumerate(session.parts):
            if part.record is None:
                continue
            data = file_of(part.record, session.notes(number, name))
            if changes and number == session.newest:
                try:
                    data = changed_session(part.record, changes)
                except NotJson as error:
                    self.work.find("not_rewritten", f"{part.shown}/{name}", str(error))
            self._put(number, encoded(name), data)
        if changes and session.record is None:
            record = new_session(session.values, session.user_id, session.session_id, activity)
            self._put(0, encoded(name), record)

    def _shards(self) -> None:
        directory = f"{self.place.home}/shards"
        for stored in self.work.list(directory):
            name = self.work.name(stored, self._named(), directory)
            data = self.work.read(f"{directory}/{stored}")
            if data is not None:
                self._put(self.session.part_with(display_name(name)), name, data)

    def _context_files(self) -> None:
        for stored, file in _contexts(self.work, self.place, self._named()):
            data = self.work.read(stored)
            if data is not None:
                shown = display_name(file)
                part = self.session.part_with(shown)
                encoding = {"encoding": self.session.notes(part, shown).get("encoding", b'"utf-8"')}
                self._put(part, file, file_of(data, encoding))

    def _document_indices(self) -> None:
        file = f"{self.work.names.documents}/{self.work.names.document_index}"
        for number in range(len(self.session.parts)):
            notes = self.session.notes(number, file)
            if "record" in notes:
                self._put(number, encoded(file), file_of(notes["record"], notes))

    def _archived_document(self, stored: str) -> None:
        values = self.work.read_members(f"{stored}/metadata.json")
        if values is None:
            return
        self.work.outcome.counts["documents"] += 1
        original = original_of(self.work, stored)
        if original is not None:
            legacy = members(values.get("legacy", b""))
            file = document_file(self.work, text_of(legacy.get("path")) or "")
            part = self.session.parts[self.session.part_with(display_name(file))]
            self.work.copy(original, checked(part.directory + b"/" + file))

    def _named(self) -> dict[str, bytes]:
        """The names of files that the session itself knows, by their components: for those that were cut."""
        if not self._stored_names:
            known = {file for part in self.session.parts for file in part.files or ()} | set(self.session.exact)
            for file in known:
                name = encoded(file.rpartition("/")[2])
                self._stored_names[component(name)] = name
        return self._stored_names


def restore_lines(
    work: Work, stored: str, migrated: bytes, messages: int, rules: LineRules, exact: Mapping[str, bytes]
) -> OldLines:
    """The lines of v2 that the *migrated* ones came from. Raises `NotJson`."""
    notes = None
    if exact:
        notes = line_notes(exact, work.read(f"{stored.rpartition('/')[0]}/quarantine.jsonl") or b"")
    old = old_lines(migrated, messages, rules, notes)
    for kind, count in (("lines_missing", old.missing), ("lines_changed", old.changed)):
        if count:
            work.find(kind, stored, str(count))
    return old


def without_open_end(lines: OldLines) -> bytes:
    """The text of a message file that is whole in itself."""
    return lines.text[:-1] if lines.open_ends else lines.text


def new_lines_of(
    work: Work,
    stored: str,
    written: bytes,
    rules: LineRules,
    number: int,
    timestamp: str,
    top_level: Collection[str] = (),
) -> list[NewLine]:
    """What was *written* on the platform, from line *number* on, as lines of v2; what v2 makes nothing of is found."""
    lines = written.split(b"\n")
    if not lines[-1]:
        lines.pop()
    new = [new_line(line, rules, at, timestamp=timestamp, top_level=top_level) for at, line in enumerate(lines, number)]
    for line in new:
        if line.finding:
            work.find(line.finding, stored, line.detail)
    return new


def document_file(work: Work, shown: str) -> bytes:
    """A document's path below its session, by the path that it had in v2. Raises `BadPathError`."""
    directory, _, name = shown.rpartition("/")
    return encoded(work.names.documents) + b"/" + work.path(name, below=directory)


def original_of(work: Work, stored: str) -> str | None:
    """Where the bytes of the document at *stored* are; None when it has none."""
    original = next((name for name in work.list(stored) if name.partition(".")[0] == "original"), None)
    return None if original is None else f"{stored}/{original}"


def _contexts(work: Work, place: SessionPlace, named: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """The files of a session's contexts: where they stand, and their paths below the session in v2."""
    found = [(f"{place.memory}/context.json", CONTEXT.encode())]
    directory = f"{place.memory}/history"
    for stored in work.list(directory):
        found.append((f"{directory}/{stored}", HISTORY.encode() + b"/" + work.name(stored, named, directory)))
    return found


def _known_names(shown: str, session_id: str, place: SessionPlace) -> dict[int, bytes]:
    """The names in a session's path that its components prove, by their position from the end."""
    parts = shown.split("/")
    proven = name_by(session_id, place.session)
    names = proven.split(b"/") if proven is not None else []
    known: dict[int, bytes] = {}
    for position, name in enumerate(names, -len(names)):
        if len(parts) < -position:
            continue
        part = parts[position]
        backup = BACKUP.fullmatch(part)
        if part == display_name(name):
            known[position] = name
        elif backup and backup["name"] == display_name(name):
            known[position] = name + f".backup_{backup['stamp']}".encode()
    above = -len(names) - 1
    if names and len(parts) >= -above:
        user = name_by(parts[above], place.user)
        if user is not None:
            known[above] = user
    return known


def _is_of_another(work: Work, directory: bytes, user_id: str, session_id: str) -> bool:
    """Whether a directory of v2 is there and is not what an earlier attempt wrote for that session."""
    path = os.path.join(os.fsencode(work.target.base), directory)
    if not os.path.lexists(path):
        return False
    try:
        with open(os.path.join(path, encoded(work.names.session)), "rb") as file:
            found = members(file.read())
    except FileNotFoundError:
        return not work.settings.resumed  # what an earlier attempt left behind before it had a record
    except (OSError, NotJson):
        return True
    return (text_of(found.get("user_id")), text_of(found.get("session_id"))) != (user_id, session_id)


def _present(raw: bytes | None) -> bytes | None:
    return None if raw == b"null" else raw
