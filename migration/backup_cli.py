"""``modchat migrate backup ...``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migration.backup_manifest import Manifest
from migration.cutover_answers import CLEAN, LOOK, Command, answered
from migration.rollback import RollbackManager
from migration.state import RefusedError, State

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def register(commands: SubParsers, handled: Callable[[Command], Command]) -> None:
    """Adds the commands."""
    backup = commands.add_parser("backup", help="backups of a store, with digests: make, check, restore, prune them")
    actions = backup.add_subparsers(
        dest="backup_command", required=True, metavar="create|list|verify|prune|restore|recover"
    )
    create = actions.add_parser("create", help="make one, and verify it")
    listing = actions.add_parser("list", help="the whole ones, oldest first, with their ages")
    verify = actions.add_parser("verify", help="read every byte of one, or of all, again")
    prune = actions.add_parser("prune", help="remove all but the newest")
    restore = actions.add_parser("restore", help="make a store what a backup holds; what it held is kept beside it")
    recover = actions.add_parser("recover", help="end a restore that was cut short")
    for parser in (create, listing, verify, prune, restore):
        parser.add_argument("--backups", required=True, metavar="DIR", help="the directory of the backups")
    for parser in (create, restore, recover):
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--of", metavar="DIR", help="the store: any directory")
        which.add_argument("--to", metavar="NEW", help="the store: one that a migration has made")
    verify.add_argument("name", nargs="?", metavar="NAME", help="one of `list` (default: all)")
    restore.add_argument("name", metavar="NAME", help="one of `list`")
    restore.add_argument("--execute", action="store_true", help="really restore; without it, only verify the backup")
    prune.add_argument("--keep", required=True, type=int, metavar="N", help="how many stay, at least 1")
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="only those older than this")
    for parser, command in (
        (create, create_backup),
        (listing, list_backups),
        (verify, verify_backups),
        (prune, prune_backups),
        (restore, restore_store),
        (recover, recover_store),
    ):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.set_defaults(handler=handled(answered(command)))


def create_backup(args: argparse.Namespace) -> int:
    manager = RollbackManager(args.backups)
    made = manager.create_backup(_store(args))
    row = _verified(manager, made.name)
    special = row["special"]
    _print(args, row, f"{made}: {row['files']:,} files, {row['bytes']:,} bytes, verified\n")
    if special:
        sys.stderr.write(f"not in it, because they are no files: {', '.join(special)}\n")
    return LOOK if special else CLEAN


def list_backups(args: argparse.Namespace) -> int:
    manager = RollbackManager(_backups(args))
    now = datetime.now(UTC)
    rows = []
    for name in manager.list_backups():
        head = Manifest(manager.backup_path / name).head
        age = (now - datetime.fromisoformat(head.created_at)).total_seconds()
        rows.append({"name": name, "source": head.source, "created_at": head.created_at, "age_s": round(age)})
    lines = [f"{row['name']:<28} {_age(int(str(row['age_s']))):>10}  of {row['source']}\n" for row in rows]
    _print(args, {"backups": rows}, "".join(lines) or "no backups\n")
    return CLEAN


def verify_backups(args: argparse.Namespace) -> int:
    """Raises `BackupDamaged` for the first that is not what it was."""
    manager = RollbackManager(_backups(args))
    names = [args.name] if args.name else manager.list_backups()
    rows = [_verified(manager, name) for name in names]
    lines = [f"{row['name']}: {row['files']:,} files, {row['bytes']:,} bytes, as they were\n" for row in rows]
    _print(args, {"backups": rows}, "".join(lines) or "no backups\n")
    return CLEAN


def prune_backups(args: argparse.Namespace) -> int:
    age = None if args.older_than is None else timedelta(days=args.older_than)
    removed = RollbackManager(_backups(args)).prune(args.keep, age)
    _print(args, {"removed": removed}, "".join(f"removed {name}\n" for name in removed) or "nothing to remove\n")
    return CLEAN


def restore_store(args: argparse.Namespace) -> int:
    manager = RollbackManager(_backups(args))
    store = _store(args)
    if not args.execute:
        row = _verified(manager, args.name)
        _print(args, row, f"{args.name} is as it was made: {row['files']:,} files, {row['bytes']:,} bytes\n")
        sys.stderr.write(f"Nothing was written. Add --execute to make {store} what it holds.\n")
        return CLEAN
    if os.path.isdir(store / ".migration") and State(os.fspath(store)).is_active():
        raise RefusedError(f"{store}: a migration is writing to it; wait for its end, then restore")
    restored = manager.rollback(args.name, store)
    kept = os.fspath(restored.previous) if restored.previous else None
    values = {"target": os.fspath(restored.target), "kept": kept, "owners_lost": restored.owners_lost}
    _print(args, values, f"{restored.target} holds what {args.name} holds; what it held is {kept or 'nothing'}\n")
    if restored.owners_lost:
        sys.stderr.write(f"{restored.owners_lost:,} entries have another owner than they had: only root can give it\n")
    return LOOK if restored.owners_lost else CLEAN


def recover_store(args: argparse.Namespace) -> int:
    store = Path(args.of or args.to)
    recovered = RollbackManager(store.parent).recover(store)
    kept = os.fspath(recovered.previous) if recovered.previous else None
    values = {"target": os.fspath(recovered.target), "outcome": recovered.outcome.value, "kept": kept}
    _print(args, values, f"{recovered.target}: {recovered.outcome.value}\n")
    return CLEAN


def _verified(manager: RollbackManager, name: str) -> dict[str, Any]:
    summary = manager.verify(name)
    return {
        "name": name,
        "path": os.fspath(summary.path),
        "source": summary.source,
        "created_at": summary.created_at,
        "files": summary.files,
        "bytes": summary.bytes,
        "links": summary.links,
        "directories": summary.directories,
        "special": list(summary.special),
    }


def _store(args: argparse.Namespace) -> Path:
    """Raises ValueError for a path that is no migrated store where one was said to be."""
    if args.to and not os.path.isdir(f"{args.to}/.migration"):
        raise ValueError(f"{args.to}: no migration was made here; name any other directory with --of")
    return Path(args.of or args.to)


def _backups(args: argparse.Namespace) -> Path:
    """Raises ValueError when the directory is not there."""
    if not os.path.isdir(args.backups):
        raise ValueError(f"{args.backups}: no such directory")
    return Path(args.backups)


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _print(args: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n" if args.json else text)
