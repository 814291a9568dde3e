"""Live and archived sessions, member by member (docs/target.md, section 3).

A session may come of several directories of v2 (its parts); nearly always it is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from migration.v2.names import CONTEXT, HISTORY
from migration.verify.beside import FilesBeside
from migration.verify.comparison import Item, Tally, fingerprint
from migration.verify.documents import compare_documents
from migration.verify.exact import compare_exact_lines, compare_exact_object
from migration.verify.jsontext import (
    ObjectFile,
    integer,
    list_items,
    named,
    object_values,
    string,
)
from migration.verify.messages import (
    MessageRules,
    Transcript,
    compare_messages,
    compare_quarantine,
    transcript,
)
from migration.verify.names import Name, shown
from migration.verify.settle import unread
from migration.verify.sides import Sides
from migration.verify.source import SessionDir
from migration.verify.timestamps import is_moment
from migration.verify.tree import join

TYPE_BY_PREFIX = {"panel_": "panel", "debate_": "debate", "problem_solving_": "problem_solving"}
_V2_NAME = re.compile(r"(chat|panel|debate|problem_solving)_session_\d{8}_\d{6}(_\d{6})?", re.DOTALL)
_MEMBERS = frozenset(
    [
        "id",
        "user_id",
        "title",
        "created_at",
        "updated_at",
        "metadata",
        "session_type",
        "message_count",
        "active",
        "legacy",
    ]
)
_LEGACY_MEMBERS = frozenset(
    ["generation", "path", "record", "messages", "inferred", "shared_conversation", "split_with", "parts", "exact"]
)
_OWN_FILES = frozenset(("metadata.json", "messages.jsonl", "quarantine.jsonl", "state.json"))


@dataclass(frozen=True, slots=True)
class SplitClaim:
    """A session whose legacy names the users that hold its other half."""

    session: str
    user: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Homes:
    """Where the files of one session are in the target."""

    session: str
    context: str
    history: str
    documents: str


def homes(user: Name, session: Name, stamp: str | None) -> Homes:
    """Where a live session's files are, or an archived one's, which has all of them in one place."""
    below = f"{user.component}/{session.component}"
    if stamp is None:
        memory = f"memory/short_term/{below}"
        return Homes(f"text_chat/sessions/{below}", f"{memory}/context.json", f"{memory}/history", "rag/documents")
    home = f"text_chat/archive/{below}/{stamp}"
    return Homes(home, f"{home}/context.json", f"{home}/history", f"{home}/documents")


def session_user(sides: Sides, parts: SessionDir, profile_user: str | None) -> Name:
    """Whose session a directory is: by its record, else by the profile, else by the directory's name."""
    if parts.session:
        record = sides.object_or_none(join(parts.path, sides.names.session))
        own = named(record.values.get("user_id")) if record is not None else None
        if own is not None:
            return Name.of_text(own)
    if profile_user is not None:
        return Name.of_text(profile_user)
    return Name.of_path(parts.user_dir.rpartition("/")[2])


