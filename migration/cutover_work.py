"""What each step of a cut-over does. Every step may be done again after a crash in its middle, and then ends the same.

A step gives what its record in the journal holds. It raises `Vetoed` when a gate is closed, `HookFailed` when a
command says no, and what the work itself raises.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from migration import cutover_gates as gates
from migration.backup_manifest import Manifest, Unreadable
from migration.cutover_gates import Gate, Verdict
from migration.cutover_hooks import HookFailed, HookName, run_hook
from migration.cutover_options import Options
from migration.cutover_preflight import first_gates, waiting_in
from migration.cutover_serving import Routes, Serving, Side
from migration.cutover_steps import Position, Step, Way
from migration.cutover_sync import Syncer
from migration.guards import check_same_run, check_source, check_target
from migration.job import RunSettings
from migration.report import RunReport
from migration.rollback import RollbackManager
from migration.state import STATE_DIR, BusyError, RefusedError, State
from migration.tree_swap import Replacement, inode_of, real
from migration.verify.report import write_report

_BACKUP_ATTEMPTS = 3
_HEALTH_PAUSE_S = 1.0


class Vetoed(RefusedError):
    """A gate is closed."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the steps work with. *steps* is called with a name before whatever a crash could leave half done."""

    syncer: Syncer
    environ: Mapping[str, str]
    steps: Callable[[str], None]
    now_ns: Callable[[], int]
    sleep: Callable[[float], None]


