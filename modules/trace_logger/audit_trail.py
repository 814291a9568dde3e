"""The one writer of the audit trail.

    trace_logger/audit/2024-01.jsonl               the chain, by the month
    trace_logger/audit/head.json                   its last entry, so that a missing end is noticed
    trace_logger/audit/private/<subject>.jsonl     who it was and what it was about: what an erasure removes
    trace_logger/audit/people/<user>.json          a user's subject
    trace_logger/audit/torn.jsonl                  what a crash left of lines; nobody was told that they were stored
    trace_logger/audit/writer.lock                 held by the writer

Order: the private record is on the disk, then the line of the chain, then the head is moved, then the caller is told.
An erasure is an entry first; what it removes goes after that, and again at the next start where a crash came between.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import Conflict, NotFound, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

from .audit_chain import (
    HEAD,
    ROOT,
    AuditEntry,
    ChainEntry,
    Head,
    PrivateRecord,
    chain_line,
    digest_of,
    entry_of,
    is_chain_file,
    key_of,
    private_key,
    private_line,
    private_of,
)

log = logging.getLogger(__name__)

ERASE = "user.erase"
_LOCK = f"{ROOT}/writer.lock"
_TORN = f"{ROOT}/torn.jsonl"
_KEYS_REMEMBERED = 1000
_SUBJECTS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """What is to be recorded. The user ``""`` is the platform itself."""

    action: str
    user_id: str
    resource: str
    details: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None


class AuditTrail:
    """Synchronous; for one caller at a time, except `entries`. Raises Conflict when another process writes."""

    def __init__(self, files: FlatFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._subjects: OrderedDict[str, str] = OrderedDict()
        self._keys: OrderedDict[str, AuditEntry] = OrderedDict()
        files.make_directory(ROOT, fsync=True)
        self._lock_fd = _locked(files)
        try:
            self._end: tuple[Head, str] | None = self._recovered()
            self._finish_erasures()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def append(self, drafts: Sequence[AuditDraft]) -> list[AuditEntry]:
        """Record all of them; when this returns they are on the disk. One whose key was used is not recorded again.

        Raises StorageError; then none may be taken for recorded, and each may be asked for again with its key.
        """
        try:
            return self._append(drafts)
        except StorageError:
            # What of it reached the disk is not known: the files are asked before anything is added to them.
            self._end = None
            raise

    def subject_of(self, user_id: str) -> str | None:
        """None for a user of whom nothing is recorded."""
        try:
            subject = json.loads(self._files.read(_person_key(user_id)))["subject"]
        except NotFound:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{_person_key(user_id)} is damaged: {error!r}", key=_person_key(user_id)) from error
        return str(subject)

    def erase(self, user_id: str) -> int:
        """Remove who a user's entries are about and what they say. How many entries there were."""
        subject = self.subject_of(user_id)
        if subject is None:
            return 0
        count = sum(1 for _ in self._private_lines(subject))
        self._append([AuditDraft(ERASE, "", "")], erases=subject)
        self._subjects.pop(user_id, None)
        self._remove(user_id, subject)
        return count

    def entries(
        self,
        *,
        user_id: str | None = None,
        action: str | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """Newest first; with *before*, those with smaller numbers. Lines that are damaged are passed over: `verify`
        names them."""
        subject = None
        if user_id is not None:
            subject = self.subject_of(user_id)
            if subject is None:
                return []
        found = []
        for entry in self._newest_first():
            is_wanted = subject in (None, entry.subject) and action in (None, entry.action)
            if is_wanted and (before is None or entry.seq < before):
                found.append(entry)
                if limit is not None and len(found) >= limit:
                    break
        return self._with_private(found)

    # -- writing -----------------------------------------------------------------------------------------------

    def _append(self, drafts: Sequence[AuditDraft], erases: str | None = None) -> list[AuditEntry]:
        answers: list[AuditEntry] = []
        keyed: dict[str, AuditEntry] = {}
        private: dict[str, bytes] = {}
        chain: dict[str, bytes] = {}
        if self._end is None:
            self._end = self._recovered()
        head, month = self._end
        for draft in drafts:
            key = key_of(draft.idempotency_key)
            known = None if key is None else self._keys.get(key) or keyed.get(key)
            if known is not None:
                answers.append(known)
                continue
            at = self._clock.now()
            subject = self._subject_for(draft.user_id)
            record = PrivateRecord(head.seq + 1, subject, draft.user_id, draft.resource, draft.details)
            hidden = private_line(record, os.urandom(16).hex())
            line, entry = chain_line(
                head,
                at=at.isoformat(),
                action=draft.action,
                subject=subject,
                erases=erases,
                key=key,
                digest=digest_of(hidden),
            )
            head, month = entry.head, max(month, f"{at:%Y-%m}")  # a clock that goes back does not part the chain
            private[subject] = private.get(subject, b"") + hidden + b"\n"
            chain[month] = chain.get(month, b"") + line + b"\n"
            answer = _answer(entry, record)
            answers.append(answer)
            if key is not None:
                keyed[key] = answer
        for subject, lines in private.items():
            self._files.append(private_key(subject), lines, fsync=True)
        for name, lines in chain.items():
            self._files.append(f"{ROOT}/{name}.jsonl", lines, fsync=True)
        if chain:
            self._files.write(HEAD, json.dumps(asdict(head)).encode() + b"\n")
        self._end = head, month
        for key, answer in keyed.items():
            self._remember_key(key, answer)
        return answers

    def _subject_for(self, user_id: str) -> str:
        subject = self._subjects.get(user_id) or self.subject_of(user_id)
        if subject is None:
            subject = f"sub_{os.urandom(8).hex()}"
            person = json.dumps({"user_id": user_id, "subject": subject}).encode() + b"\n"
            self._files.write(_person_key(user_id), person, fsync=True)
        self._subjects[user_id] = subject
        if len(self._subjects) > _SUBJECTS_REMEMBERED:
            self._subjects.popitem(last=False)
        return subject

    def _remember_key(self, key: str, answer: AuditEntry) -> None:
        self._keys[key] = answer
        if len(self._keys) > _KEYS_REMEMBERED:
            self._keys.popitem(last=False)

    def _remove(self, user_id: str, subject: str) -> None:
        # The person first: a subject that is erased must not be used again.
        self._files.delete(_person_key(user_id))
        self._files.delete(private_key(subject))
        for key in [key for key, answer in self._keys.items() if answer.subject == subject]:
            del self._keys[key]

    # -- reading -----------------------------------------------------------------------------------------------

    def _chain_files(self) -> list[str]:
        return [key for key in self._files.list(f"{ROOT}/") if is_chain_file(key)]

    def _newest_first(self) -> Iterator[ChainEntry]:
        for key in reversed(self._chain_files()):
            for line in reversed(self._files.read(key).split(b"\n")):
                entry = _entry_or_none(line)
                if entry is not None:
                    yield entry

    def _private_lines(self, subject: str) -> Iterator[bytes]:
        try:
            content = self._files.read(private_key(subject))
        except NotFound:
            return
        yield from (line for line in content.split(b"\n") if line)

    def _with_private(self, entries: Sequence[ChainEntry]) -> list[AuditEntry]:
        hidden: dict[str, dict[str, bytes]] = {}
        answers = []
        for entry in entries:
            if entry.subject not in hidden:
                hidden[entry.subject] = {digest_of(line): line for line in self._private_lines(entry.subject)}
            line = hidden[entry.subject].get(entry.digest)
            answers.append(_answer(entry, None if line is None else private_of(line)))
        return answers

    # -- starting ----------------------------------------------------------------------------------------------

    def _recovered(self) -> tuple[Head, str]:
        """Where the chain ends, after what a crash left of a line is set aside."""
        noted = self._noted_head()
        keys = self._chain_files()
        if not keys:
            return noted, ""
        newest = self._files.read(keys[-1])
        whole, separator, torn = newest.rpartition(b"\n")
        last = _entry_or_none(whole.rpartition(b"\n")[2])
        if torn and (last is None or last.seq >= noted.seq):
            # It was never acknowledged. One that was stays as it is: it is damage, for the check to find.
            log.warning("%s ended within a line; what there was of it was set aside", keys[-1])
            self._files.append(_TORN, torn + b"\n", fsync=True)
            self._files.truncate(keys[-1], len(whole) + len(separator))
        head = Head() if last is None else last.head
        if head.seq < noted.seq:
            log.error("the audit trail ends with entry %d, and had %d: run 'modchat audit verify'", head.seq, noted.seq)
            head = noted
        self._keys.clear()
        recent = [entry for entry, _ in zip(self._newest_first(), range(_KEYS_REMEMBERED), strict=False) if entry.key]
        for answer, entry in zip(self._with_private(recent[::-1]), recent[::-1], strict=True):
            if entry.key is not None:
                self._remember_key(entry.key, answer)
        return head, keys[-1].removeprefix(f"{ROOT}/").removesuffix(".jsonl")

    def _noted_head(self) -> Head:
        try:
            return Head(**json.loads(self._files.read(HEAD)))
        except NotFound:
            return Head()
        except (ValueError, TypeError):
            log.error("%s is damaged; going by the chain itself", HEAD)
            return Head()

    def _finish_erasures(self) -> None:
        for key in self._chain_files():
            for line in self._files.read(key).split(b"\n"):
                entry = _entry_or_none(line) if b'"erases":"' in line else None
                if entry is not None and entry.erases is not None and self._files.exists(private_key(entry.erases)):
                    records = (private_of(line) for line in self._private_lines(entry.erases))
                    for user_id in {record.user_id for record in records if record is not None}:
                        if self.subject_of(user_id) == entry.erases:
                            self._files.delete(_person_key(user_id))
                        self._subjects.pop(user_id, None)
                    self._files.delete(private_key(entry.erases))


def _entry_or_none(line: bytes) -> ChainEntry | None:
    try:
        return entry_of(line)
    except (ValueError, TypeError):
        return None


def _answer(entry: ChainEntry, record: PrivateRecord | None) -> AuditEntry:
    shown = (None, None, None) if record is None else (record.user_id, record.resource, record.details)
    return AuditEntry(entry.seq, entry.at, entry.action, entry.subject, entry.hash, *shown)


def _person_key(user_id: str) -> str:
    return f"{ROOT}/people/{component(user_id)}.json"


def _locked(files: FlatFiles) -> int | None:
    try:
        fd = os.open(files.base / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Conflict("another process writes this audit trail; it has one writer") from None
    except OSError as error:
        raise StorageError.because(error, "lock", _LOCK) from error
    return fd
