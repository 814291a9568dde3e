"""``modchat serve``: chat, memory and health over HTTP, from one machine, until Ctrl-C.

What was under way when it is told to stop is brought to its end: requests and streams first, as long as the settings
allow, then Serve, then the platform's modules, last started first. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.sharding import can_split
from config.errors import ConfigurationError as WrongSettings
from config.load import load_settings
from config.settings import Http, Settings
from modules.core.errors import ConfigurationError, Conflict, ModuleNotFound, PlatformError, ValidationError

from . import one_machine
from .addresses import check_closed, check_free, url

if TYPE_CHECKING:
    from .joining import Joined

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE, TRY_AGAIN, REFUSED = 0, 1, 2, 3, 4

_ABOUT = """\
Serves chat, sessions, memory and health over HTTP, and to OpenAI's clients under /v1.

Starts what is needed on this machine: Ray, the platform's modules on DIR where they do not run yet ('modchat up'), and
Ray Serve in its high-throughput mode. Everything but the one address below stays on loopback.

Ctrl-C or SIGTERM: requests and streams under way come to their end, as long as http.shutdown_seconds allows; once more
ends it at once. SIGHUP: the settings are read again, and new replicas with them replace the old ones without failing a
request; address, port and modules stay as they are.
"""
_EXIT = """\
exit codes: 0 stopped in order; 1 stopped, and something did not end as it should; 2 settings, keys or a directory
that cannot be used; 3 the port is taken, or Ray did not come up; 4 refused: others could reach it without keys.
"""


def register(subparsers: SubParsers) -> None:
    """Adds ``serve``."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a directory over HTTP, until Ctrl-C",
        description=_ABOUT,
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", metavar="DIR", type=Path, help="the platform's tree; else storage.base_path")
    parser.add_argument("--host", metavar="ADDR", help="address to listen on; else http.host, 127.0.0.1")
    parser.add_argument("--port", metavar="N", type=_port, help="port to listen on; else http.port, 8000")
    parser.add_argument("--keys", metavar="FILE", type=Path, help="file of API keys, made by 'modchat keys create'")
    parser.add_argument("--replicas", metavar="N", type=_count, help="processes that answer; else http.replicas, 1")
    parser.add_argument("--shards", metavar="N", type=_count, help="actors of each module that can be split")
    parser.add_argument("--config-dir", metavar="DIR", help="directory laid over the packaged settings")
    parser.add_argument("--environment", metavar="E", help="development, production, test or one of the directory")
    parser.set_defaults(handler=serve)


def serve(args: argparse.Namespace) -> int:
    """Serves. The exit codes are those of ``--help``."""
    try:
        settings = read(args)
        base = settings.storage.base_path.absolute()
        check(settings.http, base)
        one_machine.run(
            settings,
            base,
            reread=lambda: read(args),
            announce=lambda joined: _announce(settings.http, base, joined),
        )
        print("stopped", flush=True)
        return CLEAN
    except WrongSettings as error:
        return _say(WRONG_USE, str(error))
    except PlatformError as error:
        return _say(_code_of(error), str(error))
    except ExceptionGroup as failures:
        return _say(LOOK, "; ".join(str(error) for error in failures.exceptions))


def read(args: argparse.Namespace) -> Settings:
    """Raises `config.errors.ConfigurationError`."""
    return chosen(load_settings(args.config_dir, environment=args.environment, environ=os.environ), args)


def chosen(settings: Settings, args: argparse.Namespace) -> Settings:
    """The settings with what the command line names in their place."""
    given = {"host": args.host, "port": args.port, "api_keys_file": args.keys, "replicas": args.replicas}
    http = settings.http.model_copy(update={key: value for key, value in given.items() if value is not None})
    update: dict[str, Any] = {"http": http}
    if args.base is not None:
        update["storage"] = settings.storage.model_copy(update={"base_path": args.base})
    if args.shards is not None:
        names = filter(can_split, type(settings.modules).model_fields)
        split = {name: getattr(settings.modules, name) for name in names}
        shards = {name: module.model_copy(update={"shards": args.shards}) for name, module in split.items()}
        update["modules"] = settings.modules.model_copy(update=shards)
    return settings.model_copy(update=update)


def check(http: Http, base: Path) -> None:
    """What can be known before anything is started. Raises ConfigurationError, Conflict, Unavailable."""
    if not base.is_dir():
        raise ConfigurationError(f"{base}: no such directory; make it, or name the tree that a migration made")
    check_closed(http)
    if http.api_keys_file is not None and not http.api_keys_file.is_file():
        raise ConfigurationError(
            f"{http.api_keys_file}: no such file; make it with 'modchat keys create --file FILE --name NAME'"
        )
    check_free(http.host, http.port)


def _announce(http: Http, base: Path, joined: Joined) -> None:
    where = url(http)
    keys = "no keys: this machine alone" if http.api_keys_file is None else f"keys of {http.api_keys_file}"
    print(f"serving {base} at {where} ({keys}; {', '.join(joined.platform.refs)})")
    print(f"  console    {where}/")
    print(f"  OpenAI     {where}/v1")
    print(f"  documents  {where}/openapi.json")
    print(f"  health     {where}/health  {where}/ready  {where}/metrics", flush=True)


def _code_of(error: PlatformError) -> int:
    if isinstance(error, Conflict):
        return REFUSED
    if isinstance(error, ConfigurationError | ModuleNotFound | ValidationError):
        return WRONG_USE
    return TRY_AGAIN if error.retryable else LOOK


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError("must be from 1 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
