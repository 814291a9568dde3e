"""What Prometheus reads, right also where several replicas stand behind one address.

A scrape reaches one replica. So each replica writes its own figures every few seconds below the base, which all
replicas share, and whichever is asked gives its own as they are now and the others' as they were last written, told
apart by the label ``replica``. Each series has one writer and never goes back; sums are the reader's
(``sum without (replica) (rate(...))``). Figures of a replica that has stopped writing are left out after a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from modules.core.clock import Clock
from modules.core.errors import NotFound, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_DIRECTORY = ".platform/metrics"
_EVERY_S = 5.0
_STALE_S = 60.0
# From a health check to an answer of a language model, densest where a store-only message lies.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Snapshot(msgspec.Struct):
    """One replica's figures: of each family its name, type, help and samples (name, labels, value)."""

    replica: str
    written_at: float
    families: list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]


class Metrics:
    """The figures of the replica *replica*."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.registry = CollectorRegistry(auto_describe=True)
        own: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("modchat_http_requests", "Requests answered.", ["method", "route", "status"], **own)
        self._seconds = Histogram(
            "modchat_http_request_duration_seconds",
            "From the request's first byte to the answer's last.",
            ["method", "route"],
            buckets=_SECONDS,
            **own,
        )
        self._first_byte = Histogram(
            "modchat_stream_first_event_seconds",
            "From a request to the first event of its stream.",
            ["route"],
            buckets=_SECONDS,
            **own,
        )
        self.in_flight = Gauge("modchat_http_requests_in_flight", "Requests under way.", **own)
        self.streams = Gauge("modchat_streams_open", "Streams under way.", **own)
        self._module = Gauge(
            "modchat_module_healthy", "Whether all hosts of a module are healthy: 1 or 0.", ["module"], **own
        )
        self._keys = Gauge("modchat_keys_current", "Whether the file of keys is in force as it stands: 1 or 0.", **own)
        self._keys.set(1)
        # Looking up the series of its labels costs more than what is done to it.
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        series = self._answered.get((method, route, status))
        if series is None:
            series = self._requests.labels(method, route, str(status)), self._seconds.labels(method, route)
            self._answered[method, route, status] = series
        requests, durations = series
        requests.inc()
        durations.observe(seconds)

    def first_event(self, route: str, seconds: float) -> None:
        self._first_byte.labels(route).observe(seconds)

    def note_modules(self, healthy: Mapping[str, bool]) -> None:
        for module, is_healthy in healthy.items():
            self._module.labels(module).set(is_healthy)

    def note_keys(self, is_current: bool) -> None:
        self._keys.set(is_current)

    def snapshot(self, now: float) -> Snapshot:
        families = [
            (one.name, one.type, one.documentation, [(s.name, s.labels, s.value) for s in one.samples])
            for one in self.registry.collect()
        ]
        return Snapshot(self.replica, now, families)


class SharedMetrics:
    """The figures of all replicas. Blocks: called from threads."""

    def __init__(self, metrics: Metrics, files: FlatFiles, clock: Clock) -> None:
        self._metrics = metrics
        self._files = files
        self._clock = clock
        self._key = f"{_DIRECTORY}/{component(metrics.replica)}.json"

    def exposition(self) -> bytes:
        """In the text format of Prometheus."""
        now = self._clock.now().timestamp()
        others = [one for one in self._others() if now - one.written_at < _STALE_S]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Joined([self._metrics.snapshot(now), *others]))
        return generate_latest(registry)

    def write(self) -> None:
        self._files.write(self._key, msgspec.json.encode(self._metrics.snapshot(self._clock.now().timestamp())))

    def withdraw(self) -> None:
        self._files.delete(self._key)

    async def keep_writing(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.write)
                await asyncio.to_thread(self._sweep)
            except StorageError as error:
                log.warning("the figures of this replica were not written: %s", error)
            await asyncio.sleep(_EVERY_S)

    def _others(self) -> list[Snapshot]:
        found = []
        for key in self._files.list(f"{_DIRECTORY}/"):
            if key != self._key:
                try:
                    found.append(msgspec.json.decode(self._files.read(key), type=Snapshot))
                except (NotFound, msgspec.DecodeError):
                    continue  # its replica has just gone, or is no replica of this version
        return found

    def _sweep(self) -> None:
        oldest = self._clock.now().timestamp() - 10 * _STALE_S
        for one in self._others():
            if one.written_at < oldest:
                self._files.delete(f"{_DIRECTORY}/{component(one.replica)}.json")


class _Joined(Collector):
    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for snapshot in self._snapshots:
            for name, kind, help_, samples in snapshot.families:
                family = families.setdefault(name, Metric(name, help_, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "replica": snapshot.replica}, value)
        return families.values()
