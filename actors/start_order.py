"""In which order modules start: what a module stands on comes before it. Stopping goes the other way."""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import ConfigurationError
from modules.core.types import ModuleInfo


def start_order(infos: Mapping[str, ModuleInfo]) -> tuple[str, ...]:
    """The names of *infos*, each after those it needs and those it uses when they are there; else in their order.

    Raises ConfigurationError for a needed module that is not among them, and for a circle.
    """
    order: list[str] = []

    def place(name: str, needed_by: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in needed_by:
            circle = " -> ".join([*needed_by[needed_by.index(name) :], name])
            raise ConfigurationError(f"modules depend on each other in a circle: {circle}")
        info = infos[name]
        for dependency in info.dependencies:
            if dependency not in infos:
                raise ConfigurationError(f"module {name!r} needs module {dependency!r}, which does not run")
        for dependency in info.dependencies + info.optional:
            if dependency in infos:
                place(dependency, (*needed_by, name))
        order.append(name)

    for name in infos:
        place(name, ())
    return tuple(order)
