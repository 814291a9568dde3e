"""How well search finds what answers a question: by words, by meaning, by both.

    python -m benchmarks.retrieval_quality [--questions N] [--json FILE]

Questions and answers are the docstrings of Python's standard library: the first sentence is the question, less the
words of the name of what it documents; the remainder, with parameters and explanations, is the document. So every
question has one right answer among all documents, and was written by people who did not know of this.

Everything goes through the module as it is used: documents are added, cut and embedded, and searched. The weight of the
two rankings and the constant of their fusion are chosen on one half of the questions; the figures that count are of the
other half, with what was chosen.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.tables import Table
from modules.rag import RagModule
from modules.rag.fusion import fused

_LEFT_OUT = {"test", "tests", "idlelib", "site-packages", "lib2to3", "turtledemo", "__pycache__", "ensurepip"}
_LEAST_QUESTION_WORDS, _LEAST_ANSWER_CHARACTERS = 4, 120
_DEPTH = 100
_WEIGHTS = (0.2, 0.3, 0.4, 0.5)
_CONSTANTS = (10.0, 30.0, 60.0, 200.0)

Scores = dict[str, float]  # of documents, best first


@dataclass(frozen=True, slots=True)
class Case:
    """``is_held_out``: not looked at while anything is chosen."""

    question: str
    answer: str
    is_held_out: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """``recall``: share of the questions whose answer is among the first five. ``mrr``: mean of 1 / its rank."""

    recall: float
    mrr: float


def cases_of(library: Path) -> list[Case]:
    """All questions with an answer of their own, in an order that does not change."""
    found: dict[str, Case] = {}
    for path in sorted(library.rglob("*.py")):
        if _LEFT_OUT.isdisjoint(path.relative_to(library).parts):
            for name, docstring in _docstrings(path):
                case = _case(name, docstring)
                if case is not None:
                    found.setdefault(case.answer, case)
    questions = [case.question.lower() for case in found.values()]
    # One question asked of two answers has no right one.
    return [case for case in found.values() if questions.count(case.question.lower()) == 1]


def quality_of(ranks: Sequence[int | None]) -> Quality:
    """*ranks* count from 1; None where the answer was not found."""
    hits = [rank for rank in ranks if rank is not None]
    return Quality(sum(rank <= 5 for rank in hits) / len(ranks), sum(1 / rank for rank in hits) / len(ranks))


async def measured(cases: Sequence[Case], base: Path) -> tuple[Table, dict[str, float]]:
    """The table of figures on the held-out questions, and what was chosen on the others."""
    answers: dict[str, str] = {}
    async with _module(base, vector_weight=0.5) as rag:
        for number, case in enumerate(cases):
            document = await rag.add_document(case.answer.encode(), name=f"{number}.txt")
            answers[case.question] = document.id
    words = await _rankings(base, cases, vector_weight=0.0)
    meaning = await _rankings(base, cases, vector_weight=1.0)
    chosen_on = [case for case in cases if not case.is_held_out]
    weight, constant = max(
        product(_WEIGHTS, _CONSTANTS),
        key=lambda pair: _tried(chosen_on, answers, words, meaning, weight=pair[0], constant=pair[1]),
    )
    both = await _rankings(base, cases, vector_weight=weight, rank_constant=constant)
    held_out = [case for case in cases if case.is_held_out]
    rows = []
    for label, rankings in (("words", words), ("meaning", meaning), ("both", both)):
        for part, name in ((chosen_on, "chosen on"), (held_out, "held out")):
            quality = quality_of([_rank(rankings[case.question], answers[case.question]) for case in part])
            rows.append((label, name, len(part), quality.recall, quality.mrr))
    table = Table(
        "retrieval_quality",
        f"Docstrings of the standard library: {len(cases)} documents, weight {weight:g}, constant {constant:g}",
        ("ranking", "questions", "number", "recall@5", "MRR"),
        tuple(rows),
    )
    return table, {"vector_weight": weight, "rank_constant": constant}


class _module:
    """A module on *base*, open within a block."""

    def __init__(self, base: Path, **retrieval: float) -> None:
        settings = {"embedding": {"provider": "wordllama"}, "retrieval": retrieval}
        self._module = RagModule(settings, base_path=base)

    async def __aenter__(self) -> RagModule:
        await self._module.initialize()
        return self._module

    async def __aexit__(self, *_: object) -> None:
        await self._module.close()


async def _rankings(base: Path, cases: Sequence[Case], **retrieval: float) -> dict[str, Scores]:
    """Documents by question, best first, with their scores."""
    rankings: dict[str, Scores] = {}
    async with _module(base, **retrieval) as rag:
        for case in cases:
            passages = await rag.search_knowledge(case.question, _DEPTH)
            scores = rankings[case.question] = {}
            for passage in passages:
                score = passage.word_score if passage.similarity is None else passage.similarity
                scores.setdefault(passage.document_id, score or 0.0)
    return rankings


def _tried(
    cases: Sequence[Case],
    answers: dict[str, str],
    words: dict[str, Scores],
    meaning: dict[str, Scores],
    *,
    weight: float,
    constant: float,
) -> tuple[float, float]:
    ranks = []
    for case in cases:
        both = fused([(meaning[case.question], weight), (words[case.question], 1 - weight)], constant=constant)
        ranks.append(_rank(dict(both), answers[case.question]))
    quality = quality_of(ranks)
    return quality.recall + quality.mrr, quality.mrr


def _rank(ranking: Scores, wanted: str) -> int | None:
    return list(ranking).index(wanted) + 1 if wanted in ranking else None


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.name, docstring


def _case(name: str, docstring: str) -> Case | None:
    parts = re.split(r"(?<=[.!?])\s+|\n\s*\n", docstring, maxsplit=1)
    if len(parts) < 2 or len(parts[1]) < _LEAST_ANSWER_CHARACTERS or ">>>" in parts[0]:
        return None
    named = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)} | {name.lower()}
    words = [word for word in re.findall(r"[\w'-]+", parts[0]) if word.lower() not in named]
    if len(words) < _LEAST_QUESTION_WORDS:
        return None
    question = " ".join(words)
    return Case(question, parts[1].strip(), blake2b(question.encode(), digest_size=1).digest()[0] % 2 == 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where both together are not ahead of each alone on the held-out questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=None, help="so many of them; all where not given")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures there, as JSON lines")
    options = parser.parse_args(arguments)
    cases = cases_of(Path(ast.__file__).parent)[: options.questions]
    with tempfile.TemporaryDirectory(prefix="modchat-bench-") as base:
        table, _ = asyncio.run(measured(cases, Path(base)))
    print(table.to_markdown())
    if options.json is not None:
        options.json.write_text(table.to_json_lines(), encoding="utf-8")
    held_out: dict[Any, tuple[Any, Any]] = {row[0]: (row[3], row[4]) for row in table.rows if row[1] == "held out"}
    is_ahead = all(held_out["both"][n] > held_out[alone][n] for alone in ("words", "meaning") for n in (0, 1))
    return 0 if is_ahead else 1


if __name__ == "__main__":
    sys.exit(main())
