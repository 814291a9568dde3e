"""What one cut-over was asked to do, as its journal keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgspec

from migration.cutover_gates import ACCEPTABLE
from migration.cutover_hooks import Hooks
from migration.guards import ChangeLimits, identity
from migration.job import RunSettings
from migration.v2.names import V2Names


@dataclass(frozen=True, slots=True)
class Options:
    """Raises ValueError for what cannot be meant."""

    users: tuple[str, ...] = ()
    """A wave: these users only. Nobody named: everybody."""

    hooks: Hooks = field(default_factory=Hooks)
    backups: str | None = None
    """Directory of backups of v2; none: no backup is made."""

    use_backup: str | None = None
    """Name of a backup there that is used in place of a new one."""

    max_lag: int = 1000
    """Sessions that the last back-fill may have found changed."""

    passes: int = 10
    """Back-fills at most."""

    dual_queues: tuple[str, ...] = ()
    """Queue files of dual writers: nothing may wait in them."""

    accept: tuple[str, ...] = ()
    """Findings that do not veto."""

    sample: float | None = None
    """Share of users that the validation compares in depth; none: all."""

    deletes: float = 0.5
    all_changed: bool = False
    drain_s: float = 30.0
    """How long the fence waits for writers that ask `Serving`."""

    hold: bool = False
    """After a failure behind the fence: stay there, rather than let v2 be written to again."""

    def __post_init__(self) -> None:
        if any(not user for user in self.users):
            raise ValueError("a user's id is empty")
        if self.use_backup is not None and self.backups is None:
            raise ValueError("to use a backup, name the directory that it is in")
        if unknown := set(self.accept) - set(ACCEPTABLE):
            raise ValueError(f"cannot be accepted: {', '.join(sorted(unknown))}; there are: {', '.join(ACCEPTABLE)}")
        if self.max_lag < 0 or self.passes < 1 or self.drain_s < 0:
            raise ValueError("max_lag and drain_s are at least 0, and passes at least 1")
        if self.sample is not None and not 0 < self.sample <= 1:
            raise ValueError(f"the sample must be above 0 and at most 1, found {self.sample}")
        if not 0 <= self.deletes <= 1:
            raise ValueError(f"the share of deletions is from 0 to 1, found {self.deletes}")

    @property
    def limits(self) -> ChangeLimits:
        return ChangeLimits(self.deletes, self.all_changed)

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "hooks"}
        return {**values, "hooks": self.hooks.to_json()}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Options:
        """Raises ValueError, TypeError or KeyError for what `to_json` did not give."""
        values: dict[str, Any] = {
            name: tuple(given) if isinstance(given, list) else given for name, given in value.items()
        }
        values["hooks"] = Hooks.of(value["hooks"])
        return cls(**values)


def settings_json(settings: RunSettings) -> dict[str, Any]:
    return {**identity(settings), "source": settings.source, "target": settings.target}


def settings_of(value: Mapping[str, Any]) -> RunSettings:
    """The settings that `settings_json` gave. Raises ValueError."""
    names: dict[str, Any] = {**asdict(V2Names()), **value["names"], "users_dirs": value["users_dirs"]}
    return RunSettings(
        source=value["source"],
        target=value["target"],
        names=msgspec.convert(names, V2Names),
        extra_roots=tuple(value["extra_roots"]),
        source_timezone=value["source_timezone"],
    )
