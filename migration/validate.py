"""Compares a v2 tree with the migrated tree, by a reader that shares nothing with the code that wrote it.

    python migration/validate.py --from OLD --to NEW [--sample 0.1]

Nothing is written except the report, as text and as JSON, below ``NEW/.migration/reports``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from migration.fanout import FanOut, LocalFanOut
from migration.v2.names import V2Names
from migration.verify.comparison import Finding, root
from migration.verify.jsontext import NotAnObject, last_values, members, string
from migration.verify.report import Report, Root, part_of, write_report
from migration.verify.users import Job
from migration.verify.verification import Outcome, Verification

SOURCE_VARIABLE = "CHAT_MIGRATION__SOURCE"
TARGET_VARIABLE = "CHAT_MIGRATION__TARGET"
_RUN = os.path.join(".migration", "run.json")


class MigrationValidator:
    """Compares the store at *old_path* with the migrated one at *new_path*.

    *names* are those of the v2 configuration; *extra_roots* hold stray vector sets and sessions that say whose they
    are; *source_timezone* is the zone that the migration gave to naive times (when not given, the one that the run
    has recorded). *sample* is the share of users to be compared in depth: everybody else's things must exist.
    *fan_out* spreads batches of users; by default they are compared in this process.

    Raises `ValueError` for a sample outside 0 < p <= 1 and for an unknown time zone.
    """

    def __init__(
        self,
        old_path: Path | str,
        new_path: Path | str,
        *,
        names: V2Names | None = None,
        extra_roots: Iterable[Path | str] = (),
        source_timezone: str | None = None,
        sample: float | None = None,
        fan_out: FanOut | None = None,
    ) -> None:
        if sample is not None and not 0 < sample <= 1:
            raise ValueError(f"the sample must be above 0 and at most 1, found {sample}")
        self.old_path = Path(old_path)
        self.new_path = Path(new_path)
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._names = names or V2Names()
        self._extra_roots = tuple(os.fspath(extra) for extra in extra_roots)
        self._zone = source_timezone
        self._sample = sample
        self._fan_out = fan_out or LocalFanOut()
        if source_timezone is not None:
            _check_zone(source_timezone)

    def validate_all(self) -> tuple[bool, list[str], list[str]]:
        """Compares everything: (whether all is equal, errors, warnings).

        Raises `OSError` when one of the two roots cannot be read.
        """
        report = self.report()
        self.errors += _lines(report.errors, report.omitted)
        self.warnings += report.warnings
        return report.equal and not self.errors, self.errors, self.warnings

    def validate_sessions(self) -> None:
        """Adds to `errors` and `warnings` what is wrong with sessions, profiles, contexts and archives."""
        self._validate("sessions")

    def validate_messages(self) -> None:
        """Adds what is wrong with messages, quarantined lines and shards."""
        self._validate("messages")

    def validate_documents(self) -> None:
        """Adds what is wrong with documents, their registry and vectors."""
        self._validate("documents")

    def validate_config(self) -> None:
        """Adds what is wrong with personas, panels, and the files (v2's settings among them) in the attic."""
        self._validate("config")

    def report(self) -> Report:
        """Compares everything and says what was found. Writes nothing. Raises `OSError` as `validate_all`."""
        begun = datetime.now(UTC)
        zone = self._zone if self._zone is not None else _recorded_zone(self.new_path)
        job = Job(os.fspath(self.old_path), os.fspath(self.new_path), self._names, zone, self._sample)
        outcome = Verification(job, self._fan_out, self._extra_roots).run()
        return _report(job, outcome, begun, datetime.now(UTC), self._extra_roots)

    def _validate(self, part: str) -> None:
        report = self.report()
        mine = [finding for finding in report.findings if part_of(finding) == part]
        self.errors += _lines([finding for finding in mine if finding.is_error], report.omitted)
        self.warnings += [str(finding) for finding in mine if not finding.is_error]


def _lines(findings: Sequence[Finding], omitted: int) -> list[str]:
    lines = [str(finding) for finding in findings]
    return [*lines, f"{omitted} more findings were counted and not kept"] if omitted else lines


def _report(job: Job, outcome: Outcome, begun: datetime, ended: datetime, extra_roots: tuple[str, ...]) -> Report:
    nodes = {user: outcome.node(user) for user in sorted(outcome.nodes)}
    counts: dict[str, dict[str, int]] = {}
    for (kind, symbol), number in sorted(outcome.tally.counts.items()):
        counts.setdefault(kind, {})[symbol] = number
    return Report(
        source=job.source,
        target=job.target,
        begun_at=begun.isoformat(),
        ended_at=ended.isoformat(),
        root=Root(
            _hex(root(source for source, _ in nodes.values())), _hex(root(target for _, target in nodes.values()))
        ),
        users={user: Root(_hex(source), _hex(target)) for user, (source, target) in nodes.items()},
        counts=counts,
        files=dict(outcome.tally.files),
        lines=dict(outcome.tally.lines),
        findings=tuple(outcome.tally.findings),
        omitted=outcome.tally.omitted,
        notices=tuple(outcome.tally.notices),
        omitted_notices=outcome.tally.omitted_notices,
        sample=job.sample,
        source_timezone=job.zone,
        extra_roots=extra_roots,
    )


def _hex(node: bytes | None) -> str:
    return "" if node is None else node.hex()


def _recorded_zone(new_path: Path) -> str | None:
    """The time zone with which the migration was run, as it has recorded it. Raises `ValueError`."""
    try:
        data = (new_path / _RUN).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        zone = string(last_values(members(data.strip())).get("source_timezone"))
    except NotAnObject as error:
        raise ValueError(f"{new_path / _RUN}: {error}") from None
    if zone:
        _check_zone(zone)
    return zone or None


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone that this system knows") from None


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The command: 0 when all is equal, 1 when something differs or could not be read, 2 for wrong use."""
    environ = os.environ if environ is None else environ
    args = _parser(environ).parse_args(argv)
    for value, option, variable in (
        (args.source, "--from", SOURCE_VARIABLE),
        (args.target, "--to", TARGET_VARIABLE),
    ):
        if not value:
            return _wrong_use(f"say where it is: {option} DIR, or set {variable}")
        if not os.path.isdir(value):
            return _wrong_use(f"{option} {value} is no directory")
    try:
        validator = MigrationValidator(
            args.source,
            args.target,
            names=V2Names().with_users_dirs(tuple(args.users_dir)),
            extra_roots=args.extra_root,
            source_timezone=args.source_timezone,
            sample=args.sample,
        )
        report = validator.report()
    except ValueError as error:
        return _wrong_use(str(error))
    except OSError as error:
        sys.stderr.write(f"validate: {error}\n")
        return 1
    sys.stdout.write(report.to_json() if args.json else report.to_text())
    if not args.no_report:
        try:
            path = write_report(report, datetime.now(UTC))
        except OSError as error:
            sys.stderr.write(f"validate: the report could not be written: {error}\n")
            return 1
        sys.stderr.write(f"report: {path}\n")
    return 0 if report.equal else 1


def _wrong_use(message: str) -> int:
    sys.stderr.write(f"validate: {message}\n")
    return 2


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="validate", description="Compares a v2 store with the migrated tree, file by file and line by line."
    )
    parser.add_argument("--from", dest="source", metavar="OLD", default=environ.get(SOURCE_VARIABLE))
    parser.add_argument("--to", dest="target", metavar="NEW", default=environ.get(TARGET_VARIABLE))
    parser.add_argument("--users-dir", metavar="NAME", action="append", default=[], help="a further directory of users")
    parser.add_argument(
        "--extra-root", metavar="DIR", action="append", default=[], help="another v2 tree with stray vector sets"
    )
    parser.add_argument("--source-timezone", metavar="ZONE", help="the zone that naive times were given")
    parser.add_argument("--sample", metavar="P", type=float, help="share of users to compare in depth, 0 < P <= 1")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--no-report", action="store_true", help="write no report below the new tree")
    return parser


if __name__ == "__main__":
    sys.exit(main())
