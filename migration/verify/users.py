"""Everything below a batch of user directories: the part of the work that is spread over processes."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from migration.v2.names import V2Names
from migration.verify.comparison import Item, Leaf, Symbol, Tally, fingerprint, root
from migration.verify.extras import PER_USER, PROFILES, homes_of, unclaimed_of_user
from migration.verify.jsontext import list_items, named, object_values
from migration.verify.names import Name, is_usual, shown
from migration.verify.personas import compare_persona
from migration.verify.plain import PlainProver
from migration.verify.profiles import compare_profile, names_other_paths, profile_target
from migration.verify.sessions import SessionComparison, SplitClaim, homes, session_user
from migration.verify.settle import settled, unread
from migration.verify.sides import Sides
from migration.verify.source import Contents, SessionDir, SourceWalk
from migration.verify.tree import Listing, Tree, join

_SHARE = 1 << 64
_SAME_SESSION, _SAME_PROFILE = (("session", Symbol.SAME.value), ("profile", Symbol.SAME.value))
# homes in which whatever nobody claims is found by `unclaimed_of_user`
_SETTLED_HOMES = ("text_chat/sessions", "text_chat/archive", "persona/users")


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs to know. Small, and picklable."""

    source: str
    target: str
    names: V2Names
    zone: str | None = None
    sample: float | None = None
    wanted: frozenset[str] = frozenset()  # ids of sessions whose users are asked for
    contested: frozenset[str] = frozenset()  # names that several user directories have
    roots: tuple[str, ...] = ()  # directories that hold user directories

    def sides(self, source: Tree, target: Tree) -> Sides:
        return Sides(source, target, self.names, ZoneInfo(self.zone) if self.zone else None)

    def in_depth(self, user_dir: str) -> bool:
        """Whether a user is compared in depth: always, or by a hash of the directory's name."""
        if self.sample is None:
            return True
        name = user_dir.rpartition("/")[2].encode("utf-8", "surrogateescape")
        share = int.from_bytes(blake2b(name, digest_size=8).digest())
        return share < self.sample * _SHARE


class Comparison(Protocol):
    def __call__(self, *, tally: Tally) -> None: ...


class UserNode(NamedTuple):
    """The node of one user in both Merkle trees, as far as one batch knows it."""

    user: str
    source: bytes | None
    target: bytes | None


@dataclass(slots=True)
class BatchResult:
    """What a batch gave: counts, nodes, findings, and what only the whole tree can decide."""

    tally: Tally = field(default_factory=Tally)
    nodes: list[UserNode] = field(default_factory=list)
    proved: dict[str, list[bytes]] = field(default_factory=dict)  # user -> leaves that are the same on both sides
    sessions: list[tuple[str, SessionDir]] = field(default_factory=list)  # (user, a part), to be grouped
    profiles: list[tuple[str, str]] = field(default_factory=list)  # (user, path), to be grouped
    holders: list[tuple[str, str]] = field(default_factory=list)  # (wanted session, user)
    halves: list[tuple[str, str]] = field(default_factory=list)  # (session, user) with neither record nor messages
    splits: list[SplitClaim] = field(default_factory=list)
    visited: list[str] = field(default_factory=list)  # components of users whose homes were swept
    unclaimed: list[str] = field(default_factory=list)

    def seal(self) -> None:
        """Turns leaves into one node a user, so that a result stays small."""
        by_user: dict[str, list[Leaf]] = {}
        for leaf in self.tally.leaves:
            by_user.setdefault(leaf.user, []).append(leaf)
        for user, proved in self.proved.items():
            leaves = by_user.pop(user, None)
            if leaves is None:
                node = root(proved)
                self.nodes.append(UserNode(user, node, node))
            else:
                self.nodes.append(_node(user, proved, leaves))
        self.nodes += [_node(user, [], leaves) for user, leaves in by_user.items()]
        self.proved = {}
        self.tally.leaves = []


def _node(user: str, proved: list[bytes], leaves: list[Leaf]) -> UserNode:
    sources = root([*proved, *(leaf.source for leaf in leaves)])
    return UserNode(user, sources, root([*proved, *(leaf.target for leaf in leaves)]))


def compare_users(job: Job, batch: Sequence[str]) -> BatchResult:
    """Compares everything below the user directories *batch*."""
    result = BatchResult()
    with Tree(job.source) as source, Tree(job.target) as target, _without_collections():
        sides = job.sides(source, target)
        shallow = replace(sides, deep=False)
        prover = PlainProver()
        parents = [parent for parent in PER_USER if target.is_dir(parent)]
        for user_dir in batch:
            own = sides if job.in_depth(user_dir) else shallow
            UserDirectory(job, own, prover, user_dir, result).run(parents)
        result.seal()
    return result


