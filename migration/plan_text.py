"""A plan in words: the checklist of a migration answered for one store, and the report for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from migration.findings import FINDINGS
from migration.preflight import ConfigFound
from migration.report import NOT_ON_DISK
from migration.survey import EXAMPLES, Survey
from migration.unit import printable

if TYPE_CHECKING:
    from migration.plan import Plan

_LAYOUTS = {
    "chat": "chat_session_*",
    "typed": "panel_*, debate_*, problem_solving_*",
    "persona": "persona_* (another program's)",
    "uuid": "bare UUIDs (another program's)",
    "other": "other names",
}
_FOREIGN_LAYOUTS = ("persona", "uuid")
_SECTIONS = (
    ("What there is", ("users", "sessions", "message_files", "documents", "contexts", "profiles", "vector_sets")),
    ("Also", ("user_personas", "global_personas", "panels", "archived", "shards")),
    ("Files", ("files", "migrated_files", "attic", "ignored", "unread", "links", "special", "empty_dirs")),
)
_TITLES = {
    "backup": "Back-up",
    "custom_configuration": "Custom configuration",
    "active_integrations": "Active integrations",
    "breaking_changes": "Breaking changes",
    "inferred": "What will be inferred",
    "test_environment": "Test environment",
    "rollback_plan": "Way back",
}


def checklist(plan: Plan) -> dict[str, list[str]]:
    """The points to go through before a migration, each with what is known about it here."""
    return {
        "backup": [
            f"{_size(plan.survey.bytes)} in {plan.survey.files.total():,} files to back up; the run itself only reads "
            "the source",
            "RollbackManager(DIR).create_backup(SOURCE) makes a back-up with a manifest of digests; it shares the data "
            "with the source where the file system can",
        ],
        "custom_configuration": list(_configuration(plan)),
        "active_integrations": list(_integrations(plan.survey)),
        "breaking_changes": [
            "programs that read or write v2's files do not find them in the new tree; LegacyStorageAdapter gives them "
            "v2's calls on the new modules, DualWriter writes to both for a while",
            "session ids are unique for each user only: every call takes user_id and session_id",
            "messages carry their id as `id`, where v2 wrote `message_id`",
        ],
        "inferred": list(_inferred(plan.survey)),
        "test_environment": [
            "rehearse with a run into a scratch --to: the source stays as it is; `modchat migrate validate` then "
            "compares both trees with code of its own",
            f"missing here: {', '.join(plan.missing_dependencies)}"
            if plan.missing_dependencies
            else "every dependency is installed here",
        ],
        "rollback_plan": [
            "the source stays as it is, so until the switch the way back is to go on using it",
            "after the switch `modchat migrate reverse` writes a v2 store from the new tree, with what was added since "
            "then; it first lists what v2 cannot hold",
            "RollbackManager(DIR).rollback(NAME, TARGET) puts a back-up in place and keeps the tree that was there",
        ],
    }


def text(plan: Plan) -> str:
    """The plan for a person."""
    survey = plan.survey
    figures = survey.figures()
    lines = [
        f"Plan for {printable(plan.source)} -> {printable(plan.target)}",
        f"Nothing was written; {survey.files.total():,} files were looked at in {plan.elapsed_s:.1f} s.",
        "",
    ]
    lines += _section("A run would refuse", plan.refusals)
    lines += _section("Look at this before a run", plan.needs_attention)
    for title, keys in _SECTIONS:
        lines.append(title)
        lines += [f"  {key.replace('_', ' '):<20} {figures[key]:>12,}" for key in keys if figures[key] or key in _SHOWN]
        lines.append("")
    lines += _section("In more detail", _details(plan))
    lines += _section("Target", _target(plan))
    if survey.findings:
        lines += ["What was found", *_findings(survey), ""]
    for key, points in checklist(plan).items():
        lines += _section(_TITLES[key], points)
    return "\n".join([*lines, NOT_ON_DISK, ""])


_SHOWN = frozenset({"users", "sessions", "files", "attic", "unread"})


def _section(title: str, points: list[str] | tuple[str, ...]) -> list[str]:
    return [title, *(f"  - {point}" for point in points), ""] if points else []


def _details(plan: Plan) -> list[str]:
    survey = plan.survey
    user, session = survey.largest_user, survey.largest_session
    found = [f"{_size(survey.bytes)}, of it {_size(survey.counts['message_bytes'])} in message files"]
    if user.name:
        found.append(f"largest user: {user.name} ({_size(user.bytes)}, {user.sessions:,} sessions)")
    if session.name:
        found.append(f"largest session: {session.name} ({_size(session.bytes)})")
    if survey.generations:
        known = ", ".join(f"{name} {count:,}" for name, count in sorted(survey.generations.items()))
        found.append(f"generations, as far as records show: {known}")
    named = [f"{what} {survey.layouts[name]:,}" for name, what in _LAYOUTS.items() if survey.layouts[name]]
    return [*found, f"sessions by name: {'; '.join(named)}"] if named else found


def _target(plan: Plan) -> list[str]:
    space, estimate = plan.space, plan.estimate
    inodes = "not counted here" if space.free_inodes is None else f"{space.free_inodes:,} free"
    duration = _range(estimate.low_s, estimate.high_s)
    found = [
        f"space: {_size(space.needed_bytes)} needed, {_size(space.free_bytes)} free at {printable(space.at)}",
        f"inodes: {space.needed_inodes:,} needed, {inodes}",
        f"time: {duration} with {estimate.workers} worker{'s' if estimate.workers > 1 else ''}; an estimate, from "
        f"{estimate.sessions_per_s:,.0f} sessions a second and worker that were not measured here",
    ]
    if plan.resumes:
        found.append("an earlier run has written here; what it wrote is not subtracted from what is needed")
    return found


def _findings(survey: Survey) -> Iterator[str]:
    for kind, (severity, title, meaning) in FINDINGS.items():
        if kind not in survey.findings:
            continue
        finding = survey.findings[kind]
        yield f"  [{severity.value}] {title} ({finding.count:,}): {meaning}"
        for issue in finding.examples:
            yield f"      {issue.path}: {issue.detail}" if issue.detail else f"      {issue.path}"
        if finding.count > EXAMPLES:
            yield f"      ... and {finding.count - EXAMPLES:,} more"


def _configuration(plan: Plan) -> Iterator[str]:
    around = plan.surroundings
    for config in around.configs:
        yield _told(config)
    for name in around.users_dirs:
        yield f"{printable(name)}/ holds users: give --users-dir {printable(name)}, else it goes to the attic whole"
    for name in around.stores:
        yield f"{printable(name)}/ is a v2 store of its own: migrate it on its own, else it goes to the attic whole"
    if not (around.configs or around.users_dirs or around.stores):
        yield "no v2 configuration, no users directory of another name and no other store was found here"


def _told(config: ConfigFound) -> str:
    said = f"{printable(config.path)}: {config.kind}"
    if config.problem:
        return f"{said}; unusable: {config.problem}"
    if not config.names:
        return f"{said}, with v2's own file names; `modchat migrate config` translates it"
    named = ", ".join(config.names)
    how = "as this plan was made" if config.is_in_force else "give it with --config"
    return f"{said}, names other than v2's own: {named} ({how})"


def _integrations(survey: Survey) -> Iterator[str]:
    busy = sum(survey.findings[kind].count for kind in ("fresh_lock", "recent") if kind in survey.findings)
    if busy:
        yield f"{busy:,} files were touched in the last five minutes: v2 is in use, or the store was just copied"
    else:
        yield "nothing was touched in the last five minutes"
    foreign = sum(survey.layouts[name] for name in _FOREIGN_LAYOUTS)
    if foreign:
        yield f"sessions with names that v2 never gives: {foreign:,}; another program writes beside v2, find it"


def _inferred(survey: Survey) -> Iterator[str]:
    for kind in ("no_record", "no_times", "no_profile", "document_without_entry"):
        if kind in survey.findings:
            yield f"{FINDINGS[kind].title} ({survey.findings[kind].count:,}): {FINDINGS[kind].meaning}"
    if not any(survey.layouts.values()):
        yield "nothing: there are no sessions"


def _size(bytes_: int) -> str:
    size = float(bytes_)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def _range(low_s: float, high_s: float) -> str:
    low, high = _time(low_s), _time(high_s)
    return low if low == high else f"{low} to {high}"


def _time(seconds: float) -> str:
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:,.0f} {unit}" if seconds >= 1 else "under 1 s"
    return f"{seconds / 86_400:,.0f} days"
