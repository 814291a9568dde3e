"""Which answers say the same: by the nearness of their vectors, or by their words where nothing embeds. Pure.

Likeness is of content, not of opinion: "yes, it is safe" and "no, it is not safe" are near to each other. It suits
answers that name something; to decide between opposites, vote on options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modules.models.protocols import Vectors

from .turns import Turn
from .votes import normalised


@dataclass(frozen=True, slots=True)
class Group:
    """Turns that say the same; the first is the one that the others are nearest to. ``level``: share of the agents."""

    turns: tuple[Turn, ...]
    level: float


def words_alike(texts: Sequence[str]) -> Vectors:
    """float32, shape (n, n): the share of words that each two of *texts* have in common (Jaccard's index)."""
    words = [set(normalised(text).split()) for text in texts]
    alike = [[len(a & b) / len(a | b) if a | b else 1.0 for b in words] for a in words]
    return np.array(alike, np.float32).reshape(len(texts), len(texts))


def vectors_alike(vectors: Vectors) -> Vectors:
    """float32, shape (n, n): the cosines of the rows of *vectors*, which have unit norm or are zero."""
    return vectors @ vectors.T


def largest_group(turns: Sequence[Turn], alike: Vectors, *, threshold: float, agents: int) -> Group | None:
    """The most turns that are all at least *threshold* like one of them; of several, the earliest. *alike*: shape
    (n, n). None without turns."""
    if not turns:
        return None
    near = alike >= threshold - 1e-6
    np.fill_diagonal(near, val=True)
    centre = int(near.sum(axis=1).argmax())
    others = [turn for place, turn in enumerate(turns) if near[centre, place] and place != centre]
    members = (turns[centre], *others)
    return Group(members, len({turn.agent_id for turn in members}) / agents)


def latest_answers(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The last thing that each agent has said, in the order in which they first spoke."""
    latest: Mapping[str | None, Turn] = {
        turn.agent_id: turn for turn in turns if turn.is_of_agent and turn.is_said and turn.content.strip()
    }
    return tuple(latest.values())
