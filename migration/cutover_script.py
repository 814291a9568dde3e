"""``python migration/cutover_script.py [plan|start|status|continue|abort] [options]``: what ``cutover.sh`` runs.

Source and target come from the settings, as for `migration.run_migration`; the commands from the environment:
STOP_OLD, START_OLD, STOP_NEW, START_NEW, READY, HEALTH; the directory of backups from BACKUPS (none: no backup). All
further options are those of ``modchat migrate cutover``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import modchat
from config import ConfigurationError, load_settings

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "STOP_OLD": ("--stop-old", "systemctl stop flatfile-chat"),
    "START_OLD": ("--start-old", "systemctl start flatfile-chat"),
    "STOP_NEW": ("--stop-new", "systemctl stop modular-chat"),
    "START_NEW": ("--start-new", "systemctl start modular-chat"),
    "READY": ("--ready", ""),
}
_ACTIONS = ("plan", "start", "status", "continue", "abort")
_WRONG_USE = 2


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The exit code of ``modchat migrate cutover``."""
    given = list(sys.argv[1:] if argv is None else argv)
    known = os.environ if environ is None else environ
    try:
        settings = load_settings(None, environ=known).migration
    except ConfigurationError as error:
        sys.stderr.write(f"cutover: {error}\n")
        return _WRONG_USE
    if not settings.source or not settings.target:
        sys.stderr.write(
            "cutover: set migration.source and migration.target in the configuration, "
            "or CHAT_MIGRATION__SOURCE and CHAT_MIGRATION__TARGET in the environment\n"
        )
        return _WRONG_USE
    action = given.pop(0) if given and given[0] in _ACTIONS else "start"
    arguments = ["migrate", "cutover", action, "--from", str(settings.source), "--to", str(settings.target)]
    if action in ("plan", "start"):
        for option, values in (("--users-dir", settings.users_dirs), ("--extra-root", settings.extra_roots)):
            if values:
                arguments += [option, *(str(value) for value in values)]
        if settings.source_timezone:
            arguments += ["--source-timezone", settings.source_timezone]
        arguments += _hooks(known, str(settings.target))
        if not {"--backups", "--no-backup"} & {argument.partition("=")[0] for argument in given}:
            arguments += ["--backups", known["BACKUPS"]] if known.get("BACKUPS") else ["--no-backup"]
    if action not in ("plan", "status") and settings.workers is not None:
        arguments += ["--workers", str(settings.workers)]
    return modchat.main([*arguments, *given])


def _hooks(environ: Mapping[str, str], target: str) -> list[str]:
    check = Path(__file__).with_name("health_check.py")
    health = environ.get("HEALTH") or shlex.join([sys.executable, os.fspath(check), "--base", target])
    arguments = [f"--health={health}"]
    for variable, (option, usual) in _COMMANDS.items():
        if command := environ.get(variable) or usual:
            arguments.append(f"{option}={command}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
