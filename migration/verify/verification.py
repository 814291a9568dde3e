"""Both trees, whole.

Batches of users are compared wherever the fan-out runs them. What no single user directory can decide comes back and
is decided here: sessions that several directories make, owners of vector sets, split sessions, what the registry says,
and what stands in the target without a source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from migration.fanout import FanOut
from migration.verify.comparison import Item, Tally, root
from migration.verify.documents import registry_digest
from migration.verify.extras import homes_of, report_extra, unclaimed_of_user, unclaimed_shared, users_of
from migration.verify.jsontext import named, object_values
from migration.verify.names import Name, shown
from migration.verify.panels import PanelComparison
from migration.verify.personas import compare_persona
from migration.verify.profiles import compare_profile
from migration.verify.sessions import SplitClaim, session_user
from migration.verify.settle import settled, unread
from migration.verify.sides import Sides
from migration.verify.source import PanelDir, SessionDir, SourceWalk, TopLevel, VectorDir
from migration.verify.tree import Tree, join
from migration.verify.users import (
    BatchResult,
    Job,
    UserNode,
    account,
    compare_group,
    compare_users,
    note_session,
)
from migration.verify.vectors import Owner, compare_vectors, owner_of

# of users: a tenth of a second of work each where there are many, and enough of them for every worker where not
_FEWEST_A_BATCH, _MOST_A_BATCH = 16, 128
_BATCHES = 64
_GROUPS_A_BATCH = 64
_REDIRECTED_PREFIXES = ("persona_", "agent_", "ai_", "bot_")
_REDIRECTED_NAMES = frozenset(
    [
        "alex_patterson",
        "betty_rodriguez",
        "bob_wilson",
        "creative_writer",
        "technical_expert",
        "helpful_assistant",
        "business_analyst",
        "jake_thompson",
        "john_smith",
        "marcus_chen",
        "maria_garcia",
        "sarah_johnson",
    ]
)
T = TypeVar("T")


@dataclass(slots=True)
class Outcome:
    """Everything that the comparison of two trees gave."""

    tally: Tally = field(default_factory=Tally)
    nodes: dict[str, list[UserNode]] = field(default_factory=lambda: defaultdict(list))

    def node(self, user: str) -> tuple[bytes | None, bytes | None]:
        """The node of a user on both sides."""
        nodes = self.nodes[user]
        return root([node.source for node in nodes]), root([node.target for node in nodes])


@dataclass(frozen=True, slots=True)
class Group:
    """A session that several directories may make: its user and the parts that are known."""

    user: str
    parts: tuple[SessionDir, ...]


def compare_groups(job: Job, groups: Sequence[Group]) -> BatchResult:
    """Compares sessions whose user is not the one of their directory, or that have several parts."""
    result = BatchResult()
    with Tree(job.source) as source, Tree(job.target) as target:
        sides = job.sides(source, target)
        walk = SourceWalk(source, sides.names)
        for group in groups:
            parts = list(group.parts)
            parts += _natural_parts(job, sides, walk, group)
            deep = any(job.in_depth(part.user_dir) for part in parts)
            tally, splits = compare_group(replace(sides, deep=deep), Name.of_text(group.user), parts)
            result.tally.add(tally)
            result.splits += splits
    result.seal()
    return result


def _natural_parts(job: Job, sides: Sides, walk: SourceWalk, group: Group) -> Iterator[SessionDir]:
    """Directories of the user's own name that hold the same session, and were not handed over."""
    known = {part.path for part in group.parts}
    first = group.parts[0]
    if "/" in group.user or "\0" in group.user or group.user in ("", ".", "..") or first.stamp is not None:
        return
    for root_ in job.roots:
        user_dir = join(root_, group.user)
        path = join(user_dir, first.id_path)
        if path in known or not sides.source.is_dir(path):
            continue
        part = walk.session_again(first._replace(path=path, user_dir=user_dir))
        if part is None:
            continue
        profile = sides.object_or_none(join(user_dir, sides.names.profile))
        declared = named(profile.values.get("user_id")) if profile is not None else None
        if session_user(sides, part, declared).text == group.user:
            yield part


def locate_sessions(job: Job, batch: Sequence[str]) -> list[tuple[str, str]]:
    """(session, user) for the wanted sessions below the user directories *batch*."""
    result = BatchResult()
    with Tree(job.source) as source, Tree(job.target) as target:
        sides = job.sides(source, target)
        for user_dir in batch:
            for part, user in _live_sessions(sides, user_dir):
                note_session(job, result, part, user)
    return result.holders


