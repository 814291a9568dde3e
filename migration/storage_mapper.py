"""The migration for callers in Python: one object for one store, in this process, without Ray.

The same engine as ``modchat migrate run``, with the same ledger: what one has begun the other goes on with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from migration import guards
from migration.engine import Engine, LocalBackend, Phase
from migration.issues import Severity, severity_of
from migration.items import source_items
from migration.job import RunSettings
from migration.ledger import journals
from migration.report import RunReport
from migration.shard import Shard
from migration.state import State
from migration.v2.names import V2Names
from migration.worker import Item, process

_COMPLETE = "complete"


class StorageMapper:
    """Maps the v2 store at *old_base* to the platform's store at *new_base*.

    For `migrate_in_batches` it gives its items one by one; the last one completes the migration (what needs all
    sessions to be known: owners of vector sets, split sessions) and so must come after the others, as it does here.
    """

    def __init__(self, old_base: Path | str, new_base: Path | str, *, names: V2Names | None = None) -> None:
        self.old_base = Path(old_base)
        self.new_base = Path(new_base)
        self.settings = RunSettings(os.path.abspath(old_base), os.path.abspath(new_base), names or V2Names())

    def migrate_sessions(self) -> RunReport:
        """Migrates everything that is not migrated yet, and returns what was done.

        Raises `SourceError`, `RefusedError`, `TargetError` or `LedgerError`.
        """
        return Engine(self.settings, LocalBackend()).run()

    def get_items_to_migrate(self) -> Iterator[str]:
        """The items of the source, as ``kind:name``, and ``complete`` last."""
        guards.check_source(self.settings)
        for item in source_items(self.settings):
            yield f"{item.kind}:{os.fsencode(item.name).hex()}"
        yield _COMPLETE

    def migrate_batch(self, batch: Sequence[str]) -> None:
        """Migrates the items of a batch; what the ledger knows already is passed over.

        Raises as `migrate_sessions`, and `ValueError` for what is no item.
        """
        items = tuple(_item(text) for text in batch if text != _COMPLETE)
        if items:
            self._migrate(items)
        if _COMPLETE in batch:
            report = self.migrate_sessions()
            unread = [kind for kind in report.issues if severity_of(kind) is Severity.ATTENTION]
            if unread:
                raise RuntimeError(f"the migration ended with: {'; '.join(report.notices)}")

    def _migrate(self, items: tuple[Item, ...]) -> None:
        guards.check_source(self.settings)
        guards.check_target(self.settings)
        state = State(self.settings.target)
        state.make()
        lock = state.lock()
        try:
            guards.check_same_run(self.settings, state.read("run.json"))
            run = 1 + max((int(os.path.basename(path).split("-")[0]) for path in journals(state.ledger)), default=0)
            state.write(
                "run.json", {**guards.identity(self.settings), "run": run, "outcome": "batch", "at": time.time()}
            )
            shard = Shard(Phase("batch", 1, self.settings, run, state, items).shard_plan(0, 1, 0))
            try:
                while (task := shard.next_task()) is not None:
                    shard.record([(task, process(task))])
            finally:
                shard.close()
        finally:
            os.close(lock)


def _item(text: str) -> Item:
    kind, found, name = text.partition(":")
    if not found:
        raise ValueError(f"{text!r} is no item of `get_items_to_migrate`")
    return Item(kind, os.fsdecode(bytes.fromhex(name)))
