"""What messages are about, and who answers them.

Topics are learned from examples and specialists are registered by whoever runs the platform; both are the same for all
users. What is logged of a route names its user and never its content.

With several shards, one of them writes examples and specialists, and the others follow; each balances what it routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, NotFound, StorageError, ValidationError
from modules.core.event_calls import calling
from modules.core.finishing import Finishing
from modules.core.storage import FlatFileStorage
from modules.core.types import ModuleInfo
from modules.models.choose import embedding_model

from .agents import agents_as_specialists, without_missing_agents
from .arguments import (
    check_content,
    check_named,
    check_user,
    content_and_topics,
    given_classification,
    listed,
    meant,
    texts_of,
)
from .balancing import Loads, UnderWay, chosen
from .classification import Classification, Segment, classified, in_context, segments_of
from .examples import Example, Examples
from .learner import Learner, MakeEmbedder
from .route import FALLBACK, MATCHED, NO_MATCH, Route
from .router_events import CALLS
from .routing_log import RoutingLog
from .routing_report import RoutingReport, period_of, report_of
from .settings import TopicRouterSettings
from .specialists import Specialist, SpecialistFile
from .topics import check_topic, lies_within

log = logging.getLogger(__name__)

MAX_MESSAGES = 500
MAX_EXAMPLES_A_CALL = 1_000
_LEARN_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Learned:
    """``examples`` are all that there are now. ``is_current`` False: they are still being learned; what is classified
    meanwhile does not know the newest."""

    added: int
    examples: int
    is_current: bool


@dataclass(frozen=True, slots=True)
class RouterErasure:
    """What was removed of a user."""

    user_id: str
    examples: int
    routes: int


class TopicRouterModule:
    """*config* is the mapping under ``modules.topic_router``. The user ``""`` is whoever is meant where nobody is
    named."""

    info = ModuleInfo(
        name="topic_router",
        version="1.0",
        capabilities=("classification", "routing", "boundaries", "analytics"),
        optional=("multi_agent",),
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        new_id: IdMaker = new_hex,
        make_embedder: MakeEmbedder = embedding_model,
    ) -> None:
        self._settings = TopicRouterSettings.read(config or {})
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._make_embedder = make_embedder
        self._finishing = Finishing("a change to topics")

    async def initialize(self, context: ModuleContext) -> None:
        """Take storage from *context* and listen to router events. Raises ConfigurationError."""
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError("topic_router keeps its files in flat files; set storage.backend to 'flatfile'")
        settings = self._settings
        self._context = context
        self._files = storage.files
        self._examples = Examples(storage.files)
        self._specialists = SpecialistFile(storage.files)
        self._log = RoutingLog(storage.files)
        self._learner = Learner(self._examples, settings.embedding, self._make_embedder)
        self._loads = Loads(
            failures=settings.unhealthy_after_failures, recover_s=settings.recover_s, timeout_s=settings.route_timeout_s
        )
        self._events = calling("topic_router", self, CALLS, context.bus)
        self._events.listen()

    async def health_check(self) -> bool:
        """Whether a route could be logged now."""
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("topic_router cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Finish what has begun; learning that is under way is broken off, and done again at the next start."""
        self._events.stop()
        await self._finishing.wait()
        await self._learner.close()

    # -- topics ----------------------------------------------------------------------------------------------

    async def learn_topics(self, examples: Iterable[Any], *, user_id: str = "") -> Learned:
        """Learn from *examples*, each ``{"content": ..., "topics": [...]}`` or ``(content, topics)``; no topics mean
        that it is about none. An example that is known already gets the topics that are given now, so this is also how
        a mistake is put right. *user_id*: whose words they are.

        Returns when they are learned, at the latest after five seconds. Raises ValidationError, and Conflict where
        there would be more than allowed; none is taken then.
        """
        check_user(user_id)
        made = [Example.made(*content_and_topics(one), user_id) for one in listed("examples", examples)]
        if not 1 <= len(made) <= MAX_EXAMPLES_A_CALL:
            raise ValidationError(f"there must be 1 to {MAX_EXAMPLES_A_CALL} examples", param="examples")
        await self._finishing.alone(lambda: self._examples.add(made, at_most=self._settings.max_examples))
        return await self._learned(len(made))

    async def forget_examples(self, example_ids: Sequence[str]) -> Learned:
        """Unlearn these; ``added`` is then how many went, as a negative number. Unknown ids are passed over."""
        ids = [str(one) for one in listed("example_ids", example_ids)]
        gone = await self._finishing.alone(lambda: self._examples.forget(ids))
        return await self._learned(-gone)

    async def list_examples(
        self, topic: str | None = None, *, after: str | None = None, limit: int = 100
    ) -> list[Example]:
        """By id; of one topic and what lies within it, or all. Raises ValidationError."""
        wanted = None if topic is None else check_topic(topic)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 10_000:
            raise ValidationError(f"limit must be from 1 to 10000, not {limit!r}", param="limit")
        _, examples = await asyncio.to_thread(self._examples.known)
        found = [one for one in examples if wanted is None or any(lies_within(own, wanted) for own in one.topics)]
        return sorted((one for one in found if after is None or one.id > after), key=lambda one: one.id)[:limit]

    async def list_topics(self, *, user_id: str = "") -> dict[str, int]:
        """Topics that are told apart, and how many examples name each itself. Fewer than three are not enough."""
        model = await self._learner.model()
        counts = dict.fromkeys(model.topics if model is not None else (), 0)
        _, examples = await asyncio.to_thread(self._examples.known)
        for example in examples:
            for topic in example.topics:
                if topic in counts:
                    counts[topic] += 1
        return counts

    async def classify_content(
        self, content: str, context_history: Sequence[Any] | None = None, *, user_id: str = ""
    ) -> Classification:
        """What *content* is about. *context_history*: texts or messages before it, oldest first, of which the last
        few count (``context_messages`` of the settings). Without examples there are no topics. Raises ValidationError,
        ModelError."""
        found = await self._classified(content, context_history)
        await self._context.emit("router.classified", {"user_id": user_id, "classification": found.to_dict()})
        return found

    async def find_boundaries(self, messages: Sequence[Any], *, user_id: str = "") -> list[Segment]:
        """Where a talk changes its topic: its stretches, in order. Raises ValidationError, ModelError."""
        texts = texts_of("messages", messages)
        if len(texts) > MAX_MESSAGES:
            raise ValidationError(f"there are {len(texts)} messages of at most {MAX_MESSAGES}", param="messages")
        model = await self._learner.model()
        if not texts or model is None:
            return [Segment(0, len(texts), None)] if texts else []
        said, alike = await self._learner.heard(model, texts)
        between = [0.0, *(float(alike[place, place - 1]) for place in range(1, len(texts)))]
        return segments_of(said, self._settings.threshold, nearness_between=between, near=model.near)

    # -- specialists -----------------------------------------------------------------------------------------

    async def register_specialist(
        self,
        specialist_id: str,
        topics: Sequence[str],
        capabilities: Sequence[str] = (),
        *,
        persona_id: str | None = None,
        model: str | None = None,
        agent_id: str | None = None,
        capacity: float = 1.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Specialist:
        """Make a specialist known, in place of the one of this id, also after a restart. Raises ValidationError."""
        specialist = Specialist.made(
            {
                "id": specialist_id,
                "topics": topics,
                "capabilities": capabilities,
                "persona_id": persona_id,
                "model": model,
                "agent_id": agent_id,
                "capacity": capacity,
                "metadata": {} if metadata is None else metadata,
            }
        )
        await self._finishing.alone(lambda: self._specialists.put(specialist))
        return specialist

    async def remove_specialist(self, specialist_id: str) -> None:
        """Raises NotFound."""
        if not await self._finishing.alone(lambda: self._specialists.remove(specialist_id)):
            raise NotFound(f"no specialist {specialist_id!r}")

    async def list_specialists(self, *, user_id: str = "") -> list[Specialist]:
        """Those that were registered, by id."""
        known = await asyncio.to_thread(self._specialists.read)
        return [known[name] for name in sorted(known)]

    # -- routes ----------------------------------------------------------------------------------------------

    async def route_to_specialist(
        self,
        content: str,
        classification: Classification | Mapping[str, Any] | None = None,
        available_specialists: Sequence[Any] | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
        context_history: Sequence[Any] | None = None,
        capabilities: Sequence[str] = (),
    ) -> Route:
        """Who is to answer *content*, by *classification* (made here where it is not given).

        *available_specialists*: ids of registered ones, or specialists as `Specialist.to_dict` gives them; where not
        given, all that are registered, and the agents of multi_agent whose metadata name ``topics``. Only who has all
        *capabilities* is asked. The route counts as work of its specialist until `report_outcome` tells its end.
        Raises ValidationError, NotFound for an id that nobody has, ModelError.
        """
        began = perf_counter()
        check_user(user_id)
        found = given_classification(classification) or await self._classified(content, context_history)
        specialists = await self._available(available_specialists, user_id)
        able = [one for one in specialists if set(capabilities) <= set(one.capabilities)]
        fallback = None if available_specialists is not None else self._unregistered_fallback(specialists)
        route = self._decided(found, able, fallback)
        if route.specialist is not None:
            self._loads.begin(UnderWay(route.id, route.specialist.id, user_id, self._clock.monotonic()))
        took_ms = round((perf_counter() - began) * 1000, 3)
        record = {
            "kind": "route",
            "route_id": route.id,
            "user_id": user_id,
            "session_id": session_id,
            "outcome": route.outcome,
            "specialist_id": route.specialist_id,
            "topic": found.topic,
            "score": found.score,
            "is_carried": found.is_carried,
            "took_ms": took_ms,
        }
        await self._logged(user_id, record)
        await self._tell(route, record)
        return route

    async def report_outcome(
        self, route_id: str, succeeded: bool, *, latency_s: float | None = None, user_id: str = ""
    ) -> None:
        """Tell how a route ended: its specialist has less to do, and counts as healthy or not by it. Raises NotFound
        for a route of which the user has none under way: it was told before, or too long ago."""
        if not isinstance(succeeded, bool):
            raise ValidationError("succeeded must be true or false", param="succeeded")
        is_time = latency_s is None or (isinstance(latency_s, int | float) and not isinstance(latency_s, bool))
        if not is_time or (latency_s is not None and not 0 <= latency_s < 1e9):
            raise ValidationError(f"latency_s must be seconds, not {latency_s!r}", param="latency_s")
        route = self._loads.get(route_id)
        if route is None or route.user_id != user_id:
            raise NotFound(f"no route {route_id!r} is under way")
        self._loads.end(route_id, succeeded=succeeded, now=self._clock.monotonic())
        record = {
            "kind": "outcome",
            "route_id": route_id,
            "specialist_id": route.specialist_id,
            "succeeded": succeeded,
            "latency_s": latency_s,
        }
        with suppress(NotFound):  # the user was erased meanwhile
            await self._logged(user_id, record, begins=False)

    async def judge_route(self, route_id: str, was_right: bool, *, user_id: str = "") -> None:
        """Say whether the right one was chosen; the last word counts. What should have been chosen is learned by
        `learn_topics`. Raises NotFound for a route that is not in the user's log."""
        if not isinstance(was_right, bool):
            raise ValidationError("was_right must be true or false", param="was_right")
        check_user(user_id)
        if not await asyncio.to_thread(self._log.knows, user_id, route_id):
            raise NotFound(f"no route {route_id!r}")
        await self._logged(user_id, {"kind": "verdict", "route_id": route_id, "was_right": was_right}, begins=False)

    async def analyze_routing_efficiency(self, time_period: Any = "24h") -> RoutingReport:
        """Figures of all routes of a period: see `RoutingReport`, and `period_of` for what *time_period* may be."""
        start, end = period_of(time_period, self._clock.now())
        return await asyncio.to_thread(lambda: report_of(self._log.records(start, end), start, end))

    async def prune_log(self, *, user_id: str = "") -> int:
        """Delete what is older than the settings keep. To be called now and then by whoever runs the module."""
        today = self._clock.now().date()
        return await asyncio.to_thread(self._log.prune, today, self._settings.log_retention_days)

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Examples in the user's words, and the log of the user's routes."""
        check_named(user_id)

        def gathered() -> dict[str, Any]:
            return {
                "user_id": user_id,
                "examples": [one.to_dict() for one in self._examples.of_user(user_id)],
                "routes": self._log.export(user_id),
            }

        return await asyncio.to_thread(gathered)

    async def erase_user(self, user_id: str) -> RouterErasure:
        """Remove both, and unlearn the examples. Cannot be undone."""
        check_named(user_id)
        erasure = await self._finishing.alone(
            lambda: RouterErasure(user_id, self._examples.erase(user_id), self._log.erase(user_id))
        )
        if erasure.examples:
            await self._learned(0)
        return erasure

    # -- below -----------------------------------------------------------------------------------------------

    async def _classified(self, content: str, context_history: Sequence[Any] | None) -> Classification:
        check_content(content)
        most = self._settings.context_messages
        history = texts_of("context_history", context_history or ())
        history = history[-most:] if most else []
        model = await self._learner.model()
        threshold = self._settings.threshold
        if model is None:
            return Classification(None, 0.0, (), (), threshold, is_calibrated=False)
        (*before, own), alike = await self._learner.heard(model, [*history, content])
        alone = classified(own, threshold, is_calibrated=model.calibration.is_fitted)
        return in_context(alone, own, before, [float(one) for one in alike[-1, :-1]], model.near)

    async def _available(self, given: Sequence[Any] | None, user_id: str) -> list[Specialist]:
        known = await asyncio.to_thread(self._specialists.read)
        if given is not None:
            return [meant(one, known) for one in listed("available_specialists", given)]
        agents = await agents_as_specialists(self._context.get_module, user_id)
        own = without_missing_agents(known.values(), agents)
        return [*own, *(one for one in agents or () if one.id not in known and one.topics)]

    def _unregistered_fallback(self, specialists: Sequence[Specialist]) -> Specialist | None:
        """The fallback of the settings where nothing else is known of it than its name."""
        name = self._settings.fallback_specialist
        return None if name is None or any(one.id == name for one in specialists) else Specialist(name)

    def _decided(
        self, found: Classification, specialists: Sequence[Specialist], unregistered: Specialist | None
    ) -> Route:
        loads = self._loads.now(self._clock.monotonic())
        choice = chosen(found.labels, specialists, loads)
        route = Route(f"rt_{self._new_id()}", MATCHED, "", found)
        if choice is not None:
            reason = f"{choice.specialist.id} answers for {choice.label.topic!r} ({choice.label.score:.2f})"
            return replace(route, specialist=choice.specialist, reason=reason, passed_over=choice.passed_over)
        why = _why_nobody(found, specialists)
        # Nobody is chosen whom the caller has left out.
        name = self._settings.fallback_specialist
        specialist = next((one for one in specialists if one.id == name), unregistered)
        if specialist is None:
            return replace(route, outcome=NO_MATCH, reason=why)
        return replace(route, outcome=FALLBACK, specialist=specialist, reason=f"{why}: {name} answers instead")

    async def _tell(self, route: Route, record: Mapping[str, Any]) -> None:
        about = {key: value for key, value in record.items() if key not in ("kind", "took_ms")} | {
            "reason": route.reason
        }
        if route.specialist is None:
            await self._context.emit("router.no_match", about)
            return
        await self._context.emit("router.routed", about)
        await self._context.emit("router.specialist.notified", about)

    async def _logged(self, user_id: str, record: Mapping[str, Any], *, begins: bool = True) -> None:
        try:
            await self._finishing.alone(lambda: self._log.append(user_id, self._clock.now(), record, begins=begins))
        except StorageError:
            # The log serves analysis; that it cannot be written must not keep a message from its answer.
            log.warning("a route of user %r is not in the log", user_id, exc_info=True)

    async def _learned(self, added: int) -> Learned:
        training = self._learner.follow()
        done, _ = await asyncio.wait([training], timeout=_LEARN_WITHIN_S)
        if done:
            training.result()  # raises what kept it from learning
        _, examples = await asyncio.to_thread(self._examples.known)
        return Learned(added, len(examples), self._learner.is_current)


def _why_nobody(found: Classification, specialists: Sequence[Specialist]) -> str:
    if found.topic is None:
        return f"no topic reaches {found.threshold:g}"
    if any(one.cover(label.topic) for one in specialists for label in found.labels):
        return f"nobody who answers for {found.topic!r} is healthy"
    return f"nobody answers for {found.topic!r}"