def _live_sessions(sides: Sides, user_dir: str) -> Iterator[tuple[SessionDir, Name]]:
    profile = sides.object_or_none(join(user_dir, sides.names.profile))
    declared = named(profile.values.get("user_id")) if profile is not None else None
    for part in SourceWalk(sides.source, sides.names).user(user_dir).sessions:
        if part.stamp is None:
            yield part, session_user(sides, part, declared)


class Verification:
    """One comparison of two trees. Reads both, writes nothing."""

    def __init__(self, job: Job, fan_out: FanOut, extra_roots: Sequence[str] = ()) -> None:
        self._job = job
        self._fan_out = fan_out
        self._extra_roots = extra_roots
        self._outcome = Outcome()
        self._batch = BatchResult()

    def run(self) -> Outcome:
        """Compares everything. Raises `OSError` when a root cannot be read; all else becomes a finding."""
        with Tree(self._job.source) as source, Tree(self._job.target) as target:
            sides = self._job.sides(source, target)
            walk = SourceWalk(source, sides.names)
            top = walk.top()
            sets = self._vector_sets(sides, walk, top)
            self._prepare(top, sets)
            self._users(top)
            self._groups()
            self._profiles(sides)
            self._splits(top)
            self._vectors(sides, sets)
            self._beside(sides, top)
            self._registry(sides)
            self._extras(sides)
            self._conservation()
        self._batch.seal()
        self._take(self._batch)
        return self._outcome

    def _prepare(self, top: TopLevel, sets: list[VectorDir]) -> None:
        names = [user.rpartition("/")[2] for user in top.users]
        seen: set[str] = set()
        twice = {shown(name) for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
        self._job = replace(
            self._job,
            wanted=frozenset(Name.of_path(set_.session).text for set_ in sets),
            contested=frozenset(twice),
            roots=tuple(sorted({user.rpartition("/")[0] for user in top.users})),
        )

    def _users(self, top: TopLevel) -> None:
        compare = partial(compare_users, self._job)
        for result in self._fan_out.map(compare, _batches(top.users, _users_a_batch(len(top.users)))):
            self._take(result)

    def _take(self, result: BatchResult) -> None:
        self._outcome.tally.add(result.tally)
        for node in result.nodes:
            self._outcome.nodes[node.user].append(node)
        if result is self._batch:
            return
        batch = self._batch
        batch.sessions += result.sessions
        batch.profiles += result.profiles
        batch.holders += result.holders
        batch.halves += result.halves
        batch.splits += result.splits
        batch.visited += result.visited
        batch.unclaimed += result.unclaimed

    def _groups(self) -> None:
        grouped: dict[tuple[str, str, str | None], list[SessionDir]] = defaultdict(list)
        for user, part in self._batch.sessions:
            grouped[user, part.id_path, part.stamp].append(part)
        groups = [Group(user, tuple(parts)) for (user, _, _), parts in sorted(grouped.items(), key=lambda g: str(g[0]))]
        compare = partial(compare_groups, self._job)
        for result in self._fan_out.map(compare, _batches(groups, _GROUPS_A_BATCH)):
            self._take(result)

    def _profiles(self, sides: Sides) -> None:
        grouped: dict[str, list[str]] = defaultdict(list)
        for user, path in self._batch.profiles:
            grouped[user].append(path)
        for user, paths in sorted(grouped.items()):
            every = [*paths, *self._natural_profiles(sides, user, paths)]
            compare = partial(compare_profile, sides, user=Name.of_text(user), paths=every)
            self._settle(sides, "profile", every, compare)

    def _natural_profiles(self, sides: Sides, user: str, known: list[str]) -> list[str]:
        if "/" in user or "\0" in user or user in ("", ".", ".."):
            return []
        found = []
        for root_ in self._job.roots:
            path = join(root_, user, sides.names.profile)
            file = sides.object_or_none(path) if path not in known else None
            if file is not None and (named(file.values.get("user_id")) or user) == user:
                found.append(path)
        return found

    def _settle(
        self, sides: Sides, kind: str, paths: Sequence[str], compare: partial[None], tree: Tree | None = None
    ) -> None:
        self._batch.tally.add(settled(sides, kind, paths, lambda tally: compare(tally=tally), tree))

    # -- sessions that v2 split over two users

    def _splits(self, top: TopLevel) -> None:
        asked = {session for session, _ in self._batch.halves} | {claim.session for claim in self._batch.splits}
        # which half says what can only be told when both were compared in depth
        if not asked or self._job.sample is not None:
            return
        holders: dict[str, set[str]] = defaultdict(set)
        locate = partial(locate_sessions, replace(self._job, wanted=frozenset(asked)))
        for found in self._fan_out.map(locate, _batches(top.users, _users_a_batch(len(top.users)))):
            for session, user in found:
                holders[session].add(user)
        for finding in split_differences(self._batch.halves, self._batch.splits, holders):
            self._batch.tally.close(finding, unexplained=True)

    # -- vectors

    def _vector_sets(self, sides: Sides, walk: SourceWalk, top: TopLevel) -> list[VectorDir]:
        sets: list[VectorDir] = []
        for user in top.users:
            try:
                sets += walk.vector_sets(user)
            except OSError as error:
                unread(self._batch.tally, "vectors", user, error)
        for extra in self._extra_roots:
            with Tree(extra) as tree:
                inside = SourceWalk(tree, sides.names)
                for user in inside.top().users:
                    sets += [set_._replace(root=extra) for set_ in inside.vector_sets(user)]
        return sets

    def _vectors(self, sides: Sides, sets: list[VectorDir]) -> None:
        here: dict[str, set[str]] = defaultdict(set)
        for session, user in self._batch.holders:
            here[session].add(user)
        anywhere = {session: set(users) for session, users in here.items()}
        for session, user in self._extra_holders(sides):
            anywhere.setdefault(session, set()).add(user)
        owned: list[tuple[VectorDir, Owner]] = []
        for set_ in sets:
            # a set of an extra root belongs here only through a session that is here
            holders = here if set_.root else anywhere
            with Tree(set_.root or self._job.source) as tree:
                filed_under = _directory_user(replace(sides, source=tree), set_.user_dir)
            owner = owner_of(
                set_,
                filed_under,
                {key: tuple(users) for key, users in holders.items() if key == Name.of_path(set_.session).text},
            )
            if set_.root and owner.how != "found":
                self._batch.tally.notices.append(
                    f"{set_.root}/{shown(set_.path)} belongs to no single user of this tree and was left"
                )
                continue
            owned.append((set_, owner))
        documents = frozenset(id_ for id_, _ in (*self._outcome.tally.registry, *self._batch.tally.registry))
        by_index: dict[tuple[str, str], list[str]] = defaultdict(list)
        for set_, owner in owned:
            by_index[owner.user.text, set_.session].append(join(set_.root, set_.path))
        for set_, owner in owned:
            rivals = tuple(p for p in by_index[owner.user.text, set_.session] if p != join(set_.root, set_.path))
            deep = replace(sides, deep=self._job.in_depth(owner.user.text))
            with Tree(set_.root or self._job.source) as tree:
                compare = partial(
                    compare_vectors, deep, set_=set_, owner=owner, tree=tree, rivals=rivals, documents=documents
                )
                self._settle(sides, "vectors", [set_.path], compare, tree)

    def _extra_holders(self, sides: Sides) -> Iterator[tuple[str, str]]:
        for extra in self._extra_roots:
            with Tree(extra) as tree:
                there = replace(sides, source=tree)
                for user_dir in SourceWalk(tree, sides.names).top().users:
                    for part, user in _live_sessions(there, user_dir):
                        id_ = Name.of_path(part.id_path).text
                        if id_ in self._job.wanted:
                            yield id_, user.text

    # -- what belongs to no user

    def _beside(self, sides: Sides, top: TopLevel) -> None:
        contents = top.beside
        account(self._batch.tally, contents)
        for file in contents.personas:
            self._settle(sides, "persona", [file.path], partial(compare_persona, sides, owner=None, file=file))
        for panel in contents.panels:
            self._settle(sides, "panel", [panel.path], partial(_compare_panel, sides, panel=panel))
        for path in contents.attic:
            self._settle(sides, "attic", [path], partial(sides.attic, user="", path=path))

    def _registry(self, sides: Sides) -> None:
        expected = dict((*self._outcome.tally.registry, *self._batch.tally.registry))
        item = Item("registry", "", "rag/indices/document_registry.json")
        present = sides.target.stat_or_none(item.path) is not None
        if not expected and not present:
            return
        documents = object_values(sides.expect_object(item, item.path, "document_registry.json").get("documents")) or {}
        for id_, digest in sorted(expected.items()):
            entry = object_values(documents.get(id_))
            right = entry is not None and (not digest or registry_digest(entry) == digest)
            item.feed(id_, b"entry", b"entry" if right else b"")
            if entry is None:
                item.missing("entry", id_)
            elif not right:
                item.differs("entry", f"the metadata of {id_}", "other values")
        for id_ in sorted(documents.keys() - expected.keys()):
            made_since = "legacy" not in sides.peek(f"rag/documents/{id_}/metadata.json") and sides.target.is_dir(
                f"rag/documents/{id_}"
            )
            item.extra("entry", id_, is_error=not made_since)
        old = [id_ for id_ in documents if id_ in expected]
        if old != sorted(old):
            item.differs("order of entries", "by id", "another")
        self._batch.tally.close(item, absent=not present, unexplained=not expected)

    def _extras(self, sides: Sides) -> None:
        target = sides.target
        claims = self._outcome.tally.claims | self._batch.tally.claims
        unclaimed = set(self._batch.unclaimed) - claims
        for user in users_of(target) - set(self._batch.visited):
            unclaimed.update(unclaimed_of_user(target, user, homes_of(target, user), claims))
        unclaimed.update(unclaimed_shared(target, claims | {path for path in unclaimed}))
        for path in sorted(unclaimed):
            report_extra(target, self._batch.tally, path)

    def _conservation(self) -> None:
        """Every source file has ended in exactly one way (unless something could not be read)."""
        files = self._outcome.tally.files + self._batch.tally.files
        ended = files["migrated"] + files["attic"] + files["ignored"]
        unreadable = any(
            symbol == "!" for tally in (self._outcome.tally, self._batch.tally) for _, symbol in tally.counts
        )
        if files["source"] != ended and not unreadable:
            item = Item("files", "", shown(self._job.source))
            item.differs("files accounted for", files["source"], ended)
            self._batch.tally.close(item, unexplained=True)


def split_differences(
    halves: Iterable[tuple[str, str]], claims: Iterable[SplitClaim], holders: dict[str, set[str]]
) -> Iterator[Item]:
    """Items for sessions of which ``legacy.split_with`` says something other than the source shows.

    v2 gave the record and the messages of a session of certain user ids to the login name, and left documents and
    context with the id itself: a half without record and messages, whose id is one of those, is such a half.
    """
    said = {(claim.session, claim.user): set(claim.others) for claim in claims}
    demanded: dict[tuple[str, str], set[str]] = defaultdict(set)
    bare = set(halves)
    for session, user in sorted(bare):
        if not (user.lower().startswith(_REDIRECTED_PREFIXES) or user in _REDIRECTED_NAMES):
            continue
        for other in holders.get(session, set()) - {user}:
            if (session, other) not in bare:
                demanded[session, user].add(other)
                demanded[session, other].add(user)
    for session, user in sorted(said.keys() | demanded.keys()):
        found, wanted = said.get((session, user), set()), demanded.get((session, user), set())
        possible = holders.get(session, set()) - {user}
        # beyond what must be said, whoever holds the session may be named
        if wanted <= found <= possible:
            continue
        item = Item("session", user, session)
        item.same("legacy.split_with", ",".join(sorted(wanted)), ",".join(sorted(found)))
        if not item.failed:
            item.differs("legacy.split_with", ",".join(sorted(possible)), ",".join(sorted(found)))
        yield item


def _compare_panel(sides: Sides, *, tally: Tally, panel: PanelDir) -> None:
    PanelComparison(sides, tally, panel).run()


def _directory_user(sides: Sides, user_dir: str) -> Name:
    profile = sides.object_or_none(join(user_dir, sides.names.profile))
    declared = named(profile.values.get("user_id")) if profile is not None else None
    return Name.of_text(declared) if declared else Name.of_path(user_dir.rpartition("/")[2])


def _users_a_batch(users: int) -> int:
    return min(_MOST_A_BATCH, max(_FEWEST_A_BATCH, users // _BATCHES))


def _batches(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    remaining = iter(items)
    while batch := tuple(islice(remaining, size)):
        yield batch
