"""The application on Ray Serve; the one file of this package that knows Ray.

``serve.deployment:app`` is what ``serve deploy``, ``serve run`` and KubeRay import. On one machine `Server` does the
same and more for ``modchat serve``: it brings Serve up, and ends it without losing what is under way.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_LOGGER_NAME, SERVE_NAMESPACE
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from actors.garbage import spare_what_is_loaded
from actors.ray_runtime import RayRuntime
from actors.system import Platform
from config.load import load_settings
from config.settings import Http, Settings
from modules.core.errors import ConfigurationError, Conflict, Unavailable

from .addresses import reached_at
from .app import create_app
from .high_throughput import seconds_to_leave
from .ingress import Ingress, most_in_hand
from .joining import join_or_start, was_replaced
from .logs import log_as_json

log = logging.getLogger(__name__)

NAME = "modchat"

_UP_S = 180.0
_DOWN_S = 30.0
_POLL_S = 0.2
_ASK_S = 2.0
# How much longer than its streams a replica may take to leave.
_LATER_S = 10.0


class Arguments(BaseModel):
    """What an application's ``args`` may name in a configuration of Serve; what is not there is as for every command:
    ``CHAT_CONFIG_DIR``, ``CHAT_ENVIRONMENT``, and the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Path | None = None
    config_dir: str | None = None
    environment: str | None = None


def app(args: dict[str, Any]) -> ray_serve.Application:
    """The application for a cluster: each node has modchat installed, and the base mounted at the same path.

    Raises ConfigurationError when there are no keys: a cluster's addresses are reached over the network. And what
    `load_settings` raises; pydantic's ValidationError for other arguments.
    """
    given = Arguments.model_validate(args)
    settings = load_settings(given.config_dir, environment=given.environment, environ=os.environ)
    base = (given.base or settings.storage.base_path).absolute()
    if not base.is_dir():
        raise ConfigurationError(f"{base}: no such directory; mount it on every node at this path")
    if settings.http.api_keys_file is None:
        raise ConfigurationError("a cluster is served with keys only: name their file in http.api_keys_file")
    return bound(base, settings, cpus=1.0)


