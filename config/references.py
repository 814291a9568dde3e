"""``${VAR}`` and ``${VAR:-default}`` inside the strings of configuration files. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.errors import ConfigurationError, Problem
from config.fields import Key, dotted, field_at
from config.layers import Leaf, Tree

_REFERENCE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\{))"
)


def resolved(tree: Tree, environ: Mapping[str, str]) -> Tree:
    """*tree* with the references of its strings replaced, save in literal leaves.

    A string that is one reference becomes a value of its setting's type. ``$$`` stands for ``$``. As in a shell, an
    empty variable takes the default. Raises `ConfigurationError` naming every variable that is needed and not set.
    """
    problems: list[Problem] = []
    result = _walk(tree, (), environ, problems)
    if problems:
        raise ConfigurationError(problems)
    return result


def _walk(tree: Tree, key: Key, environ: Mapping[str, str], problems: list[Problem]) -> Tree:
    replaced: Tree = {}
    for name, node in tree.items():
        if isinstance(node, Leaf):
            replaced[name] = node if node.literal else _leaf(node, (*key, name), environ, problems)
        else:
            replaced[name] = _walk(node, (*key, name), environ, problems)
    return replaced


def _leaf(leaf: Leaf, key: Key, environ: Mapping[str, str], problems: list[Problem]) -> Leaf:
    used: dict[str, None] = {}

    def text_of(written: str) -> str:
        text = _text(written, environ)
        used.update(dict.fromkeys(text.variables))
        problems.extend(Problem(leaf.origin, dotted(key), *broken) for broken in text.broken)
        return text.content

    value = leaf.value
    if isinstance(value, list):
        value = [text_of(item) if isinstance(item, str) else item for item in value]
    elif isinstance(value, str):
        value = text_of(value)
        field = field_at(key)
        if _is_one_reference(leaf.value) and field is not None and not field.is_section:
            value = field.parse(value)
    if not used:
        return replace(leaf, value=value)
    variables = ", ".join(f"${{{name}}}" for name in used)
    return replace(leaf, value=value, origin=f"{leaf.origin} with {variables}")


def _is_one_reference(written: str) -> bool:
    match = _REFERENCE.fullmatch(written)
    return match is not None and match["name"] is not None


@dataclass(frozen=True, slots=True)
class _Text:
    content: str
    variables: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    """Pairs of what was found and what is allowed."""


def _text(written: str, environ: Mapping[str, str]) -> _Text:
    variables: list[str] = []
    broken: list[tuple[str, str]] = []

    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["broken"]:
            broken.append(("a broken reference", "${NAME} or ${NAME:-default}, and $$ for $"))
            return ""
        name, default = match["name"], match["default"]
        variables.append(name)
        if default is not None:
            return environ.get(name) or str(default)
        if name not in environ:
            broken.append((f"${{{name}}}, which is not set", f"{name} set, or ${{{name}:-default}}"))
        return environ.get(name, "")

    content = _REFERENCE.sub(replacement, written)
    return _Text(content, tuple(variables), tuple(broken))
