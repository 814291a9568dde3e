"""A share of reads is done on both sides and compared, behind the caller's back and never in the caller's way.

The old side answers. What is to be compared waits in a bounded queue for one of a few workers, which asks the new side
within a time of its own. What does not fit is dropped, and counted. Where the two differ, both sides are asked once
more after a moment, since a write may have come between the two readings: only what still differs is a mismatch.
Of a mismatch the log has the call, ids and digests, and at which place the answers differ first; no contents.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from migration.shadow_compare import canonical, digest, first_difference

log = logging.getLogger(__name__)

READS = frozenset(
    (
        *("get_user_profile", "user_exists", "list_users", "get_session", "list_sessions", "get_messages"),
        *("get_all_messages", "search_messages", "get_session_stats", "get_document", "list_documents"),
        *("get_context", "get_context_history", "get_panel_messages", "get_persona", "list_personas"),
    )
)
_MISMATCHES_KEPT = 100


@dataclass(frozen=True, slots=True)
class Mismatch:
    """*where*: the place at which the answers differ first. The digests are those of the canonical answers."""

    call: str
    arguments: str
    where: str
    old_digest: str
    new_digest: str


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """Of all *reads*, how many were *sampled*, and what became of these: same, different, failed on the new side, too
    slow there, dropped as there was no room; *settled* were different at first and not any more. *waiting* are left."""

    reads: int
    sampled: int
    same: int
    settled: int
    different: int
    failed: int
    timed_out: int
    dropped: int
    waiting: int
    different_by_call: Mapping[str, int]
    last_mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class _Sampled:
    call: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    answer: Any


class ShadowReads:
    """*old* with the same calls; a *share* (0 to 1) of its `READS` is compared with *new*.

    To be used as ``async with``, or closed: what waits by then is dropped, and counted. Raises ValueError for a share
    or bounds that are none.
    """

    def __init__(
        self,
        old: Any,
        new: Any,
        *,
        share: float = 0.01,
        most_waiting: int = 1000,
        workers: int = 2,
        timeout_s: float = 2.0,
        look_again_s: float = 0.2,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= share <= 1 or most_waiting < 1 or workers < 1 or timeout_s <= 0 or look_again_s < 0:
            raise ValueError("share is from 0 to 1, most_waiting and workers from 1 up, times are positive")
        self._old, self._new = old, new
        self._share, self._timeout_s, self._look_again_s = share, timeout_s, look_again_s
        self._count_workers = workers
        self._chance = chance
        self._waiting: asyncio.Queue[_Sampled] = asyncio.Queue(most_waiting)
        self._workers: list[asyncio.Task[None]] = []
        self._is_closed = False
        self._counts: Counter[str] = Counter()
        self._by_call: Counter[str] = Counter()
        self._last: deque[Mismatch] = deque(maxlen=_MISMATCHES_KEPT)

    async def __aenter__(self) -> ShadowReads:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        real = getattr(self._old, name)
        if name not in READS:
            return real

        async def read(*arguments: Any, **options: Any) -> Any:
            answer = await real(*arguments, **options)
            self._sample(name, arguments, options, answer)
            return answer

        return read

    def status(self) -> ShadowStatus:
        names = ("reads", "sampled", "same", "settled", "different", "failed", "timed_out", "dropped")
        counts = {name: self._counts[name] for name in names}
        more = {"different_by_call": dict(self._by_call), "last_mismatches": tuple(self._last)}
        return ShadowStatus(**counts, waiting=self._waiting.qsize(), **more)  # type: ignore[arg-type]

    async def drained(self) -> None:
        """Return when nothing waits and nobody compares."""
        await self._waiting.join()

    async def close(self) -> None:
        """Compare nothing more. What waited is counted as dropped."""
        self._is_closed = True
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait()
            self._waiting.task_done()
            self._counts["dropped"] += 1

    def _sample(self, call: str, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any) -> None:
        self._counts["reads"] += 1
        if self._is_closed or self._chance() >= self._share:
            return
        self._counts["sampled"] += 1
        if self._waiting.full():
            self._counts["dropped"] += 1
            return
        # The caller may change what was answered, and what was asked with.
        kept = copy.deepcopy((arguments, dict(options), answer))
        self._waiting.put_nowait(_Sampled(call, *kept))
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._count_workers)]

    async def _work(self) -> None:
        while True:
            sampled = await self._waiting.get()
            outcome = "dropped"  # if this is ended in the middle of it
            try:
                outcome = await self._compared(sampled)
            except TimeoutError:
                outcome = "timed_out"
            except Exception as error:  # noqa: BLE001 - the new side may fail in any way; counted, and nobody's answer
                outcome = "failed"
                log.warning("%s of the new side failed: %s (%s)", sampled.call, type(error).__name__, _asked(sampled))
            finally:
                self._counts[outcome] += 1
                self._waiting.task_done()

    async def _compared(self, sampled: _Sampled) -> str:
        theirs = await self._ask(self._new, sampled)
        if await asyncio.to_thread(_same, sampled.call, sampled.answer, theirs):
            return "same"
        await asyncio.sleep(self._look_again_s)
        ours, theirs = await self._ask(self._old, sampled), await self._ask(self._new, sampled)
        mismatch = await asyncio.to_thread(_mismatch, sampled, ours, theirs)
        if mismatch is None:
            return "settled"
        self._by_call[sampled.call] += 1
        self._last.append(mismatch)
        log.warning("the two sides differ: %s", mismatch)
        return "different"

    async def _ask(self, side: Any, sampled: _Sampled) -> Any:
        asked = getattr(side, sampled.call)(*sampled.arguments, **sampled.options)
        return await asyncio.wait_for(asked, self._timeout_s)


def _same(call: str, ours: object, theirs: object) -> bool:
    return first_difference(canonical(call, ours), canonical(call, theirs)) is None


def _mismatch(sampled: _Sampled, ours: object, theirs: object) -> Mismatch | None:
    one, other = canonical(sampled.call, ours), canonical(sampled.call, theirs)
    where = first_difference(one, other)
    if where is None:
        return None
    return Mismatch(sampled.call, _asked(sampled), where, digest(one), digest(other))


def _asked(sampled: _Sampled) -> str:
    """What was asked, without what a user wrote: the ids of who and where; of all else a digest."""
    are_ids = sampled.call not in {"search_messages"}
    shown = [
        repr(one) if are_ids or number == 0 else f"<{digest(one)}>" for number, one in enumerate(sampled.arguments)
    ]
    ids = {"user_id", "session_id", "panel_id", "persona_id", "document_id", "limit", "offset"}
    shown += [f"{name}={one!r}" if name in ids else f"{name}=<{digest(one)}>" for name, one in sampled.options.items()]
    return ", ".join(shown)
