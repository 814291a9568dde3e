"""A configuration's migration while its rows are added one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config import Problem
from migration.v2.config_keys import (
    KEYS,
    READ_WITH_NAME,
    CannotConvert,
    Converted,
    Fate,
    Name,
    Nowhere,
    Special,
    To,
)
from migration.v2.config_rows import Row

_PROVIDER = KEYS["vector.default_embedding_provider"][1]
_STRATEGY = KEYS["vector.default_chunking_strategy"][1]


def _server_of(value: Any) -> Converted:
    """v2 named the address of the call, the platform that of the server."""
    return Converted(value.rstrip("/").removesuffix("/embeddings") if isinstance(value, str) else value)


_PROVIDER_MEMBERS: Mapping[str, To] = {
    "model_name": To("modules.rag.embedding.model"),
    "embedding_dimension": To("modules.rag.embedding.dimension"),
    "vector_dimension": To("modules.rag.embedding.dimension"),
    "api_url": To("modules.rag.embedding.base_url", _server_of),
    "batch_size": To("modules.rag.embedding.batch_size"),
}
_STRATEGY_MEMBERS: Mapping[str, To] = {
    "chunk_size": To("modules.rag.chunking.chunk_size"),
    "target_chunk_size": To("modules.rag.chunking.chunk_size"),
    "max_chunk_size": To("modules.rag.chunking.chunk_size"),
    "chunk_overlap": To("modules.rag.chunking.chunk_overlap"),
}


@dataclass(frozen=True, slots=True)
class InUse:
    """Which of the several providers and strategies of a source v2 used; v2's defaults where it does not say."""

    provider: str = "nomic-ai"
    strategy: str = "optimized_summary"

    @classmethod
    def of(cls, rows: Iterable[Row]) -> InUse:
        chosen: dict[Fate, str] = {}
        for row in rows:
            if row.fate in (_PROVIDER, _STRATEGY) and isinstance(row.value, str):
                chosen.setdefault(row.fate, row.value)
        return cls(chosen.get(_PROVIDER, cls().provider), chosen.get(_STRATEGY, cls().strategy))


@dataclass
class Draft:
    """Where the rows have gone so far. Every row ends in `mapped` or in `unmapped`."""

    notices: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    """Our dotted key -> value."""
    decided_by: dict[str, str] = field(default_factory=dict)
    """Our dotted key -> the v2 key whose value it has."""
    mapped: dict[str, str] = field(default_factory=dict)
    unmapped: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def add(self, row: Row, in_use: InUse) -> None:
        """Adds *row*. The first of several rows for one setting decides it."""
        match row.fate:
            case Nowhere(reason):
                self.unmapped[row.key] = reason
            case To() as to:
                self._set(row.key, to, row.value)
            case Name() as name:
                self._name(row.key, name, row.value)
            case Special.EMBEDDING_PROVIDERS:
                self._members(row, _PROVIDER, in_use.provider, _PROVIDER_MEMBERS)
            case Special.CHUNKING_STRATEGIES:
                self._members(row, _STRATEGY, in_use.strategy, _STRATEGY_MEMBERS)

    def refuse(self, problem: Problem) -> None:
        """Takes out what our settings do not allow. Numbers are told in the notice, text is not."""
        keys = [key for key in self.values if f"{key}.".startswith(f"{problem.key}.")]
        if not keys:
            raise AssertionError(f"our own defaults are refused: {problem}")
        for key in keys:
            value = self.values.pop(key)
            shown = json.dumps(value) if isinstance(value, int | float) else "the value"
            allowed = f"{key} allows {problem.allowed}" if key == problem.key else problem.allowed
            for v2_key in [v2_key for v2_key, ours in self.mapped.items() if ours == key]:
                del self.mapped[v2_key]
                self.unmapped[v2_key] = f"outside the limits: the default of {key} is kept"
                self.notices.append(f"{v2_key}: {shown} is not carried over, the default is kept: {allowed}")

    def _set(self, v2_key: str, to: To, value: Any) -> None:
        try:
            converted = to.convert(value)
        except CannotConvert as error:
            self.unmapped[v2_key] = f"no equivalent: {error}; the default of {to.key} is kept"
            return
        if to.key not in self.values:
            self.values[to.key] = converted.value
            self.decided_by[to.key] = v2_key
            self.mapped[v2_key] = to.key
            self.notices += [f"{v2_key}: {notice}" for notice in (converted.notice, to.notice) if notice]
        elif self.values[to.key] == converted.value:
            self.mapped[v2_key] = to.key
        else:
            self.unmapped[v2_key] = f"superseded: {self.decided_by[to.key]} decides {to.key}"

    def _name(self, v2_key: str, fate: Name, value: Any) -> None:
        if not isinstance(value, str) or not value:
            self.unmapped[v2_key] = "outside the limits: v2 needs a name here"
            return
        self.names.setdefault(fate.name, value)
        if fate.to is None:
            self.unmapped[v2_key] = READ_WITH_NAME
        else:
            self._set(v2_key, fate.to, value)

    def _members(self, row: Row, choice: Fate, used: str, table: Mapping[str, To]) -> None:
        """Members of the one that v2 used by *table*; those of the others nowhere."""
        if not isinstance(row.value, dict) or not isinstance(row.value.get(used, {}), dict):
            self.unmapped[row.key] = "outside the limits: v2 needs an object of objects here"
            return
        members = row.value.get(used)
        if members is None:
            self.unmapped[row.key] = (
                f"no equivalent: only the one in use has settings here, and {used} is not among these"
            )
        elif isinstance(choice, To):
            # The settings of one belong with the choice of it, which v2 may have left to its default.
            if choice.key not in self.values:
                self._set(row.key, choice, used)
            self.mapped[row.key] = choice.key.rpartition(".")[0]
            for name in sorted(members, key=lambda name: list(table).index(name) if name in table else len(table)):
                self._member(f"{row.key}.{used}.{name}", table.get(name), members[name])
        for other, unused in row.value.items():
            if other != used:
                for name in unused if isinstance(unused, dict) else ():
                    self.unmapped[f"{row.key}.{other}.{name}"] = "no equivalent: only the one in use has settings here"

    def _member(self, v2_key: str, to: To | None, value: Any) -> None:
        if to is None:
            self.unmapped[v2_key] = "no equivalent: the platform has no such setting"
        else:
            self._set(v2_key, to, value)
