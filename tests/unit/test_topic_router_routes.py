"""Where the router sends messages, and what it says of that afterwards."""

from __future__ import annotations

import json

import pytest

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.topic_router import Specialist
from tests.router_platform import EXAMPLES, clock, start

__all__ = ["clock", "start"]  # fixtures


# -- routing -------------------------------------------------------------------------------------------------


async def test_a_message_goes_to_who_answers_for_its_topic(start):
    told = []
    router = await start(told=told)
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("chef", ["cooking"], ["recipes"], persona_id="gordon")
    await router.register_specialist("counsel", ["legal"])

    route = await (await start(told=told)).route_to_specialist("bake a stew", user_id="ann", session_id="s")

    assert (route.outcome, route.specialist_id, route.specialist.persona_id) == ("matched", "chef", "gordon")
    assert "cooking" in route.reason
    events = [event for event, _ in told if event.startswith("router.")]
    assert events == ["router.routed", "router.specialist.notified"]
    assert "stew" not in json.dumps([data for _, data in told])
    json.dumps(route.to_dict(), allow_nan=False)


async def test_a_classification_that_is_given_is_not_made_again(start):
    router = await start()
    await router.register_specialist("chef", ["cooking"])
    given = {"labels": [{"topic": "cooking", "score": 0.9}], "threshold": 0.7, "topic": "cooking", "score": 0.9}
    assert (await router.route_to_specialist("anything", given)).specialist_id == "chef"
    for bad in ({}, {"labels": 1, "threshold": 0.7}, {"labels": [{}], "threshold": 0}, 7):
        with pytest.raises(ValidationError, match="classification"):
            await router.route_to_specialist("anything", bad)


async def test_where_nobody_answers_the_fallback_does_or_nobody_and_that_is_said(start):
    told = []
    router = await start(told=told)
    await router.learn_topics(EXAMPLES)
    for content, why in [("something else entirely", "no topic reaches"), ("bake a stew", "nobody answers for")]:
        route = await router.route_to_specialist(content)
        assert (route.outcome, route.specialist) == ("no_match", None)
        assert why in route.reason
    assert [event for event, _ in told if event != "router.classified"] == ["router.no_match"] * 2
    with_fallback = await start(fallback_specialist="front_desk")
    route = await with_fallback.route_to_specialist("something else entirely")
    assert (route.outcome, route.specialist_id) == ("fallback", "front_desk")
    await with_fallback.register_specialist("front_desk", [], persona_id="friendly")
    assert (await with_fallback.route_to_specialist("x")).specialist.persona_id == "friendly"


async def test_nobody_is_chosen_whom_the_caller_has_left_out(start):
    router = await start(fallback_specialist="front_desk")
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("chef", ["cooking"])
    await router.register_specialist("front_desk", [])
    among = [{"id": "counsel", "topics": ["legal"]}]
    route = await router.route_to_specialist("bake a stew", available_specialists=among)
    assert (route.outcome, route.specialist) == ("no_match", None)
    route = await router.route_to_specialist("bake a stew", available_specialists=["front_desk", *among])
    assert (route.outcome, route.specialist_id) == ("fallback", "front_desk")
    route = await router.route_to_specialist("bake a stew", available_specialists=[Specialist("own", ("cooking",))])
    assert route.specialist_id == "own"
    with pytest.raises(NotFound, match="nobody_here"):
        await router.route_to_specialist("bake", available_specialists=["nobody_here"])


async def test_only_who_has_all_capabilities_is_asked(start):
    router = await start(fallback_specialist="desk")
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("cook", ["cooking"], ["recipes"])
    await router.register_specialist("desk", [], [])
    assert (await router.route_to_specialist("bake", capabilities=["recipes"])).specialist_id == "cook"
    assert (await router.route_to_specialist("bake", capabilities=["recipes", "wine"])).specialist is None


async def test_load_is_spread_and_an_ended_route_is_no_load(start):
    router = await start()
    await router.learn_topics(EXAMPLES)
    for name in ("a", "b"):
        await router.register_specialist(name, ["cooking"])
    await router.register_specialist("big", ["cooking"], capacity=2)
    chosen = [await router.route_to_specialist("bake bread", user_id="ann") for _ in range(8)]
    assert sorted(route.specialist_id for route in chosen) == ["a", "a", "b", "b", *["big"] * 4]
    for route in chosen:
        if route.specialist_id == "a":
            await router.report_outcome(route.id, True, user_id="ann")
    after = [(await router.route_to_specialist("bake bread", user_id="ann")).specialist_id for _ in range(2)]
    assert "a" in after


