"""What a conversation does next. Pure: a plan and what has been said in, a step out.

Everything that a decision needs stands in the transcript. So a run that was interrupted goes on by asking the same
question of the same record: agents that have spoken in a round are not asked again, and no turn is taken twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .likeness import Group, latest_answers
from .plans import BY_LIKENESS, CONSENSUS, LEADER_BASED, ROUND_ROBIN, Plan
from .team import next_speaker
from .termination import SoFar
from .turns import ANSWER, FINAL, PLAN, VOTE, Turn
from .votes import QUORUM, distinct, outcome

COMPLETED, FAILED, CANCELLED, RUNNING, IDLE = "completed", "failed", "cancelled", "running", "idle"
STATUSES = (IDLE, RUNNING, COMPLETED, CANCELLED, FAILED)

# Who has failed so often one after the other is not asked again in this run: it costs a time-out each time.
_FAILURES_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Record:
    """``turns``: those of the run, in order. ``group``: the agents that say the same, of those in `compared`."""

    turns: tuple[Turn, ...] = ()
    elapsed_s: float = 0.0
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these agents, all at a time, for a turn of this kind."""

    agents: tuple[str, ...]
    kind: str
    round: int
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, on which turns it rests, and the share of the agents that are behind it."""

    content: str
    how: str
    supporting: tuple[str, ...]
    level: float | None = None
    created_by: str = "system"
    votes: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    status: str
    reason: str
    verdict: Verdict | None = None


Step = Ask | Stop


def next_step(plan: Plan, record: Record) -> Step:
    """A decision that has been reached comes before the limits, and the limits before another turn."""
    silent = silenced(plan, record.turns)
    active = tuple(agent for agent in plan.agents if agent not in silent)
    if not active:
        return Stop(FAILED, "agents_failed")
    step = _STRATEGIES[plan.strategy](plan, record, active)
    if isinstance(step, Stop):
        return step
    agreement = record.group.level if record.group is not None else None
    so_far = SoFar(record.turns, record.elapsed_s, agreement)
    reason = plan.ends.met(so_far) if plan.ends is not None else None
    if reason is not None:
        is_agreed = "agreement" in reason.split("+") and record.group is not None
        return Stop(COMPLETED, reason, _said_alike(record.group) if is_agreed and record.group else None)
    left = plan.max_turns - sum(turn.is_of_agent for turn in record.turns)
    if left <= 0:
        return _out_of_turns(plan, record)
    return Ask(step.agents[:left], step.kind, step.round, step.options)


def silenced(plan: Plan, turns: Sequence[Turn]) -> frozenset[str]:
    """Agents that must not be asked any more: their last turns failed, one after the other."""
    found = set()
    for agent in plan.agents:
        own = [turn for turn in turns if turn.is_of_agent and turn.agent_id == agent][-_FAILURES_IN_A_ROW:]
        if len(own) == _FAILURES_IN_A_ROW and all(turn.failure is not None for turn in own):
            found.add(agent)
    return frozenset(found)


def compared(plan: Plan, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns whose likeness bears on the next step."""
    if plan.strategy == CONSENSUS:
        turns = [turn for turn in turns if turn.round == _round(turns) and turn.kind == ANSWER]
    return latest_answers(turns)


