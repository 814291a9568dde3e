"""``modchat migrate announce``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from migration.cutover_answers import CLEAN, Command, answered

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_KINDS = ("before", "during", "after", "rolled-back")


def register(commands: SubParsers, handled: Callable[[Command], Command]) -> None:
    """Adds the command."""
    parser = commands.add_parser("announce", help="write mails to users and operators, with the figures of NEW")
    parser.add_argument("--to", required=True, metavar="NEW", help="base path of the platform's store")
    parser.add_argument("--kind", required=True, choices=_KINDS)
    parser.add_argument("--out", required=True, metavar="DIR", help="where they go, as .txt and .eml; nothing is sent")
    parser.add_argument("--user", action="append", default=[], metavar="U", help="only to this user (default: to all)")
    parser.add_argument("--templates", metavar="DIR", help="your own, each in place of the packaged one of its name")
    parser.add_argument("--sender", default="", metavar="ADDRESS", help="From of the .eml")
    parser.add_argument("--operator", default="", metavar="ADDRESS", help="To of the operators' mail")
    parser.add_argument("--contact", default="", metavar="TEXT", help="whom users may ask")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handled(answered(announce)))


def announce(args: argparse.Namespace) -> int:
    from migration.announce import Announcements, Kind, write_mails

    templates = Path(args.templates) if args.templates else None
    if templates is not None and not templates.is_dir():
        raise ValueError(f"{args.templates}: no such directory")
    mails = Announcements(os.path.abspath(args.to), Kind(args.kind), templates=templates, contact=args.contact)
    out, now = Path(args.out), datetime.now(UTC)
    count = write_mails([mails.operator(args.operator)], out, sender=args.sender, when=now)
    users = write_mails(mails.users(args.user), out, sender=args.sender, when=now)
    values = {"kind": args.kind, "out": os.fspath(out), "operators": count, "users": users}
    text = f"{out / args.kind}: {users:,} mails to users, {count} to operators; nothing was sent\n"
    sys.stdout.write(json.dumps(values) + "\n" if args.json else text)
    return CLEAN
