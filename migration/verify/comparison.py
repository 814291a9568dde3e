"""Findings, and the two canonical forms of an item.

An `Item` is one thing of v2 and what became of it. Whoever compares it feeds it pairs: what the source demands, and
what the target holds. From the pairs it keeps two digests, one a side, which are equal exactly when every pair was;
where the page leaves a choice, the choice that the target made stands for both. The digests are the leaves of two
Merkle trees, one a side, with a node for every user.

Plain sessions and profiles, which are nearly all that a store holds, have a leaf that is cheaper to make: the
`fingerprint` of the source's bytes. It is taken for the target too where the target has been shown to be equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from xxhash import xxh3_128_digest

_SHOWN = 40
_KEPT_FINDINGS = 1000

Form = bytes | str | int | bool | None


class Symbol(StrEnum):
    """What became of an item, as rclone's and mpifileutils' reports write it."""

    SAME = "="
    EXTRA = "+"
    MISSING = "-"
    DIFFERS = "*"
    UNREAD = "!"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as the source demands; *is_error* is false for what the new platform itself wrote."""

    symbol: Symbol
    kind: str
    path: str
    what: str
    expected: str = ""
    found: str = ""
    is_error: bool = True

    def __str__(self) -> str:
        values = ""
        if self.expected or self.found:
            values = f": expected {self.expected or 'nothing'}, found {self.found or 'nothing'}"
        return f"{self.symbol.value} {self.kind} {self.path}: {self.what}{values}"


