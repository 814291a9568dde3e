"""All that is remembered of one user: both banks, and one word index and one set of vectors over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modules.core.errors import ConfigurationError
from modules.core.layout import component
from modules.core.storage import FlatFiles
from modules.core.words import WordIndex

from .bank import Bank, least_important, least_recently_used
from .items import LONG_TERM, SHORT_TERM, WORTH_KEEPING, Identity, MemoryItem, Scope
from .settings import MemorySettings

Name = tuple[str, Identity]  # memory type, identity
Vector = npt.NDArray[np.float32]

# No path component begins with a dot, so the journal can never be taken for a session's directory.
_SHORT_TERM_JOURNAL = ".items.jsonl"


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Keys that became long-term, keys whose content was there already, and how many stay short-term."""

    user_id: str
    strategy: str
    moved: tuple[str, ...]
    merged: tuple[str, ...]
    kept: int


class UserMemories:
    """Safe for one caller at a time. Without *files*, short-term memory is in this process only and there is no
    long-term memory."""

    def __init__(self, user_id: str, files: FlatFiles | None, settings: MemorySettings) -> None:
        self.user_id = user_id
        self._settings = settings
        short_key = f"memory/short_term/{component(user_id)}/{_SHORT_TERM_JOURNAL}"
        self._banks = {
            SHORT_TERM: Bank(files, short_key, at_most=settings.short_term_max_items, victim=least_recently_used)
        }
        if files is not None:
            long_key = f"memory/long_term/{component(user_id)}/memory_bank.jsonl"
            self._banks[LONG_TERM] = Bank(files, long_key, at_most=settings.long_term_max_items, victim=least_important)
        self._words: WordIndex[Name] | None = None
        self._vectors: dict[Name, Vector] = {}

    def bank(self, memory_type: str) -> Bank:
        """Raises ConfigurationError for long-term memory without a place on disk."""
        if memory_type not in self._banks:
            raise ConfigurationError(
                "long-term memory needs a base path: MemoryModule(config, base_path=...) or storage.base_path"
            )
        return self._banks[memory_type]

    def put(self, item: MemoryItem) -> None:
        for forgotten in self.bank(item.memory_type).put(item):
            self._unlearn(forgotten)
        self._unlearn(item)
        if self._words is not None:
            self._words.add(_name_of(item), _searched(item))

    def recall(self, scope: Scope, key: str, memory_type: str, now: float) -> MemoryItem | None:
        """The item of that key that is bound most closely to the scope; counts as a use."""
        bank = self.bank(memory_type)
        for identity in scope.identities(key):
            if bank.get(identity) is not None:
                return bank.use(identity, now)
        return None

    def use(self, item: MemoryItem, now: float) -> MemoryItem:
        return self.bank(item.memory_type).use(item.identity, now) or item

    def erase(self, scope: Scope, key: str, memory_type: str) -> MemoryItem | None:
        """Takes away the item of just this scope, with every trace of it."""
        item = self.bank(memory_type).erase((key, scope.session_id, scope.agent_id))
        if item is not None:
            self._unlearn(item)
        return item

    def expire(self, now: float) -> list[MemoryItem]:
        expired = [item for bank in self._banks.values() for item in bank.expire(now)]
        for item in expired:
            self._unlearn(item)
        return expired

    def items(self, memory_types: Sequence[str], scope: Scope) -> list[MemoryItem]:
        """Items that the scope covers, least recently used first in each type."""
        banks = (bank for name, bank in self._banks.items() if name in memory_types)
        return [item for bank in banks for item in bank if scope.covers(item)]

    def find(self, name: Name) -> MemoryItem | None:
        return self._banks[name[0]].get(name[1])

    def by_words(self, query: str, memory_types: Sequence[str], scope: Scope) -> list[Name]:
        """Names of covered items that share words with the query, best first."""
        if self._words is None:
            self._words = WordIndex()
            for item in self._everything():
                self._words.add(_name_of(item), _searched(item))
        return [name for name, _ in self._words.search(query) if self._is_covered(name, memory_types, scope)]

    def without_vector(self, memory_types: Sequence[str], scope: Scope) -> list[MemoryItem]:
        return [item for item in self.items(memory_types, scope) if _name_of(item) not in self._vectors]

    def learn(self, items: Sequence[MemoryItem], vectors: Sequence[Sequence[float]]) -> None:
        """Vectors for items; those of items that changed meanwhile are not taken."""
        for item, vector in zip(items, vectors, strict=True):
            current = self.find(_name_of(item))
            if current is not None and current.text == item.text:
                self._vectors[_name_of(item)] = _unit(vector)

    def by_meaning(self, query: Sequence[float], memory_types: Sequence[str], scope: Scope, limit: int) -> list[Name]:
        """Names of the covered items nearest to the query's vector, nearest first; none that is not near at all."""
        names = [name for name in self._vectors if self._is_covered(name, memory_types, scope)]
        if not names:
            return []
        similarities = np.stack([self._vectors[name] for name in names]) @ _unit(query)
        nearest = np.argsort(-similarities, kind="stable")[:limit]
        return [names[place] for place in nearest if similarities[place] >= self._settings.min_similarity]

    def consolidate(self, strategy: str, now: float) -> Consolidation:
        """Move what the strategy finds worth keeping from short-term to long-term memory.

        An item that says what a long-term one of the same scope says already adds its uses and importance to it.
        """
        long_term = self.bank(LONG_TERM)
        known = {(item.text, item.session_id, item.agent_id): item.identity for item in long_term}
        worth = WORTH_KEEPING[strategy]
        chosen = [item for item in self.bank(SHORT_TERM) if worth(item, now, self._settings.short_term_ttl_s / 2)]
        moved, merged = [], []
        for item in chosen:
            says = (item.text, item.session_id, item.agent_id)
            same = known.get(says)
            twin = long_term.get(same) if same is not None else None
            if twin is None:
                self.put(replace(item, memory_type=LONG_TERM, expires_at=None))
                known[says] = item.identity
                moved.append(item.key)
            else:
                self.put(
                    replace(
                        twin,
                        importance=max(twin.importance, item.importance),
                        access_count=twin.access_count + item.access_count,
                        accessed_at=max(twin.accessed_at, item.accessed_at),
                    )
                )
                merged.append(item.key)
            # Only now: a crash in between leaves the item twice, not nowhere.
            self.bank(SHORT_TERM).forget(item.identity)
            self._unlearn(item)
        return Consolidation(self.user_id, strategy, tuple(moved), tuple(merged), len(self.bank(SHORT_TERM)))

    def flush(self) -> None:
        for bank in self._banks.values():
            bank.flush()

    def _everything(self) -> Iterator[MemoryItem]:
        for bank in self._banks.values():
            yield from bank

    def _is_covered(self, name: Name, memory_types: Sequence[str], scope: Scope) -> bool:
        item = self.find(name)
        return item is not None and name[0] in memory_types and scope.covers(item)

    def _unlearn(self, item: MemoryItem) -> None:
        self._vectors.pop(_name_of(item), None)
        if self._words is not None:
            self._words.remove(_name_of(item))


def _name_of(item: MemoryItem) -> Name:
    return item.memory_type, item.identity


def _searched(item: MemoryItem) -> str:
    return f"{item.key} {item.text}"


def _unit(vector: Sequence[float]) -> Vector:
    array = np.asarray(vector, dtype=np.float32)
    norm = float(np.linalg.norm(array))
    return array / norm if norm else array
