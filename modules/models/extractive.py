"""Answers where no language model is installed: the sentences of the prompt that speak of the question, as they stand.

It reads what a language model would: material marked as context, and the conversation so far. Sentences are ranked
by BM25 over the question's words. Instructions (system messages that are not context) are not quoted, nor are its
own earlier answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from modules.core.types import estimate_tokens
from modules.core.words import WordIndex, words_of

from .answer_reader import estimate_prompt
from .errors import ModelRefused
from .protocols import (
    AUTO,
    Delta,
    FinishReason,
    PromptMessage,
    Tool,
    Usage,
    check_messages,
    check_request,
    check_tools,
)

NOTICE = "No language model is installed."
FOUND = f"{NOTICE} What is stored says:"
NOTHING = f"{NOTICE} Nothing that is stored speaks of this."

_MOST_SENTENCES = 4
_SENTENCE = re.compile(r"[^\s].*?(?:[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|$)", re.MULTILINE)
_PIECE = re.compile(r"\s*\S+|\s+$")
# Words that say nothing about the subject; sharing only these is no match.
_FUNCTION_WORDS = frozenset(
    """a about am an and are as at be been but by can could did do does for from give had has have he her him his how i
    if in is it its know me my of on or our please say she should so tell than that the their them then there they this
    to us was we were what when where which who whom whose why will with would you your""".split()  # noqa: SIM905 - a list literal would be sixty lines
)


@dataclass(frozen=True, slots=True)
class Extract:
    """``sentences`` in the order in which they stand in the prompt."""

    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join((FOUND, *(f"- {one}" for one in self.sentences))) if self.sentences else NOTHING


class ExtractiveChat:
    """The model that quotes. Temperature and seed change nothing in it: it makes no choices by chance."""

    name = "extractive"
    context_window = None
    can_call_tools = False

    async def load(self) -> None:
        """Nothing: it holds nothing."""

    async def stream(
        self,
        messages: Sequence[PromptMessage],
        *,
        max_tokens: int,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: str = AUTO,
    ) -> AsyncGenerator[Delta, None]:
        """See `ChatModel.stream`."""
        check_messages(messages)
        check_request(max_tokens, temperature, stop)
        check_tools(tools, tool_choice)
        if tools:
            raise ModelRefused("the extractive model cannot call tools", param="tools")
        extract = await asyncio.to_thread(extract_from, messages)
        text, finish = cut(extract.text, max_tokens, stop)
        for piece in _PIECE.findall(text):
            yield Delta(piece)
            await asyncio.sleep(0)
        usage = Usage(estimate_prompt(messages), estimate_tokens(text), estimated=True)
        yield Delta(finish_reason=finish, usage=usage)

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        """An estimate: it has no tokens of its own."""
        return estimate_prompt(prompt)

    async def close(self) -> None:
        """Nothing: it holds nothing."""


def extract_from(messages: Sequence[PromptMessage]) -> Extract:
    """The sentences that answer the last message of the user, by words that both have."""
    asked = max((place for place, one in enumerate(messages) if _is_question(one)), default=None)
    if asked is None:
        return Extract(())
    question = " ".join(word for word in words_of(messages[asked].content) if word not in _FUNCTION_WORDS)
    sentences = list(dict.fromkeys(_candidates(messages, asked)))
    index: WordIndex[int] = WordIndex()
    for place, sentence in enumerate(sentences):
        index.add(place, sentence)
    best = sorted(place for place, _ in index.search(question)[:_MOST_SENTENCES])
    return Extract(tuple(sentences[place] for place in best))


def cut(text: str, max_tokens: int, stop: Sequence[str]) -> tuple[str, FinishReason]:
    """*text* up to the first *stop* string, and no longer than *max_tokens* as `estimate_tokens` counts."""
    text = text[: min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))]
    if estimate_tokens(text) <= max_tokens:
        return text, "stop"
    return text.encode("utf-8", "replace")[: max_tokens * 4].decode("utf-8", "ignore"), "length"


def _candidates(messages: Sequence[PromptMessage], asked: int) -> Iterator[str]:
    question = messages[asked].content.strip()
    for place, message in enumerate(messages):
        is_talk = message.role != "system" and not message.content.startswith(NOTICE)
        if place != asked and (message.is_context or is_talk):
            for sentence in _SENTENCE.findall(message.content):
                if sentence.strip() != question:
                    yield sentence.strip()


def _is_question(message: PromptMessage) -> bool:
    return message.role == "user" and not message.is_context
