"""What must hold before a run may write anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from migration.items import source_items
from migration.job import RunSettings
from migration.state import RefusedError, State
from migration.v2.names import V2Names
from migration.v2.read import SourceError
from migration.worker import Changes
from migration.zones import zone

_MANY = 20


def check_source(settings: RunSettings) -> None:
    """Raises `SourceError` when the source cannot be read, `RefusedError` when it does not look like a v2 store or the
    time zone given for it does not exist."""
    if settings.source_timezone is not None:
        try:
            zone(settings.source_timezone)
        except ValueError as error:
            raise RefusedError(f"--source-timezone: {error}") from error
    if not os.path.isdir(settings.source):
        raise SourceError(settings.source, "no such directory; name the v2 store's base path with --from")
    for root in settings.extra_roots:
        if not os.path.isdir(root):
            raise SourceError(root, "no such directory; it was named with --extra-root")
    try:
        known = any(item.kind in {"user", "panel", "personas"} for item in source_items(settings))
    except OSError as error:
        raise SourceError.of(settings.source, error) from error
    if not known:
        wanted = ", ".join(f"{name}/" for name in settings.names.users_dirs)
        raise RefusedError(
            f"{settings.source}: nothing here looks like a v2 store (no users below {wanted}, no panels, no personas); "
            "if its user directory has another name, give it with --users-dir or the v2 configuration with --config"
        )


def check_target(settings: RunSettings) -> None:
    """Raises `RefusedError` when writing to the target could harm the source or something that is not ours."""
    source, target = os.path.realpath(settings.source), os.path.realpath(settings.target)
    if source == target or _is_below(target, source) or _is_below(source, target):
        raise RefusedError(f"{settings.target}: source and target must not contain each other; choose another --to")
    for root in settings.extra_roots:
        extra = os.path.realpath(root)
        if target == extra or _is_below(target, extra) or _is_below(extra, target):
            raise RefusedError(f"{settings.target}: the target and the extra root {root} must not contain each other")
    if os.path.lexists(settings.target) and not os.path.isdir(settings.target):
        raise RefusedError(f"{settings.target}: is not a directory; choose another --to")
    state = State(settings.target)
    if os.path.isdir(settings.target) and not state.exists() and os.listdir(settings.target):
        raise RefusedError(
            f"{settings.target}: is not empty and was not made by a migration; choose an empty or new directory"
        )


def check_same_run(settings: RunSettings, earlier: dict[str, Any] | None) -> None:
    """Raises `RefusedError` when the target was made from another source or with settings that change its content."""
    if earlier is None:
        return
    now = identity(settings)
    for key, option in (("source", "--from"), ("source_timezone", "--source-timezone"), ("names", "--config")):
        if key in earlier and earlier[key] != now[key]:
            raise RefusedError(
                f"{settings.target}: was made with {key} {earlier[key]!r}, not {now[key]!r}; "
                f"give the same {option}, or migrate into another directory"
            )


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """How much may differ from the run before. *deletes*: the share of the known sessions that may be gone;
    *all_changed*: whether every one of them may have changed."""

    deletes: float = 0.5
    all_changed: bool = False


def check_changes(target: str, changes: Changes, limits: ChangeLimits) -> None:
    """Raises `RefusedError` when what a survey found looks like another tree, or an emptied one, rather than like
    work that went on. Nothing was written by then."""
    known, gone = changes.known, changes.gone
    if not known:
        return
    if gone == known and not changes.added:
        raise RefusedError(
            f"{target}: all {known} sessions of the run before are gone from the source, and there is nothing else; "
            "an empty listing is never taken for deletions: look at --from"
        )
    if gone > limits.deletes * known:
        raise RefusedError(
            f"{target}: {gone} of {known} sessions of the run before are gone from the source, more than "
            f"{limits.deletes:.0%}; if they were deleted, say --allow-deletes {min(100, -(-100 * gone // known))}%"
        )
    if changes.changed == known - gone and changes.changed >= _MANY and not limits.all_changed:
        raise RefusedError(
            f"{target}: every one of {changes.changed} sessions has changed since the run before, as in another tree; "
            "look at --from, or say --allow-all-changed"
        )


def identity(settings: RunSettings) -> dict[str, Any]:
    """What decides the content of the target, as run.json keeps it."""
    names = settings.names
    return {
        "source": os.path.realpath(settings.source),
        "source_timezone": settings.source_timezone,
        "names": {field: _plain(getattr(names, field)) for field in names.__slots__ if field != "users_dirs"},
        "users_dirs": list(names.users_dirs),
        "extra_roots": list(settings.extra_roots),
    }


def names_of(state: State) -> V2Names | None:
    """The v2 names that the target was made with; None when no run has noted them."""
    earlier = state.read("run.json") or {}
    if "names" not in earlier:
        return None
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in earlier["names"].items()
    }
    return V2Names(**fields, users_dirs=tuple(earlier["users_dirs"]))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_below(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")
