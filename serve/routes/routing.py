"""Who answers what: topics learned from examples, specialists, routes, and how well they go.

Examples and specialists are the same for all users: only an administrator changes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from fastapi import Query as InQuery
from pydantic import AfterValidator, ConfigDict, Field

from actors.module_ref import ModuleRef
from serve.json_response import Json
from serve.pages import Id, PageQuery, Query, listed, most_items
from serve.paths import PathId, restored
from serve.schemas import NOT_BLANK, Answer, Body, Page
from serve.serving import CallerNow, ServingNow, running
from serve.whole_lists import page_of_whole

router = APIRouter(tags=["routing"])

TheRouter = Annotated[ModuleRef, Depends(running("topic_router"))]
Content = Annotated[str, Field(min_length=1, max_length=65_536, pattern=NOT_BLANK)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=NOT_BLANK)]
SpecialistId = Annotated[
    str,
    Path(min_length=1, max_length=1000, pattern=NOT_BLANK, examples=["chef"]),
    AfterValidator(restored),
]
Names = Annotated[list[Name], Field(max_length=50)]
_PART = r"[^/\x00-\x1f\x7f-\x9f]*[^/\s\x00-\x1f\x7f-\x9f][^/\x00-\x1f\x7f-\x9f]*"
Topic = Annotated[str, Field(min_length=1, max_length=200, pattern=rf"^{_PART}(/{_PART}){{0,4}}$")]
Topics = Annotated[list[Topic], Field(max_length=50)]


class Said(Body):
    role: Annotated[str, Field(max_length=20)] = "user"
    content: Annotated[str, Field(max_length=65_536)]


History = Annotated[list[Annotated[str, Field(max_length=65_536)] | Said], Field(max_length=500)]


class Classify(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "How long do I boil an egg?"}]})

    user_id: Id | None = None
    content: Content
    context_history: History = Field(default_factory=list)
    """What was said before, oldest first."""


class RouteIt(Classify):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "content": "How long do I boil an egg?"}]}
    )

    session_id: Id | None = None
    available_specialists: Annotated[list[Name] | None, Field(max_length=1_000)] = None
    """Ids of those who may be chosen; where not given, all that there are."""

    capabilities: Names = Field(default_factory=list)
    """Only who has all of these is chosen."""


class Boundaries(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": ["How long do I boil an egg?", "May my landlord evict me?"]}]}
    )

    messages: History


class ExampleIn(Body):
    content: Annotated[str, Field(min_length=1, max_length=8_000, pattern=NOT_BLANK)]
    topics: Topics
    """Empty for an example of what is about none of them; `a/b` is a topic within `a`."""


class NewExamples(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"examples": [{"content": "How long do I boil an egg?", "topics": ["cooking"]}]}]
        }
    )

    user_id: Id | None = None
    """Whose words they are, where they are a user's."""

    examples: Annotated[list[ExampleIn], Field(min_length=1, max_length=1_000)]


class SpecialistIn(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"topics": ["cooking"], "persona_id": "chef"}]})

    topics: Topics
    capabilities: Names = Field(default_factory=list)
    persona_id: Name | None = None
    model: Name | None = None
    agent_id: Name | None = None
    capacity: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    metadata: dict[str, Any] = Field(default_factory=dict)


class Outcome(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "succeeded": True, "latency_s": 1.5}]})

    user_id: Id | None = None
    succeeded: bool
    latency_s: Annotated[float | None, Field(ge=0, lt=1e9)] = None


class Verdict(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "was_right": True}]})

    user_id: Id | None = None
    was_right: bool


class ExampleQuery(Query):
    topic: Topic | None = None
    after: Id | None = None
    """Id of the example before the page."""

    limit: Annotated[int | None, Field(ge=1)] = None


class ReportQuery(Query):
    period: Annotated[str, Field(pattern="^[1-9][0-9]{0,2}[smhdw]$")] = "24h"
    """Seconds, minutes, hours, days or weeks until now."""


class LabelOut(Answer):
    topic: str
    score: float


