"""Which bytes a path of v2 had, when the migrated tree shows it as text.

A byte of a name that was not UTF-8 is shown as ``%XX``, and so is that text itself. Path components of the migrated
tree encode the bytes, so they tell the two apart; for directories that are nowhere a component, the ledger does. Only
where neither knows is the byte taken for what was shown: v2 itself never wrote ``%`` into a name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from migration.embed import display_name
from migration.ledger import Entry, entries
from modules.core.layout import component

_MAX_NAME = 255
_MAX_PATH = 4000
_MAX_DOUBTS = 8
_RAW_BYTE = re.compile(r"(%[89A-F][0-9A-F])")
_ENCODED_BYTE = re.compile(rb"%([0-9A-F]{2})")
_CUT = re.compile(r".{160}~[0-9a-f]{32}")
_NEVER_CUT = 16  # a character takes at most twelve of the 200 bytes of a component
_NAMING_SPANS = frozenset({"user", "panel", "vectors"})


class BadPathError(ValueError):
    """A path in the migrated tree that cannot be one of v2."""


def checked(path: bytes) -> bytes:
    """*path* itself: relative, of names that a file system takes, without ``..``. Raises `BadPathError`."""
    for name in path.split(b"/"):
        if name in {b"", b".", b".."} or b"\0" in name or len(name) > _MAX_NAME:
            raise BadPathError(f"{display_name(path)[:200]!r} is no path inside a v2 store")
    if len(path) > _MAX_PATH:
        raise BadPathError(f"a path of {len(path)} bytes is longer than a file system takes")
    return path


def encoded(text: str) -> bytes:
    """*text* as the bytes of a path. Raises `BadPathError` when UTF-8 cannot hold it."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadPathError(f"{text[:200]!r} is no path: {error.reason}") from error


def is_cut(component_: str) -> bool:
    """Whether a path component was too long and carries only a digest of its end."""
    return _CUT.fullmatch(component_) is not None


def bytes_of(component_: str) -> bytes:
    """The bytes that a component which was not cut stands for."""
    if component_ == "%":
        return b""
    return _ENCODED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), component_.encode())


def is_doubtful(shown: str) -> bool:
    """Whether *shown* can stand for a name that was not UTF-8."""
    return "%" in shown and any(raw != encoded(shown) for raw in readings(shown))


def readings(shown: str) -> Iterator[bytes]:
    """Names that are shown as *shown*: as it stands, then with all its doubtful bytes raw, then (up to 8) with some."""
    pieces = _RAW_BYTE.split(shown)
    doubts = len(pieces) // 2
    texts = [encoded(piece) for piece in pieces]
    raws = [bytes.fromhex(piece[1:]) for piece in pieces[1::2]]
    choices: Iterator[tuple[bool, ...]] | Sequence[tuple[bool, ...]] = ((False,) * doubts, (True,) * doubts)
    if 1 < doubts <= _MAX_DOUBTS:
        choices = (*choices, *(c for c in product((False, True), repeat=doubts) if 0 < sum(c) < doubts))
    for chosen in choices:
        middle = [raw if is_raw else text for raw, text, is_raw in zip(raws, texts[1::2], chosen, strict=True)]
        name = texts[0] + b"".join(a + b for a, b in zip(middle, texts[2::2], strict=True))
        if display_name(name) == shown:
            yield name
        if not doubts:
            return


def likeliest(shown: str) -> bytes:
    """The reading to assume where nothing is known: every doubtful byte raw, where that can be."""
    name = b"".join(
        bytes.fromhex(piece[1:]) if position % 2 else encoded(piece)
        for position, piece in enumerate(_RAW_BYTE.split(shown))
    )
    return name if display_name(name) == shown else encoded(shown)


def name_by(shown: str, component_: str) -> bytes | None:
    """The name that is shown as *shown* and encoded as *component_*; None when there is none."""
    if not is_cut(component_):
        name = bytes_of(component_)
        return name if display_name(name) == shown else None
    return next((name for name in readings(shown) if component(name) == component_), None)


@dataclass(slots=True)
class LedgerNames:
    """What the ledger knows of names: those that are doubtful when shown, and those that are cut in the tree."""

    doubtful: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    cut: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, ledger: str) -> LedgerNames:
        """Raises `LedgerError` and `OSError`."""
        names = cls()
        for entry in entries(ledger):
            names._take(entry)
        return names

    def _take(self, entry: Entry) -> None:
        if entry.span.kind in _NAMING_SPANS:
            for name in entry.span.name.split(b"/"):
                shown = display_name(name)
                if is_doubtful(shown):
                    self.doubtful[shown].add(name)
        for unit in entry.units:
            for path, *_ in unit.files:
                self._take_long(path.rpartition("/")[2])
                self._take_long(path.partition("/")[2].removesuffix(".json"))

    def _take_long(self, shown: str) -> None:
        if len(shown) <= _NEVER_CUT:
            return
        for name in readings(shown):
            if is_cut(stored := component(name)):
                self.cut[stored] = name


def raw_path(
    shown: str, known: Mapping[int, bytes], doubtful: Mapping[str, set[bytes]] | None
) -> tuple[bytes, list[str]]:
    """The path shown as *shown*, and the names in it that had to be guessed.

    *known*: names by their position, counted from the end as in ``path[-1]``; *doubtful*: what the ledger knows, None
    as long as it was not asked (then a doubtful name is guessed). Raises `BadPathError`.
    """
    parts = shown.split("/")
    names: list[bytes] = []
    guessed: list[str] = []
    for position, part in enumerate(parts, -len(parts)):
        found = known.get(position)
        if found is None and is_doubtful(part):
            recorded = (doubtful or {}).get(part, set())
            if len(recorded) == 1:
                (found,) = recorded
            else:
                found = likeliest(part)
                guessed.append(part)
        names.append(encoded(part) if found is None else found)
    return checked(b"/".join(names)), guessed
