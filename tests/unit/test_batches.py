"""Whatever ends a run, the next one does what is left: every item once, and no other twice but those of one batch."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.batches import BatchRun, Checkpoint, CheckpointUnusable, key_of, migrate_in_batches, parse
from migration.durable import Busy


class Mapper:
    """Migrates by taking note; fails in the batch that holds *poison*."""

    def __init__(self, items: Iterable[object], poison: object = None) -> None:
        self._items = items
        self._poison = poison
        self.batches: list[list[object]] = []
        self.drawn = 0

    def get_items_to_migrate(self) -> Iterator[object]:
        for item in self._items:
            self.drawn += 1
            yield item

    def migrate_batch(self, items: list[object]) -> None:
        if self._poison in items:
            raise RuntimeError(f"cannot migrate {self._poison}")
        self.batches.append(items)

    @property
    def migrated(self) -> list[object]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.json"


async def test_every_item_is_migrated_in_order_and_in_batches(checkpoint: Path) -> None:
    mapper = Mapper(range(10))

    run = await migrate_in_batches(mapper, 4, checkpoint)

    assert mapper.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert run == BatchRun(migrated=10, skipped=0, batches=3, checkpoint_file=checkpoint)


async def test_a_mapper_may_be_made_of_coroutines(checkpoint: Path) -> None:
    class AsyncMapper(Mapper):
        async def migrate_batch(self, items: list[object]) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().migrate_batch(items)

    mapper = AsyncMapper("abc")

    await migrate_in_batches(mapper, 2, checkpoint)

    assert mapper.batches == [["a", "b"], ["c"]]


async def test_a_checkpoint_is_kept_where_the_guide_says_when_no_place_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    await migrate_in_batches(Mapper("ab"))

    assert [path.name for path in tmp_path.iterdir()] == ["migration_checkpoint.json"]


async def test_a_second_run_has_nothing_to_do(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper(range(10)), 4, checkpoint)
    mapper = Mapper(range(10))

    run = await migrate_in_batches(mapper, 4, checkpoint)

    assert mapper.batches == []
    assert (run.migrated, run.skipped, run.batches) == (0, 10, 0)


async def test_a_failing_batch_raises_and_the_next_run_goes_on_before_it(checkpoint: Path) -> None:
    failing = Mapper(range(10), poison=5)
    with pytest.raises(RuntimeError, match="cannot migrate 5"):
        await migrate_in_batches(failing, 3, checkpoint)
    mapper = Mapper(range(10))

    await migrate_in_batches(mapper, 3, checkpoint)

    assert failing.migrated == [0, 1, 2]
    assert mapper.migrated == [3, 4, 5, 6, 7, 8, 9]


async def test_a_resumed_run_may_have_other_batches_other_items_and_another_order(checkpoint: Path) -> None:
    with pytest.raises(RuntimeError):
        await migrate_in_batches(Mapper("abcdefgh", poison="e"), 2, checkpoint)
    mapper = Mapper("hxgfda")  # b and c are gone, x has come, and all the rest stands the other way round

    run = await migrate_in_batches(mapper, 3, checkpoint)

    assert mapper.batches == [["h", "x", "g"], ["f"]]
    assert run.skipped == 2


@given(st.lists(st.integers(), unique=True), st.integers(1, 5), st.integers(1, 5), st.data())
def test_wherever_a_run_ends_each_item_is_migrated_once(
    tmp_path_factory: pytest.TempPathFactory, items: list[int], first_size: int, second_size: int, data: st.DataObject
) -> None:
    checkpoint = tmp_path_factory.mktemp("run") / "checkpoint"
    poison = data.draw(st.sampled_from([*items, None]))
    first = Mapper(items, poison)
    second = Mapper(data.draw(st.permutations(items)))
    try:
        asyncio.run(migrate_in_batches(first, first_size, checkpoint))
    except RuntimeError:
        assert poison is not None

    asyncio.run(migrate_in_batches(second, second_size, checkpoint))

    assert Counter(first.migrated + second.migrated) == Counter(items)


async def test_a_cancelled_run_keeps_what_it_finished(checkpoint: Path) -> None:
    class Stuck(Mapper):
        async def migrate_batch(self, items: list[object]) -> None:  # type: ignore[override]
            if 2 in items:
                await asyncio.Event().wait()
            super().migrate_batch(items)

    stuck = Stuck(range(4))
    task = asyncio.create_task(migrate_in_batches(stuck, 2, checkpoint))
    while not stuck.batches:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    mapper = Mapper(range(4))

    await migrate_in_batches(mapper, 2, checkpoint)

    assert mapper.migrated == [2, 3]


async def test_a_mapper_without_coroutines_lets_others_run_between_batches(checkpoint: Path) -> None:
    mapper = Mapper(range(100))
    task = asyncio.create_task(migrate_in_batches(mapper, 1, checkpoint))
    while not mapper.batches:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(mapper.batches) < 100


async def test_items_are_drawn_no_further_than_the_batch_at_hand(checkpoint: Path) -> None:
    mapper = Mapper(range(100))
    drawn: list[int] = []

    await migrate_in_batches(mapper, 30, checkpoint, progress=lambda run: drawn.append(mapper.drawn))

    assert drawn == [30, 60, 90, 100]


async def test_progress_is_told_after_the_batch_is_on_record(checkpoint: Path) -> None:
    told: list[tuple[int, int]] = []

    def note(run: BatchRun) -> None:
        told.append((run.migrated, len(parse(checkpoint.read_bytes())[1])))

    await migrate_in_batches(Mapper("abcde"), 2, checkpoint, progress=note)

    assert told == [(2, 2), (4, 4), (5, 5)]


# --- items


async def test_two_items_that_look_the_same_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="two items have the text '1'"):
        await migrate_in_batches(Mapper([1, "1"]), 10, checkpoint)


async def test_two_that_look_the_same_are_refused_though_the_first_was_finished_before(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper([1]), 10, checkpoint)

    with pytest.raises(ValueError, match="two items have the text '1'"):
        await migrate_in_batches(Mapper([1, "1"]), 10, checkpoint)


async def test_an_item_known_only_by_its_address_is_refused(checkpoint: Path) -> None:
    class Nameless:
        pass

    with pytest.raises(ValueError, match="Nameless has no text of its own"):
        await migrate_in_batches(Mapper([Nameless()]), 10, checkpoint)


async def test_items_may_be_of_any_kind_with_a_text(checkpoint: Path) -> None:
    items = [Path("a/b"), ("user", "session"), {"id": 1}, os.fsdecode(b"caf\xe9"), "", 2.5]
    await migrate_in_batches(Mapper(items), 2, checkpoint)
    mapper = Mapper(items)

    run = await migrate_in_batches(mapper, 2, checkpoint)

    assert run.skipped == len(items)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_batch_holds_at_least_one_item(size: int, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        await migrate_in_batches(Mapper("ab"), size, checkpoint)
    assert not checkpoint.exists()


# --- the file


async def test_a_file_cut_off_anywhere_costs_at_most_what_is_missing(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper(range(6)), 2, checkpoint)
    whole = checkpoint.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]

    for size in range(len(whole) + 1):
        checkpoint.write_bytes(whole[:size])
        mapper = Mapper(range(6))
        await migrate_in_batches(mapper, 2, checkpoint)

        finished = 2 * max(0, sum(end <= size for end in ends) - 1)
        assert mapper.migrated == list(range(finished, 6))
        assert checkpoint.read_bytes() == whole


async def test_nothing_of_a_line_that_was_cut_off_stands_behind_later_ones(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper([0]), 1, checkpoint)
    await migrate_in_batches(Mapper(range(20)), 50, checkpoint)
    os.truncate(checkpoint, checkpoint.stat().st_size - 1)

    await migrate_in_batches(Mapper([0, 1]), 1, checkpoint)

    content = checkpoint.read_bytes()
    assert parse(content) == (len(content), frozenset(map(key_of, [0, 1])))


async def test_a_last_line_of_garbage_is_done_again(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper(range(4)), 2, checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[-20:-10] = bytes(10)
    checkpoint.write_bytes(content)
    mapper = Mapper(range(4))

    await migrate_in_batches(mapper, 2, checkpoint)

    assert mapper.migrated == [2, 3]


async def test_damage_before_the_last_line_is_an_error_and_the_file_stays(checkpoint: Path) -> None:
    await migrate_in_batches(Mapper(range(6)), 2, checkpoint)
    lines = checkpoint.read_bytes().splitlines(keepends=True)
    at = lines[1].index(b'"keys": "') + 9
    lines[1] = lines[1][:at] + (b"0" if lines[1][at : at + 1] != b"0" else b"1") + lines[1][at + 1 :]
    checkpoint.write_bytes(b"".join(lines))
    mapper = Mapper(range(6))

    with pytest.raises(CheckpointUnusable, match=f"damaged at byte {len(lines[0])}; move it away"):
        await migrate_in_batches(mapper, 2, checkpoint)

    assert mapper.batches == []
    assert checkpoint.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("content", [b'{"processed": 3, "total": 9}', b"notes\n", b"\0" * 100])
async def test_a_file_of_another_kind_is_neither_read_nor_overwritten(content: bytes, checkpoint: Path) -> None:
    checkpoint.write_bytes(content)

    with pytest.raises(CheckpointUnusable, match="not a checkpoint"):
        await migrate_in_batches(Mapper("ab"), 1, checkpoint)

    assert checkpoint.read_bytes() == content


async def test_two_runs_cannot_share_a_checkpoint(checkpoint: Path) -> None:
    with Checkpoint(checkpoint), pytest.raises(Busy):
        await migrate_in_batches(Mapper("ab"), 1, checkpoint)

    assert (await migrate_in_batches(Mapper("ab"), 1, checkpoint)).migrated == 2
