"""User profiles. Several directories may claim one user: one profile speaks, the others stand in its legacy."""

from __future__ import annotations

from collections.abc import Sequence

from migration.verify.comparison import Item, Tally, fingerprint
from migration.verify.exact import compare_exact_object
from migration.verify.jsontext import ObjectFile, list_items, object_values, string
from migration.verify.names import Name, shown
from migration.verify.sides import Sides

_MEMBERS = frozenset(["user_id", "username", "created_at", "updated_at", "preferences", "metadata", "legacy"])
_FIXED_GENERATIONS = {True: ("G3", "G2", "G4", "G5", "G6"), False: ("G1",)}


def profile_target(user: Name) -> str:
    """Where the profile of a user is in the target."""
    return f"text_chat/users/{user.component}/profile.json"


def names_other_paths(sides: Sides, user: Name, path: str) -> bool:
    """Whether the target's profile of *user* was made of other files than *path* alone."""
    profile = sides.peek(profile_target(user))
    legacy = object_values(profile.get("legacy")) or {}
    if not profile:
        return False
    return "others" in legacy or string(legacy.get("path")) != shown(path)


def compare_profile(sides: Sides, tally: Tally, user: Name, paths: Sequence[str]) -> None:
    """Compares the profile of *user*, made of the v2 files *paths*. Raises `OSError`."""
    files = [(path, sides.object_or_attic(tally, user.text, path)) for path in paths]
    profiles = [(path, file) for path, file in files if file is not None]
    if not profiles:
        return
    target = profile_target(user)
    tally.claims.add(f"text_chat/users/{user.component}")
    item = Item("profile", user.text, " + ".join(shown(path) for path, _ in profiles))
    present = sides.target.stat_or_none(target) is not None
    if not sides.deep and not present:
        item.missing("profile.json", target)
    elif sides.deep:
        if len(paths) == 1:
            item.fingerprint = fingerprint("profile", user.text, paths[0], profiles[0][1].text)
        values = sides.expect_object(item, target, "profile.json")
        with item.quietly(not values):
            _compare(sides, item, user, profiles, values)
    tally.close(item, absent=not present)


def _compare(
    sides: Sides, item: Item, user: Name, profiles: list[tuple[str, ObjectFile]], values: dict[str, bytes]
) -> None:
    legacy = object_values(values.get("legacy")) or {}
    spoken = string(legacy.get("path"))
    path, file = next(((p, f) for p, f in profiles if shown(p) == spoken), profiles[0])
    source = file.values
    item.same("legacy.path", shown(path), spoken)
    item.same("legacy.record", file.record, legacy.get("record"))
    under_users = path.partition("/")[0] in sides.names.users_dirs
    generations = _FIXED_GENERATIONS[under_users]
    item.same("legacy.generation", generations[0], string(legacy.get("generation")), also=generations)
    item.same("user_id", user.text, string(values.get("user_id")))
    item.same("username", source.get("username", b"null"), values.get("username"), also=_absent(source, user))
    inferred = [string(name) for name in list_items(legacy.get("inferred") or b"[]") or []]
    for key in ("created_at", "updated_at"):
        given, found = string(source.get(key)), string(values.get(key))
        if given:
            item.same(key, given, found, also=sides.with_zone(given, found))
        elif values.get(key) not in (source.get(key, b"null"), b"null") and key not in inferred:
            item.differs(key, "null, or named in legacy.inferred", found)
    for key in ("preferences", "metadata"):
        own = source.get(key)
        item.same(key, own if own is not None and own.startswith(b"{") else b"{}", values.get(key))
    for key in sorted(_MEMBERS - values.keys()):
        item.missing(f"member {key}")
    for key in sorted(values.keys() - _MEMBERS):
        item.extra(f"member {key}", values[key])
    if len(profiles) == 1:
        compare_exact_object(item, sides.names.profile, file, object_values(legacy.get("exact")) or {})
    _compare_others(item, [(p, f) for p, f in profiles if p != path], legacy.get("others"))


def _absent(source: dict[str, bytes], user: Name) -> tuple[bytes | None, ...]:
    """What the page allows for a name that the source has not."""
    if string(source.get("username")):
        return ()
    return (b"null", b'""', b'"%b"' % user.raw)


def _compare_others(item: Item, others: list[tuple[str, ObjectFile]], found: bytes | None) -> None:
    rows = [object_values(row) or {} for row in list_items(found or b"[]") or []]
    by_path = {string(row.get("path")): row for row in rows}
    item.same("legacy.others", len(others), len(rows))
    for path, file in others:
        record = by_path.get(shown(path), {}).get("record")
        item.same(f"legacy.others, {shown(path)}", file.record, record)
