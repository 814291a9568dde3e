"""Votes: what an agent chose, and what follows from what all chose. Pure.

A small model seldom answers with a number alone, so a vote is read leniently, but never guessed: where the answer
could mean two options, or names one and numbers another, it is no vote.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LEADING = re.compile(r"^[^\w\n]*(\d{1,3})(?![\w%:]|[.,]\d)", re.MULTILINE)
_NUMBER = re.compile(r"(?<!\S)(\d{1,3})(?!\S)")
_WORD = re.compile(r"\w+")
QUORUM, MAJORITY, TIE_BREAK = "quorum", "majority", "tie_break"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``votes``: option -> the agents that voted for it, most first. ``how`` it was decided, when it was."""

    votes: Mapping[str, tuple[str, ...]]
    chosen: str | None = None
    how: str | None = None
    level: float = 0.0


def parse_vote(text: str, options: Sequence[str]) -> str | None:
    """The option that *text* chooses: by its number (from 1), by its words, or by both if they agree; None when it
    chooses none, or not one alone."""
    named = _named(text, options)
    leading = {int(found) for found in _LEADING.findall(text)}
    if len(leading) > 1:
        return None  # the list, said again
    if leading:
        numbers = leading
    else:
        # An option may hold a number of its own, which is no choice.
        rest = normalised(text)
        for option in named:
            rest = rest.replace(normalised(option), " ")
        numbers = {int(found) for found in _NUMBER.findall(rest)}
    numbered = {options[number - 1] for number in numbers if 1 <= number <= len(options)}
    chosen = numbered & named if numbered and named else numbered | named
    return next(iter(chosen)) if len(chosen) == 1 and len(numbered) <= 1 else None


def normalised(text: str) -> str:
    """What two texts have in common that say the same in the same words."""
    return " ".join(_WORD.findall(text.casefold()))


def distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """*texts* without those that say the same as an earlier one."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(normalised(text) or text, text)
    return tuple(first.values())


def outcome(
    votes: Mapping[str, str], options: Sequence[str], *, voters: int, quorum: float, is_last: bool, leader: str
) -> Outcome:
    """What follows from *votes* (agent -> option) of a round. ``level``: the winner's share of all *voters*, of those
    too who did not vote.

    With a quorum the round decides. Without one only the last round does: by the most votes, and where several
    options have as many, by the *leader*'s vote if it is for one of them, else the first of them in order.
    """
    counted = Counter(votes.values())
    by_option = {
        option: tuple(agent for agent, vote in votes.items() if vote == option)
        for option in sorted(counted, key=lambda option: (-counted[option], options.index(option)))
    }
    if not counted:
        return Outcome(by_option)
    most = max(counted.values())
    level = most / voters
    tied = [option for option in options if counted[option] == most]
    if level >= quorum - 1e-9 and len(tied) == 1:
        return Outcome(by_option, tied[0], QUORUM, level)
    if not is_last:
        return Outcome(by_option, level=level)
    if len(tied) == 1:
        return Outcome(by_option, tied[0], MAJORITY, level)
    chosen = votes[leader] if votes.get(leader) in tied else tied[0]
    return Outcome(by_option, chosen, TIE_BREAK, level)


def _named(text: str, options: Sequence[str]) -> set[str]:
    said = f" {normalised(text)} "
    found = {option for option in options if normalised(option) and f" {normalised(option)} " in said}
    # "in the old park" also names "the old park" and "park": the longest of those that hold each other is meant.
    return {
        one
        for one in found
        if not any(other != one and f" {normalised(one)} " in f" {normalised(other)} " for other in found)
    }
