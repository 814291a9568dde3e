"""Texts from templates: those of this package, or an operator's of the same name.

A name that a template asks for and nobody gives is an error. ``*.html`` escapes what it is given; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError

HOME = Path(__file__).with_name("templates")


class TemplateBroken(ValueError):
    """A template cannot be used; says which, and why."""


def page(name: str, values: Mapping[str, Any], directory: Path | None = None) -> str:
    """The template *name*, from *directory* where that has it, filled with *values*. Raises `TemplateBroken`."""
    environment = _environment(directory, name.endswith(".html"))
    try:
        return environment.get_template(name).render(values)
    except (TemplateError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise TemplateBroken(f"template {name}: {error}") from error


@cache
def _environment(directory: Path | None, escapes: bool) -> Environment:
    homes = [HOME] if directory is None else [directory, HOME]
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(home) for home in homes]),
        autoescape=escapes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["seconds"] = lambda value: f"{value:.2f} s"
    return environment
