"""From a question and what bears on it to the prompt of a model. Pure.

A prompt is: the system text, the newest messages of the chat that fit, what memory and documents know, the question.
What is known stands late, so that the beginning stays the same from turn to turn: models that keep what they have
read need not read it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from modules.core.types import Message
from modules.models.errors import ContextTooLong
from modules.models.protocols import PromptMessage

CountTokens = Callable[[str | Sequence[PromptMessage]], int]

_LONG = 2000
_AROUND_A_MESSAGE = 8  # tokens that a template puts around a message, at most; the whole is counted exactly at the end


@dataclass(frozen=True, slots=True)
class Prompt:
    """``messages`` as the model gets them, ``tokens`` long. ``history`` counts the messages of the chat among them;
    ``is_cut`` says that older ones did not fit."""

    messages: tuple[PromptMessage, ...]
    tokens: int
    history: int
    is_cut: bool


class Spoken:
    """Messages as a prompt has them, each with its tokens, remembered from turn to turn: a long chat fills the prompt
    with hundreds, and counting them anew would be most of what a turn costs here."""

    def __init__(self, count: CountTokens, *, remembered: int = 4096) -> None:
        self.count = count
        self._of = lru_cache(maxsize=remembered)(self._counted)

    def of(self, message: Message) -> tuple[PromptMessage, int]:
        # Of long ones a prompt holds few, and they are not worth the memory.
        is_long = len(message.content) > _LONG
        return (self._counted if is_long else self._of)(message.role, message.content)

    def _counted(self, role: str, content: str) -> tuple[PromptMessage, int]:
        return PromptMessage(role, content), self.count(content) + _AROUND_A_MESSAGE


def budget_of(context_window: int | None, max_tokens: int, at_most: int) -> int:
    """Tokens that a prompt may have, so that an answer of *max_tokens* still fits into the window.

    Raises ContextTooLong when nothing is left for the prompt.
    """
    if context_window is None:
        return at_most
    if max_tokens >= context_window:
        raise ContextTooLong(
            f"an answer of {max_tokens} tokens leaves no room for a prompt in a window of {context_window}",
            tokens=max_tokens,
            limit=context_window,
        )
    return min(at_most, context_window - max_tokens)


def before(newest_first: Iterable[Message], question_id: str, *, at_most: int = 1000) -> Iterator[Message]:
    """Of the *at_most* newest messages, those that stand before the question; none when it is not among them."""
    has_met = False
    for message in islice(newest_first, at_most):
        if has_met:
            yield message
        has_met = has_met or message.id == question_id


def prompt_of(
    system: str,
    context: Sequence[str],
    question: str,
    history: Iterable[Message],
    budget: int,
    spoken: Spoken,
) -> Prompt:
    """*history* is newest first, and looked at until the budget is used; a message that alone exceeds it could never
    be shown and is passed over. *context* may take half of what the question leaves; each text is taken whole or not
    at all. The question is never cut: ContextTooLong is raised when it does not fit.
    """
    count = spoken.count
    first = [PromptMessage("system", system)] if system else []
    last = [PromptMessage("user", question)]
    needed = count([*first, *last])
    if needed > budget:
        raise ContextTooLong(
            f"the message comes to {needed} tokens with its instructions, of {budget} at most",
            tokens=needed,
            limit=budget,
        )
    known = _context_within((budget - needed) // 2, context, count)
    room = budget - count([*first, *known, *last])
    shown, is_cut = _history_within(room, budget, history, spoken)
    while True:
        messages = (*first, *reversed(shown), *known, *last)
        tokens = count(messages)
        if tokens <= budget:
            return Prompt(messages, tokens, len(shown), is_cut)
        # The sum of the parts was an estimate. What goes is the oldest message, then what is known.
        if shown:
            shown, is_cut = shown[:-1], True
        else:
            known = known[:-1]


def _context_within(room: int, texts: Sequence[str], count: CountTokens) -> list[PromptMessage]:
    known = []
    for text in texts:
        tokens = count(text) + _AROUND_A_MESSAGE
        if text and tokens <= room:
            known.append(PromptMessage("system", text, is_context=True))
            room -= tokens
    return known


def _history_within(
    room: int, budget: int, history: Iterable[Message], spoken: Spoken
) -> tuple[list[PromptMessage], bool]:
    shown: list[PromptMessage] = []
    for message in history:
        if not _is_said(message):
            continue
        said, tokens = spoken.of(message)
        if tokens > budget:
            continue
        if tokens > room:
            return shown, True
        shown.append(said)
        room -= tokens
    return shown, False


def _is_said(message: Message) -> bool:
    """Whether it is something that was said. Calls of earlier turns and their results are not shown again: the answer
    says what came of them."""
    return message.status != "unreadable" and message.role != "tool" and bool(message.content.strip())
