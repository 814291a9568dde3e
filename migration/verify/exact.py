"""``legacy.exact``: what the way back needs beyond the fields, as far as it can be told from the source alone."""

from __future__ import annotations

from migration.verify.comparison import Form, Item
from migration.verify.jsontext import ObjectFile, object_values, string


def compare_exact_object(item: Item, name: str, file: ObjectFile, exact: dict[str, bytes]) -> None:
    """A file that was not UTF-8, or that had text around its object, must be said to be so."""
    notes = object_values(exact.get(name)) or {}
    for key, expected, usual in (
        ("encoding", file.encoding, "utf-8"),
        ("prefix", file.prefix.decode(), ""),
        ("suffix", file.suffix.decode(), ""),
    ):
        _compare(item, f"legacy.exact of {name}, {key}", expected, string(notes.get(key)) or usual, usual)


def compare_exact_lines(item: Item, name: str, data: bytes, exact: dict[str, bytes]) -> None:
    """Blank lines, a missing last newline, and how many lines there were."""
    notes = object_values(exact.get(name)) or {}
    where = f"legacy.exact of {name}, "
    open_end = bool(data) and not data.endswith(b"\n")
    _compare(item, where + "no_final_newline", open_end, notes.get("no_final_newline") == b"true", False)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    blank = {n: raw.decode("ascii") for n, raw in enumerate(lines, 1) if not raw.strip()}
    found = {number: string(text) for number, text in (object_values(notes.get("blank")) or {}).items()}
    _compare(item, where + "blank lines", len(blank), len(found), 0)
    for number, text in blank.items():
        item.same(where + f"blank line {number}", text, found.get(str(number)))
    if notes.get("lines", b"%d" % len(lines)) != b"%d" % len(lines):
        item.differs(where + "lines", len(lines), notes["lines"])


def _compare(item: Item, what: str, expected: Form, found: Form, usual: Form) -> None:
    """What is as usual is not written, and no part of the canonical form."""
    if expected != usual:
        item.same(what, expected, found)
    elif found != usual:
        item.differs(what, expected, found)
