"""What a module offers: its public asynchronous functions, what it listens to, what it stands on.

Nothing else can be called from outside: no attribute, no private name, no synchronous function, and neither
``initialize`` nor ``close``, which belong to the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

from modules.core.types import ModuleInfo

_THE_HOST_S_OWN = frozenset({"initialize", "close"})


@dataclass(frozen=True, slots=True)
class Function:
    """``parameters`` are those that may be given by place, in order."""

    parameters: tuple[str, ...]
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    name: str
    version: str
    functions: Mapping[str, Function] = field(default_factory=dict)
    listens: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Manifest:
        functions = {
            name: Function(tuple(one["parameters"]), one["streams"]) for name, one in data["functions"].items()
        }
        return cls(data["name"], data["version"], functions, tuple(data["listens"]))


def info_of(name: str, module: Any) -> ModuleInfo:
    """What the module says of itself; for one that says nothing, its name."""
    info = getattr(module, "info", None)
    return info if isinstance(info, ModuleInfo) else ModuleInfo(name=name, version="0")


def manifest_of(name: str, module: Any, listens: Iterable[str]) -> Manifest:
    functions = {}
    for public in sorted(_public_names(module)):
        function = inspect.getattr_static(module, public, None)
        if isinstance(function, staticmethod | classmethod):
            function = function.__func__
        if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            continue
        functions[public] = Function(_placed_parameters(getattr(module, public)), inspect.isasyncgenfunction(function))
    return Manifest(name, info_of(name, module).version, functions, tuple(sorted(set(listens))))


def _public_names(module: Any) -> set[str]:
    if isinstance(module, ModuleType):
        own = getattr(module, "__all__", None)
        names = set(own) if own is not None else {name for name in vars(module) if _is_own(module, name)}
    else:
        names = set(dir(type(module)))
    return {name for name in names if not name.startswith("_")} - _THE_HOST_S_OWN


def _is_own(package: ModuleType, name: str) -> bool:
    origin = getattr(vars(package)[name], "__module__", None) or ""
    return origin == package.__name__ or origin.startswith(package.__name__ + ".")


def _placed_parameters(function: Any) -> tuple[str, ...]:
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return tuple(one.name for one in parameters if one.kind in by_place)