class Work:
    """The steps of one cut-over; *position* is where its journal stands."""

    def __init__(self, tools: Tools, settings: RunSettings, options: Options, position: Position) -> None:
        self.tools, self.settings, self.options, self.position = tools, settings, options, position
        self.serving = Serving(settings.target)
        self._syncer = tools.syncer

    def do(self, step: Step) -> dict[str, Any]:
        return _DO[step](self)

    # ---- forward

    def prepare(self) -> dict[str, Any]:
        check_source(self.settings)
        check_target(self.settings)
        state = State(self.settings.target)
        earlier = state.read("run.json")
        check_same_run(self.settings, earlier)
        if state.is_active():
            raise BusyError(f"{self.settings.target}: a run is at work here; wait for it, then continue")
        found = first_gates(self.settings, self.options)
        _insist(found)
        return {"gates": [gate.to_json() for gate in found]}

    def back_up(self) -> dict[str, Any]:
        if self.options.backups is None:
            return {"skipped": "no directory of backups"}
        manager = RollbackManager(self.options.backups, steps=self.tools.steps, clock=self._now)
        name = self.options.use_backup or self._backup_made(manager) or self._make_backup(manager)
        summary = manager.verify(name)
        if summary.source != os.fspath(real(self.settings.source)):
            raise Vetoed(f"backup {name} is of {summary.source}, not of {self.settings.source}")
        return {"backup": name, "files": summary.files, "bytes": summary.bytes, "created_at": summary.created_at}

    def back_fill(self) -> dict[str, Any]:
        (run, changed), passes = self._sync_once(final=False), 1
        while changed > self.options.max_lag and passes < self.options.passes:
            (run, changed), passes = self._sync_once(final=False), passes + 1
        found = [*self._gates_of(run), gates.lag_gate(changed, self.options.max_lag, passes)]
        _insist(found)
        return {"passes": passes, **_figures(run), "gates": [gate.to_json() for gate in found]}

    def fence(self) -> dict[str, Any]:
        self._route(self.serving.routes().moved(self.options.users, Side.FENCED))
        self.serving.wait_for_writers(self.options.drain_s, sleep=self.tools.sleep)
        hook = self._hook(HookName.STOP_OLD)
        return {"fenced_at_ns": self.tools.now_ns(), "hook": hook}

    def final_sync(self) -> dict[str, Any]:
        run, _ = self._sync_once(final=not self.options.users)
        found = self._gates_of(run)
        _insist(found)
        return {**_figures(run), "gates": [gate.to_json() for gate in found]}

    def verify(self) -> dict[str, Any]:
        before = self._routes_before()
        report = self._syncer.validate(self.settings, self.options.sample)
        path = write_report(report, self._now())
        found = [gates.validation_gate(report, self.options.users, before.on_new), self.queues_gate()]
        if not self.options.users:
            fenced_at = int(self.position.result(Step.FENCE)["fenced_at_ns"])
            found.append(gates.rest_gate(gates.newest_change(self.settings.source), fenced_at))
        if self.options.backups is None:
            found.append(Gate("backup", Verdict.NOTE, "none was asked for"))
        else:
            found.append(Gate("backup", Verdict.GO, f"{self.position.result(Step.BACK_UP)['backup']} is verified"))
        _insist(found)
        return {
            "report": path,
            "roots": {"source": report.root.source, "target": report.root.target},
            "users": len(report.users),
            "gates": [gate.to_json() for gate in found],
            "hook": self._hook(HookName.READY),
        }

    def switch(self) -> dict[str, Any]:
        routes = self.serving.routes().moved(self.options.users, Side.NEW)
        self._route(routes)
        return {"routes": routes.to_json()}

    def start_new(self) -> dict[str, Any]:
        return {"hook": self._hook(HookName.START_NEW)}

    def health(self) -> dict[str, Any]:
        """Asks until the answer is yes, for as long as the hook's time-out allows."""
        hook = self.options.hooks.get(HookName.HEALTH)
        if hook is None:
            return {"skipped": "no health command"}
        end = time.monotonic() + hook.timeout_s
        asked = 0
        while True:
            asked += 1
            try:
                return {"asked": asked, "hook": self._hook(HookName.HEALTH)}
            except HookFailed:
                if time.monotonic() + _HEALTH_PAUSE_S > end:
                    raise
            self.tools.sleep(_HEALTH_PAUSE_S)

    # ---- back

    def release(self) -> dict[str, Any]:
        before = self._routes_before()
        if self.serving.routes() != before:
            self._route(before)
        return {"routes": before.to_json()}

    def start_old(self) -> dict[str, Any]:
        stopped = {Way.BACK: self.position.has_fenced, Way.RESUME: self._turn("partial")}
        if not stopped.get(self.position.way, True):
            return {"skipped": "v2 was not stopped, or is not to serve"}
        return {"hook": self._hook(HookName.START_OLD)}

    # ---- rollback

    def fence_new(self) -> dict[str, Any]:
        self._route(Routes(Side.FENCED))
        self.serving.wait_for_writers(self.options.drain_s, sleep=self.tools.sleep)
        hooks = {HookName.STOP_NEW.value: self._hook(HookName.STOP_NEW)}
        if self._turn("partial"):
            hooks[HookName.STOP_OLD.value] = self._hook(HookName.STOP_OLD)
        return {"hooks": hooks}

    def check_old(self) -> dict[str, Any]:
        """v2 has nothing that the new side lacks: it will be replaced by what is written from there."""
        Replacement(steps=self.tools.steps, clock=self._now).recover(real(self.settings.source))
        if self._kept_tree() is not None:
            return {"skipped": "v2 was replaced already"}
        if self._turn("partial"):
            run, _ = self._sync_once(final=True)
            found = self._gates_of(run)
            figures = _figures(run)
        else:
            fenced_at = int(self.position.result(Step.FENCE)["fenced_at_ns"])
            gate = gates.rest_gate(gates.newest_change(self.settings.source), fenced_at)
            if gate.verdict is Verdict.NO_GO and self._turn("accept_changed_old"):
                gate = Gate(gate.name, Verdict.NOTE, f"accepted: {gate.detail}")
            found, figures = [gate], {}
        _insist(found)
        return {**figures, "gates": [gate.to_json() for gate in found]}

    def restore(self) -> dict[str, Any]:
        """Writes v2 from the new side beside the old tree and swaps the two; the old tree is kept."""
        old = real(self.settings.source)
        replacement = Replacement(steps=self.tools.steps, clock=self._now)
        replacement.recover(old)
        kept = self._kept_tree()
        if kept is not None and not self._was_written_since(os.stat(old).st_ctime_ns):
            return {"kept": os.fspath(kept), "went_on": True}
        result: dict[str, Any] = {}

        def fill(directory: Path) -> None:
            report = self._syncer.reverse(self.settings.target, os.fspath(directory))
            _give_like(directory, old)
            result.update(report.to_json())

        kept_now = replacement.replace(old, fill, lambda: None)
        figures = {name: value for name, value in result.items() if name not in ("source", "target")}
        where = kept or kept_now
        return {"kept": os.fspath(where) if where else None, **figures}

    def back_to_old(self) -> dict[str, Any]:
        self._route(Routes(Side.OLD))
        return {"routes": Routes(Side.OLD).to_json()}

    def resume(self) -> dict[str, Any]:
        Replacement(steps=self.tools.steps, clock=self._now).recover(real(self.settings.source))
        assert self.position.turn is not None, "there is no way to resume without a turn"
        routes = Routes.of(self.position.turn.data["routes"])
        self._route(routes)
        return {"routes": routes.to_json()}

    # ---- what they share

    def queues_gate(self) -> Gate:
        return gates.queue_gate({path: waiting_in(Path(path)) for path in self.options.dual_queues})

    def _gates_of(self, run: RunReport) -> list[Gate]:
        values = run.to_json()
        return [gates.findings_gate(values, self.options.accept), gates.conservation_gate(values)]

    def _sync_once(self, *, final: bool) -> tuple[RunReport, int]:
        """A run, and how many sessions it found changed; all of them when it was the first."""
        first = (State(self.settings.target).read("run.json") or {}).get("complete") is None
        self.tools.steps("sync")
        run = self._syncer.sync(self.settings, self.options.limits, final=final)
        changed = run.counts["sessions"] if first else run.added + run.changed + run.deleted
        return run, changed

    def _route(self, routes: Routes) -> None:
        self.tools.steps("set the routes")
        self.serving.set(routes)
        self.tools.steps("routes are set")

    def _hook(self, name: HookName) -> dict[str, Any] | None:
        hook = self.options.hooks.get(name)
        if hook is None:
            return None
        self.tools.steps(f"run {name}")
        environ = {
            **self.tools.environ,
            "MODCHAT_FROM": self.settings.source,
            "MODCHAT_TO": self.settings.target,
            "MODCHAT_STEP": name.value,
            "MODCHAT_CUTOVER": str(self.position.cutover),
        }
        if self.options.users:
            environ["MODCHAT_USERS"] = os.fspath(self._users_file())
        run = run_hook(name, hook, self.serving.directory / "hooks", environ)
        self.tools.steps(f"{name} was run")
        return {"program": run.program, "elapsed_s": round(run.elapsed_s, 3), "output": run.output}

    def _routes_before(self) -> Routes:
        return Routes.of(self.position.begun.data["routes"]) if self.position.begun is not None else Routes()

    def _users_file(self) -> Path:
        path = self.serving.directory / f"users-{self.position.cutover:04d}.txt"
        path.write_text("".join(f"{json.dumps(user)}\n" for user in self.options.users), encoding="utf-8")
        return path

    def _backup_made(self, manager: RollbackManager) -> str | None:
        """The backup that this cut-over made before it was cut short."""
        since = self.position.intents[Way.FORWARD, Step.BACK_UP].at
        source = os.fspath(real(self.settings.source))
        for name in reversed(manager.list_backups()):
            head = Manifest(manager.backup_path / name).head
            if head.source == source and datetime.fromisoformat(head.created_at) >= datetime.fromisoformat(since):
                return name
        return None

    def _make_backup(self, manager: RollbackManager) -> str:
        for attempt in range(1, _BACKUP_ATTEMPTS + 1):
            try:
                return manager.create_backup(self.settings.source).name
            except Unreadable:  # v2 lives on: what was listed may be gone, or not hold still
                if attempt == _BACKUP_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _kept_tree(self) -> Path | None:
        """The tree that v2 had before the rollback, once another one is in its place."""
        begun = self.position.intents.get((Way.ROLLBACK, Step.RESTORE))
        return None if begun is None else _kept_tree(real(self.settings.source), int(begun.data["inode"]))

    def _was_written_since(self, then_ns: int) -> bool:
        """Whether a file of the new side, but for what the migration notes of itself, was changed since."""
        for name in os.listdir(self.settings.target):
            if name == STATE_DIR:
                continue
            path = f"{self.settings.target}/{name}"
            newest = gates.newest_change(path) if os.path.isdir(path) else (os.stat(path).st_ctime_ns, path)
            if newest is not None and newest[0] > then_ns:
                return True
        return False

    def _turn(self, key: str) -> bool:
        return bool(self.position.turn is not None and self.position.turn.data.get(key))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.tools.now_ns() / 1e9, UTC)


