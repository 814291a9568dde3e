"""What a command of the migration says of an error: one line on standard error, and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from migration.backup_manifest import BackupDamaged, BackupError
from migration.cutover_hooks import HookFailed
from migration.cutover_serving import WritersStay
from migration.durable import Busy
from migration.ledger import LedgerError
from migration.shard import WorkError
from migration.state import RefusedError
from migration.target import TargetError
from migration.tree_swap import RollbackError
from migration.v2.read import SourceError

Command = Callable[[argparse.Namespace], int]

CLEAN, LOOK, WRONG_USE, RETRY, REFUSED = 0, 1, 2, 3, 4

# What an error means for the caller; the first class that fits decides.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (Busy, RETRY),
    (ConnectionError, RETRY),
    (TargetError, RETRY),
    (WritersStay, RETRY),
    (SourceError, WRONG_USE),
    (RefusedError, REFUSED),
    (HookFailed, REFUSED),
    (LedgerError, REFUSED),
    (BackupDamaged, REFUSED),
    (RollbackError, REFUSED),
    (WorkError, LOOK),
    (ValueError, WRONG_USE),  # also a wrong configuration, and an unknown backup
    (BackupError, RETRY),
    (OSError, RETRY),
)


def answering(interrupted: str) -> Callable[[Command], Command]:
    """Has commands say what they raise in one line, notes and all; *interrupted* says how one goes on."""

    def answered(command: Command) -> Command:
        def run(args: argparse.Namespace) -> int:
            try:
                return command(args)
            except KeyboardInterrupt:
                sys.stderr.write(f"modchat: interrupted; {interrupted}\n")
                return RETRY
            except tuple(kind for kind, _ in EXIT_CODES) as error:
                sys.stderr.write(f"modchat: {'; '.join([str(error), *getattr(error, '__notes__', ())])}\n")
                return next(code for kind, code in EXIT_CODES if isinstance(error, kind))

        return run

    return answered
