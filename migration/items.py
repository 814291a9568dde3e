"""The pieces of a source, enumerated while the run is under way: memory for none of them is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator

import xxhash

from migration.job import RunSettings
from migration.v2.names import BACKUP, SYSTEM_DIR
from migration.v2.read import is_g1_user, scan
from migration.worker import Item


def source_items(settings: RunSettings) -> Iterator[Item]:
    """Every piece of the source, each once. An error of a listing is raised: it is not the listing's end."""
    source, names = settings.source, settings.names
    yield Item("files", "")
    for position, users in enumerate(names.users_dirs):
        if _is_directory(source, users):
            yield from _users(settings, users, names.users_dirs[:position])
    for panels in names.panel_dirs:
        if _is_directory(source, panels):
            yield Item("files", panels)
            yield from (Item("panel", f"{panels}/{name}") for name in _directories(f"{source}/{panels}"))
    for personas in names.global_persona_dirs:
        if _is_directory(source, personas):
            yield Item("personas", personas)
    if _is_directory(source, SYSTEM_DIR):
        yield Item("strays", SYSTEM_DIR)
    reserved = names.reserved_top_level()
    for name in _directories(source):
        if name in reserved:
            continue
        if is_g1_user(f"{source}/{name}", names) and not BACKUP.fullmatch(name):
            if not any(_is_directory(source, f"{users}/{name}") for users in names.users_dirs):
                yield Item("user", name)
        else:
            yield Item("strays", name)


LATER_KINDS = frozenset(("merge", "vectors"))
"""Kinds of items that follow from what was found, not from a listing."""


def is_in_source(settings: RunSettings, kind: str, name: str) -> bool:
    """Whether v2 has the directory that an item of the ledger names. Raises `OSError` when that cannot be told."""
    source, names = settings.source, settings.names
    paths = [f"{source}/{name}"]
    if kind == "user":
        paths += [f"{source}/{users}/{name}" for users in names.users_dirs]
    return any(_exists(path) for path in paths)


def _exists(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def shard_of(item: Item, shards: int) -> int:
    """The shard that an item belongs to: stable, by its kind and name (the children of a user stay together)."""
    span = item.span
    return shard_of_span(span.kind, span.name, shards)


def shard_of_span(kind: str, name: bytes, shards: int) -> int:
    """The shard of a span of the ledger: that of the items that it records."""
    if shards == 1:
        return 0
    digest: int = xxhash.xxh3_64_intdigest(kind.encode() + b"\0" + name)
    return digest % shards


def count_users(settings: RunSettings) -> int:
    """About how many user directories there are, for the progress."""
    source, names = settings.source, settings.names
    return sum(
        sum(1 for _ in _directories(f"{source}/{users}")) for users in names.users_dirs if _is_directory(source, users)
    )


def _users(settings: RunSettings, users: str, earlier: tuple[str, ...]) -> Iterator[Item]:
    yield Item("files", users)
    for name in _directories(f"{settings.source}/{users}"):
        if BACKUP.fullmatch(name):
            yield Item("strays", f"{users}/{name}")
        elif not any(_is_directory(settings.source, f"{before}/{name}") for before in earlier):
            yield Item("user", name)


def _directories(path: str) -> Iterator[str]:
    return (entry.name for entry in scan(path) if entry.is_dir(follow_symlinks=False))


def _is_directory(source: str, name: str) -> bool:
    path = f"{source}/{name}"
    return os.path.isdir(path) and not os.path.islink(path)
