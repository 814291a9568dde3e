"""The benchmarks of rag run, and say what they say for a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_rag, retrieval_quality

MODULE = '''
def read_header(name):
    """Return the value that stands under the given header name.

    The comparison of names ignores case. When there are several headers of one name the first of them is
    given, and when there is none the default is given, which is None where nothing else was said.
    """


def parse_amount(text):
    """Turn what a person wrote as a sum of money into cents.

    Points and commas are both taken for the mark before the cents. A currency in front of the number or
    behind it is read over, and what has more than two decimals is refused with a ValueError.
    """


def no_remainder():
    """Return whether there is something that is left over here."""
'''


def test_questions_are_first_sentences_without_the_names_of_what_they_are_about(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def (:")
    first, second = retrieval_quality.cases_of(tmp_path)
    assert first.question == "Return the value that stands under the given name"
    assert second.question == "Turn what a person wrote as a sum of money into cents"
    assert second.answer.startswith("Points and commas")


def test_quality_is_the_share_of_the_first_five_and_the_mean_of_the_reciprocal_ranks() -> None:
    quality = retrieval_quality.quality_of([1, 2, 6, None])
    assert (quality.recall, quality.mrr) == (0.5, pytest.approx((1 + 1 / 2 + 1 / 6) / 4))


@pytest.mark.slow
async def test_quality_is_measured_through_the_module(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    cases = [
        retrieval_quality.Case(case.question, case.answer, is_held_out=number % 2 == 0)
        for number, case in enumerate(retrieval_quality.cases_of(tmp_path))
    ]
    table, chosen = await retrieval_quality.measured(cases, tmp_path / "base")
    assert {row[0] for row in table.rows} == {"words", "meaning", "both"}
    assert set(chosen) == {"vector_weight", "rank_constant"}


@pytest.mark.slow
def test_a_small_run_measures_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--sizes", "300", "--runs", "1", "--documents", "2", "--without", "chromadb,lancedb"]
    assert bench_rag.main([*arguments, "--json", str(tmp_path / "figures")]) == 0
    shown = capsys.readouterr().out
    assert "modchat, by vector" in shown
    assert (tmp_path / "figures").read_text().count('"table": "rag_growth"') == 2


def test_an_index_is_filled_as_adding_documents_would(tmp_path: Path) -> None:
    import numpy as np

    texts = bench_rag.texts_of(90)
    bench_rag.fill(tmp_path, texts, np.ones((90, 8), np.float32))
    assert len(list(tmp_path.glob("rag/documents/*/metadata.json"))) == 3
