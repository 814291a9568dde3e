"""The usual session: a session.json and a messages.jsonl as v2 wrote them, and nothing else.

Nearly all sessions of a large store are of this kind, so here every system call and every object counts: calls
relative to open directories, one read a file, the messages proved plain and renamed in one step (`lines`). The
sessions of a user whom the target does not have are staged and published together, so that one rename does for all.
Anything that differs in any way is left to the general way (`sessions`), before anything is written; both give the
same bytes.
"""

from __future__ import annotations

import os
from functools import lru_cache
from stat import S_ISREG

import xxhash

from migration.embed import display_name
from migration.job import Job
from migration.lines import plain_messages
from migration.target import TargetError, temporary_name
from migration.transform import plain_profile, plain_session, plain_session_metadata
from migration.unit import COUNTS, MIGRATED, TRANSFORM_VERSION, Unit, content_digest
from migration.v2.names import BACKUP
from migration.v2.read import FILE_FLAGS, RACY_NS, open_directory, read_file
from modules.core.layout import component

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_SESSIONS, _MESSAGES, _LINES = COUNTS.index("sessions"), COUNTS.index("messages"), COUNTS.index("lines")
_PROFILES = COUNTS.index("profiles")
_NO_COUNTS = [0] * len(COUNTS)
_ONE_READ = 65536
_METADATA_TEMPORARY = temporary_name("metadata.json")  # the general way's, which so takes away what a crash left


