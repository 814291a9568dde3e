"""The vectors of one part: the file that holds them, and the faiss index that searches them.

``vectors.npy`` is the truth: float32, shape (rows, dimension), any numpy reads it at any time. Rows are appended in
place: first the numbers, then the header that counts them, which fits in one sector.

A part that is added to is searched by a flat index in memory, which is exact. One that is full has ``index.faiss``: its
vectors with 4 bits a number, in the layout that faiss scans with a few instructions for 32 vectors at a time (Andre,
Kermarrec and Le Scouarnec, "Cache locality is not enough", 2015). What it finds is measured again by the vectors
themselves (`products`). The 16 values of each number are those that are best for a normal distribution of its mean and
spread (Max, "Quantizing for Minimum Distortion", 1960), so nothing has to be trained. `benchmarks.bench_rag` measures
what is lost by it. All indices go by ids that are never used twice.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import RagNotInstalled, imported

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

VECTORS, INDEX = "vectors.npy", "index.faiss"
_HEADER_BYTES = 128
_LEAST_ROWS = 256  # fewer say too little of how numbers are spread
_BITS = 4
_LEVELS = np.array([0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0691, 2.7326])


class VectorsDamaged(Exception):
    """The file holds fewer rows than were committed, or is no such file."""


def one_thread_each() -> None:
    """For every thread that searches: faiss would share one query out to all cores, and wait for the slowest."""
    with suppress(RagNotInstalled):  # then there is nothing to search
        imported("faiss").omp_set_num_threads(1)


class _Use(NamedTuple):
    """The index that is searched: all of it at once, for it is replaced while searches go on."""

    index: Any
    is_mapped: bool
    is_exact: bool


class PartVectors:
    """Of the part in *directory*, whose committed rows have the ids *ids*. Appending is for one thread at a time;
    searching goes on meanwhile. Raises VectorsDamaged, RagNotInstalled."""

    def __init__(self, directory: Path, dimension: int, ids: Ids) -> None:
        self._path = directory / VECTORS
        self._index_path = directory / INDEX
        self.dimension = dimension
        self._ids = ids
        self._faiss = imported("faiss")
        # faiss: "searching during add is unsafe" for an index in memory.
        self._lock = Lock()
        self._check()
        self._use = self._opened()
        self._mapped = self.rows() if len(ids) else np.empty((0, dimension), np.float32)

    @classmethod
    def write(cls, directory: Path, vectors: Vectors) -> None:
        """Make the file for a new part."""
        with (directory / VECTORS).open("wb") as file:
            file.write(_header(*vectors.shape))
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> Vectors:
        """The committed rows, mapped from the file."""
        shape = (len(self._ids), self.dimension)
        # As a plain array over the mapping: a memmap does far more at every access.
        return np.asarray(np.memmap(self._path, dtype="<f4", mode="r", offset=_HEADER_BYTES, shape=shape))

    def products(self, query: Vectors, ids: Ids) -> Vectors:
        """The true inner products of *query*, shape (1, dimension), with the rows of some ids that were found."""
        found: Vectors = self._mapped[self._ids.searchsorted(ids)] @ query[0]
        return found

    def append(self, vectors: Vectors, ids: Ids) -> None:
        """Rows for new ids, on the disk when this returns."""
        with suppress(FileNotFoundError):
            self._index_path.unlink()  # it lacks what comes now
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        before = len(self._ids)
        with self._path.open("r+b") as file:
            file.seek(_HEADER_BYTES + before * self.dimension * 4)
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            file.write(_header(before + len(rows), self.dimension))
            file.flush()
            os.fsync(file.fileno())
        self._own_index()
        with self._lock:
            self._use.index.add_with_ids(rows, ids)
        self._ids = np.concatenate([self._ids, ids])
        self._mapped = self.rows()

    def search(self, query: Vectors, limit: int, among: Ids | None = None) -> tuple[Vectors, Ids, bool]:
        """Inner products and ids of the *limit* rows nearest to *query*, shape (1, dimension), nearest first; of the
        ids *among* alone where given. And whether these are the true inner products, or near ones that order alike."""
        if among is None:
            return self._searched(query, limit)
        products = self.products(query, among)
        best = np.argsort(-products, kind="stable")[:limit]
        return products[best], among[best], True

    def seal(self, *, is_full: bool) -> None:
        """Write ``index.faiss``, and search it from there. That of a part that *is_full* is the near one."""
        if self._use.is_mapped and not (is_full and self._use.is_exact):
            return
        index = self._use.index
        if is_full and len(self._ids) >= _LEAST_ROWS:
            index = self._quantized()
        temporary = self._index_path.with_name(".tmp-" + INDEX)
        with self._lock:
            self._faiss.write_index(index, str(temporary))
        temporary.replace(self._index_path)
        self._use = self._opened()

    def _searched(self, query: Vectors, limit: int) -> tuple[Vectors, Ids, bool]:
        use = self._use
        if use.is_mapped:
            products, ids = use.index.search(query, limit)
        else:
            with self._lock:
                products, ids = use.index.search(query, limit)
        found = ids[0] >= 0
        return products[0][found], ids[0][found], use.is_exact

    def _check(self) -> None:
        wanted = _HEADER_BYTES + len(self._ids) * self.dimension * 4
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            raise VectorsDamaged(f"{self._path} is not there") from None
        if size < wanted:
            raise VectorsDamaged(f"{self._path} has {size} bytes and not {wanted}")
        header = _header(len(self._ids), self.dimension)
        with self._path.open("r+b") as file:
            if file.read(_HEADER_BYTES) != header or size != wanted:
                # What was cut off while it was appended was never committed.
                file.seek(0)
                file.write(header)
                file.truncate(wanted)
                file.flush()
                os.fsync(file.fileno())

    def _opened(self) -> _Use:
        """The index from its file where that has the committed rows, else a flat one in memory."""
        if self._index_path.is_file():
            with suppress(RuntimeError):  # faiss's, for a file that it cannot read: it is made again
                index = self._faiss.read_index(str(self._index_path), self._faiss.IO_FLAG_MMAP_IFC)
                if index.ntotal == len(self._ids) and index.d == self.dimension:
                    inner = self._faiss.downcast_index(index.index)
                    return _Use(index, True, isinstance(inner, self._faiss.IndexFlat))
        return _Use(self._built(self._faiss.IndexFlatIP(self.dimension)), False, True)

    def _quantized(self) -> Any:
        rows = self.rows()
        index = self._faiss.IndexPQFastScan(self.dimension, self.dimension, _BITS, self._faiss.METRIC_INNER_PRODUCT)
        levels = np.concatenate([-_LEVELS[::-1], _LEVELS])
        values = rows.mean(axis=0)[:, None] + rows.std(axis=0)[:, None] * levels
        self._faiss.copy_array_to_vector(values.astype(np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        return self._built(index)

    def _built(self, inner: Any) -> Any:
        index = self._faiss.IndexIDMap2(inner)
        if len(self._ids):
            index.add_with_ids(np.ascontiguousarray(self.rows()), self._ids)
        return index

    def _own_index(self) -> None:
        if self._use.is_mapped:
            self._use = _Use(self._built(self._faiss.IndexFlatIP(self.dimension)), False, True)


def _header(rows: int, dimension: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)})
    header = buffer.getvalue()
    if len(header) != _HEADER_BYTES:
        raise AssertionError(f"numpy writes headers of {len(header)} bytes")  # its padding keeps them at 128
    return header
