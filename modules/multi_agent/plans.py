"""What a run of a conversation is to do: who takes part, how, and until when. Checked when built. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from modules.core.errors import ValidationError

from .settings import MultiAgentSettings
from .termination import Condition, condition_of

ROUND_ROBIN, CONSENSUS, LEADER_BASED = "round_robin", "consensus", "leader_based"
STRATEGIES = (ROUND_ROBIN, CONSENSUS, LEADER_BASED)
BY_VOTES, BY_LIKENESS = "votes", "likeness"
AGREEMENTS = (BY_VOTES, BY_LIKENESS)

MOST_TURNS = 1_000
_MOST_OPTIONS = 20
_LONGEST_OPTION = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """``number`` counts the runs of a conversation from 1; ``first_turn`` turns stood there before this one began.

    ``options`` are what a consensus is voted on; none: what the agents answer in each round. ``leader`` leads
    (``leader_based``) and breaks ties (``consensus``). ``is_task``: the last answer of a round_robin is its result.
    """

    topic: str
    agents: tuple[str, ...]
    strategy: str = ROUND_ROBIN
    max_turns: int = 50
    ends: Condition | None = None
    options: tuple[str, ...] = ()
    agreement: str = BY_VOTES
    leader: str = ""
    quorum: float = 0.7
    max_rounds: int = 5
    likeness: float = 0.8
    is_task: bool = False
    number: int = 1
    first_turn: int = 0
    started_at: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.topic, str) or not self.topic.strip():
            raise ValidationError("topic must not be empty", param="topic")
        check_agent_ids(self.agents)
        if self.strategy not in STRATEGIES:
            raise ValidationError(
                f"strategy must be one of {', '.join(STRATEGIES)}; not {self.strategy!r}", param="strategy"
            )
        if self.agreement not in AGREEMENTS:
            raise ValidationError(
                f"agreement must be one of {', '.join(AGREEMENTS)}; not {self.agreement!r}", param="agreement"
            )
        turns = self.max_turns
        if not isinstance(turns, int) or isinstance(turns, bool) or not 1 <= turns <= MOST_TURNS:
            raise ValidationError(f"max_turns must be from 1 to {MOST_TURNS}, not {turns!r}", param="max_turns")
        _check_options(self.options)
        if self.options and (self.strategy != CONSENSUS or self.agreement != BY_VOTES):
            raise ValidationError("options are voted on: they need strategy consensus by votes", param="options")
        if self.leader and self.leader not in self.agents:
            raise ValidationError(f"the leader {self.leader!r} is not among the agents", param="leader")

    @property
    def first(self) -> str:
        """Who leads: the leader, else the first of the agents."""
        return self.leader or self.agents[0]

    @property
    def needs_agreement(self) -> bool:
        """Whether what agents say has to be compared."""
        by_likeness = self.strategy == CONSENSUS and self.agreement == BY_LIKENESS
        return by_likeness or (self.ends is not None and self.ends.needs_agreement)

    def to_dict(self) -> dict[str, Any]:
        shown = asdict(replace(self, ends=None))
        return {**shown, "ends": None if self.ends is None else self.ends.to_dict()}

    @classmethod
    def of_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValidationError for what `to_dict` did not give."""
        ends = stored["ends"]
        lists = {name: tuple(stored[name]) for name in ("agents", "options")}
        return cls(**{**stored, **lists, "ends": None if ends is None else condition_of(ends)})


def plan_for(
    settings: MultiAgentSettings,
    topic: str,
    agents: Sequence[str],
    max_turns: int | None,
    *,
    started_at: str,
    strategy: str = ROUND_ROBIN,
    termination: Mapping[str, Any] | Condition | None = None,
    options: Sequence[str] = (),
    agreement: str = BY_VOTES,
    leader: str | None = None,
    is_task: bool = False,
    number: int = 1,
    first_turn: int = 0,
) -> Plan:
    """The plan that a caller's wishes come to under *settings*. Raises ValidationError for wishes that make none."""
    if isinstance(options, str) or isinstance(agents, str):
        raise ValidationError(
            "options and agent_ids are lists", param="options" if isinstance(options, str) else "agent_ids"
        )
    return Plan(
        topic=topic,
        agents=tuple(agents),
        strategy=strategy,
        max_turns=settings.max_turns if max_turns is None else max_turns,
        ends=termination if isinstance(termination, Condition | None) else condition_of(termination),
        options=tuple(options),
        agreement=agreement,
        leader=leader or "",
        quorum=settings.quorum,
        max_rounds=settings.max_rounds,
        likeness=settings.likeness,
        is_task=is_task,
        number=number,
        first_turn=first_turn,
        started_at=started_at,
    )


def check_agent_ids(agents: object) -> None:
    """Raises ValidationError for what is no list of different agents."""
    if not isinstance(agents, tuple) or not agents or not all(isinstance(one, str) and one for one in agents):
        raise ValidationError("agent_ids must be a list of agents, at least one", param="agent_ids")
    if len(set(agents)) != len(agents):
        raise ValidationError("agent_ids names an agent twice", param="agent_ids")


def _check_options(options: tuple[str, ...]) -> None:
    if len(options) == 1 or len(options) > _MOST_OPTIONS:
        raise ValidationError(f"options must be from 2 to {_MOST_OPTIONS}", param="options")
    for option in options:
        if not isinstance(option, str) or not option.strip() or len(option) > _LONGEST_OPTION:
            raise ValidationError(f"an option must be text of 1 to {_LONGEST_OPTION} characters", param="options")
    if len({option.strip().casefold() for option in options}) != len(options):
        raise ValidationError("options names one twice", param="options")
