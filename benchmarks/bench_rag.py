"""What rag costs: searching beside faiss, chromadb and lancedb on the same vectors; taking documents in; how adding and
deleting grow with the index.

    python -m benchmarks.bench_rag [--sizes 10000,100000] [--runs 5] [--without chromadb,lancedb] [--json FILE]

Every figure is the median of so many runs, one after the other, each of many searches or documents. The vectors are
those of made-up texts by the embedded model, so that they lie as vectors of texts do; all engines get the same and are
asked for the same. chromadb is measured with its index at its defaults and with its search widened until it finds what
exact search finds; lancedb without an index, which is its exact search. `modchat` is called as a program calls it, its
own passages with text and citation included; raw faiss gives numbers of rows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import peak_rss
from benchmarks.tables import Table
from modules.core.clock import new_hex
from modules.rag import RagModule
from modules.rag.knowledge import Indexed, Knowledge
from modules.rag.part import Places
from modules.rag.passages import Card, Chunk

Vectors = npt.NDArray[np.float32]

_TOP = 10
_QUERIES = 50
_CHUNKS_A_DOCUMENT = 40
_MODEL = "wordllama"
_SETTINGS = {"embedding": {"provider": _MODEL}}


def texts_of(number: int, seed: int = 1) -> list[str]:
    """Texts of some sixty words each, from a vocabulary in which few words are frequent."""
    rng = Random(seed)
    syllables = ["ka", "lo", "mi", "ter", "sen", "du", "ra", "vel", "on", "pi", "gor", "este"]
    vocabulary = sorted({"".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)})
    rng.shuffle(vocabulary)
    weights = [1 / (rank + 2) for rank in range(len(vocabulary))]
    return [" ".join(rng.choices(vocabulary, weights, k=60)) for _ in range(number)]


async def embedded(texts: Sequence[str]) -> Vectors:
    from modules.models import embedding_model

    model = embedding_model(_SETTINGS["embedding"])
    assert model is not None
    return await model.embed(texts)


def fill(base: Path, texts: Sequence[str], vectors: Vectors) -> None:
    """An index of *texts* below *base*, as adding them as documents would have made it."""
    knowledge = Knowledge(Places(base), "", (), new_hex)
    for start in range(0, len(texts), _CHUNKS_A_DOCUMENT):
        name = f"doc_{start:032x}"
        some = texts[start : start + _CHUNKS_A_DOCUMENT]
        chunks = [Chunk(name, number, text, 0, len(text)) for number, text in enumerate(some)]
        knowledge.add([Indexed(Card(name, f"{start}.txt"), chunks, vectors[start : start + len(some)])], _MODEL)
        home = base / "rag/documents" / name
        home.mkdir(parents=True)
        (home / "metadata.json").write_text(f'{{"id": "{name}", "user_id": "", "title": "{start}.txt"}}')
    knowledge.close()


def timed(work: Callable[[int], Any], times: int) -> float:
    """Milliseconds that *work* takes, the median of *times*, after it was done once unmeasured."""
    work(0)
    spans = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        spans.append(time.perf_counter() - began)
    return median(spans) * 1000


async def timed_await(work: Callable[[int], Any], times: int) -> float:
    await work(0)
    spans = []
    for number in range(times):
        began = time.perf_counter()
        await work(number)
        spans.append(time.perf_counter() - began)
    return median(spans) * 1000


async def searching(base: Path, size: int, runs: int, without: Sequence[str]) -> Table:
    """Each engine's time for one search, and how many of the true ten nearest it finds."""
    texts = texts_of(size)
    vectors = await embedded(texts)
    queries = await embedded(texts_of(_QUERIES, seed=2))
    words = [text.split()[:6] for text in texts_of(_QUERIES, seed=2)]
    truth = [set(np.argsort(-(vectors @ query), kind="stable")[:_TOP].tolist()) for query in queries]
    rows: list[tuple[str, float | None, float | None, float | None]] = []

    import faiss

    faiss.omp_set_num_threads(1)  # a single query is slower where faiss shares it out to the cores
    raw = faiss.IndexFlatIP(vectors.shape[1])
    raw.add(vectors)
    fill(base, texts, vectors)
    rag = RagModule(_SETTINGS, base_path=base)
    await rag.initialize()
    places = {text: number for number, text in enumerate(texts)}

    async def by_vector(number: int) -> Any:
        return await rag.search_by_vector(queries[number % _QUERIES], _TOP)

    async def by_words(number: int) -> Any:
        return await rag.search_knowledge(" ".join(words[number % _QUERIES]), _TOP)

    # One run of each in turn, so that what else the machine does falls on all alike.
    ours, faiss_alone, both = [], [], []
    for _ in range(runs):
        faiss_alone.append(timed(lambda number: raw.search(queries[number % _QUERIES][None], _TOP), _QUERIES))
        ours.append(await timed_await(by_vector, _QUERIES))
        both.append(await timed_await(by_words, _QUERIES))
    base_ms = median(faiss_alone)
    found = [{places[one.text] for one in await by_vector(number)} for number in range(_QUERIES)]
    rows.append(("faiss, flat", base_ms, 1.0, 1.0))
    rows.append(("modchat, by vector", median(ours), median(ours) / base_ms, _share(found, truth)))
    rows.append(("modchat, by words and meaning", median(both), median(both) / base_ms, None))
    await rag.close()
    for name, measure in (("chromadb", _chromadb), ("lancedb", _lancedb)):
        if name not in without:
            for label, milliseconds, rankings in measure(base / name, vectors, queries, runs):
                rows.append((label, milliseconds, milliseconds / base_ms, _share(rankings, truth)))
    headings = ("engine", "ms a search", "times faiss", f"recall@{_TOP}")
    return Table(
        f"rag_search_{size}", f"Search among {size:,} chunks, {vectors.shape[1]} dimensions", headings, tuple(rows)
    )


