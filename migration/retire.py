"""What v2 no longer has: put away, never thrown away.

A session goes to ``text_chat/archive/<user>/<session>/<stamp>``, with its documents and contexts, as one that v2 had
deleted itself, and says so (``legacy.deleted_from_v2``). Everything else goes to
``.migration/deleted/<stamp>/<its path>``. What another piece of the source has claimed meanwhile stays: a thing names
the v2 path that it came from, and is put away only when nothing stands there any more.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence

from migration.embed import SourceObject, object_json, source_object, text_json
from migration.job import Job
from migration.spans import members
from migration.target import Target
from migration.v2.names import CONTEXT, HISTORY

_SESSION = re.compile(r"text_chat/sessions/([^/]+/[^/]+)/metadata\.json")
_CONTEXT = re.compile(r"memory/short_term/([^/]+/[^/]+)/(.+)")
# The things that have a directory of their own: the file that speaks for it, and where its v2 path stands there.
_THING = re.compile(
    r"(rag/documents/[^/]+|multi_agent/conversations/[^/]+)/(metadata\.json)"
    r"|(persona/(?:definitions|users/[^/]+)/[^/]+|text_chat/users/[^/]+)/(profile\.json)"
    r"|(rag/embeddings/[^/]+)/(mapping\.json)"
)


def retire(job: Job, outputs: Iterable[str], own: Sequence[str] = ()) -> int:
    """Puts away those *outputs* that nothing in v2 explains any more; how many sessions were among them.

    *own*: v2 paths of the unit that wrote them, when it was migrated anew and did not write them again: so what comes
    from there, or from below, is gone, whatever else stands there.
    """
    target = job.target
    left = sorted(outputs)
    stamp = time.strftime("%Y%m%d_%H%M%S", time.gmtime(job.now_ns / 1e9))
    archived = 0
    for path in left:
        found = _SESSION.fullmatch(path)
        if found and not _still_there(job, path, own):
            archived += _archive_session(job, found[1], left, stamp)
    homes = []
    for path in left:
        home = _home_of(path)
        if home is not None and not _still_there(job, path, own):
            target.move(home, f".migration/deleted/{stamp}/{home}")
            homes.append(f"{home}/")
    for path in left:
        if path.startswith(tuple(homes)) or _is_claimed(job, path, own) or not target.exists(path):
            continue
        target.move(path, f".migration/deleted/{stamp}/{path}")
    return archived


def _home_of(path: str) -> str | None:
    found = _THING.fullmatch(path)
    return None if found is None else found[1] or found[3] or found[5]


def _archive_session(job: Job, session: str, outputs: Iterable[str], stamp: str) -> int:
    """Moves a session's documents and contexts into its directory, marks it, then moves it whole: 1 when it was
    there. Interrupted, it goes on from where it was."""
    target, home = job.target, f"text_chat/sessions/{session}"
    found = _object(target, f"{home}/metadata.json")
    if found is None:
        return 0
    memory = f"memory/short_term/{session}"
    target.move(f"{memory}/context.json", f"{home}/context.json")
    target.move(f"{memory}/history", f"{home}/history")
    for path in outputs:
        document = re.fullmatch(r"rag/documents/([^/]+)/metadata\.json", path)
        about = _object(target, path) if document else None
        if document and about is not None and about.value.get("session_id") == found.value.get("id"):
            target.move(path.rpartition("/")[0], f"{home}/documents/{document[1]}")
    when = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[9:11]}:{stamp[11:13]}:{stamp[13:15]}+00:00"
    target.write(f"{home}/metadata.json", _archived(found, when), merged=True)
    place, number = f"text_chat/archive/{session}/{stamp}", 0
    while target.exists(place):
        number += 1
        place = f"text_chat/archive/{session}/{stamp}_{number}"
    return int(target.move(home, place))


def _archived(metadata: SourceObject, when: str) -> bytes:
    """metadata.json of a session that v2 has deleted: every member as it was, but no longer active."""
    pairs: list[tuple[str, bytes]] = []
    for member in members(metadata.raw):
        value = metadata.raw[member.value_start : member.value_end]
        if member.key == "active":
            pairs += [("active", b"false"), ("archived_at", text_json(when))]
        elif member.key == "legacy":
            pairs.append(("legacy", value.rstrip()[:-1].rstrip() + b', "deleted_from_v2": true}'))
        elif member.key != "archived_at":
            pairs.append((member.key, value))
    return object_json(pairs)


def _still_there(job: Job, path: str, own: Sequence[str]) -> bool:
    """Whether v2 has the thing that *path* speaks for."""
    about = _object(job.target, path)
    legacy = about.value.get("legacy") if about is not None else None
    origin = legacy.get("path") if isinstance(legacy, dict) else None
    return isinstance(origin, str) and _in_source(job, origin, own)


def _is_claimed(job: Job, path: str, own: Sequence[str]) -> bool:
    """Whether something that v2 still has may stand at *path*."""
    if path.startswith("attic/"):
        return _in_source(job, path.removeprefix("attic/"), own)
    context = _CONTEXT.fullmatch(path)
    if context is not None:
        session = f"text_chat/sessions/{context[1]}/metadata.json"
        about = _object(job.target, session)
        legacy = about.value.get("legacy") if about is not None else None
        origin = legacy.get("path") if isinstance(legacy, dict) else None
        file = CONTEXT if context[2] == "context.json" else f"{HISTORY}/{context[2].partition('/')[2]}"
        return isinstance(origin, str) and _in_source(job, f"{origin}/{file}", own)
    if path.startswith("text_chat/sessions/"):  # of a session that lives on: its writer takes away what is no more
        return True
    return _home_of(path) is not None


def _in_source(job: Job, shown: str, own: Sequence[str]) -> bool:
    if any(shown == path or shown.startswith(f"{path}/") for path in own):
        return False
    return os.path.lexists(f"{job.settings.source}/{shown}")


def _object(target: Target, path: str) -> SourceObject | None:
    found = source_object(target.read(path) or b"")
    return None if isinstance(found, str) else found