def heard(plan: Plan, step: Ask, before: Sequence[Turn], turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """What those who are asked know of the conversation: of what stood there *before* the run, and of its *turns*.

    Who is asked together answers without hearing the others, also when a run that was interrupted goes on. The topic
    is in every prompt anyway; votes on what was answered need no second list of the answers.
    """
    said = [turn for turn in turns if turn.is_of_agent or turn.content != plan.topic]
    if step.kind == VOTE:
        return tuple(turn for turn in said if turn.round == step.round and turn.kind == ANSWER) if plan.options else ()
    if plan.strategy == CONSENSUS:
        said = [turn for turn in said if not turn.is_of_agent or turn.round < step.round]
    elif plan.strategy == LEADER_BASED and step.kind == ANSWER:
        said = [turn for turn in said if not turn.is_of_agent or turn.kind == PLAN]
    return (*before, *said)


def note_on(step: Ask, turns: Sequence[Turn]) -> str:
    """How the vote of the round before went, for those who speak after it; empty where there was none."""
    if step.kind != ANSWER:
        return ""
    votes = Counter(turn.vote for turn in turns if turn.kind == VOTE and turn.round == step.round - 1 and turn.vote)
    counted = ", ".join(f"{count} for {option!r}" for option, count in votes.most_common())
    return f"No agreement yet. The last vote: {counted}." if counted else ""


# -- strategies -----------------------------------------------------------------------------------------------------


def _round_robin(plan: Plan, record: Record, active: tuple[str, ...]) -> Step:
    taken = [turn for turn in record.turns if turn.is_of_agent]
    last = taken[-1].agent_id if taken else None
    excluded = [agent for agent in plan.agents if agent not in active]
    speaker = next_speaker(plan.agents, last, excluded)
    if speaker is None:
        return Stop(FAILED, "agents_failed")
    return Ask((speaker,), ANSWER, len(taken) // len(plan.agents) + 1)


def _consensus(plan: Plan, record: Record, active: tuple[str, ...]) -> Step:
    number = _round(record.turns)
    here = [turn for turn in record.turns if turn.round == number and turn.is_of_agent]
    pending = _not_yet(active, here, ANSWER)
    if pending:
        return Ask(pending, ANSWER, number)
    is_last = number >= plan.max_rounds
    if plan.agreement == BY_LIKENESS:
        group = record.group
        if group is not None and group.level >= plan.quorum - 1e-9:
            return Stop(COMPLETED, "consensus", _said_alike(group))
        if is_last:
            verdict = _said_alike(group, how="largest_group") if group is not None else None
            return Stop(COMPLETED, "no_consensus" if verdict is None else "tie_break", verdict)
        return Ask(active, ANSWER, number + 1)
    options = plan.options or distinct([turn.content for turn in here if turn.kind == ANSWER and turn.is_said])
    if options and (pending := _not_yet(active, here, VOTE)):
        return Ask(pending, VOTE, number, options)
    votes = {turn.agent_id or "": turn.vote for turn in here if turn.kind == VOTE and turn.vote in options}
    result = outcome(
        {agent: vote for agent, vote in votes.items() if vote is not None},
        options,
        voters=len(plan.agents),
        quorum=plan.quorum,
        is_last=is_last,
        leader=plan.first,
    )
    if result.chosen is None:
        return Stop(COMPLETED, "no_consensus") if is_last else Ask(active, ANSWER, number + 1)
    supporting = tuple(turn.id for turn in here if turn.kind == VOTE and turn.vote == result.chosen)
    verdict = Verdict(result.chosen, result.how or QUORUM, supporting, result.level, votes=tuple(result.votes.items()))
    return Stop(COMPLETED, "consensus" if result.how == QUORUM else verdict.how, verdict)


def _leader_based(plan: Plan, record: Record, active: tuple[str, ...]) -> Step:
    turns = [turn for turn in record.turns if turn.is_of_agent]
    final = next((turn for turn in turns if turn.kind == FINAL and turn.failure is None), None)
    if final is not None:
        how = "leader" if final.agent_id == plan.first else "deputy"
        supporting = tuple(turn.id for turn in turns if turn.kind in (ANSWER, FINAL) and turn.failure is None)
        verdict = Verdict(final.content, how, supporting, created_by=final.agent_id or "system")
        return Stop(COMPLETED, "answered", verdict)
    members = tuple(agent for agent in plan.agents if agent != plan.first)
    if members and not any(turn.kind == PLAN for turn in turns):
        return Ask((plan.first,), PLAN, 1)
    pending = _not_yet(tuple(agent for agent in members if agent in active), turns, ANSWER)
    if pending:
        return Ask(pending, ANSWER, 1)
    # Whoever could not conclude is not asked twice; the next one stands in.
    failed = {turn.agent_id for turn in turns if turn.kind == FINAL}
    candidates = [agent for agent in (plan.first, *members) if agent in active and agent not in failed]
    return Ask((candidates[0],), FINAL, 1) if candidates else Stop(FAILED, "agents_failed")


_STRATEGIES: dict[str, Callable[[Plan, Record, tuple[str, ...]], Step]] = {
    ROUND_ROBIN: _round_robin,
    CONSENSUS: _consensus,
    LEADER_BASED: _leader_based,
}


def _out_of_turns(plan: Plan, record: Record) -> Stop:
    if plan.is_task and plan.strategy == ROUND_ROBIN:
        said = [turn for turn in record.turns if turn.is_of_agent and turn.failure is None]
        if said:
            supporting = tuple(turn.id for turn in said)
            verdict = Verdict(said[-1].content, "last", supporting, created_by=said[-1].agent_id or "system")
            return Stop(COMPLETED, "answered", verdict)
        return Stop(FAILED, "agents_failed")
    return Stop(COMPLETED, "turns")


def _said_alike(group: Group | None, *, how: str = QUORUM) -> Verdict | None:
    if group is None:
        return None
    supporting = tuple(turn.id for turn in group.turns)
    return Verdict(group.turns[0].content, how, supporting, group.level)


def _round(turns: Sequence[Turn]) -> int:
    return max((turn.round for turn in turns if turn.is_of_agent), default=1)


def _not_yet(agents: Sequence[str], turns: Sequence[Turn], kind: str) -> tuple[str, ...]:
    done = {turn.agent_id for turn in turns if turn.kind == kind}
    return tuple(agent for agent in agents if agent not in done)