class SessionComparison:
    """Compares one session; what it finds goes to *tally*."""

    def __init__(self, sides: Sides, tally: Tally, user: Name, parts: Sequence[SessionDir]) -> None:
        self._sides = sides
        self._tally = tally
        self._user = user
        self._parts = list(parts)
        self._session = Name.of_path(parts[0].id_path)
        self._stamp = parts[0].stamp
        self._homes = homes(user, self._session, self._stamp)
        kind = "session" if self._stamp is None else "archive"
        self._item = Item(kind, user.text, " + ".join(shown(part.path) for part in parts))
        self.split: SplitClaim | None = None

    def run(self) -> None:
        """Compares everything of the session. What cannot be read is found, and does not hide the rest."""
        self._tally.claims.add(self._homes.session)
        for compare in (self._compare_session, self._compare_beside, self._compare_documents):
            try:
                compare()
            except OSError as error:
                unread(self._tally, self._item.kind, self._parts[0].path, error)

    def _compare_session(self) -> None:
        item, path = self._item, join(self._homes.session, "metadata.json")
        present = self._sides.target.stat_or_none(path) is not None
        item.feed("metadata.json", b"present", b"present" if present else b"")
        if self._sides.deep:
            self._compare(self._sides.expect_object(item, path))
        else:
            if not present:
                item.missing("metadata.json", path)
            for part in self._parts:
                self._tally.files["migrated"] += part.session + part.messages
        self._tally.close(item, absent=not present)

    def _compare_beside(self) -> None:
        beside = FilesBeside(self._sides, self._tally, self._user, self._parts)
        beside.shards(join(self._homes.session, "shards"))
        beside.memory(self._homes.context, self._homes.history)

    def _compare_documents(self) -> None:
        compare_documents(
            self._sides,
            self._tally,
            self._user,
            self._session,
            self._parts,
            self._homes.documents,
            archived=self._stamp is not None,
        )

    # -- metadata.json

    def _compare(self, values: dict[str, bytes]) -> None:
        legacy = object_values(values.get("legacy")) or {}
        self._order_parts(legacy)
        records = [self._part_record(part) for part in self._parts]
        files = self._message_files()
        lines = self._transcript(files)
        if len(records) == 1 and records[0] is not None and self._parts[0].plain:
            # the same leaf as for a session that `plain` has shown to be equal
            path = self._parts[0].path
            self._item.fingerprint = fingerprint("session", self._user.text, path, records[0].text, b"".join(files))
        # the newest record speaks for the session; of equally new ones, the one that the migration took
        found = legacy.get("record")
        newest = max((_updated(r) for r in records if r is not None), default="")
        candidates = [r for r in records if r is not None and _updated(r) == newest]
        record = next((r for r in candidates if r.record == found), candidates[0] if candidates else None)
        with self._item.quietly(not values):
            self._compare_fields(values, legacy, record, lines)
            self._compare_parts(legacy, records)
        self._compare_transcript(lines, legacy, bool(values))
        if len(self._parts) == 1:
            with self._item.quietly(not values):
                self._compare_exact(legacy, records[0])
        self._compare_extras()

    def _part_record(self, part: SessionDir) -> ObjectFile | None:
        if not part.session:
            return None
        path = join(part.path, self._sides.names.session)
        return self._sides.object_or_attic(self._tally, self._user.text, path)

    def _compare_fields(
        self,
        values: dict[str, bytes],
        legacy: dict[str, bytes],
        record: ObjectFile | None,
        lines: Transcript,
    ) -> None:
        item, source = self._item, record.values if record is not None else {}
        session, user = self._session.text, self._user.text
        inferred: list[str] = []
        item.same("id", session, string(values.get("id")))
        item.same("user_id", user, string(values.get("user_id")))
        title = named(source.get("title")) or named(source.get("session_name")) or "Untitled"
        item.same("title", title, string(values.get("title")))
        for key, line in (("created_at", 0), ("updated_at", -1)):
            self._compare_time(key, line, source.get(key), values.get(key), lines, inferred)
        own = source.get("metadata")
        item.same("metadata", own if own is not None and own.startswith(b"{") else b"{}", values.get("metadata"))
        item.same("session_type", self._session_type(source), string(values.get("session_type")))
        count = len(lines.messages)
        # the new platform may count on; what it wrote stands after the migrated lines
        found_count = integer(values.get("message_count"))
        more = (found_count,) if found_count is not None and count < found_count <= self._line_count() else ()
        item.same("message_count", count, found_count, also=more)
        if self._stamp is None:
            item.same("active", b"true", values.get("active"))
        else:
            item.same("active", b"false", values.get("active"))
            self._compare_archived_at(values.get("archived_at"))
        for key in values.keys() - _MEMBERS - ({"archived_at"} if self._stamp else set()):
            item.extra(f"member {key}", values[key])
        self._compare_legacy(legacy, record, lines, inferred)

    def _compare_time(
        self,
        key: str,
        line: int,
        source: bytes | None,
        found: bytes | None,
        lines: Transcript,
        inferred: list[str],
    ) -> None:
        given, got = string(source), string(found)
        if given:
            self._item.same(key, given, got, also=self._sides.with_zone(given, got))
            return
        if source is not None and source == found:
            # neither a time nor absent: carried as it is
            self._item.accept(key, found)
            return
        inferred.append(key)
        stamps = [named(m.values.get("timestamp")) for m in lines.messages]
        if stamps and stamps[line] is not None:
            stamp = stamps[line] or ""
            self._item.same(key, stamp, got, also=self._sides.with_zone(stamp, got))
            return
        allowed = got is not None and (got in stamps or is_moment(got, self._moments_ns()))
        self._item.accept(key, got, None if allowed else "a message's time or the files' mtime")

    def _moments_ns(self) -> list[int]:
        """When the files of the session were last written."""
        names, moments = self._sides.names, []
        for part in self._parts:
            files = [names.session] * part.session + [names.messages] * part.messages
            files += [CONTEXT] * part.context + list(part.shards)
            files += [join(names.documents, name) for name in (*part.documents, names.document_index)]
            files += [join(HISTORY, name) for name in part.history]
            for file in files:
                status = self._sides.source.stat_or_none(join(part.path, file))
                if status is not None:
                    moments.append(status.st_mtime_ns)
        return moments

    def _session_type(self, source: dict[str, bytes]) -> str:
        given = named(source.get("session_type"))
        prefixes = (t for prefix, t in TYPE_BY_PREFIX.items() if self._session.text.startswith(prefix))
        return given or next(prefixes, "chat")

    def _compare_archived_at(self, found: bytes | None) -> None:
        stamp = self._stamp or ""
        digits = re.sub(r"\D", "", string(found) or "")
        self._item.same("archived_at", stamp.replace("_", ""), digits[:14])

    # -- legacy

    def _compare_legacy(
        self, legacy: dict[str, bytes], record: ObjectFile | None, lines: Transcript, inferred: list[str]
    ) -> None:
        item, paths = self._item, [shown(part.path) for part in self._parts]
        item.same("legacy.path", paths[0], string(legacy.get("path")), also=paths)
        generations = self._generations(record, lines)
        generation = string(legacy.get("generation"))
        item.same("legacy.generation", generations[0], generation, also=generations)
        item.same("legacy.record", record.record if record else b"null", legacy.get("record"))
        found = legacy.get("inferred")
        names = sorted(string(name) or "" for name in list_items(found or b"[]") or [])
        if inferred:
            item.same("legacy.inferred", ",".join(sorted(inferred)), ",".join(names))
        elif names:
            item.differs("legacy.inferred", None, ",".join(names))
        shared = self._shared()
        if shared is not None:
            item.same("legacy.shared_conversation", shared, string(legacy.get("shared_conversation")))
        elif "shared_conversation" in legacy:
            item.extra("member legacy.shared_conversation", legacy["shared_conversation"])
        if "split_with" in legacy:
            named = legacy["split_with"]
            one = string(named)
            others = (one,) if one is not None else tuple(string(other) or "" for other in list_items(named) or [])
            self.split = SplitClaim(self._session.text, self._user.text, others)
        for key in legacy.keys() - _LEGACY_MEMBERS:
            item.extra(f"member legacy.{key}", legacy[key])

    def _generations(self, record: ObjectFile | None, lines: Transcript) -> list[str]:
        """Generations that the page allows for what the files show, the likeliest first."""
        if self._parts[0].user_dir.partition("/")[0] not in self._sides.names.users_dirs:
            return ["G1"]
        source = record.values if record is not None else {}
        if "session_type" in source:
            return ["G6"]
        if "session_id" in source and not lines.keyed_by_id:
            return ["G3"]
        if "id" in source and "session_id" not in source:
            return ["G2"]
        if record is not None or _V2_NAME.fullmatch(self._session.text):
            return ["G3", "G2"]
        return ["external", "G2"] if lines.keyed_by_id else ["external"]

    def _shared(self) -> str | None:
        user, session = self._user.text, self._session.text
        if user.startswith("persona_") and session.startswith(user + "_"):
            return session[len(user) + 1 :] or None
        return None

    def _order_parts(self, legacy: dict[str, bytes]) -> None:
        """Puts the parts into the order in which the target says that their messages stand."""
        rows = [object_values(row) or {} for row in list_items(legacy.get("parts") or b"[]") or []]
        order = [string(row.get("path")) for row in rows]
        if sorted(str(path) for path in order) == sorted(shown(part.path) for part in self._parts):
            self._parts.sort(key=lambda part: order.index(shown(part.path)))

    def _compare_parts(self, legacy: dict[str, bytes], records: list[ObjectFile | None]) -> None:
        rows = [object_values(row) or {} for row in list_items(legacy.get("parts") or b"[]") or []]
        if len(self._parts) == 1 and not rows:
            return
        item = self._item
        item.same("legacy.parts", len(self._parts) if len(self._parts) > 1 else 0, len(rows))
        for part, record, row in zip(self._parts, records, rows, strict=False):
            where = f"legacy.parts {shown(part.path)}, "
            item.same(where + "path", shown(part.path), string(row.get("path")))
            item.same(where + "record", record.record if record else b"null", row.get("record"))

    def _compare_exact(self, legacy: dict[str, bytes], record: ObjectFile | None) -> None:
        """What the way back needs beyond the fields (docs/target.md, section 4), as far as it shows here."""
        exact = object_values(legacy.get("exact")) or {}
        names, item, part = self._sides.names, self._item, self._parts[0]
        if record is not None:
            compare_exact_object(item, names.session, record, exact)
        if part.messages:
            data = self._sides.source.read(join(part.path, names.messages))
            compare_exact_lines(item, names.messages, data, exact)
        if part.entries:
            notes = object_values(exact.get(join(names.documents, names.document_index))) or {}
            file = self._sides.object_or_none(join(part.path, names.documents, names.document_index))
            if file is not None:
                item.same("legacy.exact of the document entries", file.record, notes.get("record"))

    # -- messages

    def _message_files(self) -> list[bytes]:
        name = self._sides.names.messages
        return [self._sides.source.read(join(part.path, name)) for part in self._parts if part.messages]

    def _transcript(self, files: list[bytes]) -> Transcript:
        self._tally.files["migrated"] += len(files)
        lines = transcript(files)
        counted = lines.count()
        self._tally.lines.update(counted)
        self._tally.lines["physical"] += lines.physical
        if sum(counted.values()) != lines.physical:
            self._item.differs("sum of lines", lines.physical, sum(counted.values()))
        return lines

    def _line_count(self) -> int:
        data = self._sides.target.read_or_none(join(self._homes.session, "messages.jsonl"))
        return 0 if data is None else data.count(b"\n") + (not data.endswith(b"\n") and bool(data))

    def _compare_transcript(self, lines: Transcript, legacy: dict[str, bytes], has_metadata: bool) -> None:
        item, home = self._item, self._homes.session
        target = self._sides.target.read_or_none(join(home, "messages.jsonl"))
        rules = MessageRules(self._user, self._session, self._sides.zone)
        recorded = integer(legacy.get("messages")) if has_metadata else len(lines.messages)
        new = 0
        if any(part.messages for part in self._parts):
            new = compare_messages(item, lines, target, rules, recorded)
        else:
            item.same("legacy.messages", 0, recorded)
            if target is not None:
                new = target.count(b"\n")
                item.extra(
                    "messages.jsonl", None, is_error=self._sides.target.stat_or_none(join(home, "state.json")) is None
                )
        if new:
            item.extra(f"{new} new messages", None, is_error=False)
            self._tally.lines["new"] += new
        rows = self._sides.target.read_or_none(join(home, "quarantine.jsonl"))
        if rows is not None or lines.quarantined:
            compare_quarantine(item, lines, rows, rules, appended=new > 0)

    # -- what stands beside

    def _compare_extras(self) -> None:
        """Files in the session's directory that nothing explains."""
        listing = self._sides.target.list_or_none(self._homes.session)
        if listing is None:
            return
        archive = self._stamp is not None
        allowed = _OWN_FILES | ({"context.json"} if archive else set())
        dirs = {"shards"} | ({"history", "documents"} if archive else set())
        for name in (*(set(listing.files) - allowed), *listing.links, *listing.special, *(set(listing.dirs) - dirs)):
            self._item.extra(f"{name} comes from nothing in the source")
        shards = {Name.of_path(name).component for part in self._parts for name in part.shards}
        if "shards" in listing.dirs:
            found = self._sides.target.list(join(self._homes.session, "shards"))
            for name in sorted({*found.files, *found.dirs} - shards):
                self._item.extra(f"shards/{name} comes from nothing in the source")


def _updated(record: ObjectFile) -> str:
    return named(record.values.get("updated_at")) or ""
