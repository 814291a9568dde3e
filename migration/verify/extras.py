"""What stands in the target and comes from nothing in the source.

A thing that says of itself that it was migrated (its ``legacy``), and a thing that nobody can have written but the
migration, is an error. What the new platform has made since is reported, and no error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from migration.verify.comparison import Item, Tally
from migration.verify.jsontext import NotAnObject, last_values, members, object_values
from migration.verify.tree import Listing, Tree, join

# directories that belong to the platform alone, and what the migration may write where
_PLATFORM = frozenset(
    ("tool_use", "multimodal", "topic_router", "trace_logger", "indices", ".migration", ".platform", ".trash")
)
_MODULES = {
    "text_chat": frozenset(("users", "sessions", "archive", "indices")),
    "memory": frozenset(("short_term", "long_term")),
    "rag": frozenset(("documents", "embeddings", "indices")),
    "persona": frozenset(("definitions", "users", "active")),
    "multi_agent": frozenset(("conversations", "agents")),
    "attic": None,
}
PER_USER = ("text_chat/sessions", "text_chat/archive", "memory/short_term", "persona/users")
PROFILES = "text_chat/users"
_FLAT = ("rag/documents", "rag/embeddings", "persona/definitions", "multi_agent/conversations")
_ABOUT = ("metadata.json", "profile.json", "mapping.json")


def homes_of(target: Tree, user: str, parents: Iterable[str] = PER_USER) -> dict[str, Listing]:
    """What stands in the homes that the user with component *user* has, by their *parents*."""
    homes: dict[str, Listing] = {}
    for parent in parents:
        listing = target.list_or_none(f"{parent}/{user}")
        if listing is not None:
            homes[parent] = listing
    return homes


def unclaimed_of_user(target: Tree, user: str, homes: Mapping[str, Listing], claims: Collection[str]) -> list[str]:
    """Paths in the *homes* of the user with component *user* that no comparison has claimed."""
    found: list[str] = []
    for parent, listing in homes.items():
        for name in (*listing.files, *listing.dirs, *listing.links, *listing.special):
            path = f"{parent}/{user}/{name}"
            if parent == "text_chat/archive" and name in listing.dirs:
                stamps = target.list(path)
                below = [join(path, stamp) for stamp in (*stamps.dirs, *stamps.files)]
                found += [stamp for stamp in below if stamp not in claims]
            elif parent == "memory/short_term":
                if join("text_chat/sessions", user, name) not in claims:
                    found.append(path)
            elif path not in claims:
                found.append(path)
    profile = f"{PROFILES}/{user}"
    if profile not in claims and target.is_dir(profile):
        found.append(profile)
    return found


def users_of(target: Tree) -> set[str]:
    """Components of every user that the target has anything of."""
    users: set[str] = set()
    for parent in (*PER_USER, PROFILES):
        listing = target.list_or_none(parent)
        if listing is not None:
            users.update(listing.dirs)
    return users


def unclaimed_shared(target: Tree, claims: Collection[str]) -> Iterator[str]:
    """Paths outside the homes of users that no comparison has claimed."""
    root = target.list("")
    for name in root.files:
        yield name
    for name in root.dirs:
        if name in _PLATFORM:
            continue
        if name not in _MODULES:
            yield name
            continue
        known = _MODULES[name]
        if known is None:
            continue
        listing = target.list(name)
        yield from (join(name, other) for other in (*listing.files, *(d for d in listing.dirs if d not in known)))
    for parent in _FLAT:
        found = target.list_or_none(parent)
        if found is not None:
            paths = (join(parent, name) for name in (*found.files, *found.dirs))
            yield from (path for path in paths if path not in claims)
    for parent in (*PER_USER, PROFILES):
        found = target.list_or_none(parent)
        yield from (join(parent, name) for name in found.files) if found is not None else ()
    yield from _files_below(target, "attic", claims)


def _files_below(target: Tree, path: str, claims: Collection[str]) -> Iterator[str]:
    pending = [path]
    while pending:
        here = pending.pop()
        listing = target.list_or_none(here)
        if listing is None:
            continue
        paths = (join(here, name) for name in (*listing.files, *listing.links, *listing.special))
        yield from (found for found in paths if found not in claims)
        pending += [join(here, name) for name in listing.dirs]


def report_extra(target: Tree, tally: Tally, path: str) -> None:
    """Reports *path*, which nothing in the source explains."""
    item = Item("target", "", path)
    if path.startswith("memory/short_term/") and not _holds_migrated_memory(target, path):
        return  # the memory module's own
    if path.startswith("text_chat/archive/") and _was_deleted_in_v2(target, path):
        return
    item.extra("comes from nothing in the source", is_error=_is_of_the_migration(target, path))
    tally.close(item, unexplained=True)


def _was_deleted_in_v2(target: Tree, path: str) -> bool:
    """Whether an archived session was live when it was migrated, and v2 has deleted it since."""
    legacy = object_values(_members(target, join(path, "metadata.json")).get("legacy")) or {}
    return legacy.get("deleted_from_v2") == b"true"


def _members(target: Tree, path: str) -> dict[str, bytes]:
    try:
        return last_values(members((target.read_or_none(path) or b"").strip()))
    except NotAnObject:
        return {}


def _holds_migrated_memory(target: Tree, path: str) -> bool:
    session = "text_chat/sessions/" + path.removeprefix("memory/short_term/")
    if target.is_dir(session) and not _is_of_the_migration(target, session):
        return False
    listing = target.list_or_none(path)
    return listing is not None and ("context.json" in listing.files or "history" in listing.dirs)


def _is_of_the_migration(target: Tree, path: str) -> bool:
    if path.startswith("rag/embeddings/"):
        return path.startswith("rag/embeddings/v2_")
    for name in _ABOUT:
        data = target.read_or_none(join(path, name))
        if data is None:
            continue
        try:
            return "legacy" in last_values(members(data.strip()))
        except NotAnObject:
            return True
    return True
