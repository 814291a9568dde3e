"""One ranking out of several. Pure.

Reciprocal rank fusion after Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
Rank Learning Methods" (2009), with weights, and with one thing added: the vote of a rank is scaled by how near its
score comes to the best of its ranking. So a ranking that is sure of its first place says more there than one whose
first fifty are alike, and scores are only ever compared within one ranking. `benchmarks.retrieval_quality` measures it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def fused(rankings: Iterable[tuple[Mapping[K, float], float]], *, constant: float) -> list[tuple[K, float]]:
    """Keys with their votes, best first, out of ``(scores by key, best first; weight)``; equals in the rankings' order.

    The key at rank r (from 1) of a ranking has the vote ``weight / (constant + r) * score / best score`` there; none,
    where its score is not above 0.
    """
    votes: defaultdict[K, float] = defaultdict(float)
    for ranking, weight in rankings:
        best = max(ranking.values(), default=0.0)
        for rank, (key, score) in enumerate(ranking.items(), start=1):
            votes[key] += weight / (constant + rank) * max(score, 0.0) / best if best > 0 else 0.0
    return sorted(votes.items(), key=lambda voted: -voted[1])
