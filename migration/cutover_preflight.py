"""What can be told of the gates of a cut-over before anything is done. Everything here asks, and changes nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from migration import cutover_gates as gates
from migration.cutover_gates import Gate, Verdict
from migration.cutover_hooks import HookName
from migration.cutover_options import Options
from migration.dual_writer_queue import WriteQueue
from migration.job import RunSettings
from migration.rollback import RollbackManager
from migration.state import State
from migration.tree_swap import real
from migration.v2.read import SourceError

_SPARE = 1.1
_CHANGED_SHARE = 0.05


def first_gates(settings: RunSettings, options: Options) -> list[Gate]:
    """What can be told before anything is done. Writes nothing. Raises `SourceError`."""
    return [_space(settings, options), *_programs(options), *_backups(settings, options), *_notes(options)]


def _space(settings: RunSettings, options: Options) -> Gate:
    size = gates.size_of(settings.source)
    complete = (State(settings.target).read("run.json") or {}).get("complete") is not None
    needed = round(size * (_CHANGED_SHARE if complete else _SPARE))
    if options.backups is not None and options.use_backup is None:
        gate = gates.space_gate(options.backups, size, gates.free_bytes(options.backups))
        if gate.verdict is Verdict.NO_GO:
            return gate
        if _device(options.backups) == _device(settings.target):
            needed += size
    return gates.space_gate(settings.target, needed, gates.free_bytes(settings.target))


def _programs(options: Options) -> list[Gate]:
    found = []
    for name, hook in options.hooks.commands.items():
        there = shutil.which(hook.argv[0]) is not None
        if not there:
            found.append(Gate(f"hook {name}", Verdict.NO_GO, f"{hook.shown} is no program that can be run"))
    return found or [Gate("hooks", Verdict.GO, f"{len(options.hooks.commands)} commands, all there")]


def _backups(settings: RunSettings, options: Options) -> list[Gate]:
    if options.backups is None:
        return [Gate("backup", Verdict.NOTE, "none was asked for")]
    backups, source = real(options.backups), real(settings.source)
    for tree in (source, real(settings.target)):
        if backups == tree or tree in backups.parents or backups in tree.parents:
            return [Gate("backup", Verdict.NO_GO, f"{options.backups} and {tree} contain each other")]
    if options.use_backup is not None:
        names = RollbackManager(options.backups).list_backups()
        if options.use_backup not in names:
            there = ", ".join(names) or "none"
            return [Gate("backup", Verdict.NO_GO, f"no backup {options.use_backup!r}; there are: {there}")]
    return [Gate("backup", Verdict.LATER, f"will be verified, in {options.backups}")]


def _notes(options: Options) -> list[Gate]:
    missing = [name.value for name in HookName if name is not HookName.READY and options.hooks.get(name) is None]
    notes = []
    if missing:
        detail = f"no command for {', '.join(missing)}: see to that yourself"
        notes.append(Gate("hooks", Verdict.NOTE, detail))
    for path in options.dual_queues:
        if not _is_queue(Path(path)):
            notes.append(Gate("dual writer", Verdict.NO_GO, f"{path}: no such file"))
    return notes


def _device(path: str) -> int:
    at = os.path.abspath(path)
    while not os.path.exists(at):
        at = os.path.dirname(at)
    return os.stat(at).st_dev


def waiting_in(path: Path) -> int:
    """Writes that wait in a dual writer's queue. A copy is read: loading a queue may mend it, which is its owner's
    business. Raises `SourceError` when it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="modchat-queue-") as directory:
        copy = Path(directory) / path.name
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError as error:
            if _is_queue(path):
                return 0
            raise SourceError.of(os.fspath(path), error) from error
        except OSError as error:
            raise SourceError.of(os.fspath(path), error) from error
        return len(WriteQueue(copy).waiting())


def _is_queue(path: Path) -> bool:
    """Whether a dual writer works with this file, which it takes away when all is done: its lock stays."""
    return path.is_file() or path.with_name(f"{path.name}.lock").is_file()
