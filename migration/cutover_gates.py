"""What must hold for a cut-over to go on: decisions about figures, pure but for the looks at the bottom."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from migration.issues import KINDS, Severity
from migration.v2.names import LOCK_SUFFIX
from migration.v2.read import SourceError
from migration.verify.report import Report
from modules.core.layout import component

ACCEPTABLE = ("conflict", "replaced")
"""Findings of a run that an operator may accept: both versions are kept. All others of that weight veto."""

_ENDS = ("messages", "archived_messages", "panel_messages", "quarantined", "blank")
_SHOWN = 3


class Verdict(StrEnum):
    GO = "go"
    NO_GO = "no go"
    LATER = "later"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that was looked at. LATER: it can only be told on the way. NOTE: it stops nothing."""

    name: str
    verdict: Verdict
    detail: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def go(gates: Iterable[Gate]) -> bool:
    return all(gate.verdict is not Verdict.NO_GO for gate in gates)


def vetoes(gates: Iterable[Gate]) -> str:
    return "; ".join(f"{gate.name}: {gate.detail}" for gate in gates if gate.verdict is Verdict.NO_GO)


def _gate(name: str, is_good: bool, good: str, bad: str) -> Gate:
    return Gate(name, Verdict.GO if is_good else Verdict.NO_GO, good if is_good else bad)


def findings_gate(run: Mapping[str, Any], accepted: Collection[str]) -> Gate:
    """From a run's report as JSON: nothing that a person has to look at, but for what was accepted."""
    weighty = {kind: n for kind, n in run["issues"].items() if KINDS[kind][0] is Severity.ATTENTION}
    open_ = {kind: n for kind, n in weighty.items() if kind not in accepted or kind not in ACCEPTABLE}
    text = ", ".join(f"{kind} ({n}): {KINDS[kind][1]}" for kind, n in (open_ or weighty).items())
    if set(open_) & set(ACCEPTABLE):
        text += "; look at them, then --accept them"
    return _gate("findings of the run", not open_, f"accepted: {text}" if text else "none", text)


def conservation_gate(run: Mapping[str, Any]) -> Gate:
    """The sums of a run's report, added up anew: every line that was read has one end."""
    ended = sum(run[name] for name in _ENDS)
    balanced = ended == run["lines"] and not run["issues"].get("unbalanced") and not run["unread"]
    return _gate(
        "conservation",
        balanced,
        f"{run['lines']:,} lines read and accounted for, {run['quarantined']:,} of them in quarantine",
        f"{run['lines']:,} lines were read, {ended:,} accounted for, {run['unread']:,} files unread",
    )


def lag_gate(changed: int, limit: int, passes: int) -> Gate:
    return _gate(
        "lag",
        changed <= limit,
        f"{changed:,} sessions in the last of {passes} back-fills, at most {limit:,} wanted",
        f"{changed:,} sessions in the last of {passes} back-fills, more than {limit:,}: wait for a quiet hour, or "
        "allow more with --max-lag",
    )


def queue_gate(waiting: Mapping[str, int]) -> Gate:
    """*waiting*: by path of a dual writer's queue, the writes that the new side lacks."""
    behind = {path: n for path, n in waiting.items() if n}
    text = ", ".join(f"{path}: {n:,}" for path, n in behind.items())
    return _gate(
        "dual writer",
        not behind,
        f"{len(waiting)} queues, nothing waits" if waiting else "no queue was named",
        f"writes wait for the new side ({text}): replay them",
    )


def rest_gate(newest: tuple[int, str] | None, fenced_at_ns: int) -> Gate:
    """*newest*: when a file of v2 was last changed (ns), and which."""
    changed = newest is not None and newest[0] > fenced_at_ns
    path = newest[1] if newest is not None else ""
    return _gate(
        "v2 at rest", not changed, "nothing has changed since the fence", f"{path} was changed since: v2 is not fenced"
    )


def validation_gate(report: Report, users: Sequence[str], served_by_new: Collection[str]) -> Gate:
    """Whether the validation found both sides equal: everybody, or the *users* of a wave. Whoever is already
    *served_by_new* has gone on there, and is not compared any more."""
    if not users and not served_by_new:
        problems = [str(finding) for finding in report.errors]
        good = report.equal
    else:
        wanted = set(users) or set(report.users) - set(served_by_new)
        problems = [f"no user {user!r} in v2" for user in sorted(wanted) if user not in report.users]
        problems += [f"user {user!r} differs" for user in sorted(wanted & set(report.users)) if not _same(report, user)]
        problems += [str(finding) for finding in report.errors if _concerns(finding.path, users, served_by_new)]
        # Findings beyond the number that is kept may be of those who live on; the nodes of a wave's users tell of all.
        good = not problems and (bool(users) or not report.omitted)
    if not good and not problems:
        problems = ["the roots differ"]
    shown = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
    what = f"{len(users):,} users" if users else f"{len(report.users):,} users"
    depth = "" if report.sample is None else f", {report.sample:.1%} of them in depth"
    return _gate("validation", good, f"equal: {what}{depth}", shown)


def _same(report: Report, user: str) -> bool:
    return report.users[user].equal


def _concerns(path: str, users: Sequence[str], served_by_new: Collection[str]) -> bool:
    """Whether a finding at *path* (in v2 or in the target) weighs: for a wave, if it is one of its users'; else, if it
    is none of those who have gone on."""
    parts = set(path.split("/"))
    if users:
        return any(user in parts or component(user) in parts for user in users)
    return not any(user in parts or component(user) in parts for user in served_by_new)


def space_gate(at: str, needed: int, free: int) -> Gate:
    return _gate("disk space", free >= needed, f"{free:,} bytes free", f"{free:,} bytes free at {at}, not {needed:,}")


# ---- looks


def newest_change(source: str) -> tuple[int, str] | None:
    """When a file below *source* was last changed (ctime, which nobody can set), and which; locks do not count.

    Raises `SourceError` for what cannot be listed: an error is not the end of a list.
    """
    newest: tuple[int, str] | None = None
    for path, status in _files(source):
        if newest is None or status.st_ctime_ns > newest[0]:
            newest = (status.st_ctime_ns, path)
    return newest


def _files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.name.endswith(LOCK_SUFFIX):
                        try:
                            yield entry.path, entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # gone since it was listed; the validation counts what is missing
        except FileNotFoundError as error:
            if directory == top:
                raise SourceError.of(directory, error) from error
        except OSError as error:
            raise SourceError.of(directory, error) from error


def free_bytes(path: str) -> int:
    """What may still be written to the file system of *path*, or of where it would be made."""
    at = os.path.abspath(path)
    while not os.path.exists(at):
        at = os.path.dirname(at)
    status = os.statvfs(at)
    return status.f_bavail * status.f_frsize


def size_of(tree: str) -> int:
    """Bytes allocated for the files below *tree*. Raises `SourceError`."""
    return sum(status.st_blocks * 512 for _, status in _files(tree))