def _share(found: Sequence[set[int]], truth: Sequence[set[int]]) -> float:
    return sum(len(one & other) for one, other in zip(found, truth, strict=True)) / (_TOP * len(truth))


def _chromadb(place: Path, vectors: Vectors, queries: Vectors, runs: int) -> list[tuple[str, float, list[set[int]]]]:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(place), Settings(anonymized_telemetry=False))
    measured = []
    for label, width in (("chromadb, as it comes", None), ("chromadb, ef_search 800", 800)):
        options: dict[str, Any] = {"space": "ip", **({"ef_search": width} if width else {})}
        collection = client.create_collection(f"c{width}", configuration={"hnsw": options}, embedding_function=None)
        for start in range(0, len(vectors), 5000):
            block = vectors[start : start + 5000]
            collection.add([str(start + number) for number in range(len(block))], embeddings=block)

        def ask(number: int, collection: Any = collection) -> Any:
            return collection.query(query_embeddings=queries[number % len(queries)][None], n_results=_TOP, include=[])

        spans = median(timed(ask, len(queries)) for _ in range(runs))
        found = [{int(id_) for id_ in ask(number)["ids"][0]} for number in range(len(queries))]
        measured.append((label, spans, found))
    return measured


def _lancedb(place: Path, vectors: Vectors, queries: Vectors, runs: int) -> list[tuple[str, float, list[set[int]]]]:
    import lancedb
    import pyarrow

    flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
    rows = pyarrow.table({"id": pyarrow.array(range(len(vectors))), "vector": flat})
    table = lancedb.connect(str(place)).create_table("t", rows)

    def ask(number: int) -> Any:
        query = table.search(queries[number % len(queries)]).distance_type("dot").limit(_TOP)
        query = query.select(["id", "_distance"])
        return query.to_arrow()["id"].to_pylist()

    spans = median(timed(ask, len(queries)) for _ in range(runs))
    return [("lancedb, exact", spans, [set(ask(number)) for number in range(len(queries))])]


