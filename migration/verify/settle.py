"""A second look before a mismatch is reported: the source may have been written to while it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migration.verify.comparison import Finding, Symbol, Tally
from migration.verify.names import shown
from migration.verify.sides import Sides
from migration.verify.tree import Tree, join

_LOOKS = 4
Fingerprint = tuple[tuple[str, int, int], ...]


def settled(
    sides: Sides, kind: str, paths: Sequence[str], compare: Callable[[Tally], None], tree: Tree | None = None
) -> Tally:
    """What *compare* finds of the source's *paths* while they stand still.

    A clean result is taken at once. Otherwise it compares again, until the size and time of every file were the
    same before and after. What cannot be read becomes a finding.
    """
    tally = _once(kind, paths, compare)
    if not tally.failed:
        return tally
    for _ in range(_LOOKS):
        before = _fingerprint(tree or sides.source, paths)
        tally = _once(kind, paths, compare)
        if not tally.failed or before == _fingerprint(tree or sides.source, paths):
            return tally
    tally.notices.append(f"{shown(paths[0])} was written to again and again while it was compared")
    return tally


def _once(kind: str, paths: Sequence[str], compare: Callable[[Tally], None]) -> Tally:
    tally = Tally()
    try:
        compare(tally)
    except OSError as error:
        unread(tally, kind, paths[0], error)
    return tally


def unread(tally: Tally, kind: str, path: str, error: OSError) -> None:
    """Reports what could not be read: an error is never taken for an absence."""
    tally.counts[kind, Symbol.UNREAD.value] += 1
    what = f"cannot be read: {error.strerror}"
    tally.report(Finding(Symbol.UNREAD, kind, shown(path), what, found=shown(str(error.filename or ""))))


def _fingerprint(tree: Tree, paths: Sequence[str]) -> Fingerprint:
    found: list[tuple[str, int, int]] = []
    pending = list(paths)
    while pending:
        path = pending.pop()
        try:
            listing = tree.list_or_none(path)
            status = tree.stat_or_none(path) if listing is None else None
        except OSError as error:
            found.append((path, -1, error.errno or 0))
            continue
        if listing is not None:
            pending += [join(path, name) for name in (*listing.files, *listing.dirs)]
        elif status is not None:
            found.append((path, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
