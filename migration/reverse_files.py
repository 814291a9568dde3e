"""What v2 kept besides sessions: profiles, documents, vector sets, personas, panels, and the files of the attic."""

from __future__ import annotations

import os
from collections.abc import Mapping

from migration.embed import display_name
from migration.lines import LineRules
from migration.reverse_messages import PANEL_KEYS, split_at
from migration.reverse_names import checked, encoded, name_by, readings
from migration.reverse_raw import NotJson, count_of, elements, members, text_of, texts_of
from migration.reverse_records import changed_session, new_profile, profile_changes
from migration.reverse_sessions import (
    SessionPlace,
    document_file,
    exact_of,
    file_of,
    migrated_session,
    new_lines_of,
    original_of,
    restore_lines,
    without_open_end,
)
from migration.reverse_work import Work
from migration.transform import iso_of
from migration.v2.layout import sanitised
from modules.core.layout import component


def restore_profile(work: Work, user: str) -> None:
    """Writes the profile, or profiles, of the user with that component; one made on the platform is noted for later."""
    stored = f"text_chat/users/{user}/profile.json"
    values = work.read_members(stored)
    if values is None:
        return
    if values.get("legacy", b"null") == b"null":
        work.outcome.new_users.add(user)
        return
    with work.reporting(stored):
        legacy = members(values["legacy"])
        exact = exact_of(legacy)
        others = [members(row) for row in elements(legacy.get("others", b"[]"))]
        for number, row in enumerate([legacy, *others]):
            shown = _path_in(row)
            record = row.get("record", b"null")
            data = file_of(record, exact.get(shown if number else shown.rpartition("/")[2], {}))
            changes = {} if number else profile_changes(values, record)
            if changes:
                data = changed_session(record, changes)
            parts = shown.split("/")
            name = name_by(parts[-2], user) if len(parts) > 1 else None
            work.write(work.path(shown, {} if name is None else {-2: name}), data)
        work.outcome.counts["profiles"] += 1


def restore_new_profile(work: Work, user: str) -> None:
    """Writes the profile of a user who was made on the platform; a migrated one is left alone."""
    stored = f"text_chat/users/{user}/profile.json"
    values = work.read_members(stored)
    if values is None or values.get("legacy", b"null") != b"null":
        return
    with work.reporting(stored):
        user_id = text_of(values.get("user_id"))
        if user_id is None:
            raise NotJson("no user_id")
        written_at = iso_of(os.stat(f"{work.settings.source}/{stored}").st_mtime_ns)
        path = f"{work.names.users_dirs[0]}/{sanitised(user_id)}/{work.names.profile}"
        if work.write(checked(encoded(path)), new_profile(values, user_id, written_at)):
            work.outcome.counts.update(profiles=1, new_profiles=1)


def restore_document(work: Work, stored: str) -> None:
    """Copies the bytes of the document at *stored*; one without a place in v2 is left alone (the preview has it)."""
    values = work.read_members(f"{stored}/metadata.json")
    if values is None or values.get("legacy", b"null") == b"null":
        return
    with work.reporting(stored):
        work.outcome.counts["documents"] += 1
        original = original_of(work, stored)
        if original is None:
            return
        legacy = members(values["legacy"])
        shown = _path_in(legacy)
        file = document_file(work, shown)
        directory = shown.removesuffix("/" + display_name(file))
        doubtful = "%" in directory or legacy.get("missing_original") == b"true"
        path = _document_directory(work, values, file) if doubtful else None
        if path is None:
            path = work.path(directory)
        work.copy(original, checked(path + b"/" + file))


def restore_vectors(work: Work, stored: str) -> None:
    """Copies a vector set; one made on the platform is left alone."""
    values = work.read_members(f"{stored}/mapping.json")
    if values is None or values.get("legacy", b"null") == b"null":
        return
    with work.reporting(stored):
        directory = work.path(_path_in(members(values["legacy"])))
        for name, file in (("vectors.npy", work.names.embeddings), ("chunks.jsonl", work.names.vector_index)):
            if work.exists(f"{stored}/{name}"):
                work.copy(f"{stored}/{name}", directory + b"/" + encoded(file))
        work.outcome.counts["vector_sets"] += 1


def restore_persona(work: Work, stored: str) -> None:
    """Writes a persona's file; one made on the platform is left alone."""
    values = work.read_members(f"{stored}/profile.json")
    if values is None or values.get("legacy", b"null") == b"null":
        return
    with work.reporting(stored):
        shown = _path_in(members(values["legacy"]))
        parts, places = shown.split("/"), stored.split("/")
        known: dict[int, bytes] = {}
        stem = name_by(parts[-1].removesuffix(".json"), places[-1])
        if stem is not None:
            known[-1] = stem + b".json"
        if places[1] == "users" and len(parts) >= 3 and (user := name_by(parts[-3], places[2])) is not None:
            known[-3] = user
        if work.copy(f"{stored}/original.json", work.path(shown, known)):
            work.outcome.counts["personas"] += 1


