"""Shapes of what agents and their conversations are asked for, and of what they answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from modules.multi_agent.agents import LONGEST_NAME, NAME
from modules.multi_agent.plans import MOST_TURNS
from modules.multi_agent.termination import LONGEST_S
from serve.pages import Id, PageQuery, Query
from serve.schemas import TAG, Answer, Body, Page, Positive, whole

AgentIds = Annotated[list[Id], Field(min_length=1, max_length=100, json_schema_extra={"uniqueItems": True})]
Name = Annotated[str, Field(max_length=LONGEST_NAME, pattern=f"^{NAME}$")]
Text = Annotated[str, Field(pattern=r"[^\s\x00-\x1f\x85\ufeff]")]
# The bound stands before the validator, else the document would not have it.
Turns = Annotated[int, Field(ge=1, le=MOST_TURNS), BeforeValidator(whole)]
Options = Annotated[
    list[Annotated[Text, Field(max_length=200)]],
    Field(min_length=2, max_length=20, json_schema_extra={"uniqueItems": True}),
]
Strategy = Literal["round_robin", "consensus", "leader_based"]


class NewAgent(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "agent_id": "critic",
                    "agent_type": "assistant",
                    "capabilities": ["review"],
                    "metadata": {"name": "Critic", "system_prompt": "You find the weak spot."},
                }
            ]
        }
    )

    user_id: Id | None = None
    """Whose agent it is; without one it is for everybody, which takes an administrator."""

    agent_id: Name
    agent_type: Name = "persona"
    capabilities: Annotated[list[Name], Field(max_length=50)] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    """``name``, ``system_prompt``, ``persona_id``, ``model``, ``temperature``, ``max_tokens`` say how it answers."""


class Message(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "agent_ids": ["critic"], "message": "What is missing?"}]}
    )

    user_id: Id | None = None
    agent_ids: AgentIds
    message: Text
    wait_for_all: bool = True
    """``false``: the first answer is enough, and the other agents are called off."""


class TurnLimit(Body):
    """So many turns of agents were taken."""

    turns: Positive


class TimeLimit(Body):
    """So much time has passed since the start."""

    time_s: Annotated[float, Field(gt=0, le=LONGEST_S)]


class TokenLimit(Body):
    """Prompts and answers together came to so many tokens."""

    tokens: Positive


class TextSaid(Body):
    """An agent has said this; one of ``by``, where agents are named."""

    text: Text
    by: Annotated[list[Id], Field(max_length=100)] = Field(default_factory=list)


class Agreement(Body):
    """Such a share of the agents say the same."""

    agreement: Annotated[float, Field(gt=0, le=1)]


class AnyOf(Body):
    """One of the conditions is met."""

    any: Annotated[list[Condition], Field(min_length=1, max_length=64)]


class AllOf(Body):
    """All of the conditions are met, be it at different turns."""

    all: Annotated[list[Condition], Field(min_length=1, max_length=64)]


def _kind_of(condition: Any) -> str | None:
    members = condition if isinstance(condition, dict) else getattr(condition, "model_fields_set", ())
    return next((f"{TAG}{name}" for name in members if name != "by"), None)


Condition = Annotated[
    Annotated[TurnLimit, Tag(f"{TAG}turns")]
    | Annotated[TimeLimit, Tag(f"{TAG}time_s")]
    | Annotated[TokenLimit, Tag(f"{TAG}tokens")]
    | Annotated[TextSaid, Tag(f"{TAG}text")]
    | Annotated[Agreement, Tag(f"{TAG}agreement")]
    | Annotated[AnyOf, Tag(f"{TAG}any")]
    | Annotated[AllOf, Tag(f"{TAG}all")],
    Discriminator(_kind_of),
]


class _Run(Body):
    max_turns: Turns | None = None
    termination: Condition | None = None
    """When it ends before its turn limit."""

    options: Options | None = None
    """What a consensus is voted on, with the strategy ``consensus`` and ``agreement`` by ``votes``."""

    agreement: Literal["votes", "likeness"] = "votes"


class NewTask(_Run):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "task": "Name the release.", "required_capabilities": ["review"]}]
        }
    )

    user_id: Id | None = None
    task: Text
    required_capabilities: Annotated[list[Id], Field(max_length=50)]
    strategy: Strategy = "round_robin"
    wait_seconds: Annotated[float, Field(ge=0, le=600)] = 0
    """How long the answer is waited for; the work goes on after that, and its conversation tells how it ended."""


class Talk(_Run):
    user_id: Id | None = None
    strategy: Strategy = "round_robin"
    leader: Id | None = None


class NewConversation(Talk):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "topic": "Which pet is best for a small flat?",
                    "agent_ids": ["critic", "builder"],
                    "strategy": "consensus",
                    "options": ["a cat", "a dog"],
                    "termination": {"any": [{"time_s": 120}, {"tokens": 5000}]},
                }
            ]
        }
    )

    topic: Text
    agent_ids: AgentIds
    title: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    metadata: dict[str, Any] | None = None


class Continued(Talk):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "message": "And in a large one?"}]})

    message: Text | None = None
    """What is said first; without it the agents go on with the topic."""

    agent_ids: AgentIds | None = None
    """Those of before, where none are named."""


class Said(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "content": "Mind the cost."}]})

    user_id: Id | None = None
    content: Text


class Whose(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada"}]})

    user_id: Id | None = None


class UserQuery(Query):
    user_id: Id | None = None
    """Whose it is. Without a name: of agents, those for everybody; of a conversation, whoever's it is."""


