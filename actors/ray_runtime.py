"""The runtime on Ray: each host is a named, detached actor that Ray starts anew whenever its process ends.

An actor is created with all that it needs to make its module again. Ray repeats no call by itself: what may be
repeated is decided by `actors.channel`, which is told what is known: a call that found no actor never left, one whose
actor went away has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import ray
from ray._common.network_utils import is_localhost, parse_address
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from modules.core.errors import Conflict, Unavailable

from .errors import Unreachable
from .garbage import spare_what_is_loaded
from .hosting import Hosting, HostSpec, host_name
from .wire import Codec, Pickled

log = logging.getLogger(__name__)

_HOME = Path(__file__).resolve().parent.parent
# Requests that one actor holds at a time. Each may carry many calls; the host bounds those.
_REQUESTS_AT_A_TIME = 1000
_PROBE_S = 3.0
_PICKLED = Pickled()


class RayRuntime:
    """Raises Unavailable when Ray cannot be reached.

    Where this process is connected to Ray already, that connection is used and left as it is. Else: without *address*
    Ray is started on this machine, reached from nowhere else, and ends with this process; with one, that cluster is
    joined.
    """

    codec: Codec = _PICKLED

    def __init__(self, *, address: str | None = None, num_cpus: int | None = None) -> None:
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(address, num_cpus)
        self.address: str = ray.get_runtime_context().gcs_address

    async def start(self, namespace: str, spec: HostSpec) -> None:
        options = {
            "name": spec.name,
            "namespace": namespace,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": _REQUESTS_AT_A_TIME,
            "num_cpus": 0,
        }
        try:
            actor = _Actor.options(**options).remote(spec, namespace)
        except ValueError as error:  # the name is taken
            raise Conflict(f"{spec.name} runs already in {namespace}: {error}") from error
        await RayTransport(namespace, spec.name, actor).request("ping")

    def connector(self, namespace: str) -> RayConnector:
        return RayConnector(namespace)

    def close(self) -> None:
        """Disconnect, if this made the connection. Actors of a cluster live on."""
        if self._is_ours:
            ray.shutdown()


class RayConnector:
    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def transport(self, module: str, shard: int) -> RayTransport:
        return RayTransport(self._namespace, host_name(module, shard))

    async def end(self, module: str, shard: int) -> None:
        try:
            ray.kill(ray.get_actor(host_name(module, shard), self._namespace), no_restart=True)
        except ValueError:
            log.debug("%s is gone already", host_name(module, shard))


class RayTransport:
    """*actor* where it is known; else it is found by its name.

    What crosses is packed here, in one piece: bytes Ray hands on as they are, anything else it takes through a pickler
    in Python, each argument by itself.
    """

    def __init__(self, namespace: str, name: str, actor: Any = None) -> None:
        self._namespace = namespace
        self._name = name
        self._actor = actor

    async def request(self, operation: str, payload: Any = None) -> Any:
        actor = self._found()
        try:
            return _PICKLED.unpack(await actor.request.remote(_PICKLED.pack((operation, payload))))
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            self._actor = None
            is_gone = isinstance(error, ActorDiedError) and not self._exists()
            raise Unreachable(f"{self._name}: {_first_line(error)}", was_sent=True, is_final=is_gone) from error

    def _found(self) -> Any:
        if self._actor is None and not self._exists():
            raise Unreachable(f"no actor {self._name} runs in {self._namespace}", was_sent=False, is_final=True)
        return self._actor

    def _exists(self) -> bool:
        try:
            self._actor = ray.get_actor(self._name, self._namespace)
        except ValueError:  # there is none of that name, or it was ended
            return False
        return True


class RayWorkers:
    """`Workers` that are Ray tasks: wherever the cluster has a free core."""

    async def run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        try:
            return await _Task.remote(function, args)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise Unavailable(f"{function.__qualname__} could not be run: {_first_line(error)}") from error


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(*args)


_Task: Any = ray.remote(_call)


class _ModuleActor:
    """Hosts one module. The host is made at the first request, which Ray's own start cannot wait for."""

    def __init__(self, spec: HostSpec, namespace: str) -> None:
        self._spec = spec
        self._connector = RayConnector(namespace)
        self._starting: asyncio.Task[Hosting] | None = None

    async def request(self, packed: bytes) -> bytes:
        hosting = await self._started()
        operation, payload = _PICKLED.unpack(packed)
        return _PICKLED.pack(await hosting.serve(operation, payload))

    async def _started(self) -> Hosting:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except Unavailable as error:
            self._may_start_again(starting)
            raise Unreachable(str(error), was_sent=False) from error
        except Exception:
            self._may_start_again(starting)
            raise

    async def _start(self) -> Hosting:
        hosting = await Hosting.start(self._spec, self._connector, RayRuntime.codec, workers=RayWorkers())
        spare_what_is_loaded()
        return hosting

    def _may_start_again(self, failed: asyncio.Task[Hosting]) -> None:
        if self._starting is failed:
            self._starting = None


_Actor: Any = ray.remote(_ModuleActor)


def _connect(address: str | None, num_cpus: int | None) -> None:
    # Nothing is reported to anybody, and the cluster's own logs stay in its session directory.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray notes every call for its dashboard, which does not run here: memory and time for nobody.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    # Left alone, Ray's workers give way to everything else on the machine; people wait for these.
    os.environ.setdefault("RAY_worker_niceness", "0")
    listen_on_loopback(address is None or is_here_alone(address))
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Ray's own figures, which nobody could read without its dashboard; they took 3 % of two cores.
        for name in ("RAY_enable_metrics_collection", "RAY_event_stats"):
            os.environ.setdefault(name, "0")
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
        options |= {"object_store_memory": 256 << 20}
    else:
        options["address"] = address
        _check_listening(address)
        # Ray tells everybody who joins that tokens are asked for; that is as it should be.
        logging.getLogger("ray").setLevel(logging.ERROR)
        # A local cluster lets in who has its token, and Ray sends it by itself only to the cluster that it starts.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    ray_worker.print_to_stdstream = _log_what_ray_says
    try:
        # Ray puts the current directory first in the search path of its workers, before the directory that this
        # program came from: a `config` or `actors` of the operator's would be imported in place of ours.
        with chdir(_HOME):
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"Ray could not be reached at {address or 'this machine'}: {error}") from error


def _log_what_ray_says(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """In place of Ray's own, which prints to this program's standard output what its daemons have to tell: that every
    module has a process, for one."""
    for line in data["lines"]:
        log.info("Ray: %s", line)


def _check_listening(address: str) -> None:
    """Raises Unavailable, within seconds, when nobody listens at *address*: Ray itself goes on trying for minutes."""
    parsed = parse_address(address)
    if parsed is None or "://" in address:
        return
    host, port = parsed
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_S):
            return
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"no Ray listens at {address} any more ({error}); its platform has ended or is ending"
        ) from error


def listen_on_loopback(only: bool) -> None:
    """Whether Ray's servers of this machine, and what speaks to them, keep to 127.0.0.1.

    Left alone, Ray on Linux gives a node the machine's address in its network, also where nobody else is to reach it,
    and then listens on every interface. Its switch against that is read when Ray is imported, and by each of its
    processes from the environment.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0" if only else "1"
    ray_constants.ENABLE_RAY_CLUSTER = not only


def is_here_alone(address: str) -> bool:
    parsed = parse_address(address)
    return parsed is not None and is_localhost(parsed[0])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
