"""Mails to users and operators about a migration, with its real figures.

Templates are ``announce-<kind>-user.txt`` and ``announce-<kind>-operator.txt``: plain text, the first line ``Subject:
...``, then an empty line. An operator's directory of templates comes before the packaged ones, name by name. A figure
that a template asks for and that this migration does not have is an error, not an empty place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from enum import StrEnum
from pathlib import Path
from typing import Any

from migration.cutover_journal import Journal
from migration.cutover_report import report_of
from migration.cutover_steps import Ending
from migration.durable import replace_file
from migration.state import RefusedError, State
from migration.templating import TemplateBroken, page
from migration.unit import printable
from migration.v2.read import SourceError
from modules.core.layout import component


class Kind(StrEnum):
    BEFORE = "before"
    DURING = "during"
    AFTER = "after"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. *name* is the path that it gets below the output directory, without extension."""

    name: str
    subject: str
    body: str
    to: str = ""

    def text(self) -> str:
        return f"Subject: {self.subject}\n\n{self.body}"

    def eml(self, sender: str, when: datetime) -> bytes:
        message = EmailMessage(policy=SMTP)
        message["Subject"] = printable(self.subject)
        if sender:
            message["From"] = sender
        if self.to:
            message["To"] = self.to
        message["Date"] = when
        message.set_content(printable(self.body))
        return message.as_bytes()


class Announcements:
    """The mails of one kind about the migration at *target*.

    Raises `SourceError` when no migration was made there, `RefusedError` when none has ended, or when the cut-over did
    not end as the kind says.
    """

    def __init__(self, target: str, kind: Kind, *, templates: Path | None = None, contact: str = "") -> None:
        self._target, self._kind, self._templates = target, kind, templates
        self._common = {**figures_of(target, kind), "contact": contact}

    def operator(self, to: str = "") -> Mail:
        return self._mail("operator", f"{self._kind}/operator", self._common, to)

    def users(self, wanted: Sequence[str] = ()) -> Iterator[Mail]:
        """One for each user of the new side, or for those *wanted*. Raises `RefusedError` for one who is not there."""
        for user in wanted or users_of(self._target):
            own = user_figures(self._target, user)
            if own is None:
                raise RefusedError(f"{self._target}: has no user {user!r}")
            values = {**self._common, "user": own}
            yield self._mail("user", f"{self._kind}/users/{component(user)}", values, str(own["email"] or ""))

    def _mail(self, who: str, name: str, values: dict[str, Any], to: str) -> Mail:
        template = f"announce-{self._kind}-{who}.txt"
        text = page(template, values, self._templates)
        first, _, body = text.partition("\n")
        if not first.startswith("Subject: ") or not body.startswith("\n"):
            raise TemplateBroken(f"template {template}: its first line must be `Subject: ...`, its second one empty")
        subject = first.removeprefix("Subject: ").strip()
        return Mail(name, subject, body[1:], _address(to))


def write_mails(mails: Iterable[Mail], out: Path, *, sender: str, when: datetime) -> int:
    """Puts each mail below *out* as ``.txt`` and ``.eml``; how many there were."""
    count = 0
    for mail in mails:
        count += 1
        base = out / mail.name
        base.parent.mkdir(parents=True, exist_ok=True)
        replace_file(base.with_name(f"{base.name}.txt"), mail.text().encode("utf-8", "backslashreplace"))
        replace_file(base.with_name(f"{base.name}.eml"), mail.eml(sender, when))
    return count


def figures_of(target: str, kind: Kind) -> dict[str, Any]:
    """What is known of the migration as a whole."""
    state = State(target)
    if not state.exists():
        raise SourceError(target, "no migration was made here; name the store of `modchat migrate run --to`")
    run = state.read("run.json") or {}
    if run.get("complete") is None:
        raise RefusedError(f"{target}: no run has ended here yet, so there are no figures to announce")
    last = _last_report(state)
    position = Journal(target).position
    wanted = {Kind.AFTER: Ending.DONE, Kind.ROLLED_BACK: Ending.ROLLED_BACK}.get(kind)
    if wanted is not None and position.ended is not wanted:
        found = position.ended or ("under way" if position.is_under_way else "none was begun")
        raise RefusedError(f"{target}: the cut-over must be {wanted} to announce {kind}; it is: {found}")
    cutover = report_of(Journal(target), datetime.now(UTC)) if position.begun is not None else None
    return {
        "source": run["source"],
        "target": target,
        "migration": last,
        "validation": _last_validation(state),
        "cutover": cutover,
        "estimated_downtime_s": last["elapsed_s"],
    }


def user_figures(target: str, user: str) -> dict[str, Any] | None:
    """What one user has on the new side; None when there is no such user."""
    home = f"{target}/text_chat/sessions/{component(user)}"
    profile_path = f"{target}/text_chat/users/{component(user)}/profile.json"
    profile = _object(profile_path)
    sessions = messages = 0
    try:
        names = sorted(os.listdir(home))
    except FileNotFoundError:
        if profile is None:
            return None
        names = []
    for name in names:
        about = _object(f"{home}/{name}/metadata.json")
        if about is None:
            continue
        sessions += 1
        messages += _lines(f"{home}/{name}/messages.jsonl")
    known = profile or {}
    named = (known, known.get("metadata"), known.get("preferences"))
    email = next((found["email"] for found in named if isinstance(found, dict) and found.get("email")), None)
    return {
        "id": user,
        "name": known.get("username") or user,
        "email": email if isinstance(email, str) else None,
        "sessions": sessions,
        "messages": messages,
    }


def users_of(target: str) -> list[str]:
    """Ids of everybody who has a profile or a session on the new side."""
    found: dict[str, str] = {}
    for below, file in (("sessions", "metadata.json"), ("users", "profile.json")):
        home = f"{target}/text_chat/{below}"
        for name in _names(home):
            places = [f"{home}/{name}/{file}"]
            if below == "sessions":
                places = [f"{home}/{name}/{session}/{file}" for session in _names(f"{home}/{name}")]
            about = next((value for place in places if (value := _object(place)) is not None), None)
            if about is not None and isinstance(about.get("user_id"), str):
                found[name] = about["user_id"]
    return sorted(found.values())


def _address(text: str) -> str:
    """An address for a header; empty for what is none: a line feed in it would be a header of its own."""
    plain = text.strip()
    return plain if "@" in plain and plain.isprintable() and not any(c in plain for c in "\r\n,;<>") else ""


def _last_report(state: State) -> dict[str, Any]:
    reports = sorted(name for name in _files(state.reports) if name.startswith("run-") and name.endswith(".json"))
    found = state.read(f"reports/{reports[-1]}") if reports else None
    if found is None:
        raise RefusedError(f"{state.reports}: the report of the last run is not there; run the migration again")
    return found


def _last_validation(state: State) -> dict[str, Any] | None:
    names = sorted(name for name in _files(state.reports) if name.startswith("validate-") and name.endswith(".json"))
    return state.read(f"reports/{names[-1]}") if names else None


def _files(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _object(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RefusedError(f"{path}: damaged ({error})") from error
    return value if isinstance(value, dict) else None


def _lines(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except FileNotFoundError:
        return 0