class PlainSessions:
    """Migrates the plain sessions of one user directory that has one place, below a users directory.

    *may_stage*: what is written may stay hidden until `publish`.
    """

    def __init__(self, job: Job, user_dir: str, user_id: str, *, may_stage: bool = False) -> None:
        self._job = job
        self._may_stage = may_stage
        self._staged: int | None = None
        self._user_id = user_id
        self._user = component(user_id)
        self._shown = f"{job.shown(os.path.dirname(user_dir))}/{display_name(os.path.basename(user_dir))}"
        self._path = user_dir
        self._fd = open_directory(user_dir)
        self._record_name = job.names.session
        self._messages_name = job.names.messages
        self._in_order = self._messages_name < self._record_name

    def close(self) -> None:
        os.close(self._fd)

    def publish(self) -> None:
        """Lets everybody see what was migrated. From here on each session is published by itself.

        Raises `UserTakenError`: somebody else has made a directory for the user, and nothing was published.
        """
        self._may_stage = False
        if self._staged is not None:
            self._staged = None
            self._job.target.publish_user()

    def migrate(self, child: str) -> Unit | None:
        """The migrated session, or None, with nothing written, when it is not of the usual kind."""
        if not child.isascii() or (".backup_" in child and BACKUP.fullmatch(child)):
            return None
        record_name, messages_name = f"{child}/{self._record_name}", f"{child}/{self._messages_name}"
        has_messages = self._look(child)
        if has_messages is None:
            return None
        try:
            raw, record_mtime = self._read(record_name)
            text, text_mtime = self._read(messages_name) if has_messages else (None, 0)
        except OSError:
            return None  # the general way meets the error again and reports it
        record = plain_session(raw)
        if record is None or record.user_id != self._user_id:
            return None
        migrated, count = None, 0
        if text is not None:
            plain = plain_messages(text)
            if plain is None:
                return None
            migrated, count = plain.text, len(plain.ids)
        session = component(child)
        metadata = plain_session_metadata(record, raw, child, f"{self._shown}/{child}", count)
        if not self._write(session, migrated, metadata):
            return None
        files = [(record_name, len(raw), record_mtime, MIGRATED)]
        digests = [xxhash.xxh3_128_digest(raw)]
        if text is not None:
            files.append((messages_name, len(text), text_mtime, MIGRATED))
            digests.append(xxhash.xxh3_128_digest(text))
            if self._in_order:  # of names, in which the general way notes them
                files.reverse()
                digests.reverse()
        written = {f"text_chat/sessions/{self._user}/{session}": -1 if migrated is None else len(migrated)}
        racy = self._job.now_ns - max(record_mtime, text_mtime) <= RACY_NS
        return Unit(child, files, _counts_of(count), content_digest(digests), written=written, racy=racy)

    def is_unchanged(self, child: str, known: Unit) -> bool:
        """Whether a child certainly holds just the files that *known* is of, as they were; False when in doubt."""
        if known.racy or known.version != TRANSFORM_VERSION or len(known.files) > 2 or not child.isascii():
            return False
        try:
            # As many as are known, and each one that is known, all directly in the child: so no other.
            if len(os.listdir(f"{self._path}/{child}")) != len(known.files):
                return False
            for name, size, mtime_ns, _ in known.files:
                if name.count("/") != 1:
                    return False
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if status.st_size != size or status.st_mtime_ns != mtime_ns or not S_ISREG(status.st_mode):
                    return False
        except (OSError, ValueError):  # a name that is not UTF-8 stands in the ledger with a NUL in it
            return False
        return True

    def migrate_profile(self, name: str) -> Unit | None:
        """The migrated profile, as the unit of what stands directly in the directory; None when it is not usual."""
        job = self._job
        try:
            raw, status = read_file(name, self._fd, job.now_ns)
        except OSError:
            return None
        data = plain_profile(raw, self._user_id, f"{self._shown}/{name}")
        if data is None:
            return None
        job.target.write(f"text_chat/users/{self._user}/profile.json", data)
        counts = _NO_COUNTS.copy()
        counts[_PROFILES] = 1
        files = [(name, len(raw), status.st_mtime_ns, MIGRATED)]
        digest = content_digest([xxhash.xxh3_128_digest(raw)])
        racy = job.now_ns - status.st_mtime_ns <= RACY_NS
        return Unit("", files, counts, digest, racy=racy, outputs=job.target.take_outputs())

    def _look(self, child: str) -> bool | None:
        """Whether the session has messages; None when it has no record, or anything else."""
        record = messages = False
        try:
            with os.scandir(f"{self._path}/{child}") as entries:
                for entry in entries:
                    name = entry.name
                    if name == self._messages_name:
                        messages = entry.is_file(follow_symlinks=False)
                        if not messages:
                            return None
                    elif name == self._record_name:
                        record = entry.is_file(follow_symlinks=False)
                    else:
                        return None
        except OSError:
            return None
        return messages if record else None

    def _read(self, name: str) -> tuple[bytes, int]:
        """A file's bytes and mtime (ns): as `read_file`, with the usual case in line. Raises `OSError`."""
        fd = os.open(name, FILE_FLAGS, dir_fd=self._fd)
        try:
            status = os.fstat(fd)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            data = os.read(fd, size + 1) if size < _ONE_READ else b""
        finally:
            os.close(fd)
        if len(data) == size and self._job.now_ns - mtime_ns > RACY_NS:
            return data, mtime_ns
        data, status = read_file(name, self._fd, self._job.now_ns)
        return data, status.st_mtime_ns

    def _write(self, session: str, messages: bytes | None, metadata: bytes) -> bool:
        """Writes a session that is not there yet, metadata.json last; False, with nothing written, when it is there."""
        target = self._job.target
        if self._may_stage:
            self._may_stage = False
            self._staged = target.stage_user(self._user)
        fd = target.user_sessions(self._user) if self._staged is None else self._staged
        try:
            os.mkdir(session, dir_fd=fd)
        except FileExistsError:
            return False
        except OSError as error:
            raise TargetError.of(target.base, f"text_chat/sessions/{self._user}/{session}", error) from error
        try:
            if messages is not None:
                _write(f"{session}/messages.jsonl", messages, fd)
            if self._staged is not None:
                _write(f"{session}/metadata.json", metadata, fd)
            else:
                temporary = f"{session}/{_METADATA_TEMPORARY}"
                _write(temporary, metadata, fd)
                os.rename(temporary, f"{session}/metadata.json", src_dir_fd=fd, dst_dir_fd=fd)
        except OSError as error:
            raise TargetError.of(target.base, f"text_chat/sessions/{self._user}/{session}", error) from error
        return True


@lru_cache(maxsize=4096)
def _counts_of(messages: int) -> list[int]:
    """The counts of a session with so many messages; shared, as nobody changes a finished unit's."""
    counts = _NO_COUNTS.copy()
    counts[_SESSIONS] = 1
    counts[_MESSAGES] = counts[_LINES] = messages
    return counts


def _write(path: str, data: bytes, dir_fd: int) -> None:
    fd = os.open(path, _WRITE_FLAGS, 0o666, dir_fd=dir_fd)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
    finally:
        os.close(fd)