class AgentsQuery(PageQuery):
    user_id: Id | None = None
    """The user's own agents are listed with those for everybody; without a user, the latter."""

    capability: Id | None = None


class ConversationsQuery(PageQuery):
    user_id: Id | None = None
    """Whose; without a user, conversations that nobody owns, such as panels of the time before the migration. These
    take an administrator."""


class TurnsQuery(PageQuery):
    user_id: Id | None = None


class FollowQuery(UserQuery):
    after: Id | None = None
    """The turn after which to begin."""


class AgentOut(Answer):
    """``user_id`` null: for everybody."""

    id: str
    type: str
    capabilities: list[str]
    metadata: dict[str, Any]
    user_id: str | None
    registered_at: str


class AgentPage(Page):
    data: list[AgentOut]


class FailureOut(Answer):
    code: str
    message: str


class AgentAnswerOut(Answer):
    agent_id: str
    content: str
    status: Literal["complete", "partial", "failed"]
    vote: str | None
    failure: FailureOut | None
    model: str
    prompt_tokens: int
    completion_tokens: int
    duration_s: float


class AgentAnswersOut(Answer):
    """``unanswered``: agents that were not waited for."""

    answers: list[AgentAnswerOut]
    unanswered: list[str]


class TurnOut(Answer):
    """``kind``: ``answer``, ``vote``, ``plan``, ``final`` of an agent, ``human``; null in what was migrated."""

    id: str
    conversation_id: str
    role: str
    agent_id: str | None
    content: str
    timestamp: str
    response_to: str | None
    consensus_level: float | None
    status: str
    tokens: int | None
    run: int | None
    kind: str | None
    round: int
    vote: str | None
    failure: FailureOut | None
    total_tokens: int
    metadata: dict[str, Any]
    extra: dict[str, Any]


class TurnPage(Page):
    data: list[TurnOut]


class ConversationOut(Answer):
    """``user_id`` null: nobody's in particular."""

    id: str
    title: str
    user_id: str | None
    type: str
    agents: list[str]
    status: Literal["idle", "running", "completed", "cancelled", "failed"]
    reason: str
    strategy: str
    max_turns: int | None
    termination: dict[str, Any] | None
    turns: int
    message_count: int
    decision: dict[str, Any] | None
    created_at: str
    updated_at: str
    is_migrated: bool
    metadata: dict[str, Any]


class ConversationPage(Page):
    data: list[ConversationOut]


class DecisionPage(Page):
    data: list[dict[str, Any]]


class TaskOut(Answer):
    conversation: ConversationOut
    answer: str | None
    turns: list[TurnOut]
