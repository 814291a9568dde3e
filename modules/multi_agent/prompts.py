"""What an agent is asked: the prompt of one turn. Pure.

What others said comes as one message of the role user, each line with its speaker's name, and the agent's own earlier
turns as the assistant's: so every model sees the alternation that its template may insist on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modules.models.protocols import PromptMessage

from .turns import ANSWER, FINAL, PLAN, VOTE, Turn

Cost = Callable[[str], int]

REPLY = "reply"  # to a message, outside of any conversation

_AROUND_A_TURN = 8
_LONGEST_CHOICE = 300


@dataclass(frozen=True, slots=True)
class Task:
    """One turn that is wanted of an agent; ``topic`` is the message itself of a reply.

    ``heard`` is what it knows of the conversation; ``names``: agent -> name.
    ``note`` is what the moderator adds. ``is_again``: its vote could not be read, and it is asked once more, for
    the choice alone: a small model that has heard a discussion tends to go on with it.
    """

    agent_id: str
    kind: str
    topic: str
    heard: Sequence[Turn] = ()
    options: Sequence[str] = ()
    names: Mapping[str, str] | None = None
    note: str = ""
    is_again: bool = False

    def name_of(self, turn: Turn) -> str:
        if turn.agent_id is None:
            return "Moderator" if turn.role == "system" else "User"
        return (self.names or {}).get(turn.agent_id, turn.agent_id)


def prompt_for(task: Task, name: str, system: str, *, room: int, cost: Cost) -> list[PromptMessage]:
    """The prompt, with as many of the latest turns as *room* has tokens for. *cost* counts the tokens of a text."""
    others = [one for agent, one in (task.names or {}).items() if agent != task.agent_id]
    manners = "" if (task.kind == REPLY and system) or task.is_again else _manners(name, others)
    opening = "\n\n".join(part for part in (system, manners) if part)
    closing = _closing(task, name)
    left = room - cost(opening) - cost(closing) - _AROUND_A_TURN
    heard = [] if task.is_again else _latest(task, left, cost)
    messages = _alternating(task, heard, closing)
    return [PromptMessage("system", opening), *messages] if opening else messages


def tidied(text: str, name: str) -> str:
    """An answer without its speaker's name before it, which models like to write as they saw it."""
    text = text.strip()
    for prefix in (f"{name}:", f"**{name}:**", f"**{name}**:"):
        if text.casefold().startswith(prefix.casefold()):
            return text[len(prefix) :].strip()
    return text


def _manners(name: str, others: Sequence[str]) -> str:
    company = f" with {_joined(others)}" if others else ""
    return f"You are {name}. You take part in a discussion{company}. Speak for yourself, in one or two short sentences."


def _closing(task: Task, name: str) -> str:
    if task.kind == REPLY:
        return task.topic
    topic = f"Topic: {task.topic}"
    if task.note:
        topic += f"\n{task.note}"
    if task.kind == VOTE:
        listed = "\n".join(f"{number}. {_short(option)}" for number, option in enumerate(task.options, 1))
        return f"{topic}\n{listed}\n\nChoose one. Reply with the number only."
    if task.options:
        topic += "\nOptions: " + "; ".join(task.options)
    return f"{topic}\n\n{_WANTED[task.kind].format(name=name)}"


_WANTED = {
    ANSWER: "{name}, what do you think?",
    PLAN: "{name}, you lead. Say what each of the others should do.",
    FINAL: "{name}, you lead. From what was said, give the final answer.",
}


def _latest(task: Task, room: int, cost: Cost) -> list[Turn]:
    kept: list[Turn] = []
    for turn in reversed(task.heard):
        if not turn.is_said or not turn.content.strip():
            continue
        room -= cost(turn.content) + _AROUND_A_TURN
        if room < 0:
            break
        kept.append(turn)
    return kept[::-1]


def _alternating(task: Task, heard: Sequence[Turn], closing: str) -> list[PromptMessage]:
    messages: list[PromptMessage] = []
    lines: list[str] = []
    for turn in heard:
        if turn.agent_id != task.agent_id:
            lines.append(f"{task.name_of(turn)}: {turn.content}")
            continue
        if lines or not messages:
            messages.append(PromptMessage("user", "\n".join(lines) or f"Topic: {task.topic}"))
            messages.append(PromptMessage("assistant", turn.content))
        else:
            last = messages.pop()
            messages.append(PromptMessage("assistant", f"{last.content}\n{turn.content}"))
        lines = []
    messages.append(PromptMessage("user", "\n".join([*lines, "", closing]) if lines else closing))
    return messages


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(option: str) -> str:
    return option if len(option) <= _LONGEST_CHOICE else option[:_LONGEST_CHOICE] + "…"
