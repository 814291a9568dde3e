"""Ids that one directory of the target cannot tell apart where names ignore case or Unicode's normal forms.

The target's path components are reversible, so two ids never get one path on a file system that keeps names as they
are. On one that folds them, in an object store's console, or to a reader, ids that differ in nothing else are one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from modules.core.layout import component

_SURELY_WHOLE = 66  # a name this short is within 200 bytes even when every byte is encoded as %XX


def fold(text: str) -> str:
    """The same for two ids that are equal but for case and normal form (Unicode's canonical caseless matching)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def folded_hash(text: str, within: str = "") -> int:
    """Eight bytes for an id as `fold` leaves it, among the ids *within* some scope."""
    digest: int = xxhash.xxh3_64_intdigest(f"{within}\0{fold(text)}".encode("utf-8", "surrogatepass"))
    return digest


def is_cut(name: str | bytes) -> bool:
    """Whether the target's component for *name* is cut, so that only the files inside tell the whole id."""
    size = len(name) if isinstance(name, bytes) else len(name.encode("utf-8", "surrogatepass"))
    return size > _SURELY_WHOLE and "~" in component(name)


@dataclass(slots=True)
class Lookalikes:
    """Finds ids that fold to the same, keeping eight bytes of each.

    Names are kept only of those in *wanted*: go through the ids once to learn `repeated`, and when there are any,
    again with these as *wanted* to learn `groups`.
    """

    wanted: frozenset[int] = frozenset()
    repeated: set[int] = field(default_factory=set)
    _seen: set[int] = field(default_factory=set)
    _names: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str, within: str = "") -> None:
        folded = folded_hash(name, within)
        if folded in self._seen:
            self.repeated.add(folded)
        else:
            self._seen.add(folded)
        if folded in self.wanted:
            self._names.setdefault(within, set()).add(name)

    def groups(self) -> list[tuple[str, ...]]:
        """The wanted ids that differ but fold to the same, in order."""
        return sorted(group for names in self._names.values() for group in groups_among(names))


def groups_among(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that differ but fold to the same, in order."""
    folded: dict[str, set[str]] = {}
    for name in names:
        folded.setdefault(fold(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in folded.values() if len(group) > 1)
