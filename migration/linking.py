"""What can only be decided when every session has been seen: owners of vector sets, halves, users in two places.

The tasks leave facts, the ledger names what was written; from these come the items of the later phases.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migration.embed import display_name, source_object
from migration.ledger import Entry
from migration.unit import MIGRATED, Unit, fact_path, fact_text, ledger_path
from migration.v2.read import read_regular
from migration.vectors import VectorSet
from migration.worker import Item
from modules.core.layout import component, name_of, vector_index_id

Facts = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Written:
    """A live session in the target: the components of its user and session, and where it came from in v2."""

    user: str
    session: str
    directory: bytes
    child: str
    has_data: bool


def sessions_written(entries: Iterable[Entry], wanted: set[str], data_files: set[str]) -> list[Written]:
    """The live sessions whose session component is *wanted*, as the newest records say.

    *data_files*: what v2 called session records and message files.
    """
    found: dict[tuple[str, bytes, str], list[Written]] = {}
    for entry in entries:
        for unit in entry.units:
            key = (entry.span.kind, entry.span.name, unit.name)
            matches = list(_matches(entry.span.name, unit, wanted, data_files))
            if matches:
                found[key] = matches
            else:
                found.pop(key, None)
    return [written for matches in found.values() for written in matches]


def _matches(directory: bytes, unit: Unit, wanted: set[str], data_files: set[str]) -> Iterator[Written]:
    for path in unit.written:
        _, _, user, session = path.split("/")
        if session in wanted:
            has_data = any(d == MIGRATED and name.rpartition("/")[2] in data_files for name, _, _, d in unit.files)
            yield Written(user, session, directory, ledger_path(unit.name), has_data)


def merges(facts: Facts, home_of: Callable[[str], str | None]) -> list[Item]:
    """Items that put together the users who are named in directories that are not theirs."""
    named: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        if fact[0] == "foreign":
            named[fact_text(fact[1])].add(fact_path(fact[2]))
    return [
        Item("merge", user, extra=(home_of(user), tuple(sorted(directories))))
        for user, directories in sorted(named.items())
    ]


@dataclass(slots=True)
class Halves:
    """Sessions of redirected users that hold neither record nor messages: half of what v2 split."""

    of_session: dict[str, list[tuple[str, str, str]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def among(cls, facts: Facts) -> Halves:
        halves = cls()
        for kind, *rest in facts:
            if kind == "half":
                session, user, directory, child = rest
                halves.of_session[session].append((fact_text(user), fact_path(directory), fact_path(child)))
        return halves

    def wanted(self) -> set[str]:
        return {component(session) for session in self.of_session}

    def items(self, written: Iterable[Written], user_of: Callable[[Written], str]) -> list[Item]:
        """Items that write both halves again, each naming the other's user."""
        others: dict[str, list[Written]] = defaultdict(list)
        for one in written:
            others[one.session].append(one)
        splits: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
        for session, halves in self.of_session.items():
            own = {os.fsencode(directory) for _, directory, _ in halves}
            partners = [o for o in others[component(session)] if o.directory not in own and o.has_data]
            if not partners:
                continue
            for _, directory, child in halves:
                splits[directory, child][session] = sorted({user_of(partner) for partner in partners})
            for partner in partners:
                splits[os.fsdecode(partner.directory), partner.child][session] = sorted({user for user, *_ in halves})
        return [Item("split", directory, extra=(child, how)) for (directory, child), how in sorted(splits.items())]


def vector_sets(facts: Facts) -> list[tuple[str, str]]:
    """(session path, directory) of every vector set that the tasks saw, in order of the directories."""
    found = {(fact_path(fact[1]), fact_path(fact[2])) for fact in facts if fact[0] == "vectors"}
    return sorted(found, key=lambda one: one[1])


def assign_owners(
    sets: Iterable[tuple[str, str]],
    written: Iterable[Written],
    *,
    user_of: Callable[[Written], str],
    session_dir_of: Callable[[str, str], str | None],
    elsewhere: Callable[[str], list[tuple[str, str]]],
    directory_user: Callable[[str], str],
    shown: Callable[[str], str],
) -> list[VectorSet]:
    """Gives each vector set its owner.

    *session_dir_of* finds a session's directory in the source by user directory and session; *elsewhere* finds
    (user, session directory) in the extra roots; *directory_user* is the user of the directory that holds a set;
    *shown* is a path relative to its root.
    """
    users: dict[str, dict[str, str]] = defaultdict(dict)
    for session in written:
        users[session.session][user_of(session)] = os.fsdecode(session.directory)
    owned: list[VectorSet] = []
    taken: set[str] = set()
    for path, directory in sets:
        here = users.get(session_key(path), {})
        candidates: Mapping[str, str | None] = {u: session_dir_of(d, path) for u, d in here.items()}
        if not candidates:
            candidates = dict(elsewhere(path))
        session_id = display_name(path)
        if len(candidates) == 1:
            ((user, session_dir),) = candidates.items()
            found = VectorSet(directory, session_id, user, "found", (), session_dir)
        else:
            kind = "several" if candidates else "none"
            found = VectorSet(directory, session_id, directory_user(directory), kind, tuple(sorted(candidates)))
        index = vector_index_id(found.user_id, found.session)
        if index in taken:
            index = vector_index_id(found.user_id, found.session, shown(directory))
        taken.add(index)
        owned.append(replace(found, index_id=index))
    return owned


def session_key(session: str) -> str:
    """The component of a session in the target, by its path in v2."""
    return component(os.fsencode(session))


def component_name(part: str, metadata: Callable[[], Mapping[str, Any]], key: str) -> str:
    """The id that a component stands for; for one that was cut, the id that *metadata* holds under *key*."""
    return name_of(part) or str(metadata().get(key, part))


def named_user(user_dir: str, profile: str, record: str | None = None) -> str:
    """The user of a v2 directory: by a session record, else by its profile, else its name. Reads, never raises."""
    for path in filter(None, (record, f"{user_dir}/{profile}")):
        try:
            found = source_object(read_regular(path))
        except OSError:
            continue  # absent, or reported where the file itself is migrated: the next one names the user
        if not isinstance(found, str) and (user := found.text("user_id")):
            return user
    return display_name(os.path.basename(user_dir))
