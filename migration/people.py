"""What a person or a persona is called and how: profiles and persona files, written."""

from __future__ import annotations

from collections.abc import Sequence

from migration.definitions import persona_profile
from migration.embed import SourceObject, display_name, source_object
from migration.job import Job
from migration.transform import profile
from migration.unit import UnitDraft
from modules.core.layout import component


def write_profile(
    job: Job,
    draft: UnitDraft,
    user_id: str,
    key: str | bytes,
    under_users: bool,
    mtime_ns: int,
    records: Sequence[tuple[str, SourceObject]],
) -> None:
    """Writes a user's profile from one or more records: the newest first, which *mtime_ns* is of."""
    path, record = records[0]
    data = profile(
        user_id,
        record,
        generation="G2" if under_users else "G1",
        path=job.shown(path),
        mtime_ns=mtime_ns,
        source_timezone=job.settings.source_timezone,
        others=[(job.shown(p), r) for p, r in records[1:]],
    )
    job.target.write(f"text_chat/users/{component(key)}/profile.json", data)
    draft.count("profiles")


def write_persona(
    job: Job, draft: UnitDraft, path: str, name: str, stem: str, home: str, owner_id: str | None, generation: str
) -> None:
    """Migrates one persona file to *home*."""
    data = job.read(draft, path, name)
    if data is None:
        return
    record = source_object(data)
    if isinstance(record, str):
        job.keep(draft, path, name, data)
        draft.issue("attic_json", job.shown(path), record)
        return
    if record.encoding != "utf-8":
        draft.issue("cp1252", job.shown(path))
    mapped = persona_profile(
        display_name(stem), record.plain(), owner_id=owner_id, path=job.shown(path), generation=generation
    )
    job.target.write(f"{home}/original.json", data)
    job.target.write(f"{home}/profile.json", mapped)
    draft.count("personas")
