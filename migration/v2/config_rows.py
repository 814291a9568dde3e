"""Takes a v2 configuration apart: what kind it is, and its keys one by one, each with what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from migration.v2.config_keys import KEYS, SECTIONS, Fate, Kind, Nowhere
from migration.v2.config_kinds import (
    BRIDGE_EXPORT_KEYS,
    BRIDGE_KEYS,
    PRESET_FLAT_KEYS,
    PRESET_SECTIONS,
    TEMPLATE_KEYS,
    V1_KEYS,
    VARIABLES,
    FateOrKey,
)

UNKNOWN = Nowhere("unknown key: v2 dropped it without a word")
NOT_AN_OBJECT = Nowhere("unknown key: not an object, where v2 has a section")
_UNREAD_VARIABLE = Nowhere("dead in v2: no code read this variable")
_NO_VARIABLE = Nowhere("unknown key: no variable of v2")
_PRESET_SECTIONS = frozenset(
    {"flatfile_config", "document_processing", "engine_selection", "handler_strategies", "integration_settings"}
)
_TRUE = frozenset({"true", "1", "yes", "on"})


class ConfigKind(Enum):
    """Kinds of configuration that v2 and its companions left."""

    SECTIONS = "v2 sections"
    FLAT = "v1 flat keys"
    PRESET = "preset"
    BRIDGE = "bridge template"
    ENVIRONMENT = "environment variables"


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the source."""

    key: str
    fate: Fate
    value: Any


def kind_of(data: Mapping[str, Any]) -> ConfigKind | None:
    """The kind of a configuration; None for what is none. Empty is what v2 read as all defaults."""
    keys = set(data)
    if keys & _PRESET_SECTIONS:
        return ConfigKind.PRESET
    if keys & set(SECTIONS) or not keys:
        return ConfigKind.SECTIONS
    if "configuration" in keys or "storage_path" in keys or keys & {"features", "chat_settings"}:
        return ConfigKind.BRIDGE
    if all(key.isupper() for key in keys):
        return ConfigKind.ENVIRONMENT
    if keys & set(V1_KEYS):
        return ConfigKind.FLAT
    return None


def rows_of(kind: ConfigKind, data: Mapping[str, Any]) -> Iterator[Row]:
    """Every key of *data*, the ones that decide first."""
    match kind:
        case ConfigKind.SECTIONS:
            return _section_rows(data)
        case ConfigKind.FLAT:
            return _table_rows("", data, V1_KEYS)
        case ConfigKind.PRESET:
            return _preset_rows(data)
        case ConfigKind.BRIDGE:
            return _bridge_rows(data)
        case ConfigKind.ENVIRONMENT:
            return _variable_rows(data)


def _section_rows(data: Mapping[str, Any]) -> Iterator[Row]:
    for section in SECTIONS:
        if section not in data:
            continue
        if not isinstance(data[section], Mapping):
            yield Row(section, NOT_AN_OBJECT, data[section])
            continue
        rows = {key: fate for key, (_, fate) in KEYS.items() if key.startswith(f"{section}.")}
        members = {f"{section}.{name}": value for name, value in data[section].items()}
        yield from _table_rows("", members, rows)
    for name, value in data.items():
        if name not in SECTIONS:
            yield Row(name, UNKNOWN, value)


def _table_rows(prefix: str, data: Mapping[str, Any], table: Mapping[str, FateOrKey]) -> Iterator[Row]:
    """Rows in the order of *table*, so that of several keys for one setting always the same decides."""
    for name, fate in table.items():
        if name in data:
            yield Row(prefix + name, _fate(fate), data[name])
    for name, value in data.items():
        if name not in table:
            yield Row(f"{prefix}{name}", UNKNOWN, value)


def _preset_rows(data: Mapping[str, Any]) -> Iterator[Row]:
    flat = data.get("flatfile_config", {})
    if isinstance(flat, Mapping):
        yield from _table_rows("flatfile_config.", flat, PRESET_FLAT_KEYS)
    else:
        yield Row("flatfile_config", NOT_AN_OBJECT, flat)
    rest = {name: value for name, value in data.items() if name != "flatfile_config"}
    yield from _prefix_rows("", rest, PRESET_SECTIONS)


def _bridge_rows(data: Mapping[str, Any]) -> Iterator[Row]:
    inner = data.get("configuration", {})
    for prefix, fields in (("configuration.", inner), ("", data)):
        if not isinstance(fields, Mapping):
            yield Row("configuration", NOT_AN_OBJECT, fields)
            continue
        members = {name: value for name, value in fields.items() if prefix or name != "configuration"}
        yield from _prefix_rows(prefix, members, {**BRIDGE_KEYS, **BRIDGE_EXPORT_KEYS, **TEMPLATE_KEYS})


def _prefix_rows(prefix: str, data: Mapping[str, Any], table: Mapping[str, FateOrKey]) -> Iterator[Row]:
    """Rows of nested *data*; an entry of *table* stands for all keys below it that no longer entry names."""
    for name, value in data.items():
        yield from _below(prefix, name, value, table)


def _below(prefix: str, key: str, value: Any, table: Mapping[str, FateOrKey]) -> Iterator[Row]:
    fate = table.get(key)
    is_whole = fate is not None and not isinstance(fate, Nowhere)
    if isinstance(value, Mapping) and value and not is_whole:
        for name, member in value.items():
            yield from _below(prefix, f"{key}.{name}", member, table)
        return
    parent = key
    while fate is None and "." in parent:
        parent = parent.rpartition(".")[0]
        inherited = table.get(parent)
        fate = inherited if isinstance(inherited, Nowhere) else None
    yield Row(prefix + key, _fate(fate) if fate is not None else UNKNOWN, value)


def _variable_rows(variables: Mapping[str, Any]) -> Iterator[Row]:
    """As v2 read its environment: the general variables are stronger than those of single fields."""
    for name, fate in VARIABLES.items():
        if name in variables:
            yield _typed(name, fate, variables[name])
    for name, text in variables.items():
        if name not in VARIABLES:
            yield _typed(name, _variable_fate(name), text)


def _variable_fate(name: str) -> FateOrKey:
    if name.startswith("CHATDB_"):
        field = name.removeprefix("CHATDB_").lower()
        section, _, key = field.partition("_")
        if f"{section}.{key}" in KEYS:
            return f"{section}.{key}"
        return V1_KEYS.get(field, _NO_VARIABLE)
    return _UNREAD_VARIABLE if name.startswith(("FF_", "FLATFILE_PM_")) else _NO_VARIABLE


def _typed(name: str, fate: FateOrKey, text: Any) -> Row:
    kind = KEYS[fate][0] if isinstance(fate, str) else Kind.TEXT
    return Row(name, _fate(fate), _parsed(kind, text) if isinstance(text, str) else text)


def _parsed(kind: Kind, text: str) -> Any:
    """As v2 did; the text itself where it stands for no value of *kind*, which is refused later."""
    try:
        match kind:
            case Kind.INTEGER:
                return int(text)
            case Kind.NUMBER:
                return float(text)
            case Kind.SWITCH:
                return text.lower() in _TRUE
            case Kind.LIST if not text.startswith("["):
                return [item.strip() for item in text.split(",") if item.strip()]
            case Kind.LIST | Kind.OBJECT:
                return json.loads(text)
            case Kind.TEXT:
                return text
    except ValueError:
        return text


def _fate(fate: FateOrKey) -> Fate:
    return KEYS[fate][1] if isinstance(fate, str) else fate
