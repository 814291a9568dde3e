"""The way back: a v2 store written from a migrated tree (docs/target.md, section 4).

For a tree that nothing has touched since its migration, every file of v2 comes back byte for byte, but for ``.lock``
files, empty directories, links and special files, which were never carried over. What was written on the platform
since becomes v2's where v2 has a place for it; what it has none for is listed before anything is written (`preview`).
Modification times of files are not restored.

The source is only read, and nobody may write to it meanwhile. A way back that was interrupted goes on where its
marker stands; one that finished leaves a plain v2 store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from migration.fanout import FanOut, LocalFanOut
from migration.reverse_files import (
    restore_document,
    restore_new_profile,
    restore_panel,
    restore_persona,
    restore_profile,
    restore_stray,
    restore_vectors,
)
from migration.reverse_preview import Loss, preview
from migration.reverse_sessions import SessionPlace, restore_new_session, restore_session
from migration.reverse_work import FINDINGS, Finding, Outcome, ReverseSettings, Work, files_below
from migration.state import STATE_DIR, RefusedError, State
from migration.target import Target, TargetError
from migration.unit import printable
from migration.v2.layout import sanitised
from migration.v2.names import V2Names
from modules.core.layout import name_of

__all__ = ["Finding", "Loss", "ReverseRefusedError", "ReverseReport", "preview", "reverse"]

MARKER = ".modchat-reverse-incomplete"
_BATCH = 256

COUNTS = (
    "users",
    "profiles",
    "sessions",
    "messages",
    "archived",
    "documents",
    "vector_sets",
    "personas",
    "panels",
    "panel_messages",
    "attic",
    "files",
    "bytes",
    "new_profiles",
    "new_sessions",
    "new_messages",
    "new_panel_messages",
)


class ReverseRefusedError(RefusedError):
    """The way back would not be safe. Says what to do."""


@dataclass(frozen=True, slots=True)
class ReverseReport:
    """What a way back did.

    counts: by the names in `COUNTS`; messages are those of live sessions, new ones included. findings: what a person
    should look at. losses: what v2 has no place for, as `preview` said it beforehand.
    """

    source: str
    target: str
    elapsed_s: float
    counts: Mapping[str, int]
    findings: Sequence[Finding] = ()
    losses: Sequence[Loss] = ()

    @property
    def exit_code(self) -> int:
        """1 when a person should look at something, else 0."""
        return int(bool(self.findings))

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "source": self.source,
            "target": self.target,
            "elapsed_s": round(self.elapsed_s, 6),
            **self.counts,
            "findings": [
                {"kind": f.kind, "meaning": FINDINGS[f.kind], "path": printable(f.path), "detail": printable(f.detail)}
                for f in self.findings
            ],
            "losses": [
                {
                    "kind": loss.kind,
                    "count": loss.count,
                    "bytes": loss.bytes,
                    "examples": [printable(path) for path in loss.examples],
                }
                for loss in self.losses
            ],
            "exit_code": self.exit_code,
        }


def reverse(source: str, target: str, *, fan_out: FanOut | None = None) -> ReverseReport:
    """Writes a v2 store at *target* from the migrated tree at *source*, and says what became of it.

    Raises `ReverseRefusedError` before anything is written when *source* is no migrated tree or one that a migration is
    writing to, when one of the two contains the other, or when *target* holds anything but an interrupted way back;
    `TargetError` when *target* cannot be written, and `OSError` when *source* cannot be listed.
    """
    started = time.perf_counter()
    source, target = os.path.abspath(source), os.path.abspath(target)
    _check_source(source)
    resumed = _check_target(source, target)
    settings, findings = _settings(source, target, resumed)
    losses = preview(source)
    _begin(target)
    run = (fan_out or LocalFanOut()).map
    total = Outcome(findings=findings)
    for outcome in run(partial(restore, settings), _batches(source)):
        total.add(outcome)
    for outcome in run(partial(restore, settings), _batches_of_new(total.new_users)):
        total.add(outcome)
    _finish(target)
    counts = {name: total.counts[name] for name in COUNTS}
    return ReverseReport(source, target, time.perf_counter() - started, counts, tuple(sorted(total.findings)), losses)


# ---- what must hold before ------------------------------------------------------------------------------------------


def _check_source(source: str) -> None:
    if not os.path.isdir(f"{source}/{STATE_DIR}") and not os.path.isdir(f"{source}/text_chat"):
        raise ReverseRefusedError(
            f"{source}: is no migrated tree (neither {STATE_DIR} nor text_chat is there); name the platform's base path"
        )
    if State(source).is_active():
        raise ReverseRefusedError(f"{source}: a migration is writing to it; wait for its end, then reverse")


def _check_target(source: str, target: str) -> bool:
    """Whether the target holds an interrupted way back that goes on; False for one that begins."""
    one, other = os.path.realpath(source), os.path.realpath(target)
    if one == other or one.startswith(other.rstrip("/") + "/") or other.startswith(one.rstrip("/") + "/"):
        raise ReverseRefusedError(f"{target}: source and target must not contain each other; choose another target")
    if not os.path.lexists(target):
        return False
    if not os.path.isdir(target):
        raise ReverseRefusedError(f"{target}: is not a directory; choose another target")
    if os.path.lexists(f"{target}/{MARKER}"):
        return True
    if os.listdir(target):
        raise ReverseRefusedError(f"{target}: is not empty; choose an empty or new directory")
    return False


def _settings(source: str, target: str, resumed: bool) -> tuple[ReverseSettings, list[Finding]]:
    """The settings that the migration ran with, and what is to be said of it."""
    try:
        run = State(source).read("run.json")
    except RefusedError as error:
        raise ReverseRefusedError(str(error)) from error
    if run is None:
        return ReverseSettings(source, target, resumed=resumed), []
    kept: dict[str, Any] = {**run.get("names", {}), "users_dirs": run.get("users_dirs", V2Names().users_dirs)}
    try:
        names = msgspec.convert(kept, V2Names)
    except msgspec.ValidationError as error:
        raise ReverseRefusedError(f"{source}/{STATE_DIR}/run.json: {error}; restore it from a backup") from error
    findings = []
    if run.get("outcome") != "finished":
        findings.append(Finding("unfinished_migration", f"{STATE_DIR}/run.json", f"outcome {run.get('outcome')!r}"))
    return ReverseSettings(source, target, names, run.get("source_timezone"), resumed), findings


def _begin(target: str) -> None:
    try:
        os.makedirs(target, exist_ok=True)
        with open(f"{target}/{MARKER}", "wb"):
            pass
    except OSError as error:
        raise TargetError.of(target, MARKER, error) from error


def _finish(target: str) -> None:
    tree = Target(target)
    try:
        tree.sync()
        tree.remove(MARKER)
        tree.sync()
    finally:
        tree.close()


# ---- the work, in batches -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """Things of one kind to restore, by the names that their function in `_RESTORE` takes."""

    kind: str
    things: tuple[Any, ...]


def restore(settings: ReverseSettings, batch: Batch) -> Outcome:
    """Does one batch, durably. Raises `TargetError`."""
    work = Work(settings, Target(settings.target))
    try:
        function = _RESTORE[batch.kind]
        for thing in batch.things:
            function(work, thing)
        work.target.sync()
    finally:
        work.target.close()
    return work.outcome


def _restore_user(work: Work, user: str) -> None:
    work.outcome.counts["users"] += 1
    restore_profile(work, user)
    archive = f"text_chat/archive/{user}"
    for session in work.list(archive):
        for stamp in work.list(f"{archive}/{session}"):
            restore_session(work, SessionPlace(user, session, stamp))


def _restore_new_user(work: Work, user: str) -> None:
    restore_new_profile(work, user)
    for session in work.list(f"text_chat/sessions/{user}"):
        restore_new_session(work, SessionPlace(user, session))


_RESTORE: dict[str, Callable[[Work, Any], None]] = {
    "user": _restore_user,
    "session": restore_session,
    "document": restore_document,
    "vectors": restore_vectors,
    "persona": restore_persona,
    "panel": restore_panel,
    "stray": restore_stray,
    "new user": _restore_new_user,
}


def _batches(source: str) -> Iterator[Batch]:
    """Everything that came from v2. Raises `OSError`."""
    users = _names(source, "text_chat/sessions")
    everyone = {*users, *_names(source, "text_chat/users"), *_names(source, "text_chat/archive")}
    yield from _in_batches("user", iter(sorted(everyone)))
    yield from _in_batches("session", _sessions(source, users))
    for kind, directory in (
        ("document", "rag/documents"),
        ("vectors", "rag/embeddings"),
        ("persona", "persona/definitions"),
        ("panel", "multi_agent/conversations"),
    ):
        yield from _in_batches(kind, (f"{directory}/{name}" for name in _names(source, directory)))
    owners = _names(source, "persona/users")
    personas = (f"persona/users/{user}/{name}" for user in owners for name in _names(source, f"persona/users/{user}"))
    yield from _in_batches("persona", personas)
    strays = (path.removeprefix("attic/") for path in files_below(source, "attic"))
    yield from _in_batches("stray", strays)


def _sessions(source: str, users: Sequence[str]) -> Iterator[SessionPlace]:
    for user in users:
        for session in _names(source, f"text_chat/sessions/{user}"):
            yield SessionPlace(user, session)


def _batches_of_new(users: set[str]) -> Iterator[Batch]:
    """Users with something made on the platform; those whom v2 puts into one directory are in one batch.

    They come after everything else, so what stands in their way already stands there.
    """
    by_directory = sorted(users, key=lambda user: (sanitised(name_of(user) or user), user))
    home, batch = "", list[str]()
    for user in by_directory:
        own = sanitised(name_of(user) or user)
        if own != home and len(batch) >= _BATCH:
            yield Batch("new user", tuple(batch))
            batch = []
        home = own
        batch.append(user)
    if batch:
        yield Batch("new user", tuple(batch))


def _in_batches(kind: str, things: Iterator[Any]) -> Iterator[Batch]:
    while batch := tuple(islice(things, _BATCH)):
        yield Batch(kind, batch)


def _names(source: str, directory: str) -> list[str]:
    """The names of the directories in a directory; none when it is not there. Raises `OSError`."""
    try:
        with os.scandir(f"{source}/{directory}") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
