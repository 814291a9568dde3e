"""The go/no-go report of a cut-over: before it from what can be told by then, after it from its journal.

As JSON for programs and as one HTML page without scripts or links. Commands appear by their program only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from migration.cutover_gates import Gate, Verdict, go
from migration.cutover_hooks import MEANINGS, HookName
from migration.cutover_journal import Journal
from migration.cutover_options import Options, settings_of
from migration.cutover_preflight import first_gates
from migration.cutover_serving import Serving
from migration.cutover_steps import ENDING_OF, ROUTES, Event, Position, Record, Step, Way
from migration.durable import replace_file
from migration.guards import check_same_run, check_source, check_target
from migration.job import RunSettings
from migration.reverse_preview import Loss, preview
from migration.state import RefusedError, State
from migration.target import TargetError
from migration.templating import page
from migration.v2.read import SourceError

_SUMS = ("users", "sessions", "messages", "documents", "lines", "quarantined", "attic", "bytes")


def plan_of(settings: RunSettings, options: Options) -> dict[str, Any]:
    """What a cut-over would do and what can be told of its gates now. Writes nothing."""
    gates: list[Gate] = []
    for check in (check_source, check_target, _check_run):
        try:
            check(settings)
        except (RefusedError, SourceError) as error:
            gates.append(Gate("guards", Verdict.NO_GO, str(error)))
    if not gates:
        gates = [Gate("guards", Verdict.GO, "source and target are what they must be")]
        gates += first_gates(settings, options)
        gates.append(_under_way(settings.target))
    gates += [
        Gate("lag", Verdict.LATER, f"at most {options.max_lag:,} sessions changed in a back-fill"),
        Gate("findings of the run", Verdict.LATER, "nothing that a person has to look at"),
        Gate("conservation", Verdict.LATER, "every line accounted for, behind the fence"),
        Gate("validation", Verdict.LATER, "both sides equal, behind the fence"),
        Gate("v2 at rest", Verdict.LATER, "no file changed since the fence"),
    ]
    last = _last_run(settings.target)
    return {
        "kind": "plan",
        "verdict": (Verdict.GO if go(gates) else Verdict.NO_GO).value,
        "source": settings.source,
        "target": settings.target,
        "users": list(options.users),
        "serving": Serving(settings.target).routes().to_json(),
        "steps": [
            {"number": number, "step": step.value, "does": _doing(step, options), "state": "to do"}
            for number, step in enumerate(ROUTES[Way.FORWARD], start=1)
        ],
        "gates": [gate.to_json() for gate in gates],
        "sums": {name: last[name] for name in _SUMS if name in last},
        "issues": last.get("issues", {}),
        "roots": None,
        "downtime_s": None,
        "rollback_would_lose": _losses(settings.target),
    }


def report_of(journal: Journal, now: datetime, *, losses: bool = True) -> dict[str, Any]:
    """The latest cut-over of a journal; without *losses*, which take a walk of the new side, those are left out.

    Raises `RefusedError` when there is none."""
    at = journal.position
    if at.begun is None:
        raise RefusedError(f"{journal.directory}: no cut-over was ever begun here")
    mine = [record for record in journal.records if record.cutover == at.cutover]
    settings = settings_of(at.begun.data["settings"])
    options = Options.of(at.begun.data["options"])
    gates = _gates(at)
    sync = at.result(Step.FINAL_SYNC) or at.result(Step.BACK_FILL)
    return {
        "kind": "report",
        "cutover": at.cutover,
        "way": at.way.value,
        "verdict": _verdict(at, gates),
        "reason": at.reason or (str(at.failure.data["reason"]) if at.failure is not None else ""),
        "stands_at": at.number if at.is_under_way else None,
        "past_point_of_no_return": at.is_past_return,
        "source": settings.source,
        "target": settings.target,
        "users": list(options.users),
        "begun_at": at.begun.at,
        "written_at": now.isoformat(),
        "serving": Serving(settings.target).routes().to_json(),
        "steps": _steps(at, mine, options),
        "gates": gates,
        "sums": {name: sync[name] for name in _SUMS if name in sync},
        "issues": dict(sync.get("issues", {})),
        "roots": at.result(Step.VERIFY).get("roots"),
        "downtime_s": _downtime(at),
        "backup": at.result(Step.BACK_UP).get("backup"),
        "way_back": _way_back(at),
        "rollback_would_lose": _losses(settings.target) if losses else None,
    }


def write_report_of(journal: Journal, now: datetime) -> dict[str, Any]:
    """Puts the report of the latest cut-over beside its journal; what the record of that step holds."""
    values = report_of(journal, now)
    way = journal.position.way
    base = journal.directory / f"report-{values['cutover']:04d}-{way}"
    values["stands_at"], values["verdict"] = None, ENDING_OF[way].value
    write_report(values, base)
    accepted = any(kind in ("conflict", "replaced") for kind in values["issues"])
    found = bool((values["way_back"] or {}).get("findings"))
    return {"report": os.fspath(base), "needs_look": accepted or found}


def write_report(values: Mapping[str, Any], base: Path) -> None:
    """``base.json`` and ``base.html``. Raises `TargetError`."""
    try:
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        replace_file(base.with_name(f"{base.name}.json"), text.encode("utf-8", "backslashreplace"))
        replace_file(base.with_name(f"{base.name}.html"), html(values).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise TargetError.of(os.fspath(base.parent), base.name, error) from error


def html(values: Mapping[str, Any]) -> str:
    return page("cutover_report.html", {"report": values})


def text(values: Mapping[str, Any]) -> str:
    """For a terminal."""
    who = f"{len(values['users'])} users" if values["users"] else "everybody"
    lines = [f"{values['source']} -> {values['target']}, {who}: {values['verdict']}"]
    if values.get("reason"):
        lines.append(f"because: {values['reason']}")
    if values.get("stands_at"):
        beyond = ", past the point of no return" if values["past_point_of_no_return"] else ""
        lines.append(f"stands at {values['stands_at']}{beyond}")
    lines.append(f"served by: {_served(values['serving'])}")
    lines.append("")
    for step in values["steps"]:
        took = f"{step['seconds']:8.2f} s" if step.get("seconds") is not None else " " * 10
        lines.append(f"{step['number']:>3} {step['step']:<12} {step['state']:<10} {took}  {step['does']}")
    lines.append("")
    lines += [f"[{gate['verdict']:>5}] {gate['name']}: {gate['detail']}" for gate in values["gates"]]
    if values["sums"]:
        lines += ["", ", ".join(f"{name} {number:,}" for name, number in values["sums"].items())]
    if values["roots"]:
        lines += [f"root of v2  {values['roots']['source']}", f"root of new {values['roots']['target']}"]
    if values["downtime_s"] is not None:
        lines.append(f"writing was stopped for {values['downtime_s']:.2f} s")
    lines += [f"a rollback would lose: {row['what']}" for row in values["rollback_would_lose"] or ()]
    return "\n".join(lines) + "\n"


# ---- parts


def _check_run(settings: RunSettings) -> None:
    check_same_run(settings, State(settings.target).read("run.json"))


def _under_way(target: str) -> Gate:
    at = Journal(target).position
    if at.is_under_way:
        return Gate("journal", Verdict.NO_GO, f"cut-over {at.cutover} stands at {at.number}: continue it, or abort it")
    return Gate("journal", Verdict.GO, "no cut-over is under way")


def _last_run(target: str) -> dict[str, Any]:
    state = State(target)
    run = state.read("run.json") or {}
    if run.get("outcome") != "finished":
        return {}
    return state.read(f"reports/run-{run['run']:06d}.json") or {}


def _losses(target: str) -> list[dict[str, Any]]:
    if not os.path.isdir(f"{target}/text_chat"):
        return []
    return [_loss(row) for row in preview(target)]


def _loss(row: Loss) -> dict[str, Any]:
    return {"kind": row.kind, "count": row.count, "bytes": row.bytes, "what": str(row)}


def _gates(at: Position) -> list[dict[str, str]]:
    """The latest word on every gate."""
    known: dict[str, dict[str, str]] = {}
    for _, record in sorted(at.done.items(), key=lambda one: one[1].number):
        known |= {f"{gate['name']}": gate for gate in record.data.get("gates", ())}
    return list(known.values())


def _verdict(at: Position, gates: Sequence[Mapping[str, str]]) -> str:
    if at.ended is not None:
        return at.ended.value
    if at.failure is not None or any(gate["verdict"] == Verdict.NO_GO for gate in gates):
        return Verdict.NO_GO.value
    return "under way"


def _steps(at: Position, records: Sequence[Record], options: Options) -> list[dict[str, Any]]:
    ways = [Way.FORWARD] if at.way is Way.FORWARD else [Way.FORWARD, at.way]
    rows: list[dict[str, Any]] = []
    for way in ways:
        for step in ROUTES[way]:
            begun, done = at.intents.get((way, step)), at.done.get((way, step))
            if begun is None and way is not at.way:
                continue  # the way was left before
            rows.append(
                {
                    "number": len(rows) + 1,
                    "way": way.value,
                    "step": step.value,
                    "does": _doing(step, options),
                    "state": _state(step, begun, done, records),
                    "begun_at": begun.at if begun else None,
                    "seconds": _seconds(begun, done),
                }
            )
    return rows


def _state(step: Step, begun: Record | None, done: Record | None, records: Sequence[Record]) -> str:
    if done is not None:
        return "skipped" if "skipped" in done.data else "done"
    if begun is None:
        return "to do"
    last = [record for record in records if record.step == step and record.number > begun.number]
    return "failed" if any(record.event is Event.FAILED for record in last) else "under way"


def _seconds(begun: Record | None, done: Record | None) -> float | None:
    if begun is None or done is None:
        return None
    return (datetime.fromisoformat(done.at) - datetime.fromisoformat(begun.at)).total_seconds()


def _downtime(at: Position) -> float | None:
    """From the fence to the moment when somebody was served again."""
    fenced = at.intents.get((Way.FORWARD, Step.FENCE))
    last = (Way.FORWARD, Step.START_NEW) if at.way is not Way.BACK else (Way.BACK, Step.START_OLD)
    return _seconds(fenced, at.done.get(last))


def _way_back(at: Position) -> dict[str, Any] | None:
    found = at.result(Step.RESTORE, Way.ROLLBACK)
    return dict(found) if found else None


def _served(serving: Mapping[str, Any]) -> str:
    named: dict[str, int] = {}
    for side in serving["users"].values():
        named[side] = named.get(side, 0) + 1
    more = "".join(f", {count:,} users by {side}" for side, count in sorted(named.items()))
    return f"{serving['default']}{more}"


_HOOKS: Mapping[Step, tuple[HookName, ...]] = {
    Step.FENCE: (HookName.STOP_OLD,),
    Step.VERIFY: (HookName.READY,),
    Step.START_NEW: (HookName.START_NEW,),
    Step.HEALTH: (HookName.HEALTH,),
    Step.START_OLD: (HookName.START_OLD,),
    Step.FENCE_NEW: (HookName.STOP_NEW,),
}
_DOES: Mapping[Step, str] = {
    Step.PREPARE: "looks at source, target, disk space and commands",
    Step.BACK_UP: "makes and verifies a backup of v2",
    Step.BACK_FILL: "carries over until little is left, with v2 serving",
    Step.FENCE: "ends all writing",
    Step.FINAL_SYNC: "carries over what is left",
    Step.VERIFY: "compares both sides",
    Step.SWITCH: "the new side serves: the point of no return",
    Step.START_NEW: "starts the platform",
    Step.HEALTH: "asks whether the platform is well",
    Step.RELEASE: "v2 serves, as before",
    Step.START_OLD: "starts v2",
    Step.FENCE_NEW: "ends all writing",
    Step.CHECK_OLD: "looks whether v2 has something that the new side lacks",
    Step.RESTORE: "writes v2 with all that is new, and swaps it in; the old tree is kept",
    Step.RETURN: "v2 serves: the rollback's point of no return",
    Step.RESUME: "the new side serves, as before the rollback",
    Step.FINISH: "writes the report",
}


def _doing(step: Step, options: Options) -> str:
    commands = [(name, options.hooks.get(name)) for name in _HOOKS.get(step, ())]
    named = [f"{name} ({hook.shown}): {MEANINGS[name]}" for name, hook in commands if hook is not None]
    what = _DOES[step]
    if step is Step.BACK_UP and options.backups is None:
        what = "nothing: no backup was asked for"
    return "; ".join([what, *named])
