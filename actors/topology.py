"""Which modules run, on how many shards, and how they are reached: what a platform tells its parts and later comers.

Kept in ``.platform/platform.json`` below the base while the platform runs: a host that is started anew, and a second
program, learn from it what the first start made known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from modules.core.errors import NotFound, StorageError
from modules.core.storage import FlatFiles

from .manifest import Manifest

DIRECTORY = ".platform"
_KEY = f"{DIRECTORY}/platform.json"


@dataclass(frozen=True, slots=True)
class Placed:
    """A module that runs on ``shards`` hosts."""

    shards: int
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name


@dataclass(frozen=True, slots=True)
class Topology:
    """``modules`` in the order of their start. ``absent``: enabled in the settings, but not installed. ``address`` is
    where a second program connects; ``incarnation`` differs from start to start; ``is_complete`` once all modules run
    and know each other; ``tracing``: ``sampling_rate`` and ``max_queued``, which count while trace_logger runs."""

    incarnation: str
    namespace: str
    address: str = ""
    modules: tuple[Placed, ...] = ()
    absent: tuple[str, ...] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)
    is_complete: bool = False
    tracing: Mapping[str, Any] = field(default_factory=dict)

    def find(self, module: str) -> Placed | None:
        return next((one for one in self.modules if one.name == module), None)

    def with_module(self, placed: Placed) -> Topology:
        return replace(self, modules=(*self.modules, placed))

    def to_json(self) -> bytes:
        document = {
            "incarnation": self.incarnation,
            "namespace": self.namespace,
            "address": self.address,
            "modules": [{"shards": one.shards, "manifest": one.manifest.to_dict()} for one in self.modules],
            "absent": list(self.absent),
            "runtime": dict(self.runtime),
            "is_complete": self.is_complete,
            "tracing": dict(self.tracing),
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def of_json(cls, data: bytes) -> Topology:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""
        document = json.loads(data)
        placed = tuple(Placed(one["shards"], Manifest.of_dict(one["manifest"])) for one in document["modules"])
        return cls(
            document["incarnation"],
            document["namespace"],
            document["address"],
            placed,
            tuple(document["absent"]),
            document["runtime"],
            document["is_complete"],
            document["tracing"],
        )


def namespace_of(base: Path | str, *, prefix: str = "modchat") -> str:
    """The same for every way of writing the path of one base."""
    real = str(Path(base).resolve()).encode("utf-8", "surrogateescape")
    return f"{prefix}-{blake2b(real, digest_size=8).hexdigest()}"


def save(base: Path | str, topology: Topology) -> None:
    FlatFiles(base).write(_KEY, topology.to_json())


def load(base: Path | str) -> Topology:
    """Raises NotFound when no platform has left its notes, StorageError when they cannot be read."""
    data = FlatFiles(base).read(_KEY)
    try:
        return Topology.of_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{_KEY} is damaged: {error!r}; stop the platform and start it again", key=_KEY) from error


def remove(base: Path | str, incarnation: str) -> None:
    """Take back the notes of that incarnation; those of a later one stay."""
    try:
        current = load(base)
    except NotFound:
        return
    if current.incarnation == incarnation:
        FlatFiles(base).delete(_KEY)
