"""Pickling of frozen, slotted dataclasses at the speed of tuples.

What `dataclasses` gives such a class asks anew at every object which fields it has: a page of a hundred messages spent
nine tenths of its time there, on its way between processes. The fields are asked for once here, when the class is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def quickly_pickled(cls: type[T]) -> type[T]:
    """For a class made by ``dataclass(frozen=True, slots=True)``. As with any pickled object, what comes back is not
    checked once more."""
    names = tuple(field.name for field in fields(cls))  # type: ignore[arg-type]
    values = attrgetter(*names) if len(names) > 1 else _only(names)
    _SETTERS[cls] = tuple(vars(cls)[name].__set__ for name in names)

    def reduce(self: T) -> tuple[Any, ...]:
        return _restored, (cls, values(self))

    cls.__reduce__ = reduce  # type: ignore[method-assign, assignment]
    return cls


# The slots' own setters, which a frozen class does not stand before. Filled once for each class, when it is made.
_SETTERS: dict[type, tuple[Callable[[Any, Any], None], ...]] = {}


def _restored(cls: type[T], values: tuple[Any, ...]) -> T:
    made = object.__new__(cls)
    for setter, value in zip(_SETTERS[cls], values, strict=True):
        setter(made, value)
    return made


def _only(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    def values(instance: Any) -> tuple[Any, ...]:
        return tuple(getattr(instance, name) for name in names)

    return values
