"""``python migration/run_migration.py [--final]``: the migration that the settings describe.

Source, target and the rest come from the settings (``migration.source`` and so on in the configuration, or
``CHAT_MIGRATION__SOURCE`` and ``CHAT_MIGRATION__TARGET`` in the environment). ``--final`` is the last run before the
cut-over, with the old system stopped: it is followed by a validation, and fails unless both trees agree.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import modchat
from config import ConfigurationError, load_settings


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs the commands that the settings stand for; the exit code is the first that is not 0."""
    parser = argparse.ArgumentParser(prog="run_migration.py", description="Migrates what the settings name.")
    parser.add_argument("--final", action="store_true", help="the last run, with v2 stopped: validate as well")
    parser.add_argument("--config-dir", metavar="DIR", help="directory of settings laid over the packaged ones")
    args = parser.parse_args(argv)
    try:
        settings = load_settings(args.config_dir, environ=os.environ if environ is None else environ).migration
    except ConfigurationError as error:
        sys.stderr.write(f"run_migration: {error}\n")
        return 2
    if not settings.source or not settings.target:
        sys.stderr.write(
            "run_migration: set migration.source and migration.target in the configuration, "
            "or CHAT_MIGRATION__SOURCE and CHAT_MIGRATION__TARGET in the environment\n"
        )
        return 2
    places = ["--from", str(settings.source), "--to", str(settings.target)]
    for option, values in (("--users-dir", settings.users_dirs), ("--extra-root", settings.extra_roots)):
        if values:
            places += [option, *(str(value) for value in values)]
    if settings.source_timezone:
        places += ["--source-timezone", settings.source_timezone]
    run = ["migrate", "run", *places, "--execute"]
    for option, number in (("--workers", settings.workers), ("--shards", settings.shards)):
        if number is not None:
            run += [option, str(number)]
    if args.final:
        run.append("--final")
    code = modchat.main(run)
    if code == 0 and args.final:
        code = modchat.main(["migrate", "validate", *places])
    return code


if __name__ == "__main__":
    sys.exit(main())