@contextmanager
def _without_collections() -> Iterator[None]:
    """A batch makes many short-lived objects and hardly a cycle: looking for cycles would find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class UserDirectory:
    """One user directory of v2, compared into *result*."""

    def __init__(self, job: Job, sides: Sides, prover: PlainProver, path: str, result: BatchResult) -> None:
        self._job = job
        self._sides = sides
        self._prover = prover
        self._path = path
        self._result = result
        self._tally = result.tally
        above, _, name = path.rpartition("/")
        self._directory = Name.of_path(name)
        self._component = self._directory.component
        self._contested = self._directory.text in job.contested
        # whether things may be shown to be equal by their bytes; what is left is compared member by member
        self._provable = (
            sides.deep
            and sides.zone is None
            and not self._contested
            and above in sides.names.users_dirs
            and is_usual(name)
        )
        self._profile_user: str | None = None

    def run(self, parents: Iterable[str] = PER_USER) -> None:
        """Compares everything. *parents* are the directories of the target that may hold a home of the user."""
        # claims below the user's own homes are settled here; a batch keeps those of other places
        elsewhere, self._tally.claims = self._tally.claims, set()
        contents = SourceWalk(self._sides.source, self._sides.names).user(self._path)
        account(self._tally, contents)
        self._profile(contents)
        owner = Name.of_text(self._profile_user) if self._profile_user else self._directory
        natural = owner == self._directory and not self._contested
        homes = homes_of(self._sides.target, self._component, parents) if natural else {}
        self._sessions(contents, homes)
        for file in contents.personas:
            self._take("persona", file.path, partial(compare_persona, self._sides, owner=owner, file=file))
        for path in contents.attic:
            self._take("attic", path, partial(self._sides.attic, user=owner.text, path=path))
        claims = self._tally.claims
        if natural:
            component = self._component
            self._result.visited.append(component)
            self._result.unclaimed += unclaimed_of_user(self._sides.target, component, homes, claims)
            mine = tuple(f"{parent}/{component}/" for parent in _SETTLED_HOMES)
            claims = {claim for claim in claims if not claim.startswith(mine)}
            claims.discard(f"{PROFILES}/{component}")
        elsewhere |= claims
        self._tally.claims = elsewhere

    def _take(self, kind: str, path: str, compare: Comparison) -> None:
        self._tally.add(settled(self._sides, kind, [path], lambda tally: compare(tally=tally)))

    # -- the profile

    def _profile(self, contents: Contents) -> None:
        path = contents.profile
        if path is None or (self._provable and self._prove_profile(path)):
            return
        try:
            file = self._sides.object_or_none(path)
        except OSError as error:
            unread(self._tally, "profile", path, error)
            return
        self._profile_user = named(file.values.get("user_id")) if file is not None else None
        user = Name.of_text(self._profile_user) if self._profile_user else self._directory
        if user != self._directory or self._contested:
            self._result.profiles.append((user.text, path))
            return
        compare = partial(compare_profile, self._sides, user=user, paths=[path])
        tally = settled(self._sides, "profile", [path], lambda tally: compare(tally=tally))
        if tally.failed and names_other_paths(self._sides, user, path):
            # made of several directories: the whole tree decides
            self._result.profiles.append((user.text, path))
        else:
            self._tally.add(tally)

    def _prove_profile(self, path: str) -> bool:
        """Whether the profile is equal by the proof of `plain`. It is then that of the directory's own user."""
        user = self._directory.text
        try:
            source = self._sides.source.read(path)
            target = self._sides.target.read(profile_target(self._directory))
        except OSError:
            return False  # met again, and reported, by the close look
        if not self._prover.profile(user, path, source, target):
            return False
        self._agree(user, fingerprint("profile", user, path, source))
        self._tally.counts[_SAME_PROFILE] += 1
        self._tally.files["migrated"] += 1
        self._tally.claims.add(f"{PROFILES}/{self._component}")
        return True

    def _agree(self, user: str, leaf: bytes) -> None:
        self._result.proved.setdefault(user, []).append(leaf)

    # -- sessions

    def _sessions(self, contents: Contents, homes: Mapping[str, Listing]) -> None:
        tally, wanted, home = self._tally, self._job.wanted, f"text_chat/sessions/{self._component}"
        alone = _without_memory(homes)
        show = self._prove if self._provable else self._meet if not self._sides.deep else None
        shown_sessions = files = messages = 0
        for part in contents.sessions:
            id_ = part.id_path
            if show is not None and id_ in alone and part.session and part.plain and is_usual(id_):
                there = f"{home}/{id_}"
                count = show(part, there)
                if count is not None:
                    shown_sessions += 1
                    files += 1 + part.messages
                    messages += count
                    tally.claims.add(there)
                    if id_ in wanted:
                        self._result.holders.append((id_, self._directory.text))
                    continue
            self._exactly(part)
        if shown_sessions:
            tally.counts[_SAME_SESSION] += shown_sessions
            tally.files["migrated"] += files
            tally.lines["message"] += messages
            tally.lines["physical"] += messages

    def _prove(self, part: SessionDir, home: str) -> int | None:
        """How many messages a session has that is equal by the proof of `plain`; None when it needs a close look."""
        source, target, names = self._sides.source, self._sides.target, self._sides.names
        user, id_, path, messages = self._directory.text, part.id_path, part.path, part.messages
        try:
            if not _holds_only(target.list_known(home), messages):
                return None
            text, count = b"", 0
            if messages:
                text = source.read(f"{path}/{names.messages}")
                proved = self._prover.messages(text, target.read(f"{home}/messages.jsonl"))
                if proved is None:
                    return None
                count = proved
            record = source.read(f"{path}/{names.session}")
            if not self._prover.session(user, id_, path, record, target.read(f"{home}/metadata.json"), count):
                return None
        except OSError:
            return None  # met again, and reported, by the close look
        self._agree(user, fingerprint("session", user, path, record, text))
        return count

    def _meet(self, part: SessionDir, home: str) -> int | None:
        """0 for a session that is where it must be, when only existence is compared."""
        try:
            if self._sides.target.stat_or_none(f"{home}/metadata.json") is None:
                return None
        except OSError:
            return None  # met again, and reported, by the close look
        item = Item("session", self._directory.text, shown(part.path))
        item.feed("metadata.json", b"present", b"present")
        self._tally.leaves.append(item.leaf())
        return 0

    def _exactly(self, part: SessionDir) -> None:
        try:
            user = session_user(self._sides, part, self._profile_user)
        except OSError as error:
            unread(self._tally, "session", part.path, error)
            return
        note_session(self._job, self._result, part, user)
        if user != self._directory or self._contested:
            self._result.sessions.append((user.text, part))
            return
        tally, splits = compare_group(self._sides, user, [part])
        if tally.failed and _has_parts(self._sides, user, part):
            # made of several directories: the whole tree decides
            self._result.sessions.append((user.text, part))
        else:
            self._tally.add(tally)
            self._result.splits += splits


