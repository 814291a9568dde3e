"""Vector sets of v2: carried over as their bytes, described as they are, and indexed.

v2 filed nearly every set under the user ``default``; the owner is the user who has a session of that id. Its rows and
its index lines diverge after a crash, so lines and rows are paired by `vector_index` where that is sound, else by line
number (V2's format, section 2.9). Vectors stay float64 where they were; only the faiss index is float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from migration.embed import display_name, source_object
from migration.job import Job
from migration.source_files import files_below
from migration.unit import Unit, UnitDraft
from migration.v2.read import read_regular, scan
from modules.core.layout import component, document_id, vector_index_id

_NORM_ROWS = 4096


@dataclass(frozen=True, slots=True)
class VectorSet:
    """A set to migrate: where it stands, its session, and who owns it.

    owner: "found", "none" or "several"; candidates: the users that have a session of that id; session_dir: the
    owner's session directory in the source, for the ids of its documents.
    """

    directory: str
    session: str
    user_id: str
    owner: str
    candidates: tuple[str, ...] = ()
    session_dir: str | None = None
    index_id: str = ""


@dataclass(slots=True)
class Pairing:
    """Which rows belong to which lines.

    rows_of: row numbers by chunk id; orphan_rows: rows without a line; orphan_lines: line numbers (from 1) without
    a row; documents: document ids in order of appearance; claimed: the model that the lines claim.
    """

    rows_of: dict[str, list[int]] = field(default_factory=dict)
    orphan_rows: list[int] = field(default_factory=list)
    orphan_lines: list[int] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    claimed: dict[str, Any] | None = None


def pair(lines: Sequence[bytes], rows: int) -> Pairing:
    """Pairs index lines with rows: by `vector_index` when all values are distinct and below *rows*, else in order."""
    pairing = Pairing()
    records = [(number, _line_object(line)) for number, line in enumerate(lines, 1) if line.strip()]
    indices = [record.get("vector_index") if record else None for _, record in records]
    sound = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < rows for i in indices)
    by_index = sound and len(set(indices)) == len(indices)
    used: set[int] = set()
    for position, (number, record) in enumerate(records):
        row = indices[position] if by_index else position
        if record is None or not isinstance(row, int) or row >= rows:
            pairing.orphan_lines.append(number)
            continue
        used.add(row)
        pairing.rows_of.setdefault(str(record.get("chunk_id", "")), []).append(row)
        document = record.get("document_id")
        if isinstance(document, str) and document not in pairing.documents:
            pairing.documents.append(document)
        claimed = record.get("embedding_metadata")
        if pairing.claimed is None and isinstance(claimed, dict):
            pairing.claimed = {key: claimed.get(key) for key in ("provider", "model", "dimensions", "normalized")}
    pairing.orphan_rows = [row for row in range(rows) if row not in used]
    return pairing


def migrate_vector_set(job: Job, found: VectorSet, known: Unit | None) -> tuple[Unit, bool]:
    """Migrates one set, unless *known* says that it was, for the same owner.

    The unit's files are relative to the set's directory; strays beside them are the user directory's.
    """
    context = f"{found.user_id}\0{found.owner}\0{found.index_id}"
    names = {job.names.embeddings, job.names.vector_index}
    below = files_below(found.directory, "")
    same = known is not None and known.context == context and below is not None
    if known is not None and same and job.is_unchanged(known, [file for file in below or () if file[0] in names]):
        return known, True
    draft = UnitDraft("", context=context)
    home = f"rag/embeddings/{found.index_id or vector_index_id(found.user_id, found.session)}"
    if known is not None:
        for old in {fact[1] for fact in known.facts if fact[0] == "index"} - {home}:
            job.target.remove(old)
    array_path, index_path = (f"{found.directory}/{n}" for n in (job.names.embeddings, job.names.vector_index))
    array_file, lines = None, []
    if os.path.lexists(array_path):
        array_file = f"{home}/vectors.npy"
        if job.copy(draft, array_path, job.names.embeddings, array_file) is None:
            array_file = None
    if os.path.lexists(index_path):
        text = job.read(draft, index_path, job.names.vector_index)
        if text is not None:
            job.target.write(f"{home}/chunks.jsonl", text)
            lines = text.split(b"\n")
            if lines[-1] == b"":
                lines.pop()
    array = _load(job, draft, array_file, array_path)
    pairing = pair(lines, 0 if array is None else array.shape[0])
    try:
        documents = document_ids(job, found, pairing.documents)
    except OSError as error:
        draft.issue("unread", job.shown(f"{found.session_dir}/{job.names.documents}"), error.strerror or str(error))
        draft.context = ""  # so that the next run does it again
        documents = dict.fromkeys(pairing.documents)
    job.target.write(f"{home}/mapping.json", _mapping(job, found, array, pairing, documents))
    if array is not None and array.shape[0]:
        _write_index(job, draft, home, array, array_path)
    shown = job.shown(found.directory)
    if pairing.orphan_rows or pairing.orphan_lines:
        orphans = f"{len(pairing.orphan_rows)} rows, {len(pairing.orphan_lines)} lines"
        draft.issue("vector_orphans", shown, orphans)
    if found.owner != "found":
        draft.issue("vector_owner", shown, ", ".join(found.candidates) or "no user has a session of that id")
    if found.index_id not in {"", vector_index_id(found.user_id, found.session)}:
        draft.issue("vector_owner", shown, f"{found.user_id} has another set for the same session")
    draft.count("vector_sets")
    draft.facts.append(["index", home])
    return job.finished(draft), False


def document_ids(job: Job, found: VectorSet, documents: Sequence[str]) -> dict[str, str | None]:
    """The new id of each v2 document id that the set names; None where the session has no such document.

    Raises `OSError` when the session's documents are there and cannot be read.
    """
    known: set[str] = set()
    directory = f"{found.session_dir}/{job.names.documents}"
    if found.session_dir is not None and os.path.isdir(directory) and not os.path.islink(directory):
        index = job.names.document_index
        names = [entry.name for entry in scan(directory) if entry.is_file(follow_symlinks=False)]
        known.update(display_name(name) for name in names if name != index)
        entries = source_object(read_regular(f"{directory}/{index}", job.now_ns)) if index in names else ""
        if not isinstance(entries, str):
            known.update(display_name(name) for name, entry in entries.value.items() if isinstance(entry, dict))
    return {name: document_id(found.user_id, found.session, name) if name in known else None for name in documents}


def _mapping(
    job: Job,
    found: VectorSet,
    array: npt.NDArray[Any] | None,
    pairing: Pairing,
    documents: Mapping[str, str | None],
) -> bytes:
    owner: dict[str, Any] = {"path": job.shown(found.directory), "owner": found.owner}
    if found.candidates:
        owner["candidates"] = list(found.candidates)
    mapping = {
        "user_id": found.user_id,
        "session_id": found.session,
        "rows": None if array is None else int(array.shape[0]),
        "dimension": None if array is None else int(array.shape[1]),
        "dtype": None if array is None else str(array.dtype),
        "claimed_model": pairing.claimed,
        "measured_norm": None if array is None else _norms(array),
        "chunk_ids": pairing.rows_of,
        "orphan_rows": pairing.orphan_rows,
        "orphan_lines": pairing.orphan_lines,
        "document_ids": documents,
        "legacy": owner,
    }
    return json.dumps(mapping, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"


def _line_object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _load(job: Job, draft: UnitDraft, array_file: str | None, shown: str) -> npt.NDArray[Any] | None:
    """The (rows, dimension) array, mapped from the copy in the target; None when numpy cannot read it as that."""
    if array_file is None:
        return None
    try:
        array: npt.NDArray[Any] = np.load(f"{job.target.base}/{array_file}", mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        draft.issue("vector_unreadable", job.shown(shown), str(error).split("\n")[0][:200])
        return None
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        draft.issue("vector_unreadable", job.shown(shown), f"shape {array.shape}, dtype {array.dtype}")
        return None
    return array


def _blocks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, array.shape[0], _NORM_ROWS):
        yield array[start : start + _NORM_ROWS]


def _norms(array: npt.NDArray[Any]) -> list[float] | None:
    """Least and greatest Euclidean norm of the rows, in float64; None for an empty set."""
    lows, highs = [], []
    for block in _blocks(array):
        norms = np.sqrt(np.sum(np.square(block.astype(np.float64)), axis=1))
        lows.append(float(norms.min()))
        highs.append(float(norms.max()))
    return [min(lows), max(highs)] if lows else None


def _write_index(job: Job, draft: UnitDraft, home: str, array: npt.NDArray[Any], shown: str) -> None:
    """index.faiss: exact inner product over the rows as float32, in row order."""
    if find_spec("faiss") is None:
        draft.issue("not_built", job.shown(shown), "index.faiss needs modchat[rag]")
        return
    import faiss

    index = faiss.IndexFlatIP(int(array.shape[1]))
    for block in _blocks(array):
        index.add(np.ascontiguousarray(block, dtype=np.float32))
    job.target.write(f"{home}/index.faiss", faiss.serialize_index(index).tobytes())


def owners_by_session(written: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(session component, user component) of every live session that a unit wrote."""
    for path in written:
        _, _, user, session = path.split("/")
        yield session, user


def session_component(session: str) -> str:
    return component(os.fsencode(session))
