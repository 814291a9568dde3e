"""Every case of bad input by name, those built here and those kept as folders in tests/cases.

A test over all of them:

    @pytest.mark.parametrize("name", CASES)
    def test_...(name: str, tmp_path: Path) -> None:
        expected = CASES[name](tmp_path / "v2")
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from tests import hostile_files, hostile_leftovers, hostile_lines, hostile_names, hostile_vectors
from tests.hostile_case import Case, Expectation, Notice

__all__ = ["CASES", "FOLDERS", "Case", "Expectation", "Notice", "folder_cases"]

FOLDERS = Path(__file__).parent / "cases"

CASES: dict[str, Case] = {
    **hostile_lines.CASES,
    **hostile_files.CASES,
    **hostile_names.CASES,
    **hostile_leftovers.CASES,
    **hostile_vectors.CASES,
}

_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "sessions": lambda value: frozenset((user, session) for user, session in value),
    "archived": lambda value: frozenset((user, session, stamp) for user, session, stamp in value),
    "notices": lambda value: frozenset(Notice(path, about) for path, about in value),
    "ids": lambda value: {(user, session): tuple(ids) for user, session, ids in value},
    **{name: frozenset for name in ("profiles", "attic", "ignored", "links", "special")},
}


def folder_cases(folders: Path = FOLDERS) -> dict[str, Case]:
    """The cases kept as folders: ``<name>/tree`` is copied, ``<name>/expect.json`` says what must come of it.

    Raises ValueError when an expectation names what none has, before any case is built.
    """
    cases: dict[str, Case] = {}
    for path in sorted(folders.glob("*/expect.json")):
        cases[path.parent.name] = partial(_copy, tree=path.parent / "tree", expected=_read(path))
    return cases


def _read(path: Path) -> Expectation:
    given = json.loads(path.read_text(encoding="utf-8"))
    if unknown := given.keys() - {field.name for field in fields(Expectation)}:
        raise ValueError(f"{path}: no expectation is called {', '.join(sorted(unknown))}")
    return Expectation(**{name: _FROM_JSON.get(name, _as_is)(value) for name, value in given.items()})


def _as_is(value: Any) -> Any:
    return value


def _copy(to: Path, *, tree: Path, expected: Expectation) -> Expectation:
    shutil.copytree(tree, to, symlinks=True)
    return expected