async def test_who_fails_gets_nothing_for_a_while_then_one_message_that_decides(start, clock):
    router = await start(specialists={"failures": 2, "recover_seconds": 30})
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("only", ["cooking"])

    async def route():
        return await router.route_to_specialist("bake bread")

    for _ in range(2):
        await router.report_outcome((await route()).id, False)
    refused = await route()
    assert refused.outcome == "no_match"
    assert "is healthy" in refused.reason
    clock.advance(30)
    trial = await route()
    assert trial.specialist_id == "only"
    assert (await route()).specialist is None, "one message at first"
    await router.report_outcome(trial.id, False)
    assert (await route()).specialist is None
    clock.advance(30)
    await router.report_outcome((await route()).id, True)
    assert (await route()).specialist_id == "only"
    assert (await route()).specialist_id == "only"


async def test_a_route_whose_outcome_nobody_tells_is_let_go(start, clock):
    router = await start(specialists={"route_timeout_seconds": 60})
    await router.learn_topics(EXAMPLES)
    for name in ("a", "b"):
        await router.register_specialist(name, ["cooking"])
    route = await router.route_to_specialist("bake bread")
    clock.advance(60)
    assert (await router.route_to_specialist("bake bread")).specialist_id == "b"
    with pytest.raises(NotFound):
        await router.report_outcome(route.id, True)


async def test_an_outcome_is_told_once_and_by_whom_the_route_is(start):
    router = await start(fallback_specialist="desk")
    route = await router.route_to_specialist("hello", user_id="ann")
    with pytest.raises(NotFound):
        await router.report_outcome(route.id, False, user_id="bob")
    await router.report_outcome(route.id, True, latency_s=0.5, user_id="ann")
    with pytest.raises(NotFound):
        await router.report_outcome(route.id, True, user_id="ann")
    for bad in ({"succeeded": "yes"}, {"succeeded": True, "latency_s": -1}, {"succeeded": True, "latency_s": "1"}):
        with pytest.raises(ValidationError):
            await router.report_outcome(route.id, user_id="ann", **bad)


class Agents:
    """multi_agent, as far as it is asked."""

    def __init__(self, *agents, error=None):
        self.agents, self.error = agents, error

    async def list_agents(self, user_id="", limit=100, *, after=None):
        if self.error:
            raise self.error
        return [one for one in self.agents if after is None or one.id > after][:limit]


class Agent:
    def __init__(self, agent_id, capabilities=(), **metadata):
        self.id, self.capabilities, self.metadata = agent_id, capabilities, metadata
        self.persona_id = metadata.get("persona_id")


async def test_agents_that_name_topics_are_specialists_too(start):
    many = [Agent(f"z{number:03}") for number in range(150)]
    router = await start(agents=Agents(Agent("baker", ("ovens",), topics=["cooking"], model="m"), *many))
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("gone", ["cooking"], agent_id="not_there", capacity=1000)
    route = await router.route_to_specialist("bake bread")
    assert (route.specialist_id, route.specialist.agent_id, route.specialist.model) == ("baker", "baker", None)
    await router.register_specialist("last", ["cooking"], agent_id="z149", capacity=1000)
    assert (await router.route_to_specialist("bake bread")).specialist_id == "last"


async def test_agents_that_cannot_be_asked_keep_nobody_from_an_answer(start, caplog):
    router = await start(agents=Agents(error=RuntimeError("broken")))
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("chef", ["cooking"], agent_id="a")
    assert (await router.route_to_specialist("bake bread")).specialist_id == "chef"
    assert "without the agents" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"specialist_id": ""},
        {"specialist_id": "x" * 1001},
        {"topics": "cooking"},
        {"topics": ["a//b"]},
        {"capabilities": "one"},
        {"capabilities": [7]},
        {"capacity": 0},
        {"capacity": True},
        {"persona_id": ""},
        {"model": 7},
        {"metadata": {"x": object()}},
        {"metadata": {"x": "y" * 20_000}},
    ],
)
async def test_a_specialist_that_cannot_be_is_refused(start, fields):
    router = await start()
    with pytest.raises(ValidationError):
        await router.register_specialist(**{"specialist_id": "s", "topics": [], **fields})
    assert await router.list_specialists() == []


async def test_specialists_can_be_changed_and_removed(start):
    router = await start()
    await router.register_specialist("s", ["a"])
    await router.register_specialist("s", ["b"], metadata={"k": [1]})
    (found,) = await (await start()).list_specialists()
    assert (found.topics, found.metadata) == (("b",), {"k": [1]})
    await router.remove_specialist("s")
    with pytest.raises(NotFound):
        await router.remove_specialist("s")


async def test_a_damaged_file_of_specialists_is_an_error_and_stays_as_it_is(start, tmp_path):
    file = tmp_path / "topic_router/specialists.json"
    file.parent.mkdir()
    file.write_bytes(b'{"specialists": [{"id"')
    router = await start()
    with pytest.raises(StorageError, match="damaged"):
        await router.register_specialist("s", [])
    assert file.read_bytes() == b'{"specialists": [{"id"'


# -- figures, users, settings --------------------------------------------------------------------------------


