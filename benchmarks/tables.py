"""Tables of figures: as Markdown for people, as JSON lines for programs, and in their place in a document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

Cell = str | int | float | None
"""None where a figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under headings. *name* is the same whatever was measured, for programs; *title* is for people.

    Raises `ValueError` when a row has not one cell for each heading.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"{self.name}: {len(self.headings)} headings, and a row of {len(row)}: {row}")

    def to_markdown(self) -> str:
        """The table under its title; everything but the first column is set to the right."""
        rule = [":---"] + ["---:"] * (len(self.headings) - 1)
        rows = [self.headings, tuple(rule), *(tuple(shown(cell) for cell in row) for row in self.rows)]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(row) + " |" for row in rows), ""])

    def to_json_lines(self) -> str:
        """One object a row, with figures unrounded: {"table": name, "title": title, heading: cell, ...}."""
        names: dict[str, Cell] = {"table": self.name, "title": self.title}
        rows = (names | dict(zip(self.headings, row, strict=True)) for row in self.rows)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def shown(cell: Cell) -> str:
    """A cell for people: three digits that count, thousands set apart."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 999.5 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell.replace("|", "\\|")


def as_markdown(tables: Iterable[Table]) -> str:
    return "\n".join(table.to_markdown() for table in tables)


def with_section(document: str, section: str, content: str) -> str:
    """The document with *content* between ``<!-- begin SECTION -->`` and ``<!-- end SECTION -->``.

    Raises `ValueError` when the document has not each of the two lines once, in this order.
    """
    begin, end = f"<!-- begin {section} -->\n", f"<!-- end {section} -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document must have {begin.strip()} and {end} once each, on lines of their own")
    head, rest = document.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{content}\n{end}{tail}"
