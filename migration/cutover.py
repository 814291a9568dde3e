"""The cut-over of one target: a state machine that any process can take on where another one left it.

A step is begun when its intent is in the journal and over when its end is; one that was cut short is done again
(`cutover_steps` has the ways, `cutover_work` what is done). What fails between the fence and the switch goes back by
itself, unless it was asked to hold: v2 serves again. What fails before stays where it is, with v2 serving; what fails
after stays too, for `carry_on`, or for `roll_back`, which takes to v2 what was written since.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from migration.cutover_hooks import HookFailed
from migration.cutover_journal import Journal
from migration.cutover_options import Options, settings_json, settings_of
from migration.cutover_report import write_report_of
from migration.cutover_serving import Serving, Side
from migration.cutover_steps import ENDING_OF, Ending, Event, Position, Step, Way, step_to_repeat
from migration.cutover_sync import Syncer
from migration.cutover_work import Tools, Work
from migration.guards import check_same_run, check_source, check_target
from migration.job import RunSettings
from migration.state import RefusedError, State
from migration.tree_swap import inode_of, real

log = logging.getLogger(__name__)

_GOES_BACK = frozenset({Step.FENCE, Step.FINAL_SYNC, Step.VERIFY})


class CutOverRefused(RefusedError):
    """The cut-over cannot do that from where it is. Says what it can."""


class PastReturn(CutOverRefused):
    """The new side may have been written to: there is no abort any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a way ended. *reason*: why it was not the way forward. *report*: path of the report, without extension."""

    cutover: int
    ending: Ending
    reason: str
    report: str
    needs_look: bool

    @property
    def was_asked_for(self) -> bool:
        return not self.reason


class CutOver:
    """*steps* hears a name before whatever a crash could leave half done; *tell* one line for each step."""

    def __init__(
        self,
        target: str,
        syncer: Syncer,
        *,
        environ: Mapping[str, str] | None = None,
        steps: Callable[[str], None] = lambda step: None,
        tell: Callable[[str], None] = lambda line: None,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.target = target
        self.journal = Journal(target)
        self.serving = Serving(target)
        self._tools = Tools(syncer, os.environ if environ is None else environ, steps, now_ns, sleep)
        self._tell = tell

    @property
    def position(self) -> Position:
        return self.journal.position

    def begin(self, settings: RunSettings, options: Options) -> Outcome:
        """Cuts over. Raises `CutOverRefused` when another one is under way or everybody is served by the new side,
        what the guards of a run raise, and what stopped the work before the fence or after the switch."""
        check_source(settings)
        check_target(settings)
        check_same_run(settings, State(settings.target).read("run.json"))
        with self.journal.taken():
            at = self.position
            if at.is_under_way:
                raise CutOverRefused(
                    f"{self.target}: cut-over {at.cutover} stands at {at.number}; continue it, or abort it"
                )
            routes = self.serving.routes()
            if routes.default is Side.NEW or (options.users and set(options.users) <= routes.on_new):
                raise CutOverRefused(f"{self.target}: serves already; the way back is `modchat migrate rollback`")
            self.journal.lay_by()
            self.serving.prepare()
            data = {"settings": settings_json(settings), "options": options.to_json(), "routes": routes.to_json()}
            self._note(Event.BEGIN, "", data, cutover=at.cutover + 1)
            return self._run()

    def carry_on(self) -> Outcome:
        """Goes on where the cut-over stands, on the way that it is on: from the fence, when that was passed and nobody
        serves yet, since the stopped side may have been started meanwhile. Raises as `begin`."""
        with self.journal.taken():
            self._insist_under_way("continue")
            self._repeat()
            return self._run()

    def abort(self, reason: str = "the operator aborted it") -> Outcome:
        """Goes back to where the old side serves; a rollback, to where the new one does. Raises `PastReturn` when the
        other side may have been written to meanwhile."""
        with self.journal.taken():
            at = self._insist_under_way("abort")
            if at.way is Way.FORWARD and at.is_past_return:
                raise PastReturn(
                    f"{self.target}: cut-over {at.cutover} is past the point of no return: the new side may have been "
                    "written to. Go on with `cutover continue`, or go back with what was written since: "
                    f"`modchat migrate rollback --to {self.target}`"
                )
            if at.has_returned:
                raise PastReturn(f"{self.target}: a rollback stands at {at.number}: v2 serves again; continue it")
            if at.way is Way.FORWARD:
                self._turn(Way.BACK, reason)
            elif at.way is Way.ROLLBACK and at.turn is not None:
                kept = {name: at.turn.data[name] for name in ("partial", "routes")}
                self._turn(Way.RESUME, reason, kept)
            return self._run()

    def roll_back(self, *, accept_changed_old: bool = False, reason: str = "the operator rolled it back") -> Outcome:
        """Makes v2 serve again, with what was written on the new side since. Everybody goes back, of all waves.

        Raises `CutOverRefused` when nobody is served by the new side; then what stopped it.
        """
        with self.journal.taken():
            at = self.position
            self.check_roll_back()
            is_going = at.is_under_way and at.way is Way.ROLLBACK
            routes = self.serving.routes()
            was_fenced = (Way.FORWARD, Step.FENCE) in at.done
            partial = not was_fenced or (routes.default is not Side.NEW and not self._all_were_moved(at))
            data = {"partial": partial, "routes": routes.to_json(), "accept_changed_old": accept_changed_old}
            if not is_going:
                if not (partial or accept_changed_old):
                    self._work().check_old()  # now, while the new side still serves; it is asked again behind the fence
                self._turn(Way.ROLLBACK, reason, data)
            elif accept_changed_old and at.turn is not None and (Way.ROLLBACK, Step.CHECK_OLD) not in at.done:
                self._turn(Way.ROLLBACK, reason, {**at.turn.data, "accept_changed_old": True})
            else:
                self._repeat()
            return self._run()

    def check_roll_back(self) -> None:
        """Raises `CutOverRefused` when there is nothing to roll back."""
        at, routes = self.position, self.serving.routes()
        if at.is_under_way and at.way is Way.ROLLBACK:
            return
        if at.is_under_way and (not at.is_past_return or at.way is Way.RESUME):
            ways = "continue it" if at.way is Way.RESUME else "abort it"
            raise CutOverRefused(f"{self.target}: cut-over {at.cutover} stands at {at.number}: {ways}")
        if at.begun is None or not (at.is_past_return or routes.default is Side.NEW or routes.on_new):
            raise CutOverRefused(f"{self.target}: nobody is served by the new side; there is nothing to roll back")

    # ---- the loop

    def _run(self) -> Outcome:
        while (step := self.position.next_step) is not None:
            position = self.position
            self._tell(position.number)
            self._tools.steps(f"intend {step}")
            self._note(Event.INTENT, step, self._announced(step))
            self._tools.steps(f"do {step}")
            try:
                done = self._report() if step is Step.FINISH else self._work().do(step)
            except Exception as error:  # noqa: BLE001 - the owning loop: v2 must not stay stopped for any of them
                self._failed(position.way, step, error)
                continue
            self._tools.steps(f"note {step}")
            self._note(Event.DONE, step, done)
        return self._end()

    def _failed(self, way: Way, step: Step, error: Exception) -> None:
        """Notes it, and turns back where that is the way; else raises it again."""
        if not isinstance(error, (OSError, RefusedError, HookFailed)):
            log.warning("%s failed", step, exc_info=error)
        reason = f"{step}: {error}" if str(error) else f"{step}: {type(error).__name__}"
        self._note(Event.FAILED, step, {"kind": type(error).__name__, "reason": reason})
        self._tell(f"failed: {reason}")
        may_go_back = way is Way.FORWARD and step in _GOES_BACK and not self.position.is_past_return
        if may_go_back and not self._options().hold:
            self._turn(Way.BACK, reason)
            return
        raise error

    def _end(self) -> Outcome:
        at = self.position
        ending = ENDING_OF[at.way]
        if at.ended is None:
            self._tools.steps("end")
            self._note(Event.END, "", {"ending": ending.value})
        finish = self.position.result(Step.FINISH, at.way)
        return Outcome(at.cutover, ending, at.reason, str(finish["report"]), bool(finish["needs_look"]))

    def _report(self) -> dict[str, Any]:
        return write_report_of(self.journal, self._now())

    def _repeat(self) -> None:
        step = step_to_repeat(self.position)
        if step is not None:
            self._tools.steps(f"again from {step}")
            self._note(Event.AGAIN, step, {})

    def _turn(self, way: Way, reason: str, more: Mapping[str, Any] | None = None) -> None:
        self._tools.steps(f"turn {way}")
        self._note(Event.TURN, "", {"way": way.value, "reason": reason, **(more or {})})

    def _announced(self, step: Step) -> dict[str, Any]:
        """What the intent holds that the step needs to know when it is done again: of the first intent, where there
        is one."""
        at = self.position
        if (known := at.intents.get((at.way, step))) is not None:
            return dict(known.data)
        if step is Step.RESTORE:
            return {"inode": inode_of(real(self._settings().source))}
        return {}

    def _all_were_moved(self, at: Position) -> bool:
        """Whether a switch of everybody is on its way to the file of routes, or has been taken back from there."""
        return (Way.FORWARD, Step.SWITCH) in at.intents and not self._options().users

    def _insist_under_way(self, what: str) -> Position:
        at = self.position
        if not at.is_under_way:
            last = f"; the last one ended: {at.ended}" if at.ended is not None else ""
            raise CutOverRefused(f"{self.target}: no cut-over is under way that you could {what}{last}")
        return at

    def _work(self) -> Work:
        return Work(self._tools, self._settings(), self._options(), self.position)

    def _settings(self) -> RunSettings:
        begun = self.position.begun
        assert begun is not None, "a way is gone only after its beginning"
        return settings_of(begun.data["settings"])

    def _options(self) -> Options:
        begun = self.position.begun
        assert begun is not None, "a way is gone only after its beginning"
        return Options.of(begun.data["options"])

    def _note(self, event: Event, step: str, data: Mapping[str, Any], *, cutover: int | None = None) -> None:
        number = self.position.cutover if cutover is None else cutover
        self.journal.append(event, step, data, at=self._now(), cutover=number)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._tools.now_ns() / 1e9, UTC)
