"""``modchat sample``, ``modchat migrate ...`` and ``modchat index build``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migration import cutover_cli
from migration.answers import CLEAN, LOOK, RETRY, answering
from migration.config_migrator import migrate_config_file
from migration.console import shown_progress
from migration.fanout import FanOut, LocalFanOut, ProcessFanOut
from migration.guards import ChangeLimits, check_same_run, check_source, check_target, names_of
from migration.job import RunSettings
from migration.state import BusyError, RefusedError, State
from migration.v2.names import V2Names
from migration.v2.read import SourceError
from migration.zones import zone

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_handled = answering("run the same command again to go on")


def register(subparsers: SubParsers) -> None:
    """Adds the commands of the migration."""
    _register_sample(subparsers)
    migrate = subparsers.add_parser("migrate", help="take a v2 store to the platform, and back")
    commands = migrate.add_subparsers(dest="migrate_command", required=True, metavar="COMMAND")
    _register_run(commands)
    _register_checks(commands)
    _register_others(commands)
    cutover_cli.register(commands, cutover_cli.Shared(_source_arguments, _settings, _handled))
    index = subparsers.add_parser("index", help="indices of a migrated store")
    indices = index.add_subparsers(dest="index_command", required=True, metavar="COMMAND")
    build = indices.add_parser("build", help="build the master index and the full-text index over messages anew")
    build.add_argument("--base", required=True, metavar="NEW", help="the migrated store")
    build.add_argument("--workers", type=_positive, metavar="N", help="processes that read (default: the CPUs)")
    build.add_argument("--address", metavar="ADDR", help="do it on an existing Ray cluster")
    build.add_argument("--json", action="store_true", help="print one JSON object")
    build.set_defaults(handler=_handled(build_index))
    search = indices.add_parser("search", help="messages that hold all the words")
    search.add_argument("--base", required=True, metavar="NEW", help="the migrated store")
    search.add_argument("--user", metavar="U", help="only this user's")
    search.add_argument("--limit", type=_positive, default=10, metavar="N")
    search.add_argument("--json", action="store_true", help="print one JSON object")
    search.add_argument("words", nargs="+", metavar="WORD")
    search.set_defaults(handler=_handled(search_index))


def _register_sample(subparsers: SubParsers) -> None:
    sample = subparsers.add_parser("sample", help="write a v2 store that holds every generation and kind of thing")
    sample.add_argument("--to", required=True, metavar="DIR", help="an empty or new directory")
    sample.add_argument("--users", type=_count, default=8, metavar="N")
    sample.add_argument("--sessions", type=_count, default=4, metavar="N", help="of each user")
    sample.add_argument("--messages", type=_count, default=12, metavar="N", help="of each session")
    sample.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same bytes")
    sample.set_defaults(handler=_handled(write_sample))


def _register_run(commands: SubParsers) -> None:
    plan = commands.add_parser("plan", help="what a run would do, and what stands in its way; writes nothing")
    run = commands.add_parser("run", help="migrate; without --execute this is plan")
    for parser in (plan, run):
        _source_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    run.add_argument("--execute", action="store_true", help="really write to NEW")
    run.add_argument("--workers", type=_positive, metavar="N", help="tasks at the same time (default: the CPUs)")
    run.add_argument("--shards", type=_positive, metavar="N", help="coordinators (default: one for four workers)")
    run.add_argument("--address", metavar="ADDR", help="an existing Ray cluster (auto: the one of this machine)")
    run.add_argument("--final", action="store_true", help="v2 is fenced: say so when it is still being written to")
    run.add_argument(
        "--allow-deletes",
        type=_percent,
        default=0.5,
        metavar="N%",
        help="sessions that may be gone from OLD since the last run (default: 50%%)",
    )
    run.add_argument("--allow-all-changed", action="store_true", help="also when every session of OLD has changed")
    plan.set_defaults(handler=_handled(make_plan))
    run.set_defaults(handler=_handled(run_migration))


def _register_checks(commands: SubParsers) -> None:
    status = commands.add_parser("status", help="how the run on NEW is coming on, or how the last one ended")
    status.add_argument("--to", required=True, metavar="NEW")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(handler=_handled(show_status))
    control = commands.add_parser("control", help="change a run while it is under way")
    control.add_argument("--to", required=True, metavar="NEW")
    actions = control.add_subparsers(dest="action", required=True, metavar="pause|resume|workers N|throttle MB/s")
    actions.add_parser("pause", help="begin no further task, also after a restart")
    actions.add_parser("resume", help="go on")
    actions.add_parser("workers", help="tasks at the same time").add_argument("workers", type=_positive, metavar="N")
    throttle = actions.add_parser("throttle", help="read at most so much; 0: no limit")
    throttle.add_argument("megabytes", type=_rate, metavar="MB/s")
    control.set_defaults(handler=_handled(control_run))
    validate = commands.add_parser("validate", help="compare both trees with independent code, file by file")
    _source_arguments(validate)
    validate.add_argument("--sample", type=_share, metavar="P", help="share of users to compare in depth, 0 < P <= 1")
    validate.add_argument("--workers", type=_positive, metavar="N", help="processes that compare (default: the CPUs)")
    validate.add_argument("--address", metavar="ADDR", help="do it on an existing Ray cluster")
    validate.add_argument("--json", action="store_true", help="print one JSON object")
    validate.set_defaults(handler=_handled(validate_migration))


def _register_others(commands: SubParsers) -> None:
    reverse = commands.add_parser("reverse", help="write the v2 store back from NEW")
    reverse.add_argument("--from", dest="source", required=True, metavar="NEW")
    reverse.add_argument("--to", required=True, metavar="OLD2", help="an empty or new directory")
    reverse.add_argument("--execute", action="store_true", help="really write; without it, list what v2 cannot hold")
    reverse.add_argument("--workers", type=_positive, metavar="N", help="processes that write (default: the CPUs)")
    reverse.add_argument("--address", metavar="ADDR", help="do it on an existing Ray cluster")
    reverse.add_argument("--json", action="store_true", help="print one JSON object")
    reverse.set_defaults(handler=_handled(reverse_migration))
    config = commands.add_parser("config", help="translate a v2 configuration file")
    config.add_argument("--from", dest="source", required=True, metavar="V2CONFIG")
    config.add_argument("--to", required=True, metavar="FILE")
    config.add_argument("--json", action="store_true", help="print the whole report as JSON")
    config.set_defaults(handler=_handled(translate_config))


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="source", required=True, metavar="OLD", help="base path of the v2 store")
    parser.add_argument("--to", required=True, metavar="NEW", help="base path of the platform's store")
    parser.add_argument(
        "--users-dir", nargs="+", action="extend", default=[], metavar="NAME", help="further directory of users"
    )
    parser.add_argument("--config", metavar="V2CONFIG", help="v2 configuration, for its file and directory names")
    parser.add_argument(
        "--extra-root",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="another v2 tree, searched for vector sets and for the sessions that they belong to",
    )
    parser.add_argument("--source-timezone", metavar="TZ", help="zone of the v2 host, for times without an offset")


# ---- commands ----


def write_sample(args: argparse.Namespace) -> int:
    from migration.sample import write_sample as write

    try:
        counts = write(Path(args.to), users=args.users, sessions=args.sessions, messages=args.messages, seed=args.seed)
    except FileExistsError as error:
        raise RefusedError(f"{args.to}: {error}") from error
    print(
        f"{args.to}: {counts.user_directories} user directories, {counts.sessions} sessions, "
        f"{counts.messages} messages, {counts.documents} documents, {counts.source_files} files"
    )
    return CLEAN


def make_plan(args: argparse.Namespace) -> int:
    from migration.plan import make_plan as plan_for

    plan = plan_for(_settings(args))
    print(_json(plan.to_json()) if args.json else plan.text(), end="\n" if args.json else "")
    code: int = plan.exit_code
    return code


def run_migration(args: argparse.Namespace) -> int:
    if not args.execute:
        code = make_plan(args)
        if not args.json:
            sys.stderr.write("Nothing was written. Add --execute to migrate.\n")
        return code
    settings = _settings(args)
    # Before Ray is started, so that a mistake is answered at once; the run checks again under its lock.
    check_source(settings)
    check_target(settings)
    state = State(settings.target)
    check_same_run(settings, state.read("run.json"))
    if state.is_active():
        raise BusyError(f"{settings.target}: a run is at work here; see `modchat migrate status --to {args.to}`")
    from migration.run import migrate

    with _ray_on_stderr(), shown_progress(sys.stderr) as on_progress:
        report = migrate(
            settings,
            workers=args.workers,
            shards=args.shards,
            address=args.address,
            on_progress=on_progress,
            limits=ChangeLimits(args.allow_deletes, args.allow_all_changed),
            final=args.final,
        )
    print(_json(report.to_json()) if args.json else report.text(), end="\n" if args.json else "")
    if not args.json:
        sys.stderr.write(f"report: {state.reports}/run-{report.run:06d}.txt\n")
    return report.exit_code


def show_status(args: argparse.Namespace) -> int:
    state = _state(args.to)
    run = state.read("run.json") or {}
    status = state.read("status.json") or {}
    control = state.control()
    active = state.is_active()
    outcome = run.get("outcome", "none")
    if outcome == "finished":
        status = state.read(f"reports/run-{run['run']:06d}.json") or status
    if outcome == "running" and not active:
        outcome = "interrupted"
    whole = {
        "target": args.to,
        "source": run.get("source"),
        "run": run.get("run"),
        "active": active,
        "outcome": outcome,
        "paused": control.paused,
        "workers": control.workers or run.get("workers"),
        "throttle_mb_s": control.throttle_mb_s,
        "progress": status,
    }
    if args.json:
        print(_json(whole))
    else:
        state_of = "running" if active else outcome
        print(f"{args.to}: run {whole['run']} from {whole['source']}: {state_of}{', paused' if control.paused else ''}")
        if outcome == "finished":
            print(", ".join(f"{key} {status.get(key)}" for key in ("users", "sessions", "messages", "quarantined")))
        elif status:
            print(status["line"])
        if outcome == "interrupted":
            print("Run the same command again: it goes on where it was.")
    return RETRY if outcome == "interrupted" else CLEAN


def control_run(args: argparse.Namespace) -> int:
    state = _state(args.to)
    control = state.control()
    changed = {
        "pause": lambda: replace(control, paused=True),
        "resume": lambda: replace(control, paused=False),
        "workers": lambda: replace(control, workers=args.workers),
        "throttle": lambda: replace(control, throttle_mb_s=args.megabytes or None),
    }[args.action]()
    state.set_control(changed)
    under_way = "the run under way follows within a second" if state.is_active() else "the next run will follow"
    throttle = f"{changed.throttle_mb_s:g} MB/s" if changed.throttle_mb_s else "off"
    print(
        f"{'paused' if changed.paused else 'not paused'}, workers {changed.workers or 'as started'}, "
        f"throttle {throttle}; {under_way}"
    )
    return CLEAN


def validate_migration(args: argparse.Namespace) -> int:
    from migration.validate import MigrationValidator
    from migration.verify.report import write_report

    settings = _settings(args)
    for path in (settings.source, settings.target):
        if not os.path.isdir(path):
            raise SourceError(path, "no such directory")
    names = settings.names if args.users_dir or args.config else names_of(State(settings.target)) or settings.names
    with _fan_out(args) as fan_out:
        report = MigrationValidator(
            settings.source,
            settings.target,
            names=names,
            extra_roots=settings.extra_roots,
            source_timezone=settings.source_timezone,
            sample=args.sample,
            fan_out=fan_out,
        ).report()
    print(report.to_json() if args.json else report.to_text(), end="")
    path = write_report(report, datetime.now(UTC))
    if not args.json:
        sys.stderr.write(f"report: {path}\n")
    return CLEAN if report.equal else LOOK


def reverse_migration(args: argparse.Namespace) -> int:
    from migration.reverse import preview, reverse

    if not os.path.isdir(args.source):
        raise SourceError(args.source, "no such directory; name the migrated store with --from")
    if not args.execute:
        lost = preview(args.source)
        print(_json({"cannot_hold": [str(row) for row in lost]}) if args.json else _listed(lost))
        if not args.json:
            sys.stderr.write("Nothing was written. Add --execute to write the v2 store.\n")
        return CLEAN
    with _fan_out(args) as fan_out:
        report = reverse(os.path.abspath(args.source), os.path.abspath(args.to), fan_out=fan_out)
    if args.json:
        print(_json(report.to_json()))
    else:
        figures = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in report.counts.items() if count)
        print(f"{args.source} back to {args.to} in {report.elapsed_s:.2f} s: {figures}")
        print(_listed(report.losses))
        for finding in report.findings:
            print(f"look at: {finding}")
    return report.exit_code


def translate_config(args: argparse.Namespace) -> int:
    from config import settings_of

    if not os.path.isfile(args.source):
        raise SourceError(args.source, "no such file; name the v2 configuration with --from")
    migrated = migrate_config_file(Path(args.source))
    settings_of(migrated.values, origin=args.source)
    target = Path(args.to)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(migrated.values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(target)
    if args.json:
        print(migrated.to_json())
        return CLEAN
    print(f"{args.source} ({migrated.kind.value}) to {args.to}: {len(migrated.mapped)} keys mapped")
    for key, reason in migrated.unmapped.items():
        print(f"  not carried over: {key}: {reason}")
    for name in migrated.secrets:
        print(f"  a secret, to be set by you: {name}")
    for notice in migrated.notices:
        print(f"  note: {notice}")
    return CLEAN


def build_index(args: argparse.Namespace) -> int:
    from migration.index_builder import build_indices

    if not os.path.isdir(f"{args.base}/text_chat"):
        raise SourceError(args.base, "no migrated store here (it has no text_chat directory); name it with --base")
    with _fan_out(args) as fan_out:
        report = asyncio.run(build_indices(Path(args.base), fan_out))
    figures = asdict(report)
    print(_json(figures) if args.json else ", ".join(f"{key}: {value}" for key, value in figures.items()))
    return CLEAN


def search_index(args: argparse.Namespace) -> int:
    from migration.index_builder import search_messages
    from migration.message_index import IndexMissing

    try:
        hits = search_messages(Path(args.base), " ".join(args.words), user_id=args.user, limit=args.limit)
    except IndexMissing as error:
        raise SourceError(args.base, f"{error}") from error
    if args.json:
        print(_json({"hits": [asdict(hit) for hit in hits]}))
        return CLEAN
    for hit in hits:
        print(f"{hit.user_id} {hit.session_id} {hit.message_id} (line {hit.line})")
    print(f"{len(hits)} found" if hits else "nothing found")
    return CLEAN


# ---- what they share ----


def _settings(args: argparse.Namespace) -> RunSettings:
    """The run that the arguments ask for. Raises what `_handled` turns into an exit code."""
    names = V2Names()
    if args.config:
        if not os.path.isfile(args.config):
            raise SourceError(args.config, "no such file; it was named with --config")
        names = V2Names.from_config(migrate_config_file(Path(args.config)).names)
    if args.source_timezone is not None:
        zone(args.source_timezone)
    if not os.path.isdir(args.source):
        raise SourceError(args.source, "no such directory; name the v2 store's base path with --from")
    return RunSettings(
        source=os.path.abspath(args.source),
        target=os.path.abspath(args.to),
        names=names.with_users_dirs(tuple(args.users_dir)),
        extra_roots=tuple(os.path.abspath(root) for root in args.extra_root),
        source_timezone=args.source_timezone,
    )


def _state(target: str) -> State:
    state = State(os.path.abspath(target))
    if not state.exists():
        raise SourceError(target, "no migration was made here; name the store of `modchat migrate run --to`")
    return state


@contextmanager
def _fan_out(args: argparse.Namespace) -> Iterator[FanOut]:
    """Calls in processes of this machine, or on the Ray cluster that is named."""
    if args.address is None:
        workers = args.workers or os.cpu_count() or 1
        yield ProcessFanOut(workers) if workers > 1 else LocalFanOut()
        return
    from migration.run import cluster_fan_out

    with _ray_on_stderr(), cluster_fan_out(args.address, args.workers) as fan_out:
        yield fan_out


@contextmanager
def _ray_on_stderr() -> Iterator[None]:
    """Keeps standard output for the result alone: Ray prints there what it has to tell, as that a worker died."""
    with redirect_stdout(sys.stderr):
        yield


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _listed(rows: Any) -> str:
    return "\n".join(f"v2 cannot hold: {row}" for row in rows) or "v2 can hold everything that is here."


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no rate in MB/s")
    return value


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not from 0% to 100%")
    return value / 100


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value
