"""Vector sets: bytes, the mapping of rows to chunks, the owner, and the index built from them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from migration.verify.comparison import Item, Tally
from migration.verify.jsontext import NotAnObject, integer, last_values, list_items, members, object_values, string
from migration.verify.names import Name, document_id, shown, vector_index_id
from migration.verify.sides import Sides
from migration.verify.source import VectorDir
from migration.verify.tree import Tree, join

_MEMBERS = frozenset(
    [
        "user_id",
        "session_id",
        "rows",
        "dimension",
        "dtype",
        "claimed_model",
        "measured_norm",
        "chunk_ids",
        "orphan_rows",
        "orphan_lines",
        "document_ids",
        "legacy",
    ]
)
_OWN_FILES = frozenset(("vectors.npy", "chunks.jsonl", "mapping.json", "index.faiss"))
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose vector set it is, and how that was found: "found", "none" or "several"."""

    user: Name
    how: str
    candidates: tuple[str, ...]


def owner_of(set_: VectorDir, directory_user: Name, holders: Mapping[str, tuple[str, ...]]) -> Owner:
    """The owner of a set. *holders* gives the users who have a live session of an id."""
    users = tuple(sorted(set(holders.get(Name.of_path(set_.session).text, ()))))
    if len(users) == 1:
        return Owner(Name.of_text(users[0]), "found", users)
    return Owner(directory_user, "several" if users else "none", users)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which rows of the array belong to which lines of the index."""

    chunks: dict[str, list[int]]
    orphan_rows: list[int]
    orphan_lines: list[int]  # from 1
    documents: tuple[str, ...]
    models: tuple[str, ...]


def pairing(data: bytes, rows: int) -> Pairing:
    """Pairs lines with rows by ``vector_index`` when all values are distinct rows, else by line number."""
    entries: list[tuple[int, dict[str, bytes]]] = []
    broken: list[int] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            entries.append((number, last_values(members(raw))))
        except NotAnObject:
            broken.append(number)
    indices = [integer(values.get("vector_index")) for _, values in entries]
    usable = [i for i in indices if i is not None and 0 <= i < rows]
    if not (len(usable) == len(entries) and len(set(usable)) == len(usable)):
        usable = [number - 1 for number, _ in entries]
    chunks: dict[str, list[int]] = {}
    documents: dict[str, None] = {}
    models: dict[str, None] = {}
    taken: set[int] = set()
    orphans = list(broken)
    for row, (number, values) in zip(usable, entries, strict=True):
        document = string(values.get("document_id"))
        if document is not None:
            documents[document] = None
        embedding = object_values(values.get("embedding_metadata")) or {}
        model = string(embedding.get("model"))
        if model is not None:
            models[model] = None
        if row >= rows:
            orphans.append(number)
            continue
        taken.add(row)
        chunks.setdefault(string(values.get("chunk_id")) or "", []).append(row)
    return Pairing(
        chunks, [row for row in range(rows) if row not in taken], sorted(orphans), tuple(documents), tuple(models)
    )


def load(data: bytes | None) -> Array | None:
    """The array of an embeddings file; None when it holds none that can be read without running code."""
    if data is None:
        return None
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError):
        return None
    return array if isinstance(array, np.ndarray) and array.ndim == 2 else None


def compare_vectors(
    sides: Sides,
    *,
    tally: Tally,
    set_: VectorDir,
    owner: Owner,
    tree: Tree,
    rivals: tuple[str, ...],
    documents: Collection[str],
) -> None:
    """Compares one vector set, which *tree* holds. *rivals* are other paths that claim the same index,
    *documents* the ids of all documents that the source has.
    """
    session = Name.of_path(set_.session)
    plain = f"rag/embeddings/{vector_index_id(owner.user, session)}"
    home = plain
    if rivals and _source_path(sides, plain) != shown(set_.path):
        home = f"rag/embeddings/{vector_index_id(owner.user, session, Name.of_path(set_.path))}"
    files = [
        (name, target)
        for name, target, there in (
            (sides.names.embeddings, "vectors.npy", set_.embeddings),
            (sides.names.vector_index, "chunks.jsonl", set_.lines),
        )
        if there
    ]
    listing = sides.target.list_or_none(home)
    if listing is None and not set_.root and _is_unreadable(sides, set_, tree):
        for name, _ in files:
            sides.attic(tally, owner.user.text, join(set_.path, name))
        return
    tally.claims.add(home)
    item = Item("vectors", owner.user.text, join(set_.root, shown(set_.path)))
    if not set_.root:
        tally.files["migrated"] += len(files)
    for name, target in files:
        sides.same_file(item, target, join(set_.path, name), join(home, target), tree)
    if sides.deep:
        _compare_mapping(sides, item, set_, owner, tree, home, documents)
    if listing is not None:
        names = {*listing.files, *listing.dirs}
        explained = _OWN_FILES - ({"vectors.npy", "chunks.jsonl"} - {target for _, target in files})
        for name in sorted(names - explained):
            item.extra(f"{name} comes from nothing in the source")
    tally.close(item, absent=listing is None)


def _is_unreadable(sides: Sides, set_: VectorDir, tree: Tree) -> bool:
    return load(tree.read_or_none(join(set_.path, sides.names.embeddings))) is None


def _source_path(sides: Sides, home: str) -> str | None:
    mapping = sides.peek(join(home, "mapping.json"))
    return string((object_values(mapping.get("legacy")) or {}).get("path"))


def _compare_mapping(
    sides: Sides, item: Item, set_: VectorDir, owner: Owner, tree: Tree, home: str, documents: Collection[str]
) -> None:
    values = sides.expect_object(item, join(home, "mapping.json"), "mapping.json")
    with item.quietly(not values):
        _compare_values(sides, item, set_, owner, tree, home, documents, values)


def _compare_values(
    sides: Sides,
    item: Item,
    set_: VectorDir,
    owner: Owner,
    tree: Tree,
    home: str,
    documents: Collection[str],
    values: dict[str, bytes],
) -> None:
    array = load(tree.read_or_none(join(set_.path, sides.names.embeddings)))
    lines = tree.read_or_none(join(set_.path, sides.names.vector_index)) or b""
    rows = len(array) if array is not None else 0
    pairs = pairing(lines, rows)
    session = Name.of_path(set_.session)
    item.same("user_id", owner.user.text, string(values.get("user_id")))
    item.same("session_id", session.text, string(values.get("session_id")))
    if array is not None:
        item.same("rows", rows, integer(values.get("rows")))
        item.same("dimension", array.shape[1], integer(values.get("dimension")))
        item.same("dtype", np.dtype(array.dtype).name, _dtype_name(values.get("dtype")))
        _compare_norm(item, array, values.get("measured_norm"))
        chunks = {key: json.loads(value) for key, value in (object_values(values.get("chunk_ids")) or {}).items()}
        item.same("chunk_ids", json.dumps(pairs.chunks, sort_keys=True), json.dumps(chunks, sort_keys=True))
    if array is not None or values.get("claimed_model") != b"null":
        _compare_model(item, pairs, values.get("claimed_model"))
    _compare_orphans(item, "orphan_rows", pairs.orphan_rows, values.get("orphan_rows"))
    if array is not None:
        _compare_orphans(item, "orphan_lines", pairs.orphan_lines, values.get("orphan_lines"))
    if array is not None or object_values(values.get("document_ids")):
        _compare_documents(item, owner, session, pairs, documents, values.get("document_ids"))
    legacy = object_values(values.get("legacy")) or {}
    _compare_legacy(item, set_, owner, legacy)
    for key in sorted(_MEMBERS - values.keys()):
        item.missing(f"member {key}")
    for key in sorted(values.keys() - _MEMBERS):
        item.extra(f"member {key}", values[key])
    if array is not None:
        _compare_index(sides, item, array, join(home, "index.faiss"))


def _compare_model(item: Item, pairs: Pairing, value: bytes | None) -> None:
    """What the lines claim: the name of a model, or an object with it."""
    claimed = object_values(value)
    model = string(value) if claimed is None else string(claimed.get("model"))
    item.same("claimed_model", pairs.models[0] if pairs.models else None, model, also=pairs.models)


def _compare_legacy(item: Item, set_: VectorDir, owner: Owner, legacy: dict[str, bytes]) -> None:
    path, found = shown(set_.path), string(legacy.get("path"))
    own = (found,) if set_.root and found is not None and found.endswith(path) else ()
    item.same("legacy.path", path, found, also=own)
    item.same("legacy.owner", owner.how, string(legacy.get("owner")))
    if owner.how == "several":
        candidates = sorted(string(value) or "" for value in list_items(legacy.get("candidates") or b"[]") or [])
        item.same("legacy.candidates", ",".join(owner.candidates), ",".join(candidates))


def _dtype_name(value: bytes | None) -> str | None:
    text = string(value)
    try:
        return np.dtype(text).name if text else None
    except TypeError:
        return text


def _compare_norm(item: Item, array: Array, value: bytes | None) -> None:
    """Smallest and greatest Euclidean norm of a row; sums may be taken in any order, so nearly is equal."""
    found = [float(number) for number in list_items(value or b"") or [] if number != b"null"]
    if not len(array) or not np.issubdtype(array.dtype, np.number):
        item.accept("measured_norm", value, "no norms" if any(found) else None)
        return
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(array.astype(np.float64), axis=1)
    wanted = [float(norms.min()), float(norms.max())]
    near = len(found) == 2 and all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(wanted, found, strict=True)
    )
    item.accept("measured_norm", value, None if near else str(wanted))


def _compare_orphans(item: Item, what: str, wanted: list[int], value: bytes | None) -> None:
    """The page names the rows and lines that stand alone; how many there are says as much when there are none."""
    numbers = list_items(value or b"")
    if numbers is None:
        counted = integer(value) == len(wanted)
        item.same(what, str(wanted), str(wanted) if counted else value)
        return
    found = [integer(number) for number in numbers]
    from_zero = [number - 1 for number in wanted] if what == "orphan_lines" else wanted
    item.same(what, str(wanted), str(found), also=(str(from_zero),))


def _compare_documents(
    item: Item, owner: Owner, session: Name, pairs: Pairing, documents: Collection[str], value: bytes | None
) -> None:
    found = {key: string(new) for key, new in (object_values(value) or {}).items()}
    item.same("document_ids", ",".join(sorted(pairs.documents)), ",".join(sorted(found)))
    for old in pairs.documents:
        id_ = document_id(owner.user, session, Name.of_text(old))
        item.same(f"document_ids, {old}", id_ if id_ in documents else None, found.get(old))


def _compare_index(sides: Sides, item: Item, array: Array, path: str) -> None:
    data = sides.target.read_or_none(path)
    if data is None:
        return  # can be rebuilt at any time
    try:
        import faiss
    except ImportError:  # an optional extra: without it the index cannot be opened, and can be rebuilt
        item.extra("index.faiss was not opened, faiss is not installed", is_error=False)
        return
    expected = (len(array), array.shape[1])
    try:
        index = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        found = (int(index.ntotal), int(index.d))
        held = index.reconstruct_n(0, index.ntotal) if found == expected and len(array) else None
    except RuntimeError as error:  # what faiss raises for bytes that are no index
        item.unread("index.faiss", error)
        return
    if found != expected:
        item.differs("index.faiss, vectors and dimension", str(expected), str(found))
    if held is None:
        return
    with np.errstate(all="ignore"):
        wanted = np.ascontiguousarray(array, dtype=np.float32)
    differing = np.flatnonzero(wanted.view(np.uint32) != np.ascontiguousarray(held, dtype=np.float32).view(np.uint32))
    if differing.size:
        item.differs("index.faiss, rows", "those of the source", f"row {differing[0] // array.shape[1]} is another")
