"""``modchat migrate cutover ...`` and ``modchat migrate rollback``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from migration import announce_cli, backup_cli
from migration.console import shown_progress
from migration.cutover_answers import CLEAN, LOOK, REFUSED, RETRY, Command, answered
from migration.cutover_gates import ACCEPTABLE
from migration.cutover_hooks import MEANINGS, HookName, Hooks, read_hooks
from migration.cutover_journal import Journal
from migration.cutover_options import Options
from migration.cutover_steps import ROUTES, Ending, Way
from migration.job import RunSettings
from migration.state import RefusedError

if TYPE_CHECKING:
    from migration.cutover import CutOver, Outcome

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_HOOK_OPTIONS = {name: f"--{name.value.replace('_', '-')}" for name in HookName}


@dataclass(frozen=True, slots=True)
class Shared:
    """What the commands of the migration have in common (`migration.cli`): arguments that name a run, the settings
    that they give, errors as exit codes."""

    arguments: Callable[[argparse.ArgumentParser], None]
    settings: Callable[[argparse.Namespace], RunSettings]
    handled: Callable[[Command], Command]


def register(commands: SubParsers, shared: Shared) -> None:
    """Adds the commands, and those of backups and announcements."""
    backup_cli.register(commands, shared.handled)
    announce_cli.register(commands, shared.handled)
    cutover = commands.add_parser("cutover", help="make NEW serve in place of OLD, or take that back")
    actions = cutover.add_subparsers(dest="cutover_command", required=True, metavar="plan|start|status|continue|abort")
    plan = actions.add_parser("plan", help="what a cut-over would do, and what stands in its way; writes nothing")
    start = actions.add_parser("start", help="cut over; goes back by itself when something is wrong before the switch")
    for parser in (plan, start):
        shared.arguments(parser)
        _option_arguments(parser)
    status = actions.add_parser("status", help="where the cut-over stands, who is served by which side")
    go_on = actions.add_parser("continue", help="go on where a cut-over or rollback was cut short")
    abort = actions.add_parser("abort", help="let v2 serve again; refused once NEW may have been written to")
    rollback = commands.add_parser("rollback", help="after a cut-over: back to v2, with what was written since")
    for parser in (status, go_on, abort, rollback):
        parser.add_argument("--from", dest="source", metavar="OLD", help="checked, when it is given")
        parser.add_argument("--to", required=True, metavar="NEW", help="base path of the platform's store")
    for parser in (start, go_on, abort, rollback):
        _work_arguments(parser)
    for parser in (start, go_on, abort):
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    for parser in (plan, start, status, go_on, abort, rollback):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
    plan.add_argument("--html", metavar="FILE", help="also as a page")
    status.add_argument("--html", metavar="FILE", help="also as a page")
    rollback.add_argument("--execute", action="store_true", help="really go back; without it, list what v2 cannot hold")
    rollback.add_argument(
        "--accept-changed-old", action="store_true", help="go back though v2 was changed since; its tree is kept"
    )
    handlers: tuple[tuple[argparse.ArgumentParser, Command], ...] = (
        (plan, lambda args: show_plan(args, shared)),
        (start, lambda args: start_cutover(args, shared)),
        (status, show_status),
        (go_on, continue_cutover),
        (abort, abort_cutover),
        (rollback, roll_back),
    )
    for parser, command in handlers:
        parser.set_defaults(handler=shared.handled(answered(command)))


def _option_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", action="append", default=[], metavar="U", help="a wave: this user, and not everybody")
    parser.add_argument("--users-file", metavar="FILE", help="more of them, one a line")
    parser.add_argument("--hooks", metavar="FILE", help="the commands below, as JSON, with time-outs")
    for name, option in _HOOK_OPTIONS.items():
        parser.add_argument(option, dest=name.value, metavar="CMD", help=f"command: {MEANINGS[name]}")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--backups", metavar="DIR", help="back v2 up there first, and verify that")
    which.add_argument("--no-backup", action="store_true", help="go without: you have one of your own")
    parser.add_argument("--use-backup", metavar="NAME", help="verify and use this backup of --backups")
    parser.add_argument(
        "--max-lag", type=int, default=1000, metavar="N", help="sessions that may be left for the fence"
    )
    parser.add_argument("--passes", type=int, default=10, metavar="N", help="back-fills at most (default: 10)")
    parser.add_argument(
        "--dual-queue", action="append", default=[], metavar="FILE", help="queue of a dual writer: must be empty"
    )
    parser.add_argument("--accept", action="append", default=[], choices=ACCEPTABLE, help="findings that do not veto")
    parser.add_argument("--sample", type=float, metavar="P", help="share of users to compare in depth (default: all)")
    parser.add_argument("--allow-deletes", default="50", metavar="N%", help="sessions that may be gone (default: 50%%)")
    parser.add_argument("--allow-all-changed", action="store_true", help="also when every session has changed")
    parser.add_argument(
        "--drain", type=float, default=30.0, metavar="S", help="seconds to wait for writers that ask who serves"
    )
    parser.add_argument("--hold", action="store_true", help="stay behind the fence when something is wrong")


def _work_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--local", action="store_true", help="without Ray: one process carries over, all CPUs compare")
    parser.add_argument("--workers", type=int, metavar="N", help="tasks or processes at a time (default: the CPUs)")
    parser.add_argument("--address", metavar="ADDR", help="an existing Ray cluster (auto: the one of this machine)")


# ---- commands


def show_plan(args: argparse.Namespace, shared: Shared) -> int:
    from migration.cutover_report import html, plan_of, text

    values = plan_of(shared.settings(args), _options(args))
    if getattr(args, "html", None):
        Path(args.html).write_text(html(values), encoding="utf-8", errors="backslashreplace")
    sys.stdout.write(_json(values) if args.json else text(values))
    return CLEAN if values["verdict"] == "go" else REFUSED


def start_cutover(args: argparse.Namespace, shared: Shared) -> int:
    if args.dry_run:
        return show_plan(args, shared)
    settings, options = shared.settings(args), _options(args)
    with _cut_over(args) as cutover:
        outcome = cutover.begin(settings, options)
    return _ended(args, outcome)


def show_status(args: argparse.Namespace) -> int:
    from migration.cutover_report import html, report_of, text

    _check_source(args)
    journal = Journal(os.path.abspath(args.to))
    values = report_of(journal, datetime.now(UTC), losses=bool(args.html))
    if args.html:
        Path(args.html).write_text(html(values), encoding="utf-8", errors="backslashreplace")
    sys.stdout.write(_json(values) if args.json else text(values))
    return RETRY if journal.position.is_under_way else CLEAN


def continue_cutover(args: argparse.Namespace) -> int:
    _check_source(args)
    if args.dry_run:
        return _dry(args, Journal(os.path.abspath(args.to)).position.way)
    with _cut_over(args) as cutover:
        outcome = cutover.carry_on()
    return _ended(args, outcome)


def abort_cutover(args: argparse.Namespace) -> int:
    _check_source(args)
    if args.dry_run:
        at = Journal(os.path.abspath(args.to)).position
        return _dry(args, Way.RESUME if at.way in (Way.ROLLBACK, Way.RESUME) else Way.BACK)
    with _cut_over(args) as cutover:
        outcome = cutover.abort()
    return _ended(args, outcome, was_asked_for=True)


def roll_back(args: argparse.Namespace) -> int:
    _check_source(args)
    with _cut_over(args) as cutover:
        if args.execute:
            outcome = cutover.roll_back(accept_changed_old=args.accept_changed_old)
        else:
            cutover.check_roll_back()
    if args.execute:
        return _ended(args, outcome)
    from migration.reverse_preview import preview

    rows = [str(row) for row in preview(os.path.abspath(args.to))]
    steps = [step.value for step in ROUTES[Way.ROLLBACK]]
    if args.json:
        sys.stdout.write(_json({"steps": steps, "cannot_hold": rows}))
    else:
        sys.stdout.write("".join(f"v2 cannot hold: {row}\n" for row in rows) or "v2 can hold everything.\n")
        sys.stderr.write(f"Would do: {', '.join(steps)}. Nothing was done; add --execute to go back.\n")
    return CLEAN


# ---- what they share


@contextmanager
def _cut_over(args: argparse.Namespace) -> Iterator[CutOver]:
    from migration.cutover import CutOver
    from migration.cutover_sync import LocalSyncer, RaySyncer, Syncer

    target = os.path.abspath(args.to)
    with redirect_stdout(sys.stderr), shown_progress(sys.stderr) as on_progress:
        syncer: Syncer
        if args.local:
            syncer = LocalSyncer(args.workers, on_progress)
        else:
            syncer = RaySyncer(args.workers, args.address, on_progress)
        try:
            yield CutOver(target, syncer, tell=_say)
        except Exception as error:
            if Journal(target).position.is_under_way:
                error.add_note(_advice(target))
            raise
        finally:
            syncer.close()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _advice(target: str) -> str:
    at = Journal(target).position
    back = {Way.FORWARD: "`modchat migrate rollback`" if at.is_past_return else "`cutover abort`"}
    if not at.has_returned:
        back[Way.ROLLBACK] = "`cutover abort`"
    ways = " or ".join(["`cutover continue`", *([back[at.way]] if at.way in back else [])])
    return f"cut-over {at.cutover} stands at {at.number}: {ways}"


def _ended(args: argparse.Namespace, outcome: Outcome, *, was_asked_for: bool = False) -> int:
    if args.json:
        sys.stdout.write(Path(f"{outcome.report}.json").read_text(encoding="utf-8"))
    else:
        because = f", because {outcome.reason}" if outcome.reason else ""
        sys.stderr.write(f"cut-over {outcome.cutover}: {outcome.ending}{because}\nreport: {outcome.report}.html\n")
    if outcome.ending is Ending.ABORTED and not was_asked_for:
        return REFUSED
    return LOOK if outcome.needs_look else CLEAN


def _dry(args: argparse.Namespace, way: Way) -> int:
    at = Journal(os.path.abspath(args.to)).position
    if not at.is_under_way:
        raise RefusedError(f"{args.to}: no cut-over is under way")
    if way is not at.way and (at.has_returned or (at.way is Way.FORWARD and at.is_past_return)):
        raise RefusedError(f"{args.to}: cut-over {at.cutover} is past the point of no return: {_advice(args.to)}")
    steps = [step.value for step in ROUTES[way] if way is not at.way or (way, step) not in at.done]
    values = {"cutover": at.cutover, "stands_at": at.number, "would_do": steps}
    sys.stdout.write(_json(values) if args.json else f"stands at {at.number}; would do: {', '.join(steps)}\n")
    return CLEAN


def _check_source(args: argparse.Namespace) -> None:
    begun = Journal(os.path.abspath(args.to)).position.begun
    known = begun.data["settings"]["source"] if begun is not None else None
    if args.source is not None and known is not None and os.path.realpath(args.source) != os.path.realpath(known):
        raise RefusedError(f"{args.to}: is being cut over from {known}, not from {args.source}")


def _options(args: argparse.Namespace) -> Options:
    """Raises ValueError."""
    users = list(args.user)
    if args.users_file:
        users += [line for line in Path(args.users_file).read_text(encoding="utf-8").splitlines() if line.strip()]
        if not users:
            raise ValueError(f"{args.users_file}: names no user")
    share = float(args.allow_deletes.removesuffix("%")) / 100
    return Options(
        users=tuple(dict.fromkeys(users)),
        hooks=_hooks(args),
        backups=os.path.abspath(args.backups) if args.backups else None,
        use_backup=args.use_backup,
        max_lag=args.max_lag,
        passes=args.passes,
        dual_queues=tuple(os.path.abspath(path) for path in args.dual_queue),
        accept=tuple(args.accept),
        sample=args.sample,
        deletes=share,
        all_changed=args.allow_all_changed,
        drain_s=args.drain,
        hold=args.hold,
    )


def _hooks(args: argparse.Namespace) -> Hooks:
    """Those of the file, each replaced where it is given on the command line."""
    given = {name.value: getattr(args, name.value) for name in HookName if getattr(args, name.value)}
    known = read_hooks(Path(args.hooks)).to_json() if args.hooks else {}
    return Hooks.of({**known, **given})


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