def restore_panel(work: Work, stored: str) -> None:
    """Writes a panel's files; a conversation that began on the platform is left alone."""
    values = work.read_members(f"{stored}/metadata.json")
    if values is None or values.get("legacy", b"null") == b"null":
        return
    with work.reporting(stored):
        _restore_panel(work, stored, values, members(values["legacy"]))
        work.outcome.counts["panels"] += 1


def restore_stray(work: Work, path: str) -> None:
    """Copies a file of the attic to the path that it has there."""
    if work.copy(f"attic/{path}", checked(os.fsencode(path))):
        work.outcome.counts["attic"] += 1


def _restore_panel(work: Work, stored: str, values: Mapping[str, bytes], legacy: Mapping[str, bytes]) -> None:
    names, exact, shown = work.names, exact_of(legacy), _path_in(legacy)
    name = name_by(shown.rpartition("/")[2], stored.rpartition("/")[2])
    directory = work.path(shown, {} if name is None else {-1: name}) + b"/"
    record = legacy.get("record", b"null")
    if record != b"null":
        work.write(directory + encoded(names.panel), file_of(record, exact.get(names.panel, {})))
    transcript = work.read(f"{stored}/transcript.jsonl")
    if transcript is not None:
        rules = LineRules("", text_of(values.get("id")) or "", work.settings.source_timezone)
        messages = count_of(legacy.get("messages"))
        migrated, written = split_at(transcript, messages)
        path = f"{stored}/transcript.jsonl"
        old = restore_lines(work, path, migrated, messages, rules, exact.get(names.messages, {}))
        text = without_open_end(old)
        updated_at = text_of(values.get("updated_at")) or ""
        new = new_lines_of(work, path, written, rules, messages + 1, updated_at, PANEL_KEYS)
        if new and text and not text.endswith(b"\n"):
            text += b"\n"
        text += b"".join([line.text + b"\n" for line in new])
        work.write(directory + encoded(names.messages), text)
        work.outcome.counts.update(panel_messages=messages + len(new), new_panel_messages=len(new))
    _restore_insights(work, stored, directory, texts_of(legacy.get("insights", b"[]")), exact)
    snapshots = f"{stored}/participants"
    for one in work.list(snapshots):
        snapshot = work.name(one.removesuffix(".json"), {}, snapshots) + b".json"
        work.copy(f"{snapshots}/{one}", checked(directory + encoded(names.panel_personas) + b"/" + snapshot))


def _restore_insights(
    work: Work, stored: str, directory: bytes, insights: list[str], exact: Mapping[str, Mapping[str, bytes]]
) -> None:
    data = work.read(f"{stored}/decisions.json")
    decisions = elements(data) if data is not None else []
    if len(decisions) < len(insights):
        work.find("damaged", f"{stored}/decisions.json", f"{len(decisions)} of {len(insights)} decisions")
    for name, decision in zip(insights, decisions, strict=False):
        file = f"{work.names.insights}/{name}"
        data = file_of(decision, exact.get(file, {}))
        work.write(
            checked(
                directory + encoded(work.names.insights) + b"/" + work.path(name, below=display_name(directory[:-1]))
            ),
            data,
        )


def _document_directory(work: Work, values: Mapping[str, bytes], file: bytes) -> bytes | None:
    """The directory of the session that had a document, by the session's own metadata; None when that is gone."""
    user_id, session_id = text_of(values.get("user_id")) or "", text_of(values.get("session_id")) or ""
    for user in _components(work, "text_chat/sessions", user_id):
        for name in _components(work, f"text_chat/sessions/{user}", session_id):
            place = SessionPlace(user, name)
            found = work.read_members(f"{place.home}/metadata.json")
            session = migrated_session(work, place, found) if found is not None else None
            if session is not None:
                return session.parts[session.part_with(display_name(file))].directory
    return None


def _components(work: Work, directory: str, shown: str) -> list[str]:
    """The components that stand for a name shown as *shown*, of those that are there."""
    found = dict.fromkeys(component(name) for name in readings(shown))
    return [name for name in found if work.exists(f"{directory}/{name}")]


def _path_in(legacy: Mapping[str, bytes]) -> str:
    shown = text_of(legacy.get("path"))
    if shown is None:
        raise NotJson("legacy has no path")
    return shown
