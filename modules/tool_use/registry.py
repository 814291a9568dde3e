"""The tools and chains that are registered, on disk and in memory.

``tool_use/tools/<owner>/<name>.json`` and ``tool_use/chains/<owner>/<id>.json``; what belongs to everybody has the
owner ``""``. Files are replaced whole. One that cannot be read is reported, stays where it is, and is not listed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

from modules.core.errors import PlatformError
from modules.core.layout import component
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)


class Kept(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def owner(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


K = TypeVar("K", bound=Kept)


class Registry(Generic[K]):
    """Definitions of one kind. Reading is from memory; changes are on disk when they return. Synchronous: changes are
    made from threads, one at a time."""

    def __init__(self, files: FlatFiles, folder: str, of_dict: Callable[[Mapping[str, Any]], K]) -> None:
        self._files = files
        self._folder = folder
        self._of_dict = of_dict
        self._known: dict[str, dict[str, K]] = {}
        self.unreadable: tuple[str, ...] = ()

    def load(self) -> Self:
        unreadable = []
        for key in self._files.list(f"{self._folder}/"):
            try:
                self._remember(self._of_dict(json.loads(self._files.read(key))))
            except (PlatformError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.error("%s is left out: %s", key, error)
                unreadable.append(key)
        self.unreadable = tuple(unreadable)
        return self

    def find(self, name: str, user_id: str) -> K | None:
        """The user's own of that name, else everybody's."""
        return self.own(name, user_id) or self.own(name, "")

    def own(self, name: str, owner: str) -> K | None:
        return self._known.get(owner, {}).get(name)

    def visible_to(self, user_id: str) -> list[K]:
        """The user's own and everybody's, by name; the own hides everybody's of the same name."""
        return [one for _, one in sorted({**self._known.get("", {}), **self._known.get(user_id, {})}.items())]

    def of_owner(self, owner: str) -> list[K]:
        return [one for _, one in sorted(self._known.get(owner, {}).items())]

    def put(self, one: K) -> None:
        self._files.write(self._key(one.owner, one.name), json.dumps(one.to_dict(), default=dict).encode() + b"\n")
        self._remember(one)

    def remove(self, name: str, owner: str) -> bool:
        """False when there was none."""
        was_there = self._files.delete(self._key(owner, name))
        known = self._known.get(owner, {})
        return known.pop(name, None) is not None or was_there

    def erase(self, owner: str) -> int:
        """Remove all that *owner* has, also what cannot be read; how many that were."""
        place = f"{self._folder}/{component(owner)}"
        count = len(self._files.list(f"{place}/"))
        self._files.delete_tree(place)
        self._known.pop(owner, None)
        return count

    def _remember(self, one: K) -> None:
        self._known.setdefault(one.owner, {})[one.name] = one

    def _key(self, owner: str, name: str) -> str:
        return f"{self._folder}/{component(owner)}/{component(name)}.json"
