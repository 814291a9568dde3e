"""``modchat audit verify``: whether the audit trail of a directory is as it was written. Needs no running platform."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modules.core.errors import PlatformError, ValidationError
from modules.core.storage import FlatFiles
from modules.trace_logger.audit_chain import ROOT, Head
from modules.trace_logger.audit_check import AuditReport
from modules.trace_logger.audit_check import verify as verify_trail

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE, TRY_AGAIN = 0, 1, 2, 3


def register(subparsers: SubParsers) -> None:
    """Adds ``audit`` with its command ``verify``."""
    audit = subparsers.add_parser("audit", help="check the audit trail")
    commands = audit.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    parser = commands.add_parser(
        "verify",
        help="whether every byte of the trail is as it was written",
        description="Reads the whole audit trail, also beside a running platform, and names every entry that was "
        "changed, left out or put in. Keep the head that it shows somewhere else: given to a later check with "
        "--expect, it finds a trail that was written anew as a whole.",
    )
    parser.add_argument("--base", required=True, metavar="DIR", type=Path, help="the platform's tree")
    parser.add_argument("--expect", metavar="HEAD", help="the head that an earlier check has shown")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=verify)


def verify(args: argparse.Namespace) -> int:
    """Prints what was found. 0 when the trail is intact; 1 when it is not; 2 for wrong use; 3 when a file could not be
    read."""
    if not args.base.is_dir():
        return _say(WRONG_USE, f"{args.base}: no such directory")
    if not (args.base / ROOT).is_dir() and args.expect is None:
        return _say(WRONG_USE, f"{args.base} has no audit trail ({ROOT})")
    try:
        expected = None if args.expect is None else Head.parse(args.expect)
        report = verify_trail(FlatFiles(args.base), expected=expected)
    except ValidationError as error:
        return _say(WRONG_USE, str(error))
    except PlatformError as error:
        return _say(TRY_AGAIN, str(error))
    sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n" if args.json else _as_text(report))
    return CLEAN if report.is_intact else LOOK


def _as_text(report: AuditReport) -> str:
    state = "intact" if report.is_intact else "NOT INTACT"
    lines = [f"{state}: {report.entries} entries, {report.erased} of them with their users erased"]
    lines += [str(finding) for finding in report.findings]
    hidden = report.finding_count - len(report.findings)
    if hidden:
        lines.append(f"and {hidden} more")
    if report.unclaimed:
        lines.append(f"{report.unclaimed} private records belong to entries that a crash kept from being made")
    lines.append(f"head: {report.head}")
    return "\n".join(lines) + "\n"


def _say(code: int, message: str) -> int:
    sys.stderr.write(message + "\n")
    return code