class SegmentOut(Answer):
    start: int
    end: int
    topic: str | None


class ContextOut(Answer):
    previous: str | None
    is_boundary: bool
    nearness: float
    segments: list[SegmentOut]


class ClassificationOut(Answer):
    topic: str | None
    score: float
    labels: list[LabelOut]
    scores: list[LabelOut]
    threshold: float
    is_calibrated: bool
    is_carried: bool
    context: ContextOut | None


class SpecialistOut(Answer):
    id: str
    topics: list[str]
    capabilities: list[str]
    persona_id: str | None
    model: str | None
    agent_id: str | None
    capacity: float
    metadata: dict[str, Any]


class SpecialistPage(Page):
    data: list[SpecialistOut]


class RouteOut(Answer):
    id: str
    outcome: Literal["matched", "fallback", "no_match"]
    reason: str
    specialist_id: str | None
    specialist: SpecialistOut | None
    passed_over: list[str]
    classification: ClassificationOut


class BoundariesOut(Answer):
    segments: list[SegmentOut]


class TopicsOut(Answer):
    """Topics that are told apart, and how many examples each has of its own."""

    topics: dict[str, int]


class LearnedOut(Answer):
    """``is_current`` false: they are still being learned."""

    added: int
    examples: int
    is_current: bool


class ExampleOut(Answer):
    id: str
    user_id: str
    content: str
    topics: list[str]


class ExamplePage(Page):
    data: list[ExampleOut]


class DoneOut(Answer):
    id: str
    done: Literal[True]


class TopicShareOut(Answer):
    topic: str
    routes: int
    mean_score: float
    judged: int
    right: int


class SpecialistShareOut(Answer):
    specialist_id: str
    routes: int
    ended: int
    failed: int
    mean_latency_s: float | None
    p95_latency_s: float | None


class ReportOut(Answer):
    start: str
    end: str
    routes: int
    matched: int
    fallback: int
    no_match: int
    carried: int
    judged: int
    right: int
    mean_score: float
    balance: float | None
    median_took_ms: float | None
    p95_took_ms: float | None
    share_matched: float
    topics: list[TopicShareOut]
    specialists: list[SpecialistShareOut]


@router.post("/v1/route", response_model=RouteOut)
async def route_to_specialist(body: RouteIt, the_router: TheRouter, caller: CallerNow) -> Json:
    """Choose who is to answer. Nothing is answered: a message of a session with `"route": true` in its metadata is."""
    route = await the_router.ask(
        "route_to_specialist",
        body.content,
        None,
        body.available_specialists,
        user_id=caller.acting_for(body.user_id) or "",
        session_id=body.session_id,
        context_history=_texts(body.context_history),
        capabilities=body.capabilities,
    )
    return Json(route.to_dict())


@router.post("/v1/route/classify", response_model=ClassificationOut)
async def classify_content(body: Classify, the_router: TheRouter, caller: CallerNow) -> Json:
    """What a text is about."""
    found = await the_router.ask(
        "classify_content",
        body.content,
        _texts(body.context_history),
        user_id=caller.acting_for(body.user_id) or "",
    )
    return Json(found.to_dict())


@router.post("/v1/route/boundaries", response_model=BoundariesOut)
async def find_boundaries(body: Boundaries, the_router: TheRouter, caller: CallerNow) -> Json:
    """Where a talk changes its topic."""
    segments = await the_router.ask("find_boundaries", _texts(body.messages), user_id=caller.acting_for(None) or "")
    return Json({"segments": [one.to_dict() for one in segments]})


@router.get("/v1/route/topics", response_model=TopicsOut)
async def list_topics(the_router: TheRouter) -> Json:
    """The topics that are told apart now."""
    return Json({"topics": await the_router.ask("list_topics")})


@router.get("/v1/route/report", response_model=ReportOut)
async def analyze_routing_efficiency(
    query: Annotated[ReportQuery, InQuery()], the_router: TheRouter, caller: CallerNow
) -> Json:
    """Figures of all routes of a period; for administrators."""
    caller.check_admin()
    return Json((await the_router.ask("analyze_routing_efficiency", query.period)).to_dict())