async def taking_in(base: Path, documents: int, runs: int) -> Table:
    """Documents and megabytes a second, eight callers at a time, until they are found by searches."""
    texts = texts_of(documents * 10, seed=3)
    rows = []
    for label, paragraphs in (("0.4 kB each", 1), ("4 kB each", 10), ("100 kB each", 250)):
        sources = [
            "\n\n".join(texts[start : start + paragraphs]).encode() for start in range(0, len(texts), paragraphs)
        ][:documents]
        spans = []
        for run in range(runs):
            rag = RagModule(_SETTINGS, base_path=base / f"{paragraphs}-{run}")
            await rag.initialize()
            await rag.add_document(b"the first one starts the processes " * 100, name="first.txt")
            slots = asyncio.Semaphore(8)

            async def add(number: int, source: bytes, rag: RagModule = rag, slots: Any = slots) -> None:
                async with slots:
                    await rag.add_document(source, name=f"{number}.txt")

            began = time.perf_counter()
            await asyncio.gather(*(add(number, source) for number, source in enumerate(sources)))
            spans.append(time.perf_counter() - began)
            await rag.close()
        span = median(spans)
        rows.append((label, len(sources), len(sources) / span, sum(map(len, sources)) / span / 1e6))
    return Table("rag_ingest", "Taking documents in", ("documents", "number", "documents/s", "MB/s"), tuple(rows))


async def growing(base: Path, sizes: Sequence[int], runs: int) -> Table:
    """What adding and deleting one document costs, by the size of the index."""
    rows = []
    for size in sizes:
        texts = texts_of(size)
        fill(base / str(size), texts, await embedded(texts))
        rag = RagModule(_SETTINGS, base_path=base / str(size))
        await rag.initialize()
        sources = ["\n\n".join(texts_of(_CHUNKS_A_DOCUMENT, seed=100 + n)).encode() for n in range(2 * runs + 1)]
        await rag.add_document(sources[-1], name="first.txt")
        adding, deleting = [], []
        for number, source in enumerate(sources[:-1]):
            began = time.perf_counter()
            added = await rag.add_document(source, name=f"{number}.txt")
            adding.append(time.perf_counter() - began)
            began = time.perf_counter()
            await rag.delete_document(added.id)
            deleting.append(time.perf_counter() - began)
        deleting_old = []
        for id_ in [one.id for one in (await rag.list_documents(limit=1000)).documents[: 2 * runs]]:
            began = time.perf_counter()
            await rag.delete_document(id_)
            deleting_old.append(time.perf_counter() - began)
        await rag.close()
        rows.append((size, median(adding) * 1000, median(deleting) * 1000, median(deleting_old) * 1000))
    headings = ("chunks", "add, ms", "delete a new one, ms", "delete an old one, ms")
    return Table("rag_growth", f"One document of {_CHUNKS_A_DOCUMENT} paragraphs", headings, tuple(rows))


async def measured(options: argparse.Namespace, place: Path) -> list[Table]:
    sizes = [int(size) for size in options.sizes.split(",")]
    tables = []
    for size in sizes:
        tables.append(await searching(place / f"search-{size}", size, options.runs, options.without.split(",")))
        print(tables[-1].to_markdown(), flush=True)
    tables.append(await taking_in(place / "ingest", options.documents, options.runs))
    print(tables[-1].to_markdown(), flush=True)
    tables.append(await growing(place / "growth", [1000, *sizes], options.runs))
    print(tables[-1].to_markdown(), flush=True)
    print(f"most memory that this process held: {peak_rss() >> 20} MB")
    return tables


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="chunks in the index")
    parser.add_argument("--documents", type=int, default=200, help="documents that are taken in")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--without", default="", help="engines to leave out: chromadb, lancedb")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures there, as JSON lines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="modchat-bench-") as place:
        tables = asyncio.run(measured(options, Path(place)))
    if options.json is not None:
        options.json.write_text("".join(table.to_json_lines() for table in tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
