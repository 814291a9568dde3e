"""What a run needs from the machine, and what around the source an operator should know before one.

Everything here asks (statvfs, access, listings, configuration files) and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config import ConfigurationError
from migration import guards
from migration.config_migrator import migrate_config_file
from migration.job import RunSettings
from migration.state import BusyError, RefusedError, State
from migration.survey import Survey
from migration.v2.config_rows import ConfigKind
from migration.v2.names import BACKUP, V2Names
from migration.v2.read import SourceError, is_g1_user, scan

_SPARE = 0.05
_LARGEST_CONFIG = 1 << 20
_LOOKED_AT = 200
_CONFIG_DIRS = ("config", "configs", "ff_preset_configs", "templates")
_DEFAULT_NAMES = V2Names()


@dataclass(frozen=True, slots=True)
class Space:
    """What the target's file system has, and what a migration of everything needs. *free_inodes* is None where the
    file system does not count them."""

    at: str
    free_bytes: int
    needed_bytes: int
    free_inodes: int | None
    needed_inodes: int

    @property
    def is_enough(self) -> bool:
        inodes = self.free_inodes is None or self.free_inodes >= self.needed_inodes
        return inodes and self.free_bytes >= self.needed_bytes


def space_needed(survey: Survey, block_bytes: int) -> tuple[int, int]:
    """Bytes and inodes for everything: each file rounded up by a block, the records and directories that the target
    adds to each session, document and vector set, and five percent."""
    added = 2 * survey.counts["sessions"] + 2 * survey.counts["archived"] + 3 * survey.counts["documents"]
    added += 3 * survey.counts["archived_documents"]
    added += 4 * survey.counts["vector_sets"] + 2 * survey.counts["personas"] + 5 * survey.counts["panels"]
    added += 3 * survey.counts["users"]
    files = survey.files.total()
    bytes_ = survey.bytes + (files + added) * block_bytes
    return round(bytes_ * (1 + _SPARE)), round((files + added) * (1 + _SPARE))


def space_at(target: str, survey: Survey) -> Space:
    """Free against needed at the target, or at the nearest directory above it that exists."""
    place = nearest_existing(target)
    status = os.statvfs(place)
    needed_bytes, needed_inodes = space_needed(survey, status.f_frsize)
    inodes = status.f_favail if status.f_files else None
    return Space(place, status.f_bavail * status.f_frsize, needed_bytes, inodes, needed_inodes)


def nearest_existing(path: str) -> str:
    """The path itself when it is a directory, else the nearest directory above it."""
    place = os.path.abspath(path)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def writability_problem(target: str) -> str | None:
    """Why nothing can be written at the target; None when nothing speaks against it."""
    place = nearest_existing(target)
    below = os.path.relpath(os.path.abspath(target), place).split("/")[0]
    if below != "." and os.path.lexists(f"{place}/{below}"):
        return f"{place.rstrip('/')}/{below}: is in the way, it is not a directory"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place}: the file system is mounted read-only"
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return f"{place}: no permission to write"
    return None


def refusals(settings: RunSettings) -> list[str]:
    """Why a run would refuse to begin; empty when it would not. Raises `SourceError` when the source is not there."""
    if not os.path.isdir(settings.source):
        raise SourceError(settings.source, "no such directory; name the v2 store's base path with --from")
    found: list[str] = []
    for check in (guards.check_source, guards.check_target, _check_state):
        try:
            check(settings)
        except (RefusedError, SourceError) as error:
            found.append(str(error))
        except OSError as error:
            found.append(f"{settings.target}: {error.strerror or error}")
    return found


def _check_state(settings: RunSettings) -> None:
    """What an earlier run left at the target, and one that is under way there."""
    state = State(settings.target)
    if not state.exists():
        return
    guards.check_same_run(settings, state.read("run.json"))
    if state.is_active():
        raise BusyError(f"{state.target}: another run is at work here; wait for it, or see `modchat migrate status`")


# ---- what is not where, or not named, as the settings say


@dataclass(frozen=True, slots=True)
class ConfigFound:
    """A v2 configuration in or beside the source. *names* are the names in it that are not v2's defaults; *problem*
    says why they cannot be used."""

    path: str
    kind: str
    names: tuple[str, ...]
    is_in_force: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands in or beside a source without being claimed: users directories of another name, whole stores of
    their own, configurations."""

    users_dirs: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    configs: tuple[ConfigFound, ...] = ()


def surroundings(settings: RunSettings) -> Surroundings:
    """Looks at the top level of the source and at the files beside it. What cannot be listed is left out here: the
    survey reports it."""
    users_dirs, stores = [], []
    names = settings.names
    for entry in _listed(settings.source):
        ours = entry.name in names.reserved_top_level() or BACKUP.fullmatch(entry.name)
        if ours or not entry.is_dir(follow_symlinks=False) or is_g1_user(entry.path, names):
            continue
        if is_store(entry.path, names):
            stores.append(entry.name)
        elif _holds_users(entry.path, names):
            users_dirs.append(entry.name)
    return Surroundings(tuple(users_dirs), tuple(stores), tuple(configurations(settings)))


def is_store(path: str, names: V2Names) -> bool:
    """Whether a directory is a v2 store of its own: it has a users directory with users in it."""
    return any(_holds_users(f"{path}/{users}", names) for users in names.users_dirs)


def configurations(settings: RunSettings) -> Iterator[ConfigFound]:
    """The v2 configurations in the source, beside it, and in the usual directories of these two places."""
    places = [settings.source, os.path.dirname(settings.source)]
    places += [f"{place}/{name}" for place in tuple(places) for name in _CONFIG_DIRS]
    for place in places:
        for entry in _listed(place):
            if _may_be_configuration(entry) and (found := _configuration(entry.path, settings.names)):
                yield found


def _may_be_configuration(entry: os.DirEntry[str]) -> bool:
    named = entry.name.endswith(".json") or entry.name.startswith(".env") or entry.name.endswith(".env")
    try:
        return named and entry.is_file(follow_symlinks=False) and entry.stat().st_size <= _LARGEST_CONFIG
    except OSError:
        return False  # gone since it was listed


def _configuration(path: str, in_use: V2Names) -> ConfigFound | None:
    try:
        migration = migrate_config_file(Path(path))
    except ConfigurationError:
        return None  # some other JSON or environment file
    if not (migration.mapped or migration.names):
        return None
    if migration.kind is ConfigKind.ENVIRONMENT and not any(k.startswith("CHATDB") for k in migration.mapped):
        return None
    try:
        names = V2Names.from_config(migration.names)
    except ValueError as error:
        return ConfigFound(path, migration.kind.value, (), False, str(error))
    changed = [field for field in V2Names.__slots__ if getattr(names, field) != getattr(_DEFAULT_NAMES, field)]
    told = tuple(f"{field.replace('_', ' ')} {_first(getattr(names, field))!r}" for field in changed)
    in_force = all(_first(getattr(names, field)) in _all(getattr(in_use, field)) for field in changed)
    return ConfigFound(path, migration.kind.value, told, in_force)


def _holds_users(path: str, names: V2Names) -> bool:
    return any(
        entry.is_dir(follow_symlinks=False) and is_g1_user(entry.path, names) for entry in _listed(path)[:_LOOKED_AT]
    )


def _listed(path: str) -> list[os.DirEntry[str]]:
    try:
        return sorted(scan(path), key=lambda entry: entry.name)
    except OSError:
        return []


def _first(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[0]


def _all(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
