"""``modchat keys create``, ``list`` and ``revoke``: who may use the server."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modules.core.clock import SystemClock
from modules.core.errors import ConfigurationError, NotFound, PlatformError, ValidationError

from .caller import SCOPES, USER
from .keys import Key, KeyFile

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE, TRY_AGAIN = 0, 1, 2, 3

_SECRET_BYTES = 32

_ABOUT = """\
Keys stand in FILE as hashes; a server that was given the file follows its changes within seconds. Every change is
noted in FILE.audit.jsonl.

A key with the scope user may do everything for any user but export, erase and look into migrations; bound to a user
(--user), it sees that user alone, and may export and erase that one. The scope admin may do all.
"""


def register(subparsers: SubParsers) -> None:
    """Adds ``keys`` and its commands."""
    keys = subparsers.add_parser(
        "keys",
        help="make, list or revoke API keys",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = keys.add_subparsers(dest="keys_command", required=True, metavar="COMMAND")
    create_parser = commands.add_parser("create", help="make a key; it is shown once, on standard output")
    create_parser.add_argument("--name", required=True, help="whose it is, for lists, logs and the audit")
    create_parser.add_argument("--scope", action="append", choices=SCOPES, help="user where none is given; repeatable")
    create_parser.add_argument("--user", metavar="U", help="the one user that the key is bound to")
    create_parser.set_defaults(handler=create)
    list_parser = commands.add_parser("list", help="what keys there are; never the keys themselves")
    list_parser.set_defaults(handler=show)
    revoke_parser = commands.add_parser("revoke", help="take a key out of force")
    revoke_parser.add_argument("id", metavar="ID", help="as 'list' shows it")
    revoke_parser.set_defaults(handler=revoke)
    for parser in (create_parser, list_parser, revoke_parser):
        parser.add_argument("--file", required=True, metavar="FILE", type=Path, help="the file of keys")
        parser.add_argument("--json", action="store_true", help="print JSON")


def create(args: argparse.Namespace) -> int:
    """Prints the key. 0; 2 for a wrong name or user, or a file that is none; 3 when the file could not be written."""

    def made() -> int:
        key, shown = KeyFile(args.file).create(
            args.name,
            tuple(dict.fromkeys(args.scope or (USER,))),
            args.user,
            now=SystemClock().now(),
            new_id=lambda: secrets.token_hex(8),
            new_secret=lambda: secrets.token_urlsafe(_SECRET_BYTES),
        )
        if args.json:
            _print(json.dumps({**_shown(key), "key": shown}))
        else:
            _print(shown)
            sys.stderr.write(f"id {key.id}; the key itself is kept nowhere: give it to {key.name} now\n")
        return CLEAN

    return _done(made)


def show(args: argparse.Namespace) -> int:
    """Prints all keys. 0; 2 when there is no such file, or it is none; 3 when it could not be read."""

    def listed() -> int:
        keys = KeyFile(args.file).read().by_id.values()
        if args.json:
            _print(json.dumps([_shown(key) for key in keys]))
        for key in () if args.json else keys:
            state = f"revoked {key.revoked_at}" if key.revoked_at else "in force"
            bound = f"user {key.user_id}" if key.user_id else "any user"
            _print(f"{key.id}  {','.join(key.scopes):<10}  {bound:<20}  {state}  {key.created_at}  {key.name}")
        return CLEAN

    return _done(listed)


def revoke(args: argparse.Namespace) -> int:
    """0, also for one that was revoked already; 2 when there is no such key; 3 when the file could not be written."""

    def revoked() -> int:
        key = KeyFile(args.file).revoke(args.id, now=SystemClock().now())
        _print(json.dumps(_shown(key)) if args.json else f"revoked: {key.id} ({key.name})")
        return CLEAN

    return _done(revoked)


def _done(work: Callable[[], int]) -> int:
    try:
        return work()
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_USE if isinstance(error, ConfigurationError | NotFound | ValidationError) else TRY_AGAIN


def _shown(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "user_id": key.user_id,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
