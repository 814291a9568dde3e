"""What was said in a conversation: the lines of transcript.jsonl. Pure; reading never fails.

A line that this platform writes holds ``id, role, content, timestamp, attachments, metadata, persona_id, response_to,
consensus_level``, as docs/target.md has it, and where they say something ``status`` and ``tokens``. What a run has to
know of its turns stands in ``metadata.turn``. A line that a panel of v2 left may have any of it missing, or of another
type; what does not fit stays in `Turn.extra`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import ValidationError
from modules.core.layout import derived_message_id
from modules.core.plain_json import plain
from modules.core.types import MESSAGE_STATUSES, ROLES

ANSWER, VOTE, PLAN, FINAL, HUMAN = "answer", "vote", "plan", "final", "human"
KINDS = frozenset({ANSWER, VOTE, PLAN, FINAL, HUMAN})

_FIELDS = frozenset(
    "id role content timestamp metadata persona_id response_to consensus_level status tokens".split()  # noqa: SIM905 - a list of names
)


@dataclass(frozen=True, slots=True)
class Turn:
    """``agent_id`` is who speaks; None for a person. ``status`` is ``partial`` for an answer that was cut off and
    ``unreadable`` for a line that is no turn. ``run`` and ``kind`` are None where no run of this platform made it.

    ``vote`` is the option that the agent voted for; None where it voted for none. ``failure`` says, as ``{"code",
    "message"}``, why there is no answer; ``content`` then is a sentence about that. ``total_tokens`` are those of
    prompt and answer.
    """

    id: str
    conversation_id: str
    role: str
    content: str
    timestamp: str = ""
    agent_id: str | None = None
    response_to: str | None = None
    consensus_level: float | None = None
    status: str = "complete"
    tokens: int | None = None
    run: int | None = None
    kind: str | None = None
    round: int = 0
    vote: str | None = None
    failure: Mapping[str, str] | None = None
    total_tokens: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValidationError(f"role must be one of {', '.join(sorted(ROLES))}; not {self.role!r}", param="role")
        if self.status not in MESSAGE_STATUSES:
            raise ValidationError(f"no status {self.status!r} of a turn", param="status")
        if self.kind is not None and self.kind not in KINDS:
            raise ValidationError(f"no kind {self.kind!r} of a turn", param="kind")

    @property
    def is_of_agent(self) -> bool:
        """Whether an agent took it, or failed to, in a run of this platform."""
        return self.kind is not None and self.kind != HUMAN

    @property
    def is_said(self) -> bool:
        """Whether others get to hear it."""
        return self.failure is None and self.kind != VOTE and self.status != "unreadable"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as interfaces show a turn."""
        return {
            "id": self.id,
            "conversation_id": self.conversation_id,
            "role": self.role,
            "agent_id": self.agent_id,
            "content": self.content,
            "timestamp": self.timestamp,
            "response_to": self.response_to,
            "consensus_level": self.consensus_level,
            "status": self.status,
            "tokens": self.tokens,
            "run": self.run,
            "kind": self.kind,
            "round": self.round,
            "vote": self.vote,
            "failure": None if self.failure is None else dict(self.failure),
            "total_tokens": self.total_tokens,
            "metadata": dict(self.metadata),
            "extra": dict(self.extra),
        }


def line_of(turn: Turn) -> bytes:
    """The line, with its newline, that stores a turn made here. Raises ValidationError for what UTF-8 cannot hold."""
    metadata = dict(turn.metadata)
    if turn.kind is not None:
        own: dict[str, Any] = {"run": turn.run, "kind": turn.kind, "round": turn.round}
        if turn.vote is not None:
            own["vote"] = turn.vote
        if turn.failure is not None:
            own["failure"] = dict(turn.failure)
        if turn.total_tokens:
            own["total_tokens"] = turn.total_tokens
        metadata["turn"] = own
    record: dict[str, Any] = {
        "id": turn.id,
        "role": turn.role,
        "content": turn.content,
        "timestamp": turn.timestamp,
        "attachments": [],
        "metadata": metadata,
        "persona_id": turn.agent_id,
        "response_to": turn.response_to,
        "consensus_level": turn.consensus_level,
    }
    if turn.status != "complete":
        record["status"] = turn.status
    if turn.tokens is not None:
        record["tokens"] = turn.tokens
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"what was said cannot be stored as JSON: {error}", param="content") from error


def turn_of(data: bytes, offset: int, conversation_id: str) -> Turn:
    """The turn that a stored line means; *offset* is the byte at which it begins."""
    # The log is append-only, so the place of a line is as good a name as any, and the same at every reading.
    own_id = derived_message_id("", f"{conversation_id}\0offset", offset)
    try:
        record = plain(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        text = data.decode("utf-8", "replace")
        return Turn(own_id, conversation_id, "user", text, status="unreadable", extra={"reason": reason})
    if not isinstance(record, dict):
        text = data.decode("utf-8", "replace")
        return Turn(own_id, conversation_id, "user", text, status="unreadable", extra={"reason": "not an object"})
    return _turn_of_record(record, own_id, conversation_id)


def _turn_of_record(record: dict[str, Any], own_id: str, conversation_id: str) -> Turn:
    extra = {name: value for name, value in record.items() if name not in _FIELDS}
    metadata = record.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    own = metadata.get("turn")
    own = metadata.pop("turn") if isinstance(own, dict) and own.get("kind") in KINDS else {}
    given_role, persona_id = record.get("role"), record.get("persona_id")
    agent_id = persona_id if isinstance(persona_id, str) and persona_id and persona_id not in ROLES else None
    role = given_role if isinstance(given_role, str) and given_role in ROLES else None
    if role is None:
        role = "user" if agent_id is None else "assistant"  # v2 gave a persona's message its id for a role
        extra["role"] = given_role
    content = record.get("content")
    if not isinstance(content, str):
        extra["content"] = content
        content = "" if content is None else json.dumps(content, ensure_ascii=False)
    status, level, failure = record.get("status"), record.get("consensus_level"), own.get("failure")
    return Turn(
        id=record["id"] if isinstance(record.get("id"), str) and record["id"] else own_id,
        conversation_id=conversation_id,
        role=role,
        content=content,
        timestamp=_text(record.get("timestamp")) or "",
        agent_id=agent_id,
        response_to=_text(record.get("response_to")),
        consensus_level=_number(level),
        status=status if isinstance(status, str) and status in MESSAGE_STATUSES else "complete",
        tokens=_count(record.get("tokens")),
        run=_count(own.get("run")),
        kind=own.get("kind"),
        round=_count(own.get("round")) or 0,
        vote=_text(own.get("vote")),
        failure=failure if isinstance(failure, dict) else None,
        total_tokens=_count(own.get("total_tokens")) or 0,
        metadata=metadata,
        extra=extra,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
