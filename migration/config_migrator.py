"""What a v2 configuration becomes here.

Each key of the source ends in exactly one of: mapped to a setting of ours, unmapped with a reason, or named as a
secret. The values are checked against our settings; one that they do not allow is left out, so that our default
stays, and a notice says so. Values of secrets and of text that was refused are copied nowhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import ConfigurationError, Problem, Settings, settings_of
from migration.v2.config_draft import Draft, InUse
from migration.v2.config_files import read_configuration
from migration.v2.config_rows import ConfigKind, Row, kind_of, rows_of
from migration.v2.config_secrets import looks_secret, without_secrets

_NOTICES: Mapping[ConfigKind, str] = {
    ConfigKind.SECTIONS: "variables CHATDB_* were stronger than this file: migrate the environment file as well",
    ConfigKind.FLAT: "where an environment was named, v1 used that environment's values in place of this whole file",
    ConfigKind.PRESET: "v2 ignored files of this kind and used its defaults: check that these values were in force",
    ConfigKind.BRIDGE: "of a template v2 used the storage path, a cache size and session limits; the rest were flags",
    ConfigKind.ENVIRONMENT: "v2 without a configuration file replaced the base path by its environment's own "
    "(./dev_data in development, the default), and wrote vectors there: see migration.extra_roots",
}
_KNOWN_KINDS = (
    "the sections of v2 (storage, search, ...), the flat keys of v1, a preset (flatfile_config, ...), "
    "a bridge template, or CHATDB_ variables"
)
_SEED_KEYS = (
    "modules.text_chat.enabled",
    "modules.text_chat.max_message_length",
    "modules.text_chat.session.max_sessions_per_user",
    "modules.memory.enabled",
    "modules.memory.short_term.ttl_seconds",
    "modules.memory.long_term.max_items_per_user",
    "modules.rag.enabled",
    "modules.rag.embedding.provider",
    "storage.backend",
    "storage.base_path",
)
"""Settings that `migrate_config` always gives, with our defaults where v2 said nothing."""


@dataclass(frozen=True)
class ConfigMigration:
    """One v2 configuration in our terms."""

    kind: ConfigKind
    name: str
    """Where it came from, for the report."""
    values: dict[str, Any]
    """What v2 said, in the shape of `config.Settings`, which it is checked against. No defaults, no secrets."""
    mapped: dict[str, str]
    """v2 key -> our key."""
    unmapped: dict[str, str]
    """v2 key -> why it has no place here."""
    secrets: tuple[str, ...]
    """v2 keys whose values were left where they are."""
    notices: tuple[str, ...]
    """What a person should know or do."""
    names: dict[str, str]
    """v2's names of files and directories, as far as the source gives them, for `V2Names.from_config`."""

    def to_json(self) -> str:
        """The report, as JSON text. Holds no secret."""
        report = {
            "kind": self.kind.value,
            "name": self.name,
            "values": self.values,
            "mapped": self.mapped,
            "unmapped": self.unmapped,
            "secrets": self.secrets,
            "notices": self.notices,
            "names": self.names,
        }
        return json.dumps(report, indent=2)  # ASCII: keys and names need not be valid text


def migrate_config(old_config: dict[str, Any]) -> dict[str, Any]:
    """Our settings for *old_config*, of any kind that v2 had: the guide's keys always, others where v2 set them.

    Keys that v2 did not set get our defaults. Raises `ConfigurationError` for what is no configuration of v2. What
    was not carried over is told by `migrate_config_data`.
    """
    migration = migrate_config_data(old_config, name="old_config")
    defaults = Settings().model_dump(mode="json")
    result: dict[str, Any] = {}
    for key in _SEED_KEYS:
        _put(result, key, _at(defaults, key))
    _put(result, "storage.base_path", "./data")  # as the guide writes our default
    for key, value in _leaves(migration.values):
        _put(result, key, value)
    return result


def migrate_config_file(path: str | os.PathLike[str]) -> ConfigMigration:
    """The configuration in the file at *path*: JSON of any kind, or ``KEY=value`` lines.

    Raises `ConfigurationError` naming the file, and the line where it can, for what cannot be read.
    """
    source = Path(path)
    return migrate_config_data(read_configuration(source), name=str(source))


def migrate_config_data(data: Mapping[str, Any], *, name: str) -> ConfigMigration:
    """The configuration *data*, which came from *name*.

    Raises `ConfigurationError` when it is of no kind that v2 had.
    """
    kind = kind_of(data) if isinstance(data, Mapping) and all(isinstance(key, str) for key in data) else None
    if kind is None:
        found = "none of the keys of a v2 configuration"
        raise ConfigurationError([Problem(name, "", found, _KNOWN_KINDS)])
    draft = Draft(notices=[_NOTICES[kind]])
    try:
        rows = list(_public_rows(kind, data, draft.secrets))
    except RecursionError:
        raise ConfigurationError(
            [Problem(name, "", "values nested too deep", "a configuration that v2 wrote")]
        ) from None
    in_use = InUse.of(rows)
    for row in rows:
        draft.add(row, in_use)
    values = _accepted(draft)
    if draft.secrets:
        draft.notices.append(
            "secrets are not carried over; the platform takes the keys of model servers from variables such as "
            "CHAT_MODULES__RAG__EMBEDDING__API_KEY"
        )
    return ConfigMigration(
        kind=kind,
        name=name,
        values=values,
        mapped=dict(draft.mapped),
        unmapped=draft.unmapped,
        secrets=tuple(draft.secrets),
        notices=tuple(draft.notices),
        names=draft.names,
    )


def _public_rows(kind: ConfigKind, data: Mapping[str, Any], secrets: list[str]) -> Iterator[Row]:
    """The rows without secrets; those are named in *secrets*. Looks again into values that came as JSON text."""
    for row in rows_of(kind, data):
        if any(looks_secret(part, row.value) for part in row.key.split(".")):
            secrets.append(row.key)
        else:
            yield Row(row.key, row.fate, without_secrets(row.key, row.value, secrets))


def _accepted(draft: Draft) -> dict[str, Any]:
    """The values that our settings allow, nested; the others leave the draft with a notice."""
    while True:
        nested: dict[str, Any] = {}
        for key, value in draft.values.items():
            _put(nested, key, value)
        try:
            settings_of(nested, origin="v2 configuration")
        except ConfigurationError as error:
            # A contradiction between settings is told only once their single values are right.
            for problem in error.problems:
                draft.refuse(problem)
            continue
        return nested


def _put(nested: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        nested = nested.setdefault(section, {})
    nested[last] = value


def _at(nested: Mapping[str, Any], key: str) -> Any:
    value: Any = nested
    for name in key.split("."):
        value = value[name]
    return value


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