def bound(base: Path, settings: Settings, *, cpus: float) -> ray_serve.Application:
    """The application over the platform on *base*; *cpus* are what Ray's scheduler sets aside for each replica."""
    http = settings.http
    deployment = ray_serve.deployment(
        ray_serve.ingress()(Replica),
        name="Replica",
        num_replicas=http.replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=most_in_hand(http.max_ongoing_requests),
        graceful_shutdown_timeout_s=seconds_to_leave(http),
        graceful_shutdown_wait_loop_s=0.5,
        # A new replica answers before the one that it replaces goes, also where there is one: shares are rounded up.
        max_surge_percent=20,
        # A dead replica is missed by the next of these looks.
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        max_constructor_retry_count=3,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    return deployment.bind(str(base), settings)


class Replica:
    """One process that answers requests. Its platform is joined when it starts; it starts it where none runs."""

    def __init__(self, base: str, settings: Settings) -> None:
        self._base = Path(base)
        self._settings = settings
        self._incarnation = ""
        instance = ray_serve.get_replica_context().replica_id.unique_id
        # To the process's own file among Ray's logs, or where a container's output goes.
        log_as_json()
        self._app = create_app(self._join, settings, instance=instance)
        _keep_to_own_address()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Ingress(self._app, at_once=self._settings.http.max_ongoing_requests)

    async def end_streams_in(self, seconds: float) -> None:
        """Streams that are still under way then are ended, and their readers told."""
        asyncio.get_running_loop().call_later(seconds, self._app.state.drain)

    async def check_health(self) -> None:
        """Raises when the base has got another platform: Serve puts a new replica in this one's place, which joins it.
        Asks no module, since a replica is not ill because a module is."""
        if not self._incarnation:
            return  # it has not joined yet
        if await asyncio.to_thread(was_replaced, self._base, self._incarnation):
            raise RuntimeError("the platform was started anew; this replica still speaks to the old one")

    async def _join(self) -> Platform:
        joined = await join_or_start(self._settings.model_dump(), base=self._base, runtime=RayRuntime())
        self._incarnation = joined.platform.topology.incarnation
        spare_what_is_loaded()
        return joined.platform


@dataclass
class Server:
    """Serve and the application on this machine, for a program that is connected to Ray by `RayRuntime`.

    *environ* is for Serve's processes (`serve.high_throughput`); the same must stand in this process's environment
    since before this module was imported.
    """

    base: Path
    settings: Settings
    environ: Mapping[str, str]

    async def start(self) -> None:
        """Returns when requests are answered. Raises Unavailable with Serve's reason when they will not be."""
        http = self.settings.http
        await asyncio.to_thread(self._run)
        try:
            async with asyncio.timeout(_UP_S):
                while not await asyncio.to_thread(_answers, http):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(f"nothing answers at port {http.port} after {_UP_S:g} s") from None

    async def redeploy(self, settings: Settings) -> None:
        """Put replicas with these settings in the place of those that run, one by one, without losing a request.
        Raises Unavailable when they do not come up; those that ran go on then."""
        self.settings = settings
        await asyncio.to_thread(self._deploy)

    async def drain(self, *, limit_s: float) -> bool:
        """Take no more requests, let those under way end; streams are cut off after *limit_s*, in order. False when
        something is left even so."""
        if not await asyncio.to_thread(_is_there):
            return True
        await _end_streams_in(limit_s)
        await asyncio.to_thread(ray_serve.delete, NAME, False)
        try:
            async with asyncio.timeout(limit_s + _LATER_S):
                while await asyncio.to_thread(_is_there):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End Serve. What does not end within `_DOWN_S` is killed, and Unavailable raised."""
        # Serve's own call waits inside the controller for the controller's death, of which Ray then complains aloud.
        controller = await asyncio.to_thread(_controller)
        if controller is None:
            return
        await controller.graceful_shutdown.remote(False)
        try:
            async with asyncio.timeout(_DOWN_S):
                while await asyncio.to_thread(_controller) is not None:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            await asyncio.to_thread(_kill_all)
            raise Unavailable(f"Ray Serve has not ended within {_DOWN_S:g} s and was killed") from None

    def _run(self) -> None:
        http = self.settings.http
        if _controller() is not None:
            raise Conflict("Ray Serve runs on this Ray already: use 'serve deploy' there, or a Ray of its own")
        logging.getLogger(SERVE_LOGGER_NAME).setLevel(logging.getLogger().level)
        try:
            ray_serve.start(
                proxy_location=ProxyLocation.HeadOnly,
                # The clients' address is HAProxy's, and it alone is given it; all else stays on loopback.
                http_options=HTTPOptions(
                    host="127.0.0.1" if http.high_throughput else http.host.strip("[]"), port=http.port
                ),
                logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
                controller_options={"runtime_env": {"env_vars": dict(self.environ)}},
            )
        except (RayError, RayServeException, RuntimeError, ValueError) as error:
            raise Unavailable(f"Ray Serve did not start: {error}") from error
        self._deploy()

    def _deploy(self) -> None:
        try:
            ray_serve.run(bound(self.base, self.settings, cpus=0.0), name=NAME, route_prefix="/")
        except (RayError, RayServeException, RuntimeError, ValueError) as error:
            raise Unavailable(f"the application did not come up: {error}") from error


def _is_there() -> bool:
    return _controller() is not None and NAME in ray_serve.status().applications


async def _end_streams_in(seconds: float) -> None:
    try:
        await _TELL_REPLICAS.remote(seconds)
    except RayError as error:
        # Those that could not be told end their streams at the streams' own limit, or with the platform.
        log.warning("a replica was not told to end its streams: %s", error)


def _tell_replicas(seconds: float) -> None:
    async def tell() -> None:
        await ray_serve.get_app_handle(NAME).broadcast("end_streams_in", seconds).results_async(timeout_s=_ASK_S)

    asyncio.run(tell())


# In a process that ends with it: whoever has spoken to replicas goes on listening to Serve's controller, and Ray
# complains aloud when that is ended.
_TELL_REPLICAS: Any = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_tell_replicas)


def _kill_all() -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == SERVE_NAMESPACE:
            ray.kill(ray.get_actor(actor["name"], SERVE_NAMESPACE), no_restart=True)


def _controller() -> Any | None:
    """Serve's own actor, where Serve runs."""
    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return None


def _answers(http: Http) -> bool:
    connection = HTTPConnection(reached_at(http.host), http.port, timeout=_ASK_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _keep_to_own_address() -> None:
    """Every replica has a gRPC server for calls from other applications, of which there are none here; it listens on
    all interfaces, whatever the node's own address is."""
    from ray.serve._private import replica

    listen = replica.add_port_to_grpc_server
    own = ray.util.get_node_ip_address()

    def listen_on_own_address(server: Any, address: str) -> int:
        host, _, port = address.rpartition(":")
        return int(listen(server, f"{own}:{port}" if host == "[::]" else address))

    replica.add_port_to_grpc_server = listen_on_own_address
