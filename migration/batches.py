"""Any migration in batches, with a checkpoint that survives a crash and a change of plan.

An item is known by ``str(item)``. The checkpoint holds the keys (BLAKE2b-128 of that text) of the items of finished
batches, so it does not matter to a resumed run whether batches have another size now, whether items came in another
order, went, or were added: what is finished is left out, all else is done.

The file is a journal: a head, and for each finished batch one line with the keys of its items and a digest of the
line. A line is on disk before the next batch begins. Writing a whole new file per batch instead would cost as much as
all batches before it; here a batch costs its own keys. A line that a crash cut off is dropped, and its batch is done
again, so `migrate_batch` has to bear being called twice with the same items.

Items are drawn one batch at a time. Kept in memory is the key of every item met: about 100 bytes each.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import logging
import os
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from migration.durable import Busy, sync_directory

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_HEAD = b'{"checkpoint": "modchat batches", "version": 1}\n'
_KEY_BYTES = 16


class BatchMapper(Protocol[Item]):
    """What is to be migrated, and how."""

    def get_items_to_migrate(self) -> Iterable[Item]:
        """All items, finished or not; each with a text of its own that is the same in every run."""
        ...

    def migrate_batch(self, items: list[Item], /) -> Awaitable[object] | object:
        """Migrates the items, or raises. May be a coroutine function; else it blocks the event loop while it runs."""
        ...


class CheckpointUnusable(Exception):
    """The file is no checkpoint, or is damaged. It was not touched; move it away to begin from the start."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; move it away to begin from the start"


@dataclass(frozen=True, slots=True)
class BatchRun:
    """How far a run has come; at its end, what it did."""

    migrated: int
    """Items of batches that this run finished."""
    skipped: int
    """Items that an earlier run had finished."""
    batches: int
    checkpoint_file: Path


async def migrate_in_batches(
    mapper: BatchMapper[Item],
    batch_size: int = 1000,
    checkpoint_file: Path | str = Path("migration_checkpoint.json"),
    *,
    progress: Callable[[BatchRun], None] | None = None,
) -> BatchRun:
    """Migrates every item of *mapper* that no earlier run with this checkpoint has finished.

    *progress* is called after every finished batch. An exception of a batch, or being cancelled, ends the run with the
    checkpoint as of the last finished batch. Raises ValueError when *batch_size* is below 1, when two items have the
    same text, or when an item's text is no more than its address in memory; CheckpointUnusable; Busy when another run
    uses the checkpoint.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it has to be at least 1")
    run = BatchRun(migrated=0, skipped=0, batches=0, checkpoint_file=Path(checkpoint_file))
    with Checkpoint(run.checkpoint_file) as checkpoint:
        unfinished = _Unfinished(mapper.get_items_to_migrate(), checkpoint.finished)
        while batch := list(islice(unfinished, batch_size)):
            items = [item for item, _ in batch]
            outcome = mapper.migrate_batch(items)
            if inspect.isawaitable(outcome):
                await outcome
            checkpoint.add([key for _, key in batch])
            run = BatchRun(run.migrated + len(batch), unfinished.skipped, run.batches + 1, run.checkpoint_file)
            log.info("batch %d: %d items migrated, %d skipped", run.batches, run.migrated, run.skipped)
            if progress is not None:
                progress(run)
            await sleep(0)  # a mapper without coroutines would never let others run, or be cancelled
        return BatchRun(run.migrated, unfinished.skipped, run.batches, run.checkpoint_file)


def key_of(item: object) -> bytes:
    """What an item is known by in the checkpoint. Raises ValueError for one whose text differs from run to run."""
    kind = type(item)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise ValueError(f"{kind.__name__} has no text of its own: give it __str__, so that a later run knows it again")
    return blake2b(str(item).encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


class _Unfinished(Iterator[tuple[Item, bytes]]):
    """Draws items, leaves out the finished ones, and sees to it that no two are taken for one."""

    def __init__(self, items: Iterable[Item], finished: frozenset[bytes]) -> None:
        self._items = iter(items)
        self._finished = finished
        self._met: set[bytes] = set()
        self.skipped = 0

    def __next__(self) -> tuple[Item, bytes]:
        for item in self._items:
            key = key_of(item)
            if key in self._met:
                raise ValueError(f"two items have the text {str(item)!r}: a checkpoint cannot tell them apart")
            self._met.add(key)
            if key not in self._finished:
                return item, key
            self.skipped += 1
        raise StopIteration


class Checkpoint:
    """The journal of finished batches, held by one run at a time."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointUnusable, Busy."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._hold()
            content = self._read()
            whole, keys = parse(content)
            if whole == 0:
                whole = len(_HEAD)
                os.pwrite(self._descriptor, _HEAD, 0)
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
            sync_directory(path.parent)
        except _Damage as damage:
            os.close(self._descriptor)
            raise CheckpointUnusable(str(path), str(damage)) from None
        except (OSError, Busy):
            os.close(self._descriptor)
            raise
        self._end = whole
        self.finished = keys
        """Keys of the items that were finished when the checkpoint was opened."""

    def add(self, keys: list[bytes]) -> None:
        """Returns when it is on disk that the items with these keys are finished."""
        line = line_of(keys)
        rest = memoryview(line)
        while rest:
            rest = rest[os.pwrite(self._descriptor, rest, self._end + len(line) - len(rest)) :]
        os.fsync(self._descriptor)
        self._end += len(line)

    def _hold(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(str(self._path)) from None

    def _read(self) -> bytes:
        with open(self._descriptor, "rb", closefd=False) as file:
            return file.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


class _Damage(ValueError):
    pass


def line_of(keys: list[bytes]) -> bytes:
    """The journal's line of a finished batch."""
    joined = b"".join(keys)
    return json.dumps({"digest": _digest(joined), "keys": joined.hex()}).encode() + b"\n"


def parse(content: bytes) -> tuple[int, frozenset[bytes]]:
    """How many bytes of a journal are whole, and the keys in them.

    What a crash can leave is accepted: nothing, a beginning of the head, a last line that is not whole.
    """
    if _HEAD.startswith(content):
        return (len(content) if content == _HEAD else 0), frozenset()
    if not content.startswith(_HEAD):
        raise _Damage("not a checkpoint of this program")
    keys: set[bytes] = set()
    whole = len(_HEAD)
    while whole < len(content):
        end = content.find(b"\n", whole) + 1
        joined = _keys_in(content[whole:end])
        if joined is None:
            if 0 < end < len(content):
                raise _Damage(f"damaged at byte {whole}")
            break
        keys.update(joined[at : at + _KEY_BYTES] for at in range(0, len(joined), _KEY_BYTES))
        whole = end
    return whole, frozenset(keys)


def _keys_in(line: bytes) -> bytes | None:
    """The keys in a line, joined; None when the line is not as it was written."""
    try:
        members = json.loads(line)
        joined = bytes.fromhex(members["keys"])
        return joined if members["digest"] == _digest(joined) else None
    except (ValueError, TypeError, KeyError):
        return None


def _digest(joined: bytes) -> str:
    return blake2b(joined, digest_size=8).hexdigest()