async def test_figures_of_a_period_are_those_of_its_routes(start, clock):
    router = await start()
    await router.learn_topics(EXAMPLES)
    await router.register_specialist("chef", ["cooking"])
    await router.route_to_specialist("bake bread", user_id="ann")
    clock.advance(7200)
    first = await router.route_to_specialist("bake bread", user_id="ann")
    await router.report_outcome(first.id, True, latency_s=0.2, user_id="ann")
    await router.judge_route(first.id, False, user_id="ann")
    await router.judge_route(first.id, True, user_id="ann")
    second = await router.route_to_specialist("bake soup", user_id="bob")
    await router.report_outcome(second.id, False, latency_s=0.6, user_id="bob")
    await router.route_to_specialist("the court", user_id="bob")

    report = await router.analyze_routing_efficiency("1h")

    assert (report.routes, report.matched, report.no_match, report.fallback) == (3, 2, 1, 0)
    assert (report.judged, report.right) == (1, 1)
    assert report.share_matched == pytest.approx(2 / 3)
    (chef,) = report.specialists
    assert (chef.routes, chef.ended, chef.failed) == (2, 2, 1)
    assert (chef.mean_latency_s, chef.p95_latency_s) == (0.4, 0.6)
    assert [(one.topic, one.routes) for one in report.topics] == [("cooking", 2), ("legal", 1)]
    assert report.median_took_ms > 0
    assert (await router.analyze_routing_efficiency("1d")).routes == 4
    json.dumps(report.to_dict(), allow_nan=False)


async def test_a_verdict_on_another_users_route_is_refused(start):
    router = await start(fallback_specialist="desk")
    route = await router.route_to_specialist("hello", user_id="ann")
    with pytest.raises(NotFound):
        await router.judge_route(route.id, True, user_id="bob")
    with pytest.raises(ValidationError):
        await router.judge_route(route.id, 1, user_id="ann")


@pytest.mark.parametrize(
    "period", ["", "x", "1y", 0, -5, True, None, ["2026-01-02", "2026-01-01"], [1, 2], "9" * 30 + "w"]
)
async def test_a_period_that_is_none_is_refused(start, period):
    router = await start()
    with pytest.raises(ValidationError, match="time_period"):
        await router.analyze_routing_efficiency(period)


async def test_a_period_may_be_two_moments(start, clock):
    router = await start(fallback_specialist="desk")
    await router.route_to_specialist("hello")
    around = ["2026-01-15T11:00:00+00:00", "2026-01-15T13:00:00"]
    assert (await router.analyze_routing_efficiency(around)).routes == 1
    assert (await router.analyze_routing_efficiency(["2026-01-15T12:00:01Z", "2026-01-16"])).routes == 0
    assert (await router.analyze_routing_efficiency(60)).balance == 1.0


async def test_old_days_of_the_log_are_deleted(start, clock, tmp_path):
    router = await start(fallback_specialist="desk", log_retention_days=2)
    for _ in range(3):
        await router.route_to_specialist("hello", user_id="ann")
        clock.advance(86_400)
    assert await router.prune_log() == 2
    assert [path.name for path in tmp_path.rglob("routes/*/*.jsonl")] == ["2026-01-17.jsonl"]


async def test_of_an_erased_user_not_a_byte_is_left(start, tmp_path):
    router = await start(fallback_specialist="desk")
    await router.learn_topics(EXAMPLES)
    await router.learn_topics([("my zebra ate the contract", ["legal"])], user_id="ann")
    route = await router.route_to_specialist("bake", user_id="ann", session_id="zebra-session")
    await router.route_to_specialist("bake", user_id="bob")

    exported = await router.export_user("ann")
    erased = await router.erase_user("ann")
    await router.report_outcome(route.id, True, user_id="ann")  # comes late, and leaves nothing behind

    assert [one["content"] for one in exported["examples"]] == ["my zebra ate the contract"]
    assert [one["session_id"] for one in exported["routes"]] == ["zebra-session"]
    assert (erased.examples, erased.routes) == (1, 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"zebra" in path.read_bytes() or b"ann" in path.read_bytes()] == []
    assert not (tmp_path / "topic_router/routes/ann").exists()
    assert len(await router.list_examples()) == 13
    assert len((await router.export_user("bob"))["routes"]) == 1


async def test_events_do_and_tell_what_they_name(start):
    told = []
    router = await start(told=told, fallback_specialist="desk")
    emit = router._context.emit
    await emit("router.update", {"examples": EXAMPLES})
    await emit("router.classify", {"content": "bake a stew", "user_id": "ann"})
    await emit("router.route", {"content": "bake a stew", "user_id": "ann"})
    failed = await emit("router.route", {})
    (classified,) = [data for event, data in told if event == "router.classified"]
    assert (classified["user_id"], classified["classification"]["topic"]) == ("ann", "cooking")
    assert [data["specialist_id"] for event, data in told if event == "router.routed"] == ["desk"]
    assert failed.failed
