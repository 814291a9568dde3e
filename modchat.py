"""The command line: ``modchat COMMAND``. Each package registers its own commands."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

import actors.audit_cli
import actors.chat_cli
import actors.cli
import config.cli
import migration.cli
import serve.cli
import serve.keys_cli


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    root = argparse.ArgumentParser(
        prog="modchat",
        description="Takes a Flatfile Database v2 chat store to the modular chat platform: whole, resumable, verified.",
        epilog="Exit codes: 0 clean; 1 ended, with things a person should look at; 2 wrong use; "
        "3 another try may help; 4 refused for safety.",
    )
    root.add_argument("--version", action="version", version=f"modchat {version('modchat')}")
    root.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    migration.cli.register(commands)
    actors.cli.register(commands)
    actors.chat_cli.register(commands)
    actors.audit_cli.register(commands)
    serve.cli.register(commands)
    serve.keys_cli.register(commands)
    config.cli.register(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the result is the exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    code: int = args.handler(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
