"""What the settings allow at each key, read from the JSON Schema of the models.

One source answers four questions: whether a key exists, whether it is a secret, what may stand there (for errors),
and how text (of an environment variable or a reference) becomes a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

from config.settings import Settings

Key = tuple[str, ...]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"),
)
_KINDS = {"integer": "an integer", "number": "a number", "boolean": "true or false", "null": "null"}
_FORMATS = {
    "path": "a path",
    "ip-network": "an IP address or network, such as 10.0.0.0/8",
    "uri": "an http or https address without user, query or fragment",
    "origin": "an origin, such as https://chat.example.org",
    "time-zone": "a name of the IANA time zone database, such as Europe/Berlin",
}


@dataclass(frozen=True)
class Field:
    """One key of the settings."""

    key: Key
    alternatives: tuple[Mapping[str, Any], ...]
    """Schemas of what may stand here; more than one when the key may be null."""

    @property
    def is_section(self) -> bool:
        return any(node.get("type") == "object" for node in self.alternatives)

    @property
    def is_secret(self) -> bool:
        return any(node.get("writeOnly") is True for node in self.alternatives)

    @property
    def is_optional(self) -> bool:
        return any(node.get("type") == "null" for node in self.alternatives)

    @property
    def allowed(self) -> str:
        """What may stand here, for a person."""
        if self.is_section:
            return "an object with the keys " + ", ".join(names_below(self.key))
        return " or ".join(_describe(node) for node in self.alternatives)

    def parse(self, text: str) -> Any:
        """The value that *text* stands for; *text* itself where it stands for none, which validation then rejects.

        Empty text is null where null is allowed. Lists are JSON, or separated by commas.
        """
        if text == "" and self.is_optional:
            return None
        if self.is_section:
            return _json_or_text(text)
        kinds = {cast(str, node.get("type")) for node in self.alternatives}
        if "boolean" in kinds:
            word = text.strip().lower()
            return True if word in _TRUE else False if word in _FALSE else text
        if "array" in kinds:
            if text.lstrip().startswith("["):
                return _json_or_text(text)
            return [item.strip() for item in text.split(",") if item.strip()]
        if kinds & {"integer", "number"}:
            return _number_or_text(text)
        return text


def field_at(key: Key) -> Field | None:
    """The setting at *key*; None when there is none."""
    nodes = _alternatives(_schema())
    for name in key:
        nodes = tuple(
            child
            for node in nodes
            if name in node.get("properties", {})
            for child in _alternatives(node["properties"][name])
        )
        if not nodes:
            return None
    return Field(key, nodes)


def names_below(key: Key) -> tuple[str, ...]:
    """Names of the settings directly below *key*, in their order; empty where there are none."""
    field = field_at(key)
    return tuple(name for node in field.alternatives for name in node.get("properties", {})) if field else ()


def leaves(key: Key = ()) -> Iterator[Field]:
    """Every setting below *key* that holds a value."""
    for name in names_below(key):
        field = field_at((*key, name))
        if field is not None and field.is_section:
            yield from leaves(field.key)
        elif field is not None:
            yield field


def expected_instead(key: Key) -> str:
    """What to write instead of the unknown *key*, for a person."""
    known = key[:-1]
    while field_at(known) is None:
        known = known[:-1]
    siblings = names_below(known)
    if not siblings:
        return f"nothing below {dotted(known)}"
    close = get_close_matches(key[len(known)], siblings, n=1)
    did_you_mean = f" (did you mean {close[0]}?)" if close else ""
    return f"the keys {', '.join(siblings)}{did_you_mean}"


def dotted(key: Key) -> str:
    return ".".join(key)


@cache
def _schema() -> Mapping[str, Any]:
    return Settings.model_json_schema()


def _alternatives(node: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    if "$ref" in node:
        return (_schema()["$defs"][node["$ref"].rpartition("/")[2]],)
    return tuple(node.get("anyOf", (node,)))


def _describe(node: Mapping[str, Any]) -> str:
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(json.dumps(value) for value in node["enum"])
    kind = node.get("type", "a value")
    if kind == "array":
        return f"a list, each {_describe(node['items'])}"
    if kind == "string":
        plain = "a non-empty string" if node.get("minLength") else "a string"
        return _FORMATS.get(node.get("format", ""), plain)
    bounds = " and ".join(words.format(node[name]) for name, words in _BOUNDS if name in node)
    return f"{_KINDS.get(kind, kind)} {bounds}".rstrip()


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