def _without_memory(homes: Mapping[str, Listing]) -> set[str]:
    """The user's sessions in the target that have nothing in its memory."""
    sessions, memory = homes.get("text_chat/sessions"), homes.get("memory/short_term")
    names = set(sessions.dirs) if sessions is not None else set()
    if memory is not None:
        names.difference_update(memory.dirs)
    return names


def _holds_only(listing: Listing, messages: bool) -> bool:
    """Whether a session's directory holds its own files alone; the platform may have added its state."""
    files = listing.files
    if listing.dirs or listing.links or listing.special or "metadata.json" not in files:
        return False
    return len(files) == 1 + messages + ("state.json" in files) and ("messages.jsonl" in files) == messages


def account(tally: Tally, contents: Contents) -> None:
    """Counts what a walk has met, and reports what it could not read or did not follow."""
    tally.files["source"] += contents.files
    tally.files["ignored"] += contents.locks
    tally.files["empty directories"] += contents.empty_dirs
    tally.files["links"] += len(contents.links)
    tally.files["special"] += len(contents.special)
    tally.notices += [f"{shown(path)} is a link and was not followed" for path in contents.links]
    tally.notices += [f"{shown(path)} is no regular file and was not opened" for path in contents.special]
    for path, error in contents.unread:
        unread(tally, "source", path, error)


def note_session(job: Job, result: BatchResult, part: SessionDir, user: Name) -> None:
    """Keeps what the whole tree must know of a live session."""
    if part.stamp is not None:
        return
    id_ = Name.of_path(part.id_path).text
    if id_ in job.wanted:
        result.holders.append((id_, user.text))
    if not (part.session or part.messages or part.shards):
        result.halves.append((id_, user.text))


def compare_group(sides: Sides, user: Name, parts: list[SessionDir]) -> tuple[Tally, list[SplitClaim]]:
    """Compares the session that *parts* make, as it is now."""
    walk = SourceWalk(sides.source, sides.names)
    splits: list[SplitClaim] = []

    def compare(attempt: Tally) -> None:
        now = [again for part in parts if (again := walk.session_again(part)) is not None]
        if not now:
            attempt.notices.append(f"{shown(parts[0].path)} has vanished while the trees were compared")
            return
        comparison = SessionComparison(sides, attempt, user, now)
        comparison.run()
        splits[:] = [comparison.split] if comparison.split is not None else []

    kind = "session" if parts[0].stamp is None else "archive"
    return settled(sides, kind, [part.path for part in parts], compare), splits


def _has_parts(sides: Sides, user: Name, part: SessionDir) -> bool:
    """Whether the target made the session of several directories."""
    home = homes(user, Name.of_path(part.id_path), part.stamp).session
    legacy = object_values(sides.peek(join(home, "metadata.json")).get("legacy")) or {}
    return len(list_items(legacy.get("parts") or b"[]") or []) > 1
