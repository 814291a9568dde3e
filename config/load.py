"""Reading the settings, once, at the edge.

Weakest first: the packaged directory, then the operator's (each: ``default.json``, ``modules.json``,
``modules/<name>.json``, ``environments/<environment>.json``), then run-time overrides, then environment variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from config.errors import ConfigurationError, NoSuchConfiguration, Problem
from config.fields import Key, dotted, expected_instead, field_at, names_below
from config.layers import (
    Leaf,
    Tree,
    environment_layer,
    lay_over,
    leaves_of,
    node_at,
    not_text,
    override_layer,
    tree_of,
    values_of,
)
from config.references import resolved
from config.settings import Settings

PACKAGED = Path(__file__).parent
DEFAULT_ENVIRONMENT = "development"
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and where each of them came from."""

    settings: Settings
    environment: str
    origins: Mapping[str, str]
    """Dotted key of every setting -> file, variable or argument that decided it."""

    def origin_of(self, key: str) -> str:
        """Where the setting at dotted *key* came from. Raises `KeyError` when there is no such setting."""
        return self.origins[key]


def load_settings(
    config_dir: str | os.PathLike[str] | None = None,
    *,
    environment: str | None = None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings; see `load_with_origins`."""
    return load_with_origins(config_dir, environment=environment, environ=environ, overrides=overrides).settings


def load_with_origins(
    config_dir: str | os.PathLike[str] | None = None,
    *,
    environment: str | None = None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> LoadedSettings:
    """The settings that files, overrides and *environ* make together.

    Without *config_dir* and *environment*, ``CHAT_CONFIG_DIR`` and ``CHAT_ENVIRONMENT`` of *environ* decide, else the
    packaged files alone and ``development``. Raises `NoSuchConfiguration` for a directory or environment that is not
    there, and `ConfigurationError` with every problem for values that cannot be used.
    """
    chosen_dir = config_dir or environ.get("CHAT_CONFIG_DIR") or None
    chosen_environment = environment or environ.get("CHAT_ENVIRONMENT") or DEFAULT_ENVIRONMENT
    directories = (PACKAGED,) if chosen_dir is None else (PACKAGED, Path(chosen_dir))
    tree: Tree = {}
    for layer in _file_layers(directories, chosen_environment):
        tree = lay_over(tree, layer)
    tree = lay_over(tree, override_layer(overrides or {}))
    tree = lay_over(tree, environment_layer(environ))
    tree = resolved(tree, environ)
    settings = _validated(tree)
    return LoadedSettings(settings, chosen_environment, {dotted(key): leaf.origin for key, leaf in leaves_of(tree)})


def settings_of(values: Mapping[str, Any], *, origin: str) -> Settings:
    """Settings of *values* over the built-in defaults; no files, no environment.

    Raises `ConfigurationError` whose problems name *origin*.
    """
    return _validated(tree_of(values, origin, literal=True))


def _file_layers(directories: tuple[Path, ...], environment: str) -> Iterator[Tree]:
    known = {name for directory in directories for name in _environments(directory)}
    if environment not in known:
        allowed = "one of " + ", ".join(sorted(known))
        raise NoSuchConfiguration([Problem("environment", "", repr(environment), allowed)])
    for directory in directories:
        found = bool(_environments(directory))
        for path, key in _files(directory, environment):
            values = _read(path)
            if values is not None:
                found = True
                yield _below(key, values, str(path))
        if not found:
            allowed = "a directory with default.json, modules.json, modules/<name>.json or environments/<name>.json"
            raise NoSuchConfiguration([Problem(str(directory), "", _what_is(directory), allowed)])


def _files(directory: Path, environment: str) -> Iterator[tuple[Path, Key]]:
    """Files of one directory, weakest first, each with the key that its content stands under."""
    yield directory / "default.json", ()
    yield directory / "modules.json", ()
    for path in sorted((directory / "modules").glob("*.json")):
        yield path, ("modules", path.stem)
    yield directory / "environments" / f"{environment}.json", ()


def _environments(directory: Path) -> set[str]:
    return {path.stem for path in (directory / "environments").glob("*.json")}


def _what_is(directory: Path) -> str:
    return "none of its files" if directory.is_dir() else "no directory"


def _below(key: Key, values: Mapping[str, Any], origin: str) -> Tree:
    if key and field_at(key) is None:
        allowed = "one of " + ", ".join(f"{name}.json" for name in names_below(("modules",)))
        raise ConfigurationError([Problem(origin, "", "no module of this name", allowed)])
    for name in reversed(key):
        values = {name: values}
    return tree_of(values, origin, literal=False)


def _read(path: Path) -> dict[str, Any] | None:
    """The object in *path*; None when there is no such file. ``$schema`` is for editors and left out."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _refuse(path, error.strerror or "an unreadable file", "a readable file", error)
    except UnicodeDecodeError as error:
        _refuse(path, f"a byte at offset {error.start} that is not UTF-8", "UTF-8", error)
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ConfigurationError([Problem(where, "", error.msg, "JSON")]) from error
    except (ValueError, RecursionError) as error:
        _refuse(path, str(error), "JSON with unique keys and finite numbers", error)
    if not isinstance(values, dict):
        raise ConfigurationError([Problem(str(path), "", _kind(values), "a JSON object")])
    values.pop("$schema", None)
    return values


def _refuse(path: Path, found: str, allowed: str, cause: Exception) -> NoReturn:
    raise ConfigurationError([Problem(str(path), "", found, allowed)]) from cause


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the key {twice[0]!r} twice in one object")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _validated(tree: Tree) -> Settings:
    problems = list(not_text(tree))
    if problems:
        raise ConfigurationError(problems)
    try:
        text = json.dumps(values_of(tree))
    except TypeError as error:
        raise ConfigurationError([Problem("run-time override", "", str(error), "values that JSON has")]) from error
    try:
        return Settings.model_validate_json(text, strict=True)
    except ValidationError as error:
        # None of pydantic's own text is passed on: it quotes the input, and the input may be a secret.
        found = error.errors(include_url=False, include_input=False, include_context=True)
    raise ConfigurationError([_problem(tree, item["type"], item["loc"], item["msg"]) for item in found])


def _problem(tree: Tree, kind: str, location: tuple[int | str, ...], message: str) -> Problem:
    key = _key_of(location)
    field = field_at(key)
    node = node_at(tree, key)
    origin = _origin(node)
    if field is None:
        return Problem(origin, dotted(key), "no such setting", expected_instead(key))
    if isinstance(node, Leaf):
        shown = _kind(node.value) if field.is_section else _shown(node.value, secret=field.is_secret)
        return Problem(origin, dotted(key), shown, field.allowed)
    if kind == "value_error":  # two settings of one section that do not go together
        return Problem(origin, dotted(key), "values that contradict each other", message.removeprefix("Value error, "))
    return Problem(origin, dotted(key), "an object", field.allowed)


def _key_of(location: tuple[int | str, ...]) -> Key:
    """The longest part of pydantic's location that names a setting, or one step beyond for an unknown one."""
    key: Key = ()
    for part in location:
        if not isinstance(part, str):
            break
        field = field_at(key)
        if field is not None and not field.is_section:
            break
        key = (*key, part)
    return key


def _origin(node: Tree | Leaf | None) -> str:
    if isinstance(node, Leaf):
        return node.origin
    origins = dict.fromkeys(leaf.origin for _, leaf in leaves_of(node or {}))
    own = [origin for origin in origins if not origin.startswith(str(PACKAGED))]
    return ", ".join(own or origins) or "settings"


def _shown(value: Any, *, secret: bool) -> str:
    if secret:
        return f"{_kind(value)} (not shown: secret)"
    text = json.dumps(value, ensure_ascii=False)
    if "://" in text and ("@" in text or "?" in text):
        return f"{_kind(value)} (not shown: may hold a secret)"
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
