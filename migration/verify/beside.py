"""The files beside a session's messages: per-persona shards, the context, and its history.

Where two parts of a session hold a file of the same name, one copy takes the place and the other, when its bytes
differ, is in the attic.
"""

from __future__ import annotations

from collections.abc import Sequence

from migration.v2.names import CONTEXT, HISTORY
from migration.verify.comparison import Item, Tally
from migration.verify.names import Name, shown
from migration.verify.sides import Sides
from migration.verify.source import SessionDir
from migration.verify.tree import join


class FilesBeside:
    """Compares the files beside the messages of one session."""

    def __init__(self, sides: Sides, tally: Tally, user: Name, parts: Sequence[SessionDir]) -> None:
        self._sides = sides
        self._tally = tally
        self._user = user
        self._parts = parts

    def shards(self, folder: str) -> None:
        """``<x>_messages.jsonl``: bytes unchanged."""
        for part in self._parts:
            for name in part.shards:
                source, target = join(part.path, name), join(folder, Name.of_path(name).component)
                twins = [join(p.path, name) for p in self._parts if p is not part and name in p.shards]
                if twins and self._gave_way(source, target, twins):
                    self._sides.attic(self._tally, self._user.text, source)
                    continue
                item = Item("shard", self._user.text, shown(source))
                self._tally.files["migrated"] += 1
                present = self._sides.same_file(item, "bytes", source, target)
                self._tally.close(item, absent=not present)

    def memory(self, context: str, history: str) -> None:
        """The context and its snapshots: the object as it was, in UTF-8."""
        expected: set[str] = set()
        for part in self._parts:
            if part.context:
                self._object(part, CONTEXT, context, "context")
            for name in part.history:
                component = Name.of_path(name).component
                expected.add(component)
                self._object(part, join(HISTORY, name), join(history, component), "history")
        found = self._sides.target.list_or_none(history)
        paths = [join(history, name) for name in sorted(set(found.files) - expected)] if found else []
        has_context = any(part.context for part in self._parts)
        if not has_context and self._sides.target.stat_or_none(context) is not None:
            paths.append(context)
        for path in paths:
            item = Item("context", self._user.text, path)
            item.extra("comes from nothing in the source")
            self._tally.close(item, unexplained=True)

    def _object(self, part: SessionDir, name: str, target: str, kind: str) -> None:
        sides, source = self._sides, join(part.path, name)
        twins = [join(p.path, name) for p in self._parts if p is not part]
        twins = [path for path in twins if sides.source.stat_or_none(path) is not None]
        if twins and self._gave_way(source, target, twins):
            sides.attic(self._tally, self._user.text, source)
            return
        file = sides.object_or_attic(self._tally, self._user.text, source)
        if file is None:
            return
        item = Item(kind, self._user.text, shown(source))
        found = sides.target.read_or_none(target)
        if found is None:
            item.missing("object", target)
        if sides.deep:
            with item.quietly(found is None):
                item.same("bytes", file.text, found)
        self._tally.close(item, absent=found is None)

    def _gave_way(self, source: str, target: str, twins: list[str]) -> bool:
        """Whether the target took the bytes of another part, and they are not those of *source*."""
        if self._sides.target.stat_or_none(target) is None:
            return False
        taken = self._sides.target.digest(target)
        if self._sides.source.digest(source) == taken:
            return False
        return any(self._sides.source.digest(twin) == taken for twin in twins)
