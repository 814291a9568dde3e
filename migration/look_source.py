"""A look at a whole source, spread over batches: phase by phase as a run goes through it.

Memory does not grow with the source but for eight bytes a user, which find users that look alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from migration import linking
from migration.fanout import FanOut
from migration.items import source_items
from migration.job import RunSettings
from migration.look import Look
from migration.look_items import owners_among, survey_items
from migration.look_users import extra_root_sets, home_of
from migration.lookalikes import folded_hash, groups_among
from migration.survey import Survey
from migration.unit import ATTIC, MIGRATED, path_fact, text_fact
from migration.worker import Item

_BATCH = 128


@dataclass(slots=True)
class SourceLook:
    """Goes through a source as of the time *now_ns*."""

    settings: RunSettings
    fan_out: FanOut
    now_ns: int

    def survey(self) -> Survey:
        """The sums over everything. What cannot be listed is a finding, as are the things that look alike."""
        total = Survey()
        beside = self._look()
        self._add(total, _until_error(source_items(self.settings), beside))
        # Where records name users of other directories, a run puts these together at its end.
        facts = [["foreign", text_fact(user), path_fact(directory)] for user, directory in sorted(total.foreign)]
        self._add(total, iter(linking.merges(facts, partial(home_of, self._look()))))
        for root in self.settings.extra_roots:
            extra_root_sets(beside, root)
        total.merge(beside.survey)
        self._count_personas(total)
        self._find_lookalikes(total)
        return total

    def _look(self) -> Look:
        return Look(self.settings, self.now_ns, as_root=os.geteuid() == 0)

    def _add(self, total: Survey, items: Iterator[Item]) -> None:
        look = partial(survey_items, settings=self.settings, now_ns=self.now_ns)
        for part in self.fan_out.map(look, _batches(items)):
            total.merge(part)

    def _count_personas(self, total: Survey) -> None:
        """Counts global personas; one that an earlier directory of them has too goes to the attic."""
        seen: set[str] = set()
        for directory in self.settings.names.global_persona_dirs:
            personas = total.personas.get(directory, frozenset())
            twice = len(personas & seen)
            total.files[MIGRATED] -= twice
            total.files[ATTIC] += twice
            for name in ("personas", "global_personas"):
                total.counts[name] += len(personas) - twice
            seen |= personas

    def _find_lookalikes(self, total: Survey) -> None:
        """Users that look alike: found by their hashes, and named by going through the directories again."""
        total.users.extend(map(folded_hash, total.named_users))
        hashes = np.array(total.users, dtype=np.uint64)
        values, times = np.unique(hashes, return_counts=True)
        wanted = frozenset(map(int, values[times > 1]))
        if not wanted:
            return
        names = {name for name in total.named_users if folded_hash(name) in wanted}
        owners = partial(owners_among, settings=self.settings, now_ns=self.now_ns, wanted=wanted)
        again = _until_error(source_items(self.settings), self._look())
        for found in self.fan_out.map(owners, _batches(item for item in again if item.kind == "user")):
            names.update(found)
        for group in groups_among(names):
            total.find("user_collision", group[0], " / ".join(group))


def _batches(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    remaining = iter(items)
    while batch := tuple(islice(remaining, _BATCH)):
        yield batch


def _until_error(items: Iterable[Item], look: Look) -> Iterator[Item]:
    """The items; a listing that fails ends them, as it ends a run, and is noted in *look*."""
    try:
        yield from items
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else look.settings.source
        look.survey.find("stopped", look.shown(path), error.strerror or str(error))
