"""The steps of a cut-over, the ways through them, and where one stands: pure.

    forward   prepare, back up, back-fill, fence, final sync, verify, SWITCH, start new, health, finish
    back      release, start old, finish                        before the point of no return: nothing was switched
    rollback  fence new, check v2, restore, RETURN, start old, finish           after it: v2 gets what was written since
    resume    resume, start old, start new, health, finish   a rollback given up before its return: the new side serves

The point of no return is the intent to switch. It is on disk before anybody is sent to the new side, so whoever reads
the journal later knows whether the new side may have been written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Way(StrEnum):
    FORWARD = "forward"
    BACK = "back"
    ROLLBACK = "rollback"
    RESUME = "resume"


class Step(StrEnum):
    PREPARE = "prepare"
    BACK_UP = "back up"
    BACK_FILL = "back-fill"
    FENCE = "fence"
    FINAL_SYNC = "final sync"
    VERIFY = "verify"
    SWITCH = "switch"
    START_NEW = "start new"
    HEALTH = "health"
    RELEASE = "release"
    START_OLD = "start old"
    FENCE_NEW = "fence new"
    CHECK_OLD = "check v2"
    RESTORE = "restore"
    RETURN = "return"
    RESUME = "resume"
    FINISH = "finish"


ROUTES: Mapping[Way, tuple[Step, ...]] = {
    Way.FORWARD: (
        *(Step.PREPARE, Step.BACK_UP, Step.BACK_FILL, Step.FENCE, Step.FINAL_SYNC, Step.VERIFY),
        *(Step.SWITCH, Step.START_NEW, Step.HEALTH, Step.FINISH),
    ),
    Way.BACK: (Step.RELEASE, Step.START_OLD, Step.FINISH),
    Way.ROLLBACK: (Step.FENCE_NEW, Step.CHECK_OLD, Step.RESTORE, Step.RETURN, Step.START_OLD, Step.FINISH),
    Way.RESUME: (Step.RESUME, Step.START_OLD, Step.START_NEW, Step.HEALTH, Step.FINISH),
}
POINT_OF_NO_RETURN = Step.SWITCH


class Event(StrEnum):
    """What a record of the journal tells."""

    BEGIN = "begin"
    INTENT = "intent"
    DONE = "done"
    FAILED = "failed"
    TURN = "turn"
    AGAIN = "again"
    END = "end"


class Ending(StrEnum):
    DONE = "done"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled back"


ENDING_OF: Mapping[Way, Ending] = {
    Way.FORWARD: Ending.DONE,
    Way.BACK: Ending.ABORTED,
    Way.ROLLBACK: Ending.ROLLED_BACK,
    Way.RESUME: Ending.DONE,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal. *at* is ISO 8601 with offset; *step* is empty for what is of no step."""

    number: int
    at: str
    cutover: int
    event: Event
    step: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the latest cut-over of a journal stands. *failure* is what stopped the step under way."""

    cutover: int = 0
    way: Way = Way.FORWARD
    begun: Record | None = None
    intents: Mapping[tuple[Way, Step], Record] = field(default_factory=dict)
    done: Mapping[tuple[Way, Step], Record] = field(default_factory=dict)
    failure: Record | None = None
    ended: Ending | None = None
    turn: Record | None = None

    @property
    def is_under_way(self) -> bool:
        return self.begun is not None and self.ended is None

    @property
    def is_past_return(self) -> bool:
        """Whether the new side may have been written to."""
        return (Way.FORWARD, POINT_OF_NO_RETURN) in self.intents and self.ended is not Ending.ROLLED_BACK

    @property
    def has_returned(self) -> bool:
        """Whether a rollback may have let the old side be written to."""
        return self.way is Way.ROLLBACK and (Way.ROLLBACK, Step.RETURN) in self.intents

    @property
    def has_fenced(self) -> bool:
        """Whether the old side may have been stopped."""
        return (Way.FORWARD, Step.FENCE) in self.intents

    @property
    def next_step(self) -> Step | None:
        """The first step of the present way that is not done; one that was begun is done again."""
        if not self.is_under_way:
            return None
        return next((step for step in ROUTES[self.way] if (self.way, step) not in self.done), None)

    @property
    def reason(self) -> str:
        """Why the cut-over left the way forward; empty when it did not."""
        return str(self.turn.data.get("reason", "")) if self.turn is not None else ""

    @property
    def number(self) -> str:
        """``4/10 fence``, for people."""
        step = self.next_step
        route = ROUTES[self.way]
        return f"{route.index(step) + 1}/{len(route)} {step}" if step is not None else "-"

    def result(self, step: Step, way: Way = Way.FORWARD) -> Mapping[str, Any]:
        """What the record of a step that is done holds; empty when it is not done."""
        record = self.done.get((way, step))
        return record.data if record is not None else {}


def position_of(records: Iterable[Record]) -> Position:
    """Where the journal's last cut-over stands."""
    position = Position()
    for record in records:
        position = _after(position, record)
    return position


def step_to_repeat(at: Position) -> Step | None:
    """The step from which another process does everything again before it goes on; None where it need not.

    Between the end of one process and the start of the next, hours may lie, and a machine that started the stopped
    side by itself. So what was found at rest is stopped and looked at again, as long as nobody serves in its place.
    """
    first, last = {
        Way.FORWARD: (Step.FENCE, Step.START_NEW),
        Way.ROLLBACK: (Step.FENCE_NEW, Step.RETURN),
    }.get(at.way, (None, None))
    if first is None or last is None or (at.way, first) not in at.done or (at.way, last) in at.done:
        return None
    return None if at.has_returned else first


def _after(at: Position, record: Record) -> Position:
    if record.event is Event.BEGIN:
        return Position(record.cutover, begun=record)
    intents, done = dict(at.intents), dict(at.done)
    way, ended, failure, turn = at.way, at.ended, at.failure, at.turn
    if record.event is Event.INTENT:
        intents.setdefault((way, Step(record.step)), record)
        failure = None
    elif record.event is Event.DONE:
        done[way, Step(record.step)] = record
        failure = None
    elif record.event is Event.FAILED:
        failure = record
    elif record.event is Event.AGAIN:
        undone = ROUTES[way][ROUTES[way].index(Step(record.step)) :]
        done = {key: value for key, value in done.items() if key[0] is not way or key[1] not in undone}
    elif record.event is Event.TURN:
        way, ended, turn, failure = Way(record.data["way"]), None, record, None
        # A way that was gone before is gone again from its beginning.
        intents = {key: value for key, value in intents.items() if key[0] is not way}
        done = {key: value for key, value in done.items() if key[0] is not way}
    else:
        ended = Ending(record.data["ending"])
    return Position(at.cutover, way, at.begun, intents, done, failure, ended, turn)
