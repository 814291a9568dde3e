"""A run from its guards to its report. What does the work is given: this process, or coordinators on Ray.

Phases: 1 everything that can be migrated where it stands; 3 users in foreign directories and the halves of split
sessions; 4 vector sets, whose owners are known by then. Each phase is recorded in the ledger, so a run that was
interrupted goes on wherever it was.

Once a run has ended, the next ones carry over what has changed since. Their phase 1 is a survey, which finds the
changes and writes nothing; the guards judge them (`guards.check_changes`); phase 2 does what was put off, and phase 5
puts away what v2 no longer has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from migration import guards, linking
from migration.issues import Issue
from migration.job import RunSettings, shown_path
from migration.ledger import Span, entries, index, journals
from migration.linking import Halves, Written
from migration.progress import Progress
from migration.report import RunReport
from migration.shard import Shard, ShardPlan, Totals
from migration.state import Control, RefusedError, State
from migration.target import Target, TargetError
from migration.unit import TRANSFORM_VERSION
from migration.v2.layout import natural_home, sort_child
from migration.v2.read import SourceError, is_g1_user, list_below, scan
from migration.worker import Item, Task, process
from modules.core.layout import component

_FENCE_TIMEOUT_S = 60.0

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a run, for a backend to carry out: the whole source (items None), or the given items."""

    name: str
    number: int
    settings: RunSettings
    run: int
    state: State
    items: tuple[Item, ...] | None = None
    survey: bool = False

    def shard_plan(self, shard: int, shards: int, incarnation: int) -> ShardPlan:
        journal = f"{self.run:06d}-{self.number}-{shard:04d}-{incarnation:03d}.journal"
        return ShardPlan(
            settings=self.settings,
            run=self.run,
            phase=self.number,
            shard=shard,
            shards=shards,
            ledger=self.state.ledger,
            journal=f"{self.state.ledger}/{journal}",
            fence=self.state.fence(shard),
            items=self.items,
            survey=self.survey,
        )


class Backend(Protocol):
    """Carries out the phases of a run."""

    workers: int
    shards: int

    def run_phase(self, phase: Phase, on_progress: OnProgress) -> Totals:
        """Does all items of the phase and returns the sums. Raises what stopped it."""
        ...


@dataclass(slots=True)
class LocalBackend:
    """Does everything in this process, one task after the other."""

    workers: int = 1
    shards: int = 1

    def run_phase(self, phase: Phase, on_progress: OnProgress) -> Totals:
        shard = Shard(phase.shard_plan(0, 1, 0))
        started = time.monotonic()
        try:
            while (task := _next_task(shard)) is not None:
                shard.record([(task, process(task))])
                on_progress(progress_of(phase.name, shard.totals, time.monotonic() - started, Control(), self, 0))
            shard.finish_survey()
        finally:
            shard.close()
        return shard.totals


def _next_task(shard: Shard) -> Task | None:
    try:
        return shard.next_task()
    except OSError as error:  # of listing the source
        raise SourceError.of(str(error.filename or shard.plan.settings.source), error) from error


def progress_of(
    phase: str, totals: Totals, elapsed_s: float, control: Control, backend: Backend, in_flight: int
) -> Progress:
    counts = totals.named()
    return Progress(
        phase=phase,
        elapsed_s=elapsed_s,
        users=totals.users,
        users_total=None,
        sessions=counts["sessions"],
        messages=counts["messages"],
        bytes=totals.bytes,
        quarantined=counts["quarantined"],
        in_flight=in_flight,
        paused=control.paused,
        throttle_mb_s=control.throttle_mb_s,
        workers=control.workers or backend.workers,
    )


def ignore_progress(_: Progress) -> None:
    """For callers that show none."""


