"""Conversations on disk, those that a migration brought as well. Synchronous; for threads.

``<home>`` is ``multi_agent/conversations/<conversation>/``:

=======================  ==========================================================================================
``metadata.json``        what it is: id, title, type, user_id, created_at, config, participants, ... Written last, so
                         that a conversation without it does not exist (yet)
``participants.json``    ids in order; ``participants/<agent>.json`` each as it was when the conversation began
``transcript.jsonl``     what was said, see `turns`
``decisions.json``       a list, each as v2 wrote its insights: id, panel_id, type, content, supporting_messages,
                         consensus_level, created_at, created_by, metadata
``state.json``           how it stands: status, reason, the plan and the agents of its present or last run. Absent: it
                         never ran here
=======================  ==========================================================================================

Of a conversation that was migrated, only the transcript grows; its other files keep the bytes that the way back needs.
What is decided in it here stands in state.json, beside what v2 had decided.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from modules.core.clock import moment_of
from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.layout import component, name_of
from modules.core.plain_json import plain
from modules.core.storage import FlatFiles

from .agents import Agent, agent_of_snapshot
from .plans import Plan
from .steps import IDLE, RUNNING, STATUSES, Verdict
from .transcript import Transcript
from .turns import Turn

log = logging.getLogger(__name__)

ROOT = "multi_agent/conversations"
TYPE = "multi_agent"
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conversation:
    """``status``: ``idle`` (migrated, never continued), ``running``, ``completed``, ``cancelled``, ``failed``;
    ``reason`` says why it ended. ``turns`` are those of all agents in the present or last run, ``message_count`` all
    that stands in the transcript. ``decision``: what the last run came to. ``user_id`` ``""``: nobody's, as v2 knew no
    owner of a panel.
    """

    id: str
    title: str
    user_id: str = ""
    type: str = TYPE
    agents: tuple[str, ...] = ()
    status: str = IDLE
    reason: str = ""
    strategy: str = ""
    max_turns: int | None = None
    termination: Mapping[str, Any] | None = None
    turns: int = 0
    message_count: int = 0
    decision: Mapping[str, Any] | None = None
    created_at: str = ""
    updated_at: str = ""
    is_migrated: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as interfaces show a conversation."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        for name in ("metadata", "termination", "decision"):
            shown[name] = None if shown[name] is None else dict(shown[name])
        return {**shown, "agents": list(self.agents)}


@dataclass(frozen=True, slots=True)
class State:
    """state.json. ``user_id`` stands here too: whose a conversation is must not be lost with one damaged file.
    ``agents``: those of the plan, as they were when the run began. ``decisions``: those of a migrated conversation."""

    status: str
    plan: Plan
    agents: tuple[Agent, ...]
    user_id: str = ""
    reason: str = ""
    decision_id: str | None = None
    decisions: tuple[Mapping[str, Any], ...] = ()
    updated_at: str = ""

    def to_bytes(self) -> bytes:
        shown = {name: getattr(self, name) for name in self.__slots__}
        agents = [agent.to_dict() for agent in self.agents]
        return _encoded({**shown, "plan": self.plan.to_dict(), "agents": agents})

    @classmethod
    def of_bytes(cls, data: bytes) -> State:
        """Raises ValueError, KeyError, TypeError or ValidationError for what `to_bytes` did not give."""
        stored = json.loads(data)
        if stored["status"] not in STATUSES:
            raise ValueError(f"no status {stored['status']!r}")
        agents = tuple(Agent.of_dict(one) for one in stored["agents"])
        plan, decisions = Plan.of_dict(stored["plan"]), tuple(stored["decisions"])
        return cls(**{**stored, "plan": plan, "agents": agents, "decisions": decisions})


class Conversations:
    """Reading is safe from several threads; a conversation is written by the one process that its user belongs to."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files
        # By path component, what of it never changes: a list need not read every file anew.
        self._known: dict[str, Conversation] = {}

    def transcript(self, conversation_id: str) -> Transcript:
        return Transcript(self._files, home(conversation_id), conversation_id)

    def create(self, conversation: Conversation, state: State, opening: Turn) -> None:
        """A new conversation, all at once: it exists when this returns, and did not before."""
        place = home(conversation.id)
        for agent in state.agents:
            self._files.write(f"{place}/participants/{component(agent.id)}.json", _encoded(agent.to_dict()), fsync=True)
        self._files.write(f"{place}/participants.json", _encoded([agent.id for agent in state.agents]), fsync=True)
        self._files.write(f"{place}/decisions.json", b"[]\n", fsync=True)
        self.transcript(conversation.id).begin([opening])
        self.save_state(conversation.id, state)
        self._files.write(f"{place}/metadata.json", _metadata_of(conversation, state), fsync=True)

    def get(self, conversation_id: str) -> Conversation:
        """The conversation as it stands. Raises NotFound."""
        conversation = self._listed(component(conversation_id))
        if conversation is None or conversation.id != conversation_id:
            raise NotFound(f"no conversation {conversation_id!r}")
        return self.as_it_stands(conversation)

    def exists(self, conversation_id: str) -> bool:
        return self._files.exists(f"{home(conversation_id)}/metadata.json")

    def of_user(self, user_id: str) -> list[Conversation]:
        """All conversations of a user, oldest first, without what changes (`as_it_stands`)."""
        found = [conversation for conversation in self._all() if conversation.user_id == user_id]
        return sorted(found, key=lambda one: (moment_of(one.created_at) or _EARLIEST, one.id))

    def as_it_stands(self, conversation: Conversation) -> Conversation:
        """With its status, counts and decision as they are now."""
        turns = self.transcript(conversation.id).turns()
        state = self.state(conversation.id)
        if state is None:
            return replace(conversation, message_count=len(turns))
        decision = None
        if state.decision_id is not None:
            with suppress(StorageError):  # logged by nobody, but shown by `decisions`, which raises
                decisions = self.decisions(conversation.id)
                decision = next((one for one in decisions if one.get("id") == state.decision_id), None)
        last = turns[-1].timestamp if turns else ""
        plan = state.plan
        return replace(
            conversation,
            agents=plan.agents,
            status=state.status,
            reason=state.reason,
            strategy=plan.strategy,
            max_turns=plan.max_turns,
            termination=None if plan.ends is None else plan.ends.to_dict(),
            turns=sum(turn.is_of_agent and turn.run == plan.number for turn in turns),
            message_count=len(turns),
            decision=decision,
            updated_at=max(state.updated_at, last) if state.status == RUNNING else state.updated_at,
        )

    def interrupted(self) -> Iterator[tuple[str, str]]:
        """User and id of every conversation that is running, by what stands on disk."""
        for conversation in self._all():
            state = self.state(conversation.id)
            if state is not None and state.status == RUNNING:
                yield conversation.user_id, conversation.id

    def state(self, conversation_id: str) -> State | None:
        """None where it never ran here; a state that cannot be read is logged, and none either."""
        key = f"{home(conversation_id)}/state.json"
        try:
            return State.of_bytes(self._files.read(key))
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            log.error("%s is damaged, so its run cannot go on: %r", key, error)
            return None

    def save_state(self, conversation_id: str, state: State) -> None:
        self._files.write(f"{home(conversation_id)}/state.json", state.to_bytes(), fsync=True)

    def participant(self, conversation_id: str, agent_id: str) -> Agent:
        """A participant as it was when the last run began, else the conversation; of one that nobody described, its
        id alone."""
        state = self.state(conversation_id)
        for agent in state.agents if state is not None else ():
            if agent.id == agent_id:
                return agent
        try:
            data = self._files.read(f"{home(conversation_id)}/participants/{component(agent_id)}.json")
            snapshot = plain(json.loads(data))
        except NotFound:
            return Agent(agent_id)
        except (ValueError, RecursionError):
            log.warning("the description of %r in conversation %r is no JSON", agent_id, conversation_id)
            return Agent(agent_id)
        return agent_of_snapshot(agent_id, snapshot if isinstance(snapshot, dict) else {})

    def decisions(self, conversation_id: str) -> list[Mapping[str, Any]]:
        """All that was decided, oldest first. Raises StorageError when the file that holds it is damaged."""
        state = self.state(conversation_id)
        return [*self._filed_decisions(conversation_id), *(state.decisions if state is not None else ())]

    def conclude(self, conversation_id: str, state: State, decision: Mapping[str, Any] | None = None) -> None:
        """Write how a run ended: the decision first, the state last, by which it has ended."""
        conversation = self._listed(component(conversation_id))
        is_migrated = conversation is not None and conversation.is_migrated
        if decision is not None and is_migrated:
            state = replace(state, decisions=(*state.decisions, decision))
        elif decision is not None:
            self._file(conversation_id, decision)
        if conversation is not None and not is_migrated:
            message_count = len(self.transcript(conversation_id).turns())
            changed = replace(conversation, updated_at=state.updated_at, message_count=message_count)
            decisions = len(self._filed_decisions(conversation_id))
            self._files.write(
                f"{home(conversation_id)}/metadata.json", _metadata_of(changed, state, decisions), fsync=True
            )
        self.save_state(conversation_id, state)

    def delete(self, conversation_id: str) -> bool:
        self._known.pop(component(conversation_id), None)
        return self._files.delete_tree(home(conversation_id))

    def export(self, conversation_id: str) -> dict[str, Any]:
        """Everything of a conversation, as JSON values; of files that are none, their text."""
        place = f"{home(conversation_id)}/"
        texts = {
            key.removeprefix(place): self._files.read(key).decode("utf-8", "replace") for key in self._files.list(place)
        }
        return {
            **self.get(conversation_id).to_dict(),
            "transcript": [turn.to_dict() for turn in self.transcript(conversation_id).turns()],
            "decisions": [dict(one) for one in self.decisions(conversation_id)],
            "files": {name: text for name, text in texts.items() if name not in ("transcript.jsonl", "decisions.json")},
        }

    # -- below -----------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Conversation]:
        names = self._files.directories(ROOT)
        for gone in set(self._known).difference(names):
            self._known.pop(gone, None)
        for name in names:
            conversation = self._listed(name)
            if conversation is not None:
                yield conversation

    def _listed(self, name: str) -> Conversation | None:
        """*name* is the path component. None for what is no conversation (yet)."""
        known = self._known.get(name)
        if known is not None and self._files.exists(f"{ROOT}/{name}/metadata.json"):
            return known
        self._known.pop(name, None)
        try:
            data = self._files.read(f"{ROOT}/{name}/metadata.json")
        except NotFound:
            return None
        conversation = self._known[name] = self._read(name, data)
        return conversation

    def _read(self, name: str, data: bytes) -> Conversation:
        true_name = name_of(name)
        try:
            stored = plain(json.loads(data))
            if not isinstance(stored, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            # What was said is still there, and a list that fails for one damaged file would hide all the others.
            state = self.state(true_name or name)
            owner = state.user_id if state is not None else ""
            return Conversation(true_name or name, "Untitled", owner, metadata={"damaged": str(error)})
        texts = {key: stored[key] for key in ("title", "type", "user_id", "created_at", "updated_at") if key in stored}
        texts = {key: value for key, value in texts.items() if isinstance(value, str)}
        conversation_id = true_name if true_name is not None else str(stored.get("id", name))
        metadata = stored.get("metadata")
        return Conversation(
            id=conversation_id,
            title=texts.pop("title", "") or "Untitled",
            agents=tuple(self._participants(conversation_id)),
            is_migrated=stored.get("legacy") is not None,
            metadata=metadata if isinstance(metadata, dict) else {},
            **texts,
        )

    def _filed_decisions(self, conversation_id: str) -> list[Mapping[str, Any]]:
        try:
            found = plain(json.loads(self._files.read(f"{home(conversation_id)}/decisions.json")))
        except NotFound:
            return []
        except (ValueError, RecursionError) as error:
            raise StorageError(f"decisions of {conversation_id!r} are damaged: {error}") from error
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def _file(self, conversation_id: str, decision: Mapping[str, Any]) -> None:
        """Keep a decision after the others; one that is there already, from before an interruption, once."""
        known = self._filed_decisions(conversation_id)
        if all(one.get("id") != decision["id"] for one in known):
            self._files.write(f"{home(conversation_id)}/decisions.json", _encoded([*known, decision]), fsync=True)

    def _participants(self, conversation_id: str) -> list[str]:
        try:
            listed = plain(json.loads(self._files.read(f"{home(conversation_id)}/participants.json")))
        except (NotFound, ValueError, RecursionError):
            return []
        found = [one for one in listed if isinstance(one, str) and one] if isinstance(listed, list) else []
        return list(dict.fromkeys(found))


def home(conversation_id: str) -> str:
    return f"{ROOT}/{component(conversation_id)}"


def decision_of(conversation_id: str, plan: Plan, verdict: Verdict, now: str) -> Mapping[str, Any]:
    """A decision as it is stored. Its id follows from the run, so that a run that was interrupted while it ended does
    not decide twice."""
    digest = blake2b(f"{conversation_id}\0{plan.number}".encode("utf-8", "surrogatepass"), digest_size=6)
    metadata: dict[str, Any] = {"strategy": plan.strategy, "how": verdict.how, "run": plan.number}
    if verdict.votes:
        metadata["votes"] = {option: list(agents) for option, agents in verdict.votes}
    return {
        "id": f"insight_{digest.hexdigest()}",
        "panel_id": conversation_id,
        "type": "conclusion",
        "content": verdict.content,
        "supporting_messages": list(verdict.supporting),
        "consensus_level": verdict.level,
        "created_at": now,
        "created_by": verdict.created_by,
        "metadata": metadata,
    }


def _metadata_of(conversation: Conversation, state: State, decisions: int = 0) -> bytes:
    plan = state.plan
    config = {"strategy": plan.strategy, "max_turns": plan.max_turns}
    return _encoded(
        {
            "id": conversation.id,
            "title": conversation.title,
            "type": conversation.type,
            "user_id": conversation.user_id,
            "created_at": conversation.created_at,
            "updated_at": conversation.updated_at,
            "config": config,
            "metadata": dict(conversation.metadata),
            "message_count": conversation.message_count,
            "participants": len(conversation.agents),
            "decisions": decisions,
        }
    )


def _encoded(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"cannot be stored as JSON: {error}") from error
