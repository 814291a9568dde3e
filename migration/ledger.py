"""The ledger: what of the source stands in the target, durably.

One append-only journal per coordinator under ``<target>/.migration/ledger``. A journal is a magic line and records;
a record is a length (u32, little-endian), the XXH32 of these four bytes (u32), the XXH3-64 of its payload (u64) and
the payload, MessagePack: a header [kind, name, low, high, run, phase] and the units of that span. A span is a
directory of v2, or the children of it with ``low < name <= high``. Later runs and phases win over earlier ones, so
nothing is ever rewritten, and a resume may use other numbers of shards or another program version. A torn record at
the end of a journal is what a crash leaves: it was never acknowledged and is passed over. A damaged record elsewhere
is an error.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
import msgspec
import xxhash

from migration.target import TargetError
from migration.unit import Unit

MAGIC = b"modchat ledger 1\n"
_READ_AHEAD = 1 << 20
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<IIQ")


class LedgerError(Exception):
    """A journal is damaged, or was written by a program that this one does not know."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; restore it from a backup, or move the target away and migrate anew"


class Span(NamedTuple):
    """Which part of the source a record is about. *low* and *high* are bytes of names; None is no bound."""

    kind: str
    name: bytes
    low: bytes | None = None
    high: bytes | None = None


class Place(NamedTuple):
    """Where a record stands, and which order it has among records of the same span."""

    order: tuple[int, int]
    journal: str
    offset: int
    size: int
    low: bytes | None
    high: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, read."""

    span: Span
    run: int
    phase: int
    units: list[Unit]


_decode_units = msgspec.msgpack.Decoder(list[Unit]).decode
_encode = msgspec.msgpack.Encoder().encode


def encode_record(span: Span, run: int, phase: int, units: Iterable[Unit]) -> bytes:
    """A record as it stands in a journal."""
    header: bytes = msgpack.packb([*span, run, phase])
    body = _encode(list(units))
    payload = struct.pack("<H", len(header)) + header + body
    return _HEAD.pack(*_head_of(payload)) + payload


def _head_of(payload: bytes) -> tuple[int, int, int]:
    return len(payload), _check(len(payload)), xxhash.xxh3_64_intdigest(payload)


def _check(length: int) -> int:
    """A checksum of its own for the length: without it a damaged one would look like a torn end of the journal."""
    return xxhash.xxh32_intdigest(_LENGTH.pack(length))


class Journal:
    """A journal being written by one coordinator; made with its first record."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def append(self, records: bytes) -> None:
        """Appends records and makes them durable before it returns; raises `TargetError`."""
        try:
            self._append(records)
        except OSError as error:
            directory, _, name = self.path.rpartition("/")
            raise TargetError.of(directory, name, error) from error

    def _append(self, records: bytes) -> None:
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            records = MAGIC + records
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        written = os.write(self._fd, records)
        while written < len(records):
            written += os.write(self._fd, memoryview(records)[written:])
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def journals(directory: str) -> list[str]:
    """Paths of all journals, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(".journal")]


def index(directory: str, wanted: Callable[[str, bytes], bool]) -> dict[tuple[str, bytes], list[Place]]:
    """Where the records of the wanted spans stand: memory for each span, never for its units."""
    places: dict[tuple[str, bytes], list[Place]] = {}
    for journal in journals(directory):
        for offset, header, payload in _records(journal):
            kind, name, low, high, run, phase = msgpack.unpackb(header)
            if wanted(kind, name):
                size = _HEAD.size + len(payload)
                places.setdefault((kind, name), []).append(Place((run, phase), journal, offset, size, low, high))
    return places


class LedgerReader:
    """Reads records at their places; a journal that was opened once stays open until `close`."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def units_at(self, places: Iterable[Place], low: bytes | None = None, high: bytes | None = None) -> dict[str, Unit]:
        """The latest units of a span, by name, from the records that can hold some between *low* and *high*."""
        units: dict[str, Unit] = {}
        for place in sorted(places):
            if _is_apart(place, low, high):
                continue
            for unit in _units_of(self._payload(place)):
                if unit.is_removed:
                    units.pop(unit.name, None)
                else:
                    units[unit.name] = unit
        return units

    def _payload(self, place: Place) -> bytes:
        fd = self._fds.get(place.journal)
        if fd is None:
            fd = self._fds[place.journal] = os.open(place.journal, os.O_RDONLY | os.O_CLOEXEC)
        record = _read_fully(fd, place.offset, place.size)
        if len(record) > _HEAD.size:
            payload = record[_HEAD.size :]
            if _HEAD.unpack_from(record) == _head_of(payload):
                return payload
        raise LedgerError(place.journal, f"no record at {place.offset}")


def entries(directory: str) -> Iterator[Entry]:
    """Every record of the ledger, in the order of the journals; of one span, later ones are newer."""
    for journal in journals(directory):
        for _, header, payload in _records(journal):
            kind, name, low, high, run, phase = msgpack.unpackb(header)
            yield Entry(Span(kind, name, low, high), run, phase, _units_of(payload))


def _is_apart(place: Place, low: bytes | None, high: bytes | None) -> bool:
    below = place.high is not None and low is not None and place.high <= low
    above = place.low is not None and high is not None and place.low >= high
    return below or above


def _units_of(payload: bytes) -> list[Unit]:
    (length,) = struct.unpack_from("<H", payload)
    return _decode_units(memoryview(payload)[2 + length :])


def _records(journal: str) -> Iterator[tuple[int, bytes, bytes]]:
    with open(journal, "rb", buffering=_READ_AHEAD) as file:
        if file.read(len(MAGIC)) != MAGIC:
            if os.fstat(file.fileno()).st_size < len(MAGIC):
                return
            raise LedgerError(journal, "not a journal of this program's version")
        offset = len(MAGIC)
        while True:
            size, payload = _read_record(file.read, journal)
            if payload is None:
                if size and file.read(1):
                    raise LedgerError(journal, f"the record at byte {offset} is damaged")
                return
            (length,) = struct.unpack_from("<H", payload)
            yield offset, payload[2 : 2 + length], payload
            offset += size


def _read_fully(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data


def _read_record(read: Callable[[int], bytes], journal: str) -> tuple[int, bytes | None]:
    """Size in the journal and payload of the next record; (0, None) at the end, (size, None) for a damaged one."""
    head = read(_HEAD.size)
    if len(head) < _HEAD.size:
        return 0, None
    length, check, digest = _HEAD.unpack(head)
    if check != _check(length):
        return _HEAD.size, None
    payload = read(length)
    if len(payload) < length:
        return 0, None
    if xxhash.xxh3_64_intdigest(payload) != digest:
        return _HEAD.size + length, None
    return _HEAD.size + length, payload