@router.post("/v1/route/examples", response_model=LearnedOut)
async def learn_topics(body: NewExamples, the_router: TheRouter, caller: CallerNow) -> Json:
    """Learn from examples; one that is known gets the topics that are given now. For administrators."""
    caller.check_admin()
    learned = await the_router.ask(
        "learn_topics",
        [(one.content, one.topics) for one in body.examples],
        user_id=caller.acting_for(body.user_id) or "",
    )
    return Json(_learned(learned))


@router.get("/v1/route/examples", response_model=ExamplePage)
async def list_examples(
    query: Annotated[ExampleQuery, InQuery()], the_router: TheRouter, caller: CallerNow, serving: ServingNow
) -> Json:
    """By id; for administrators."""
    caller.check_admin()
    most = most_items(query.limit, serving.http.pages)
    found = await the_router.ask("list_examples", query.topic, after=query.after, limit=most + 1)
    return Json(listed([one.to_dict() for one in found[:most]], has_more=len(found) > most))


@router.delete("/v1/route/examples/{example_id}", response_model=LearnedOut)
async def forget_example(example_id: PathId, the_router: TheRouter, caller: CallerNow) -> Json:
    """Unlearn an example; for administrators. One that is not there is forgotten already."""
    caller.check_admin()
    return Json(_learned(await the_router.ask("forget_examples", [example_id])))


@router.get("/v1/route/specialists", response_model=SpecialistPage)
async def list_specialists(
    query: Annotated[PageQuery, InQuery()], the_router: TheRouter, caller: CallerNow, serving: ServingNow
) -> Json:
    """Those among whom is chosen, by id."""
    found = await the_router.ask("list_specialists", user_id=caller.acting_for(None) or "")
    return Json(await page_of_whole(query, serving.http.pages, found))


@router.put("/v1/route/specialists/{specialist_id}", response_model=SpecialistOut)
async def register_specialist(
    specialist_id: SpecialistId, body: SpecialistIn, the_router: TheRouter, caller: CallerNow
) -> Json:
    """Make a specialist known, in place of the one of this id; for administrators."""
    caller.check_admin()
    values = body.model_dump()
    topics, capabilities = values.pop("topics"), values.pop("capabilities")
    made = await the_router.ask("register_specialist", specialist_id, topics, capabilities, **values)
    return Json(made.to_dict())


@router.delete("/v1/route/specialists/{specialist_id}", response_model=DoneOut)
async def remove_specialist(specialist_id: PathId, the_router: TheRouter, caller: CallerNow) -> Json:
    """For administrators."""
    caller.check_admin()
    await the_router.ask("remove_specialist", specialist_id)
    return Json({"id": specialist_id, "done": True})


@router.post("/v1/routes/{route_id}/outcome", response_model=DoneOut)
async def report_outcome(route_id: PathId, body: Outcome, the_router: TheRouter, caller: CallerNow) -> Json:
    """Tell how a route ended: whom it went to is less busy, and counts as healthy or not by it. For administrators,
    since it decides who gets other users' messages; chat turns tell it themselves."""
    caller.check_admin()
    await the_router.ask(
        "report_outcome",
        route_id,
        body.succeeded,
        latency_s=body.latency_s,
        user_id=caller.acting_for(body.user_id) or "",
    )
    return Json({"id": route_id, "done": True})


@router.post("/v1/routes/{route_id}/verdict", response_model=DoneOut)
async def judge_route(route_id: PathId, body: Verdict, the_router: TheRouter, caller: CallerNow) -> Json:
    """Say whether the right one was chosen."""
    await the_router.ask("judge_route", route_id, body.was_right, user_id=caller.acting_for(body.user_id) or "")
    return Json({"id": route_id, "done": True})


def _texts(history: list[str | Said]) -> list[str]:
    return [one if isinstance(one, str) else one.content for one in history]


def _learned(learned: Any) -> dict[str, Any]:
    return {"added": learned.added, "examples": learned.examples, "is_current": learned.is_current}
