"""Vector sets, panels and personas that are damaged, incomplete, or claimed by nobody or by two."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile_case import ONE, SESSION, Case, Expectation, Notice, Tree, good, v2_json

VECTORS = f"users/default/sessions/{SESSION}/vectors"
NPY, INDEX = f"{VECTORS}/embeddings.npy", f"{VECTORS}/vector_index.jsonl"


def npy(rows: int, dtype: str = "<f8", *, fortran: bool = False) -> bytes:
    values = np.arange(rows * 8, dtype=dtype).reshape(rows, 8)
    return _saved(np.asfortranarray(values) if fortran else values)


def _saved(values: Any, *, pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=pickle)
    return buffer.getvalue()


def index(rows: Sequence[int]) -> bytes:
    """A line for each of *rows*, which it names as its vector_index."""
    return b"".join(
        json.dumps(
            {
                "chunk_id": f"doc_chunk_{position}",
                "vector_index": row,
                "document_id": "doc",
                "session_id": SESSION,
                "chunk_text": f"chunk {position}",
                "chunk_metadata": {"position": position, "total_chunks": len(rows), "char_count": 7, "word_count": 2},
                "embedding_metadata": {"provider": "nomic-ai", "model": "m", "dimensions": 8, "normalized": True},
            }
        ).encode()
        + b"\n"
        for position, row in enumerate(rows)
    )


PICKLED = _saved(np.array([{"loading": "this"}, None], dtype=object), pickle=True)  # must never be unpickled
GARBAGE = b"\x93NUMPY\x01\x00v\x00{'descr': no header at all"

ORPHANS = Notice(VECTORS, "vector_orphans")
UNREADABLE = (Notice(NPY, "vector_unreadable"), ORPHANS)  # no line has a row that could be read

# name: (embeddings.npy, vector_index.jsonl, what must be reported). The bytes of both are carried over in any case.
SETS: dict[str, tuple[bytes | None, bytes | None, tuple[Notice, ...]]] = {
    "vectors_with_more_rows_than_lines": (npy(3), index(range(2)), (ORPHANS,)),
    "vectors_with_more_lines_than_rows": (npy(2), index(range(3)), (ORPHANS,)),
    "vectors_numbered_after_a_crash": (npy(3), index((0, 2)), (ORPHANS,)),
    "vectors_numbered_twice": (npy(3), index((0, 1, 1)), ()),
    "vectors_numbered_beyond_the_rows": (npy(3), index((5, 6, 7)), ()),
    "vectors_without_index": (npy(2), None, (ORPHANS,)),
    "vectors_without_rows": (None, index(range(2)), (ORPHANS,)),
    "vectors_truncated": (npy(4)[:-40], index(range(4)), UNREADABLE),
    "vectors_of_garbage": (GARBAGE, index(range(2)), UNREADABLE),
    "vectors_empty_file": (b"", index(range(2)), UNREADABLE),
    "vectors_pickled": (PICKLED, index(range(2)), UNREADABLE),
    "vectors_of_one_dimension": (_saved(np.arange(8.0)), index(range(2)), UNREADABLE),
    "vectors_in_fortran_order": (npy(3, fortran=True), index(range(3)), ()),
    "vectors_in_float32": (npy(3, "<f4"), index(range(3)), ()),
    "vectors_in_big_endian": (npy(3, ">f8"), index(range(3)), ()),
    "vectors_in_int64": (npy(3, "<i8"), index(range(3)), ()),
    "vectors_not_a_number": (_saved(np.full((2, 8), np.nan)), index(range(2)), ()),
    "vectors_all_zero": (_saved(np.zeros((2, 8))), index(range(2)), ()),
    "vectors_of_no_row": (npy(0), b"", ()),
    "vectors_with_damaged_index_line": (npy(3), index((0,)) + b'{"chunk_id": "torn\n' + index((2,)), (ORPHANS,)),
}  # fmt: skip


def build_vectors(to: Path, *, rows: bytes | None, lines: bytes | None, notices: tuple[Notice, ...]) -> Expectation:
    tree = Tree(to)
    tree.session()
    if rows is not None:
        tree.put(NPY, rows)
    if lines is not None:
        tree.put(INDEX, lines)
    return Expectation(sessions=ONE, messages=1, vector_sets=1, notices=frozenset(notices))


def vectors_of_no_session(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(NPY, npy(2))
    tree.put(INDEX, index(range(2)))
    return Expectation(vector_sets=1, notices=frozenset({Notice(VECTORS, "vector_owner")}))


def vectors_of_two_owners(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    tree.session(f"users/eve/{SESSION}", "eve")
    tree.put(NPY, npy(2))
    tree.put(INDEX, index(range(2)))
    return Expectation(
        sessions=ONE | {("eve", SESSION)},
        messages=2,
        vector_sets=1,
        notices=frozenset({Notice(VECTORS, "vector_owner")}),
    )


def vectors_twice_for_one_session(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    own = f"users/ada/sessions/{SESSION}/vectors"
    for home, rows in ((own, 2), (VECTORS, 3)):
        tree.put(f"{home}/embeddings.npy", npy(rows))
        tree.put(f"{home}/vector_index.jsonl", index(range(rows)))
    return Expectation(
        sessions=ONE,
        messages=1,
        vector_sets=2,
        notices=frozenset({Notice(VECTORS, "vector_owner")}),  # the second by source path
    )


def vectors_of_a_nested_session(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("users/ada/my custom/ session/messages.jsonl", good(1) + b"\n")
    home = "users/default/sessions/my custom/ session/vectors"
    tree.put(f"{home}/embeddings.npy", npy(1))
    tree.put(f"{home}/vector_index.jsonl", index(range(1)))
    return Expectation(sessions=frozenset({("ada", "my custom/ session")}), messages=1, vector_sets=1)


PANEL = "panel_sessions/panel_20250801_100000_000001"


def panel_without_panel_json(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(f"{PANEL}/messages.jsonl", good(1, persona_id="x") + b"\n")
    tree.put(f"{PANEL}/personas/dr. who.json", {"id": "dr. who", "name": "Who"})
    return Expectation(panels=1, panel_messages=1)


def panel_json_unreadable(to: Path, *, content: bytes) -> Expectation:
    tree = Tree(to)
    tree.put(f"{PANEL}/panel.json", content)
    tree.put(f"{PANEL}/messages.jsonl", good(1) + b"\n")
    return Expectation(panels=1, panel_messages=1, attic=frozenset({f"{PANEL}/panel.json"}))


def panel_with_damaged_lines_and_insights(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put(f"{PANEL}/panel.json", {"id": "another id", "personas": ["a/b", 7, None, "x", "x"]})
    tree.put(f"{PANEL}/messages.jsonl", good(1) + b"\n\n.. " + good(2) + b'\n{"torn": \n' + good(3))
    tree.put(f"{PANEL}/personas/a/b.json", {"id": "a/b", "name": "an id with a slash nests"})
    tree.put(f"{PANEL}/insights/insight_000000000001.json", {"id": "i", "content": "c"})
    tree.put(f"{PANEL}/insights/insight_000000000002.json", b'{"id": "cut')
    tree.put(f"{PANEL}/insights/insight_000000000003.json", b'["a list"]')
    return Expectation(
        panels=1,
        panel_messages=3,
        salvaged=1,
        quarantined=1,
        blank=1,
        insights=1,
        attic=frozenset(f"{PANEL}/insights/insight_00000000000{number}.json" for number in (2, 3)),
    )


def panels_and_personas_under_their_other_names(to: Path) -> Expectation:
    tree = Tree(to)
    tree.put("panels/p/panel.json", {"id": "p", "personas": ["x"]})
    tree.put("panels/p/insights/insight_000000000001.json", {"id": "i", "content": "c"})
    tree.put("personas/x.json", {"persona_id": "x", "name": "X"})
    return Expectation(panels=1, insights=1, personas=1)


def personas_that_cannot_be_read(to: Path) -> Expectation:
    tree = Tree(to)
    tree.session()
    damaged = {
        "personas_global/cut.json": b'{"id": "cut", "na',
        "personas_global/list.json": b"[]",
        "personas_global/empty.json": b"",
        "users/ada/personas/cut.json": b"{",
    }
    for name, content in damaged.items():
        tree.put(name, content)
    tree.put("personas_global/dr. no.json", {"id": 7, "name": None, "traits": "none"})
    tree.put("personas_global/bare.json", b"{}")
    tree.put("users/ada/personas/café.json", v2_json({"id": "café", "name": "Zoë"}).encode("cp1252"))
    return Expectation(
        sessions=ONE,
        messages=1,
        personas=3,
        attic=frozenset(damaged),
        notices=frozenset({Notice("users/ada/personas/café.json", "cp1252")}),
    )


CASES: dict[str, Case] = {
    **{
        name: partial(build_vectors, rows=rows, lines=lines, notices=notices)
        for name, (rows, lines, notices) in SETS.items()
    },
    "panel_json_a_list": partial(panel_json_unreadable, content=b"[]"),
    "panel_json_cut_off": partial(panel_json_unreadable, content=b'{"id": "p'),
    **{
        case.__name__: case
        for case in (
            vectors_of_no_session,
            vectors_of_two_owners,
            vectors_twice_for_one_session,
            vectors_of_a_nested_session,
            panel_without_panel_json,
            panel_with_damaged_lines_and_insights,
            panels_and_personas_under_their_other_names,
            personas_that_cannot_be_read,
        )
    },
}
