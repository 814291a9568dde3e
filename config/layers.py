"""Layers of settings laid over each other, each value with the place it came from. No I/O.

A tree is a dict of dicts that ends in `Leaf`s. Lists are values: a stronger layer replaces the whole list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import SecretStr

from config.errors import ConfigurationError, Problem
from config.fields import Key, dotted, expected_instead, field_at

ENVIRONMENT_PREFIX = "CHAT_"
SELECTORS = frozenset({"CHAT_ENVIRONMENT", "CHAT_CONFIG_DIR"})
"""Variables that say what to read, and are no settings."""

_DEEPEST = 32
"""Levels of nesting; no setting lies deeper than six."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value and where it came from."""

    value: Any
    origin: str
    literal: bool = False
    """Whether ``${...}`` in it is plain text: so outside files, where values come already made."""


Tree: TypeAlias = "dict[str, Tree | Leaf]"


def tree_of(values: Mapping[str, Any], origin: str, *, literal: bool) -> Tree:
    """The layer that *values* make. An empty object sets nothing.

    Raises `ConfigurationError` for values nested so deep that they can be no settings.
    """
    return _tree(values, origin, literal, _DEEPEST)


def _tree(values: Mapping[str, Any], origin: str, literal: bool, levels: int) -> Tree:
    if levels == 0:
        raise _too_deep(origin)
    return {
        str(name): _tree(value, origin, literal, levels - 1)
        if isinstance(value, Mapping)
        else Leaf(_plain(value, origin, levels - 1), origin, literal)
        for name, value in values.items()
    }


def lay_over(below: Tree, above: Tree) -> Tree:
    """*below* with what *above* sets."""
    merged = dict(below)
    for name, node in above.items():
        under = merged.get(name)
        merged[name] = lay_over(under, node) if isinstance(under, dict) and isinstance(node, dict) else node
    return merged


def leaves_of(tree: Tree, key: Key = ()) -> Iterator[tuple[Key, Leaf]]:
    for name, node in tree.items():
        if isinstance(node, Leaf):
            yield (*key, name), node
        else:
            yield from leaves_of(node, (*key, name))


def values_of(tree: Tree) -> dict[str, Any]:
    return {name: node.value if isinstance(node, Leaf) else values_of(node) for name, node in tree.items()}


def node_at(tree: Tree, key: Key) -> Tree | Leaf | None:
    """What stands at *key*, or the value that stands in its way."""
    node: Tree | Leaf | None = tree
    for name in key:
        if not isinstance(node, dict):
            return node
        node = node.get(name)
    return node


def environment_layer(environ: Mapping[str, str]) -> Tree:
    """The layer of the ``CHAT_`` variables: ``CHAT_HTTP__PORT`` sets ``http.port``.

    Raises `ConfigurationError` for a variable that names no setting: a misspelt one must not go unnoticed.
    """
    layer: Tree = {}
    problems: list[Problem] = []
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in SELECTORS:
            continue
        key = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        origin = f"environment variable {variable}"
        field = field_at(key)
        if field is None:
            problems.append(Problem(origin, dotted(key), "no such setting", expected_instead(key)))
            continue
        value = field.parse(environ[variable])
        layer = lay_over(layer, _nested(key, value, origin))
    if problems:
        raise ConfigurationError(problems)
    return layer


def override_layer(overrides: Mapping[str, Any], origin: str = "run-time override") -> Tree:
    """The layer of run-time overrides: nested, or with dotted keys, or both."""
    layer: Tree = {}
    for name, value in overrides.items():
        layer = lay_over(layer, _nested(tuple(name.split(".")), value, origin))
    return layer


def _nested(key: Key, value: Any, origin: str) -> Tree:
    for name in reversed(key):
        value = {name: value}
    return tree_of(value, origin, literal=True)


def not_text(tree: Tree) -> Iterable[Problem]:
    """Problems of strings that are no Unicode text (half characters, bytes of another encoding)."""
    for key, leaf in leaves_of(tree):
        for item in leaf.value if isinstance(leaf.value, list) else (leaf.value,):
            if isinstance(item, str) and any("\ud800" <= char <= "\udfff" for char in item):
                yield Problem(leaf.origin, dotted(key), "a string that is no valid Unicode text", "Unicode text")


def _plain(value: Any, origin: str, levels: int) -> Any:
    """Values of Python callers as JSON has them."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple | list):
        if levels == 0:
            raise _too_deep(origin)
        return [_plain(item, origin, levels - 1) for item in value]
    return value


def _too_deep(origin: str) -> ConfigurationError:
    return ConfigurationError([Problem(origin, "", "values nested too deep", f"at most {_DEEPEST} levels")])
