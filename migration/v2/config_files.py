"""Reading a configuration file of v2: JSON, or the ``KEY=value`` lines of an environment file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from config import ConfigurationError, Problem

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")


def read_configuration(path: Path) -> dict[str, Any]:
    """The object, or the variables, in *path*. Raises `ConfigurationError` naming the file, and the line if it can."""
    if path.suffix.lower() in {".yaml", ".yml"}:
        raise _error(str(path), "YAML", "JSON or KEY=value lines; v2 read no settings from YAML")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _error(str(path), error.strerror or "an unreadable file", "a readable file") from error
    except UnicodeDecodeError as error:
        raise _error(str(path), f"a byte at offset {error.start} that is not UTF-8", "UTF-8") from None
    if _is_environment_file(path, text):
        return _variables(str(path), text)
    return _object(str(path), text)


def _is_environment_file(path: Path, text: str) -> bool:
    if path.suffix.lower() == ".json":
        return False
    named = path.name.startswith(".env") or path.suffix.lower() == ".env"
    return named or (not text.lstrip().startswith(("{", "[")) and "=" in text)


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        # Not chained: the decoder's error carries the whole document, secrets included.
        raise _error(f"{name}, line {error.lineno}, column {error.colno}", error.msg, "JSON") from None
    except (ValueError, RecursionError) as error:
        raise _error(name, type(error).__name__, "JSON of ordinary depth and numbers") from None
    if not isinstance(values, dict):
        raise _error(name, f"a JSON {type(values).__name__}", "a JSON object")
    return values


def _variables(name: str, text: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise _error(f"{name}, line {number}", "no KEY=value", "KEY=value, a comment or a blank line")
        variables[match["name"]] = _unquoted(match["value"])
    return variables


def _unquoted(value: str) -> str:
    """As Docker and shells read simple values: quotes off, else a comment after a blank off."""
    quoted = re.match(r"""(?P<quote>['"])(?P<text>.*?)(?P=quote)\s*(?:#.*)?$""", value)
    if quoted:
        return quoted["text"]
    return re.split(r"\s#", value, maxsplit=1)[0].strip()


def _error(origin: str, found: str, allowed: str) -> ConfigurationError:
    return ConfigurationError([Problem(origin, "", found, allowed)])
