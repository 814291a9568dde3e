"""``modchat config show`` and ``modchat config check``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from config.errors import ConfigurationError, NoSuchConfiguration
from config.findings import findings
from config.load import LoadedSettings, load_with_origins

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE = 0, 1, 2


def register(subparsers: SubParsers) -> None:
    """Adds ``config`` and its commands."""
    config = subparsers.add_parser("config", help="show or check the settings")
    commands = config.add_subparsers(dest="config_command", required=True, metavar="COMMAND")
    show_parser = commands.add_parser("show", help="every setting and its value; secrets are masked")
    show_parser.add_argument("--origins", action="store_true", help="say where each value came from")
    show_parser.set_defaults(handler=show)
    check_parser = commands.add_parser("check", help="whether the settings can be used")
    check_parser.set_defaults(handler=check)
    for parser in (show_parser, check_parser):
        parser.add_argument("--config-dir", metavar="DIR", help="directory laid over the packaged files")
        parser.add_argument("--environment", metavar="E", help="development, production, test or one of DIR")
        parser.add_argument("--json", action="store_true", help="print JSON")


def show(args: argparse.Namespace) -> int:
    """Prints the settings. 0; 1 when they cannot be used; 2 when what was asked for is not there."""
    loaded = _load(args)
    if isinstance(loaded, int):
        return loaded
    values = loaded.settings.model_dump(mode="json")
    if args.json:
        whole = {"environment": loaded.environment, "settings": values}
        print(json.dumps(whole | {"origins": dict(loaded.origins)} if args.origins else whole, indent=2))
        return CLEAN
    for key, value in _flat(values):
        origin = f"    # {loaded.origin_of(key)}" if args.origins else ""
        print(f"{key} = {json.dumps(value, ensure_ascii=False)}{origin}")
    return CLEAN


def check(args: argparse.Namespace) -> int:
    """Prints what is wrong or worth a look. 0 when nothing is; 1 when something is; 2 as `show`."""
    loaded = _load(args)
    if isinstance(loaded, int):
        return loaded
    found = findings(loaded.settings)
    if args.json:
        print(json.dumps({"environment": loaded.environment, "problems": [], "findings": found}, indent=2))
    else:
        for finding in found:
            print(f"look: {finding}")
        if not found:
            print(f"the settings of {loaded.environment} are usable")
    return LOOK if found else CLEAN


def _load(args: argparse.Namespace) -> LoadedSettings | int:
    """The settings, or the exit code after the problems were printed."""
    try:
        return load_with_origins(args.config_dir, environment=args.environment, environ=os.environ)
    except ConfigurationError as error:
        if args.json:
            problems = [asdict(problem) for problem in error.problems]
            print(json.dumps({"problems": problems, "findings": []}, indent=2))
        else:
            print(error, file=sys.stderr)
        return WRONG_USE if isinstance(error, NoSuchConfiguration) else LOOK


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return flat