def brief(value: Form) -> str:
    """At most forty characters of a value: a report must not repeat what people wrote."""
    if value is None:
        return ""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = "".join(c if c.isprintable() else "·" for c in text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def form(value: Form) -> bytes:
    """The bytes by which a value is compared and digested."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None:
        return b"null"
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return b"%d" % value


def frame(what: str, value: bytes) -> bytes:
    """One named value in a canonical form; the length keeps neighbours apart."""
    return b"%b %d %b\n" % (what.encode("utf-8", "surrogatepass"), len(value), value)


def fingerprint(kind: str, user: str, path: str, file: bytes, more: bytes = b"") -> bytes:
    """The leaf of a thing of v2 that is one JSON object in *file*, and perhaps *more* beside it: 128 bits of XXH3.

    It tells accidents apart and not forgeries, and nothing is concluded from it: the bytes were compared.
    """
    # neither the quoted names nor a JSON text can hold a NUL, so what stands between two of them is one part
    return xxh3_128_digest(b"%b\0%b\0%b" % (f"{kind} {user!r} {path!r}".encode(), file, xxh3_128_digest(more)))


class Leaf:
    """Digest of one item on both sides; None for a side that has not the item."""

    __slots__ = ("source", "target", "user")

    def __init__(self, user: str, source: bytes | None, target: bytes | None) -> None:
        self.user = user
        self.source = source
        self.target = target


class Item:
    """One thing of v2 beside what became of it.

    The source's digest is of what the source demands alone, so it is the same whatever the target holds. Where
    `fingerprint` is set it is the source's digest, and the target's too when the target's form equals the source's.
    """

    __slots__ = ("_quiet", "_source", "_target", "failed", "findings", "fingerprint", "kind", "path", "user")

    def __init__(self, kind: str, user: str, path: str) -> None:
        self.kind = kind
        self.user = user
        self.path = path
        self.findings: list[Finding] = []
        self.failed = False
        self.fingerprint: bytes | None = None
        self._quiet = False
        head = frame(kind, path.encode("utf-8", "surrogateescape"))
        self._source = sha256(head)
        self._target = sha256(head)

    def same(self, what: str, expected: Form, found: Form, *, also: Iterable[Form] = ()) -> bool:
        """Whether *found* is what is expected, or one of the forms that the page allows *also*."""
        wanted, got = form(expected), form(found)
        if got != wanted and any(got == form(other) for other in also):
            got = wanted
        self.feed(what, wanted, got)
        if got != wanted:
            self.differs(what, expected, found)
        return got == wanted

    def feed(self, what: str, expected: bytes, found: bytes) -> None:
        """Takes two values into the digests that the caller compares, and reports, by itself."""
        self._source.update(frame(what, expected))
        self._target.update(frame(what, found))

    def accept(self, what: str, found: Form, problem: str | None = None) -> None:
        """A value that the page leaves to the migration within limits; *problem* names the one it breaks."""
        self.feed(what, b"within its limits", b"within its limits" if problem is None else form(found))
        if problem is not None:
            self.differs(what, problem, found)

    @contextmanager
    def quietly(self, quiet: bool = True) -> Iterator[None]:
        """Goes on comparing for the digests' sake; that the target has nothing here was reported already."""
        before, self._quiet = self._quiet, self._quiet or quiet
        try:
            yield
        finally:
            self._quiet = before

    def differs(self, what: str, expected: Form, found: Form) -> None:
        self._add(Symbol.DIFFERS, what, brief(expected), brief(found))

    def missing(self, what: str, expected: Form = None) -> None:
        self._add(Symbol.MISSING, what, brief(expected), "")

    def extra(self, what: str, found: Form = None, *, is_error: bool = True) -> None:
        self._add(Symbol.EXTRA, what, "", brief(found), is_error)

    def unread(self, what: str, error: Exception) -> None:
        self._add(Symbol.UNREAD, what, "", brief(str(error)))

    def _add(self, symbol: Symbol, what: str, expected: str, found: str, is_error: bool = True) -> None:
        if self._quiet:
            return
        self.findings.append(Finding(symbol, self.kind, self.path, what, expected, found, is_error))
        if is_error:
            self.failed = True
            self._target.update(frame(symbol.value, f"{what} {found}".encode("utf-8", "surrogatepass")))

    def leaf(self, *, absent: bool = False, unexplained: bool = False) -> Leaf:
        """The digests: without the target's when it has nothing, without the source's when that explains nothing."""
        source, target = self._source.digest(), self._target.digest()
        if self.fingerprint is not None:
            target = self.fingerprint if target == source else target
            source = self.fingerprint
        return Leaf(self.user, None if unexplained else source, None if absent else target)


@dataclass(slots=True)
class Tally:
    """What comparing some items gave. Tallies add up, so batches of users can be compared anywhere."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, symbol)
    files: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    omitted: int = 0
    notices: list[str] = field(default_factory=list)
    omitted_notices: int = 0
    leaves: list[Leaf] = field(default_factory=list)
    claims: set[str] = field(default_factory=set)  # paths of the target that have been accounted for
    registry: list[tuple[str, bytes]] = field(default_factory=list)  # (document id, digest of its entry)

    def close(self, item: Item, *, absent: bool = False, unexplained: bool = False) -> None:
        """Counts a compared item by its worst finding."""
        symbols = {finding.symbol for finding in item.findings if finding.is_error}
        worst = next((s for s in _WORST_FIRST if s in symbols), Symbol.SAME)
        if symbols or not unexplained:
            self.counts[item.kind, worst.value] += 1
        for finding in item.findings:
            if not finding.is_error:
                self.counts[item.kind, finding.symbol.value] += 1
            self.report(finding)
        if not unexplained or item.failed:
            self.leaves.append(item.leaf(absent=absent, unexplained=unexplained))

    def report(self, finding: Finding) -> None:
        """Keeps a finding; beyond a thousand in one tally they are only counted."""
        if len(self.findings) < _KEPT_FINDINGS:
            self.findings.append(finding)
        else:
            self.omitted += 1

    @property
    def failed(self) -> bool:
        return self.omitted > 0 or any(finding.is_error for finding in self.findings)

    def add(self, other: Tally) -> None:
        """Takes over everything that *other* holds, in bounded space for findings."""
        self.counts.update(other.counts)
        self.files.update(other.files)
        self.lines.update(other.lines)
        for finding in other.findings:
            self.report(finding)
        self.omitted += other.omitted
        room = _KEPT_FINDINGS - len(self.notices)
        self.notices += other.notices[:room]
        self.omitted_notices += other.omitted_notices + len(other.notices[room:])
        self.leaves += other.leaves
        self.claims |= other.claims
        self.registry += other.registry


_WORST_FIRST = (Symbol.UNREAD, Symbol.MISSING, Symbol.DIFFERS, Symbol.EXTRA)


def root(nodes: Iterable[bytes | None]) -> bytes | None:
    """The node above *nodes*, whatever their order; None above nothing."""
    present = sorted(node for node in nodes if node is not None)
    return sha256(b"".join(present)).digest() if present else None
