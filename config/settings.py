"""The settings of the whole platform: values only, frozen, checked when built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from config.module_settings import Modules
from config.section import Count, Directory, Name, Network, Seconds, Section


class Storage(Section):
    """Where the platform keeps its data."""

    backend: Literal["flatfile"] = "flatfile"
    """Kind of store."""

    base_path: Directory = Path("data")
    """Root of the platform's tree; on a cluster, on a file system that all nodes share."""


class Events(Section):
    """The message bus between modules."""

    handler_timeout_seconds: Seconds = 30.0
    """How long one handler may take before its event goes to the dead letters."""

    max_handlers_per_event: Count = 100
    """How many handlers may listen to one event."""

    max_queued: Count = 10_000
    """How many events may wait for a slow listener."""


class Runtime(Section):
    """Actors and the calls to them."""

    address: Name | None = None
    """Ray cluster to join (``auto``, ``ray://host:port``); none starts Ray on this machine."""

    namespace: Name = "modchat"
    """Namespace of the named actors."""

    call_timeout_seconds: Seconds = 60.0
    """How long a call to a module may take."""

    restart_wait_seconds: Seconds = 30.0
    """How long a call waits for a restarting actor before it fails with a retryable error."""

    max_calls_per_batch: Count = 64
    """How many concurrent calls from one process to one actor are joined into one."""

    events: Events = Events()


class Pages(Section):
    """Lists are given out in pages."""

    default_limit: Count = 100
    """Items of a page when the caller names no limit."""

    max_limit: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    """Most items that a caller may ask for."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.default_limit > self.max_limit:
            raise ValueError("default_limit must not exceed max_limit")
        return self


def _origin(value: str) -> str:
    """Raises ValueError for what no browser sends as an origin."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("not an origin, such as https://chat.example.org")
    return value


Origin = Annotated[
    str,
    AfterValidator(_origin),
    Field(json_schema_extra={"format": "origin", "pattern": r"^https?://[^/@?#]+$"}),
]


class Http(Section):
    """The HTTP server."""

    host: Name = "127.0.0.1"
    """Address to bind; other than loopback only with ``api_keys_file``."""

    port: Annotated[int, Field(ge=1, le=65_535)] = 8_000
    """Port to bind."""

    api_keys_file: Directory | None = None
    """File of hashed API keys and their scopes; none leaves the server open, on loopback only."""

    max_body_bytes: Count = 1_048_576
    """Largest request body that is no upload."""

    max_upload_bytes: Count = 104_857_600
    """Largest upload of a document or of media."""

    max_stream_seconds: Seconds = 600.0
    """How long one streamed answer may last."""

    heartbeat_seconds: Seconds = 15.0
    """How long a stream may be silent before a heartbeat is sent on it."""

    requests_per_minute: Count = 600
    """Requests of one caller in a minute, before 429."""

    max_ongoing_requests: Count = 256
    """Requests that one replica serves at a time."""

    replicas: Count = 1
    """Processes that answer requests."""

    shutdown_seconds: Seconds = 30.0
    """How long a stop waits for requests and streams under way before it ends them."""

    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of proxies before this server whose ``X-Forwarded-For`` names the client."""

    high_throughput: bool = True
    """Serve's high-throughput mode, with HAProxy before the replicas."""

    cors_origins: tuple[Origin, ...] = ()
    """Web pages of these origins may use the API from a browser; none is let in where the list is empty."""

    needed_modules: tuple[Name, ...] = ("text_chat",)
    """Modules without which ``/ready`` says no."""

    pages: Pages = Pages()


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not a time zone of the IANA database") from error
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone), Field(json_schema_extra={"format": "time-zone"})]


class Migration(Section):
    """Defaults of the migration's commands."""

    source: Directory | None = None
    """Base path of the v2 store."""

    target: Directory | None = None
    """Base path that the migrated tree is written to."""

    workers: Count | None = None
    """Tasks under way at a time; none takes one for every core of the cluster."""

    shards: Count | None = None
    """Coordinators, each with its own ledger; none chooses by the size of the cluster."""

    users_dirs: tuple[Name, ...] = ()
    """Further names of the directory that holds v2's users, beside those of its configuration."""

    extra_roots: tuple[Directory, ...] = ()
    """Other v2 base paths that may hold halves of this store, such as the vectors of ``./dev_data``."""

    source_timezone: TimeZone | None = None
    """Zone of v2's naive timestamps; none leaves them naive."""

    @model_validator(mode="after")
    def _two_trees(self) -> Self:
        if self.source is not None and self.source == self.target:
            raise ValueError("source and target must be two directories")
        return self


class Settings(Section):
    """Every setting of the platform. Read once, by `config.load_settings`, and passed down."""

    storage: Storage = Storage()
    runtime: Runtime = Runtime()
    http: Http = Http()
    migration: Migration = Migration()
    modules: Modules = Modules()
