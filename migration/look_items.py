"""What a run would make of the pieces that it cuts a source into (`migration.items`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from migration.job import RunSettings
from migration.look import Look
from migration.look_users import MergeLook, UserLook, UserPlaces
from migration.lookalikes import Lookalikes, folded_hash
from migration.survey import Survey
from migration.v2.names import BACKUP, V2Names
from migration.v2.read import FileFacts
from migration.worker import Item
from modules.core.layout import component


def survey_items(items: Sequence[Item], settings: RunSettings, now_ns: int) -> Survey:
    """What the items hold. Reads the source alone; what cannot be read is a finding."""
    look = Look(settings, now_ns, as_root=os.geteuid() == 0)
    for item in items:
        _LOOKERS[item.kind](look, item)
    return look.survey


def owners_among(items: Sequence[Item], settings: RunSettings, now_ns: int, wanted: frozenset[int]) -> list[str]:
    """The users that the items' directories belong to, as far as their hashes are *wanted*."""
    look = Look(settings, now_ns, as_root=os.geteuid() == 0)
    owners = [UserPlaces(look, item.name).owner(None)[0] for item in items if item.kind == "user"]
    return [owner for owner in owners if folded_hash(owner) in wanted]


def _user(look: Look, item: Item) -> None:
    _with_collisions(look, lambda look, sessions: UserLook(look, UserPlaces(look, item.name), sessions))


def _merge(look: Look, item: Item) -> None:
    home, directories = item.extra
    _with_collisions(look, lambda look, sessions: MergeLook(look, item.name, home, directories, sessions))


def _with_collisions(look: Look, make: Callable[[Look, Lookalikes], UserLook | MergeLook]) -> None:
    """Counts a user; where sessions look alike, goes through the user again to name them."""
    first = make(look, Lookalikes())
    first.count()
    if first.sessions.repeated:
        scratch = Look(look.settings, look.now_ns, look.as_root)
        again = make(scratch, Lookalikes(frozenset(first.sessions.repeated)))
        again.count()
        for group in again.collisions():
            look.survey.find("session_collision", again.shown, " / ".join(group))


def _strays(look: Look, item: Item, *, deep: bool) -> None:
    pending = [f"{look.settings.source}/{item.name}".rstrip("/")]
    while pending:
        directory = pending.pop()
        entries = look.entries(directory)
        if entries == []:
            look.survey.counts["empty_dirs"] += 1
        for entry in entries or ():
            if entry.is_dir(follow_symlinks=False):
                if deep:
                    pending.append(entry.path)
            elif (facts := look.file_facts(entry)) is not None:
                look.stray(entry.path, facts)


def _panel(look: Look, item: Item) -> None:
    path = f"{look.settings.source}/{item.name}"
    files = look.below(path)
    kinds = {file: _panel_part(file, look.settings.names) for file in files}
    if BACKUP.fullmatch(os.path.basename(path)) or not any(_claims_a_panel(f, look.settings.names) for f in files):
        kinds = dict.fromkeys(files)
    else:
        look.survey.counts["panels"] += 1
    for file, kind in kinds.items():
        _PANEL_ENDS[kind](look, f"{path}/{file}", files[file])


def _panel_part(file: str, names: V2Names) -> str | None:
    """What a file is to a panel; None when it is a stray."""
    head, _, rest = file.partition("/")
    if file in {names.panel, names.messages}:
        return "record" if file == names.panel else "content"
    if not rest.endswith(".json"):
        return None
    if head == names.insights and "/" not in rest:
        return "record"
    return "content" if head == names.panel_personas else None


def _claims_a_panel(file: str, names: V2Names) -> bool:
    """Whether a file makes its directory a panel."""
    head, _, rest = file.partition("/")
    return file in {names.panel, names.messages} or bool(rest and head in {names.insights, names.panel_personas})


_PANEL_ENDS: dict[str | None, Callable[[Look, str, FileFacts], object]] = {
    "record": Look.read,
    "content": Look.take,
    None: Look.stray,
}


def _personas(look: Look, item: Item) -> None:
    names, found = look.settings.names, set()
    for entry in look.entries(f"{look.settings.source}/{item.name}") or ():
        if entry.is_dir(follow_symlinks=False):
            for file, facts in look.below(entry.path).items():
                look.stray(f"{entry.path}/{file}", facts)
            continue
        facts_of_file = look.file_facts(entry)
        if facts_of_file is None:
            continue
        if not entry.name.endswith(".json") or entry.name == ".json" or names.is_temporary(entry.name):
            look.stray(entry.path, facts_of_file)
        elif look.read(entry.path, facts_of_file) is not None:
            found.add(component(os.fsencode(entry.name[: -len(".json")])))
    look.survey.personas[item.name] = frozenset(found)


_LOOKERS: dict[str, Callable[[Look, Item], None]] = {
    "user": _user,
    "merge": _merge,
    "panel": _panel,
    "personas": _personas,
    "files": partial(_strays, deep=False),
    "strays": partial(_strays, deep=True),
}