_DO: Mapping[Step, Callable[[Work], dict[str, Any]]] = {
    Step.PREPARE: Work.prepare,
    Step.BACK_UP: Work.back_up,
    Step.BACK_FILL: Work.back_fill,
    Step.FENCE: Work.fence,
    Step.FINAL_SYNC: Work.final_sync,
    Step.VERIFY: Work.verify,
    Step.SWITCH: Work.switch,
    Step.START_NEW: Work.start_new,
    Step.HEALTH: Work.health,
    Step.RELEASE: Work.release,
    Step.START_OLD: Work.start_old,
    Step.FENCE_NEW: Work.fence_new,
    Step.CHECK_OLD: Work.check_old,
    Step.RESTORE: Work.restore,
    Step.RETURN: Work.back_to_old,
    Step.RESUME: Work.resume,
}


def _insist(found: list[Gate]) -> None:
    if not gates.go(found):
        raise Vetoed(gates.vetoes(found))


def _figures(run: RunReport) -> dict[str, Any]:
    values = run.to_json()
    wanted = (
        *("run", "elapsed_s", "users", "sessions", "messages", "documents", "lines", "quarantined", "attic", "bytes"),
        *("added", "changed", "deleted", "issues"),
    )
    return {name: values[name] for name in wanted}


def _kept_tree(old: Path, inode: int) -> Path | None:
    """The tree of this inode under the name that a swap has given it; None while it still is the store."""
    if inode_of(old) == inode:
        return None
    prefix = f"{old.name}.before-rollback-"
    return next((p for p in old.parent.iterdir() if p.name.startswith(prefix) and inode_of(p) == inode), None)


def _give_like(tree: Path, model: Path) -> None:
    """Gives the tree the mode of the store that it replaces and, when this process may, its owner: v2 runs as that."""
    status = os.stat(model)
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, 0):
        for directory, names, files in os.walk(tree):
            for name in (*names, *files):
                os.chown(os.path.join(directory, name), status.st_uid, status.st_gid, follow_symlinks=False)
        os.chown(tree, status.st_uid, status.st_gid)
    os.chmod(tree, status.st_mode & 0o7777)
