"""What no rule claims: carried to the attic, directory by directory."""

from __future__ import annotations

from migration.job import Job
from migration.source_files import source_files
from migration.unit import Unit, UnitDraft, ledger_name
from migration.v2.read import SourceError, scan


def migrate_strays(job: Job, directory: str, known: Unit | None) -> tuple[Unit, bool, list[str]]:
    """Carries over the files directly in *directory* (absolute), unless *known* says that they were.

    Returns the unit, whether it is the known one, and the names of the directories that stand there too.
    """
    draft = UnitDraft("")
    try:
        found = sorted(scan(directory), key=lambda entry: entry.name)
    except OSError as error:
        problem = SourceError.of(directory, error)
        draft.issue("vanished" if problem.is_gone else "unread", job.shown(directory), problem.reason)
        return job.finished(draft), False, []
    below = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    files = source_files((entry.name, entry) for entry in found)
    if known is not None and files is not None and job.is_unchanged(known, files):
        return known, True, below
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            continue
        if job.is_file(draft, entry):
            job.stray(draft, entry.path, ledger_name(entry.name))
    if not found:
        draft.count("empty_dirs")
    return job.finished(draft), False, below
