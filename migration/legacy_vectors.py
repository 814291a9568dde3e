"""Vector sets of the old API on the platform's store: `FFVectorStorageManager`, and the files below it.

The old manager knew sessions and no users. A set belongs to the user who has the session; where none has it, or
several, it stands with user ``default``, as such sets of v2 do after a migration. Arrays have shape (rows, dimension)
and keep the dtype that they came in, as numpy stacks them. A set's files are replaced one after the other, the array
first: what a crash leaves of a change is rows that no line speaks of.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from migration.legacy_records import RecordClasses
from migration.legacy_sessions import ROOT as SESSIONS
from migration.legacy_settings import LegacySettings
from migration.legacy_store import LegacyStore, Record, decoded, made_plain
from migration.vectors import pair
from modules.core.errors import NotFound, StorageError
from modules.core.layout import component, document_id, name_of, vector_index_id

HOME = "rag/embeddings"
NOBODY = "default"
Array = npt.NDArray[Any]


class LegacyVectors:
    """Synchronous; called from threads."""

    def __init__(self, store: LegacyStore) -> None:
        self._store = store
        self._files = store.files
        self._owners: dict[str, str] = {}

    def owner_of(self, session_id: str) -> str:
        """The one user who has the session, else ``default``."""
        known = self._owners.get(session_id)
        if known is not None and self._files.exists(_metadata(known, session_id)):
            return known
        name = component(session_id)
        users = self._files.directories(SESSIONS)
        having = [user for user in users if self._files.exists(f"{SESSIONS}/{user}/{name}/metadata.json")]
        if len(having) != 1:
            return NOBODY
        stored = self._store.read_object(f"{SESSIONS}/{having[0]}/{name}/metadata.json") or {}
        owner = str(stored.get("user_id") or name_of(having[0]) or having[0])
        self._owners[session_id] = owner
        return owner

    def store(
        self,
        session_id: str,
        old_id: str,
        chunks: Sequence[str],
        vectors: object,
        metadata: Mapping[str, Any] | None,
        user_id: str | None = None,
    ) -> None:
        """Add a document's chunks. Raises ValueError for none, for lengths that differ, and for another dimension than
        the set has."""
        added = np.asarray(vectors)
        if not len(chunks) or added.ndim != 2 or not added.shape[1]:
            raise ValueError("there must be chunks, and one vector of the same length for each")
        if len(chunks) != len(added):
            raise ValueError(f"{len(chunks)} chunks and {len(added)} vectors")
        if added.dtype.kind not in "fiu" or not np.isfinite(added).all():
            raise ValueError("vectors must be finite numbers")
        owner = user_id if user_id is not None else self.owner_of(session_id)
        with self._store.locks.held(f"vectors\0{session_id}"):
            home = self._home(owner, session_id)
            array, lines = self._array(home), self._lines(home)
            if array is not None and array.shape[1] != added.shape[1]:
                raise ValueError(f"vectors of this session have length {array.shape[1]}, not {added.shape[1]}")
            first = 0 if array is None else len(array)
            about = dict(metadata or {})
            now = self._store.now().isoformat()
            lines += [
                json.dumps(
                    made_plain(_line(session_id, old_id, text, place, len(chunks), first + place, added, about, now)),
                    ensure_ascii=False,
                    allow_nan=False,
                ).encode()
                for place, text in enumerate(chunks)
            ]
            self._write(home, owner, session_id, added if array is None else np.vstack([array, added]), lines)

    def load(self, session_id: str, user_id: str | None = None) -> tuple[Array | None, list[Record]]:
        home = self._home(user_id if user_id is not None else self.owner_of(session_id), session_id)
        found = [_object(line) for line in self._lines(home)]
        return self._array(home), [record for record in found if record is not None]

    def nearest(
        self, session_id: str, query: object, top_k: int, threshold: float, user_id: str | None = None
    ) -> list[Record]:
        """Values of FFVectorSearchResultDTO. The threshold is for the cosine, the score is (cosine + 1) / 2; stored
        vectors are taken as of unit length. Raises ValueError for a query of another length than the set's."""
        array, records = self.load(session_id, user_id)
        if array is None or not len(array):
            return []
        wanted = np.asarray(query, dtype=np.float64).ravel()
        if len(wanted) != array.shape[1]:
            raise ValueError(f"vectors of this session have length {array.shape[1]}, not {len(wanted)}")
        length = float(np.linalg.norm(wanted))
        if not np.isfinite(length) or length == 0:
            return []
        rows = pair([json.dumps(record).encode() for record in records], len(array)).rows_of
        by_row = _records_by_row(records, rows)
        cosines = np.asarray(array, dtype=np.float64) @ (wanted / length)
        order = [int(row) for row in np.argsort(-cosines, kind="stable") if int(row) in by_row]
        best = [row for row in order if cosines[row] >= threshold][: max(0, top_k)]
        return [_result(by_row[row], float(cosines[row]), session_id) for row in best]

    def delete(self, session_id: str, old_id: str, user_id: str | None = None) -> bool:
        """Take a document out; True also where it was not in."""
        owner = user_id if user_id is not None else self.owner_of(session_id)
        with self._store.locks.held(f"vectors\0{session_id}"):
            home = self._home(owner, session_id)
            array, lines = self._array(home), self._lines(home)
            records = [_object(line) for line in lines]
            gone = {place for place, one in enumerate(records) if one is not None and one.get("document_id") == old_id}
            if not gone:
                return True
            kept = [
                (line, record)
                for place, (line, record) in enumerate(zip(lines, records, strict=True))
                if place not in gone
            ]
            if array is None or not any(record is not None for _, record in kept):
                self._files.delete_tree(home)
                return True
            rows_of = pair(lines, len(array)).rows_of
            rows: list[int] = []
            told: list[bytes] = []
            seen: dict[str, int] = {}
            dropped = {str(records[place]["chunk_id"]) for place in gone if records[place]}  # type: ignore[index]
            for line, record in kept:
                chunk = str((record or {}).get("chunk_id", ""))
                place = seen.get(chunk, 0)
                seen[chunk] = place + 1
                its_rows = rows_of.get(chunk, [])
                if record is None or chunk in dropped or place >= len(its_rows):
                    told.append(line)
                    continue
                rows.append(its_rows[place])
                told.append(json.dumps({**record, "vector_index": len(rows) - 1}, ensure_ascii=False).encode())
            self._write(home, owner, session_id, array[rows], told)
        return True

    def stats(self, session_id: str, user_id: str | None = None) -> Record:
        home = self._home(user_id if user_id is not None else self.owner_of(session_id), session_id)
        array, records = self.load(session_id, user_id)
        names = {"total_vectors": 0, "total_documents": 0, "vector_dimensions": 0, "storage_size_bytes": 0}
        if array is None:
            return names
        made = (one.get("embedding_metadata") for one in records)
        providers = {str(one["provider"]) for one in made if isinstance(one, dict) and one.get("provider")}
        sizes = [self._files.stamp(f"{home}/{file}") for file in ("vectors.npy", "chunks.jsonl")]
        return {
            "total_vectors": len(array),
            "total_documents": len({str(one.get("document_id")) for one in records}),
            "vector_dimensions": int(array.shape[1]),
            "storage_size_bytes": sum(stamp.size for stamp in sizes if stamp is not None),
            "providers_used": sorted(providers),
        }

    def put_away(self, user_id: str, session_id: str) -> None:
        """Remove the set of a session that is deleted: what is deleted must not be found."""
        self._files.delete_tree(f"{HOME}/{vector_index_id(user_id, session_id)}")

    # -- below -----------------------------------------------------------------------------------------------

    def _home(self, owner: str, session_id: str) -> str:
        """Where the set stands: with its owner, or where a migration left it that knew no owner."""
        for user in dict.fromkeys((owner, NOBODY)):
            home = f"{HOME}/{vector_index_id(user, session_id)}"
            if self._files.exists(f"{home}/mapping.json"):
                return home
        return f"{HOME}/{vector_index_id(owner, session_id)}"

    def _array(self, home: str) -> Array | None:
        path = self._files.base / home / "vectors.npy"
        if not self._files.exists(f"{home}/vectors.npy"):
            return None
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(f"{home}/vectors.npy cannot be read: {error}", key=f"{home}/vectors.npy") from error
        return array if array.ndim == 2 else None

    def _lines(self, home: str) -> list[bytes]:
        try:
            return [line for line in self._files.read(f"{home}/chunks.jsonl").split(b"\n") if line.strip()]
        except NotFound:
            return []

    def _write(self, home: str, owner: str, session_id: str, array: Array, lines: Sequence[bytes]) -> None:
        pairing = pair(lines, len(array))
        known = {old: document_id(owner, session_id, old) for old in pairing.documents}
        new_ids = {
            old: new if self._files.exists(f"rag/documents/{new}/metadata.json") else None for old, new in known.items()
        }
        norms = np.linalg.norm(np.asarray(array, np.float64), axis=1) if len(array) else np.zeros(0)
        mapping: Record = {
            "user_id": owner,
            "session_id": session_id,
            "rows": len(array),
            "dimension": int(array.shape[1]),
            "dtype": str(array.dtype),
            "claimed_model": pairing.claimed,
            "measured_norm": [float(norms.min()), float(norms.max())] if len(norms) else None,
            "chunk_ids": pairing.rows_of,
            "orphan_rows": pairing.orphan_rows,
            "orphan_lines": pairing.orphan_lines,
            "document_ids": new_ids,
        }
        migrated = (self._store.read_object(f"{home}/mapping.json") or {}).get("legacy")
        if migrated is not None:
            mapping["legacy"] = migrated
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        self._files.write(f"{home}/vectors.npy", buffer.getvalue(), fsync=True)
        self._files.write(f"{home}/chunks.jsonl", b"".join(line + b"\n" for line in lines), fsync=True)
        index = _flat_index(array)
        if index is None:
            self._files.delete(f"{home}/index.faiss")  # of the rows before; `modchat index build` makes it anew
        else:
            self._files.write(f"{home}/index.faiss", index, fsync=True)
        told = json.dumps(mapping, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"
        self._files.write(f"{home}/mapping.json", told, fsync=True)


class FFVectorStorageManager:
    """The old application's manager of vectors, by its own constructor: ``config.storage.base_path`` is the base."""

    def __init__(
        self, config: object | None = None, *, store: LegacyStore | None = None, records: RecordClasses | None = None
    ) -> None:
        self.config = config
        now: Callable[[], datetime] = datetime.now
        self._vectors = LegacyVectors(store or LegacyStore(LegacySettings.of(config), now))
        self._records = records or RecordClasses()

    async def store_vectors(
        self,
        session_id: str,
        document_id: str,
        chunks: Sequence[str],
        vectors: Any,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        await asyncio.to_thread(self._vectors.store, session_id, document_id, chunks, vectors, metadata)
        return True

    async def load_vectors(self, session_id: str) -> tuple[Array | None, list[dict[str, Any]]]:
        """The array (shape (rows, dimension), mapped from the file) and the lines about its rows."""
        return await asyncio.to_thread(self._vectors.load, session_id)

    async def search_similar(
        self, session_id: str, query_vector: Any, top_k: int = 5, threshold: float = 0.7
    ) -> list[Any]:
        found = await asyncio.to_thread(self._vectors.nearest, session_id, query_vector, top_k, threshold)
        return [self._records.make("FFVectorSearchResultDTO", values) for values in found]

    async def search_similar_across_sessions(
        self, session_ids: Iterable[str], query_vector: Any, top_k: int = 5, threshold: float = 0.7
    ) -> list[Any]:
        found = [
            values
            for session_id in session_ids
            for values in await asyncio.to_thread(self._vectors.nearest, session_id, query_vector, top_k, threshold)
        ]
        best = sorted(found, key=lambda values: -float(values["similarity_score"]))[: max(0, top_k)]
        return [self._records.make("FFVectorSearchResultDTO", values) for values in best]

    async def delete_document_vectors(self, session_id: str, document_id: str) -> bool:
        return await asyncio.to_thread(self._vectors.delete, session_id, document_id)

    async def get_vector_stats(self, session_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._vectors.stats, session_id)


def _line(
    session_id: str,
    old_id: str,
    text: str,
    place: int,
    chunks: int,
    row: int,
    vectors: Array,
    metadata: Mapping[str, Any],
    now: str,
) -> Record:
    return {
        "chunk_id": f"{old_id}_chunk_{place}",
        "vector_index": row,
        "document_id": old_id,
        "session_id": session_id,
        "chunk_text": text,
        "chunk_metadata": {
            "position": place,
            "total_chunks": chunks,
            "char_count": len(text),
            "word_count": len(text.split()),
        },
        "embedding_metadata": {
            "provider": metadata.get("provider", "unknown"),
            "model": metadata.get("model", "unknown"),
            "dimensions": int(vectors.shape[1]),
            "normalized": bool(metadata.get("normalized", True)),
            "timestamp": now,
        },
    }


def _records_by_row(records: Sequence[Record], rows_of: Mapping[str, Sequence[int]]) -> dict[int, Record]:
    seen: dict[str, int] = {}
    found: dict[int, Record] = {}
    for record in records:
        chunk = str(record.get("chunk_id", ""))
        place = seen.get(chunk, 0)
        seen[chunk] = place + 1
        rows = rows_of.get(chunk, [])
        if place < len(rows):
            found[rows[place]] = record
    return found


def _result(record: Mapping[str, Any], cosine: float, session_id: str) -> Record:
    metadata = record.get("chunk_metadata")
    return {
        "chunk_id": str(record.get("chunk_id", "")),
        "chunk_text": str(record.get("chunk_text", "")),
        "similarity_score": min(1.0, max(0.0, (cosine + 1) / 2)),
        "document_id": str(record.get("document_id", "")),
        "session_id": session_id,
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def _object(line: bytes) -> Record | None:
    try:
        value = decoded(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _flat_index(array: Array) -> bytes | None:
    """An exact inner-product index over the rows as float32; None where faiss is not installed."""
    if find_spec("faiss") is None:
        return None
    import faiss

    index = faiss.IndexFlatIP(int(array.shape[1]))
    index.add(np.ascontiguousarray(array, dtype=np.float32))
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def _metadata(user_id: str, session_id: str) -> str:
    return f"{SESSIONS}/{component(user_id)}/{component(session_id)}/metadata.json"