@dataclass(slots=True)
class Engine:
    """One run. *final*: v2 is fenced, so that nothing may change while the run is under way."""

    settings: RunSettings
    backend: Backend
    on_progress: OnProgress = ignore_progress
    limits: guards.ChangeLimits = field(default_factory=guards.ChangeLimits)
    final: bool = False
    state: State = field(init=False)
    _profiles: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = State(self.settings.target)

    def run(self) -> RunReport:
        """Migrates. Raises `SourceError`, `RefusedError`, `TargetError`, `LedgerError` or `WorkError`."""
        started = time.perf_counter()
        started_at = time.time()
        guards.check_source(self.settings)
        guards.check_target(self.settings)
        self.state.make()
        lock = self.state.lock()
        try:
            earlier = self.state.read("run.json")
            guards.check_same_run(self.settings, earlier)
            self.state.wait_for_fences(_FENCE_TIMEOUT_S)
            self.state.clear_staging()
            run = 1 + max([_run_of(path) for path in journals(self.state.ledger)] + [(earlier or {}).get("run", 0)])
            complete = (earlier or {}).get("complete")
            if complete is not None:
                ended = (earlier or {})["updated_at"]
                self.settings = replace(self.settings, between_ns=(int(ended * 1e9), int(started_at * 1e9)))
            self._note(run, "running", started_at, complete)
            try:
                totals = self._phases(run, survey=complete is not None)
                if self.final and totals.newest_ns > started_at * 1e9:
                    totals.note(Issue("still_written", self.settings.source))
            except BaseException as error:
                outcome = "refused" if isinstance(error, RefusedError) else "interrupted"
                try:
                    self._note(run, outcome, started_at, complete)
                except TargetError as problem:  # what stopped the run is what must be said
                    error.add_note(f"run.json still says that the run is under way: {problem}")
                raise
            self.state.clear_staging()
            self._write_registry(totals)
            report = RunReport.of(
                totals, self.settings, run, time.perf_counter() - started, self.backend.workers, self.backend.shards
            )
            report.write(self.state.reports)
            self._note(run, "finished", started_at, complete if complete is not None else run)
        finally:
            os.close(lock)
        return report

    def _phases(self, run: int, *, survey: bool) -> Totals:
        first = Phase("survey" if survey else "migrate", 1, self.settings, run, self.state, survey=survey)
        totals = self.backend.run_phase(first, self.on_progress)
        guards.check_changes(self.settings.target, totals.changes, self.limits)
        later = (
            ("migrate", 2, _put_off),
            ("put together", 3, self._items_to_link),
            ("vectors", 4, self._vector_items),
            ("remove", 5, _gone),
        )
        present: set[tuple[str, bytes]] = set()
        for name, number, items_of in later:
            try:
                items = items_of(totals)
            except OSError as error:  # of looking at the source again
                raise SourceError.of(str(error.filename or self.settings.source), error) from error
            if number == 5:
                items += [
                    _removed_later(kind, name) for kind, name in totals.changes.later if (kind, name) not in present
                ]
            present |= {(item.span.kind, item.span.name) for item in items}
            if items:
                phase = Phase(name, number, self.settings, run, self.state, tuple(items))
                totals.merge(self.backend.run_phase(phase, self.on_progress))
        return totals

    def _note(self, run: int, outcome: str, started_at: float, complete: int | None) -> None:
        self.state.write(
            "run.json",
            {
                **guards.identity(self.settings),
                "run": run,
                "outcome": outcome,
                "complete": complete,
                "started_at": started_at,
                "updated_at": time.time(),
                "transform_version": TRANSFORM_VERSION,
                "workers": self.backend.workers,
                "shards": self.backend.shards,
            },
        )

    # ---- linking

    def _items_to_link(self, totals: Totals) -> list[Item]:
        items = self._with_redone(linking.merges(totals.facts, self._home_of))
        halves = Halves.among(totals.facts)
        if halves.of_session:
            items += halves.items(self._written(halves.wanted()), self._user_of)
        return items

    def _with_redone(self, merges: Sequence[Item]) -> list[Item]:
        """The items, each with whether the ledger has something newer about its home than about itself."""
        if not merges:
            return []
        homes = {item: Item("user", item.extra[0]).span for item in merges if item.extra[0] is not None}
        spans = {(span.kind, span.name) for item in merges for span in (item.span, homes.get(item, item.span))}
        places = index(self.state.ledger, lambda kind, name: (kind, name) in spans)

        def latest(span: Span) -> tuple[int, int]:
            return max((place.order for place in places.get((span.kind, span.name), ())), default=(0, 0))

        return [
            replace(item, extra=(*item.extra, item in homes and latest(homes[item]) > latest(item.span)))
            for item in merges
        ]

    def _vector_items(self, totals: Totals) -> list[Item]:
        sets = linking.vector_sets(totals.facts)
        for root in self.settings.extra_roots:
            sets += self._sets_of_extra_root(root)
        if not sets:
            return []
        wanted = {linking.session_key(session) for session, _ in sets}
        owned = linking.assign_owners(
            sets,
            self._written(wanted),
            user_of=self._user_of,
            session_dir_of=self._session_dir_of,
            elsewhere=self._sessions_elsewhere,
            directory_user=self._directory_user,
            shown=lambda path: shown_path(self.settings, path),
        )
        return [Item("vectors", found.directory, extra=found) for found in owned]

    def _written(self, wanted: set[str]) -> list[Written]:
        names = self.settings.names
        return linking.sessions_written(entries(self.state.ledger), wanted, {names.session, names.messages})

    def _home_of(self, user_id: str) -> str | None:
        return natural_home(user_id, lambda name: self._places(name) != [])

    def _places(self, name: str) -> list[str]:
        source, names = self.settings.source, self.settings.names
        places = [f"{source}/{users}/{name}" for users in names.users_dirs]
        if name not in names.reserved_top_level() and is_g1_user(f"{source}/{name}", names):
            places.append(f"{source}/{name}")
        return [place for place in places if os.path.isdir(place)]

    def _user_of(self, written: Written) -> str:
        path = f"{self.settings.target}/text_chat/sessions/{written.user}/{written.session}/metadata.json"
        return linking.component_name(written.user, lambda: _json(path), "user_id")

    def _session_dir_of(self, directory: str, session: str) -> str | None:
        paths = [f"{place}/{session}" for place in self._places(directory)]
        return next((path for path in paths if os.path.isdir(path)), None)

    def _directory_user(self, vector_directory: str) -> str:
        roots = (self.settings.source, *self.settings.extra_roots)
        root = next(root for root in roots if vector_directory.startswith(f"{root}/"))
        below = vector_directory[len(root) :].partition(f"/{self.settings.names.sessions_dir}/")[0]
        user_dir = root + below
        known = self._profiles.get(user_dir)
        if known is None:
            known = self._profiles[user_dir] = linking.named_user(user_dir, self.settings.names.profile)
        return known

    def _sets_of_extra_root(self, root: str) -> list[tuple[str, str]]:
        names = self.settings.names
        found: list[tuple[str, str]] = []
        for user_dir in self._user_dirs_of(root):
            below = f"{user_dir}/{names.sessions_dir}"
            if os.path.isdir(below) and not os.path.islink(below):
                listing = list_below(below)
                if listing.errors:
                    raise listing.errors[0]
                files = {f"{names.sessions_dir}/{name}": facts for name, facts in listing.files.items()}
                sets = sort_child(names.sessions_dir, files, names).vectors
                found += [(session, f"{user_dir}/{one.directory}") for session, one in sets.items()]
        return sorted(found, key=lambda one: one[1])

    def _sessions_elsewhere(self, session: str) -> list[tuple[str, str]]:
        names = self.settings.names
        found = []
        for root in self.settings.extra_roots:
            for user_dir in self._user_dirs_of(root):
                path = f"{user_dir}/{session}"
                if any(os.path.isfile(f"{path}/{name}") for name in (names.session, names.messages)):
                    found.append((linking.named_user(user_dir, names.profile, f"{path}/{names.session}"), path))
        return found

    def _user_dirs_of(self, root: str) -> list[str]:
        below = [f"{root}/{users}" for users in self.settings.names.users_dirs if os.path.isdir(f"{root}/{users}")]
        try:
            return [e.path for path in below for e in scan(path) if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise SourceError.of(str(error.filename or root), error) from error

    # ---- what is derived

    def _write_registry(self, totals: Totals) -> None:
        """rag/indices/document_registry.json, unless it is there and says the same."""
        documents = {row[1]: row[2:] for row in totals.facts if row[0] == "document"}
        path = "rag/indices/document_registry.json"
        present = _bytes(f"{self.settings.target}/{path}")
        data = registry_json(documents, self._documents_of_the_platform(present, documents))
        if present == data or (present is None and not documents):
            return
        target = Target(self.settings.target)
        try:
            target.write(path, data)
        finally:
            target.close()

    def _documents_of_the_platform(self, present: bytes | None, migrated: Collection[str]) -> dict[str, Any]:
        """What the registry says of documents that the platform has added and still has."""
        if present is None or self.settings.between_ns is None:
            return {}
        try:
            known = json.loads(present)["documents"]
        except (ValueError, KeyError, TypeError):
            return {}  # derived, and damaged: it is made anew from what there is
        home = f"{self.settings.target}/rag/documents"
        return {
            document: entry
            for document, entry in known.items()
            if document not in migrated and os.path.exists(f"{home}/{component(document)}/metadata.json")
        }


def _put_off(totals: Totals) -> list[Item]:
    return list(totals.changes.put_off)


def _gone(totals: Totals) -> list[Item]:
    return list(totals.changes.gone_items)


def _removed_later(kind: str, name: bytes) -> Item:
    decoded = name.decode("utf-8", "surrogatepass") if kind == "merge" else os.fsdecode(name)
    return Item("removed", decoded, extra=(kind, None))


def registry_json(documents: Mapping[str, Sequence[str]], others: Mapping[str, Any] | None = None) -> bytes:
    """The document registry: {id: [user_id, session_id, title, content_type, size in bytes, sha256]} as its JSON, with
    the entries of *others* as they are."""
    keys = ("user_id", "session_id", "title", "content_type", "size_bytes", "sha256")
    registry: dict[str, Any] = dict(others or {})
    for document, row in documents.items():
        entry: dict[str, Any] = dict(zip(keys, row, strict=True))
        registry[document] = {**entry, "size_bytes": int(entry["size_bytes"]), "sha256": entry["sha256"] or None}
    registry = dict(sorted(registry.items()))
    text = json.dumps({"documents": registry}, ensure_ascii=False, indent=2)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _run_of(journal: str) -> int:
    return int(os.path.basename(journal).split("-")[0])


def _json(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        value = json.load(file)
    return value if isinstance(value, dict) else {}


def _bytes(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
