"""The driver: works through a plan, believes only what the records say, and can be killed at any moment."""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from ..errors import PanaceaError
from ..products.layout import Layout
from . import closing, files, progress, staging, status
from . import engine as engines
from .fingerprint import UP_TO_DATE, DigestCache, Fingerprint, Fingerprinter
from .graph import Plan, Task, text_digest
from .lock import Owner, insist, is_local, process_start, user_name
from .plan import build
from .pool import Place
from .rundef import RunDefinition
from .stages import STAGES, Stage
from .status import Record, State
from .worker import Order, staging_root

DONE, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 3  # exit codes
DAMAGED = "damaged"  # INCOMPLETE, though all tasks are done
_ENGINE_STARTS = 3  # how often a dead engine is replaced in one run
_CHECK_PERIOD = 2.0  # s between two looks at the workers
_LOST_AFTER = 15.0  # s after which a dead worker must have been noticed: Parsl needs 10
_START_WITHIN = 180.0  # s in which a task must be taken up by a worker, where the engine does not say
_OUT_OF_SIGHT = 300.0  # s after its time limit when a task of a worker that cannot be asked counts as lost
GRACE_VARIABLE = "PANACEA_NB_GRACE"
_GRACE = 60.0  # s that running tasks may take to end after SIGUSR1, where the environment does not say

Planner = Callable[..., Plan]


@dataclass
class Settings:
    """What tests and other front ends may replace; a reduction needs none of it.

    ``planner(definition, layout, cache_dir=...)`` makes the plan; ``table`` is its stage table; ``code`` stands for the
    digest of the package's code; ``report`` says whether the report is built at the end.
    """

    planner: Planner = build
    table: tuple[Stage, ...] = STAGES
    code: str | None = None
    report: bool = True
    console: TextIO | None = None


@dataclass
class Outcome:
    """How a run ended."""

    exit_code: int
    records: dict[str, Record] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    report: Path | None = None


def records_digest(status_dir: Path, leave_out: str) -> str:
    """Digest of how all other tasks ended, as far as a night page shows it."""
    records = status.read_all(status_dir)
    return text_digest(
        [
            [r.id, r.state.value, r.fingerprint, r.verdict, r.products, (r.error or {}).get("message")]
            for r in records.values()
            if r.id != leave_out
        ]
    )


class Driver:
    """Works through one plan; made by `panacea_nb.workflow.runs.reduce`, which holds the lock."""

    def __init__(
        self,
        definition: RunDefinition,
        layout: Layout,
        plan: Plan,
        forced: set[str],
        owner: Owner,
        scratch: Path,
        settings: Settings,
        place: Place | None = None,
    ) -> None:
        self.place = place or Place()
        self.definition, self.layout, self.plan, self.forced = definition, layout, plan, forced
        self.owner, self.scratch, self.settings = owner, scratch, settings
        self.log = progress.RunLog(layout.log_dir / "reduce.log", settings.console)
        self.cache = DigestCache(layout.work_dir / "digests.json")
        index_dir = layout.work_dir / "index"
        self.prints = Fingerprinter(
            layout.output, plan.baseraw, self.cache, settings.code, index_dir, thorough=definition.thorough
        )
        self.engine: engines.Engine | None = None
        self.engine_starts = 0
        self.records: dict[str, Record] = {}  # of tasks that have ended
        self.ran: list[str] = []
        self.running: dict[Future, Task] = {}
        self.since: dict[str, float] = {}
        self.waiting = dict(plan.tasks)
        self.ready: list[tuple[int, int, str]] = []
        self.prepared: dict[str, Fingerprint] = {}
        self.checked = time.monotonic()
        self.missed: dict[str, float] = {}  # tasks whose worker is dead -> since when
        self.stop_signal = 0
        self.deadline = math.inf  # of a graceful end
        self.levels = plan.levels()
        self.order = {name: number for number, name in enumerate(plan.tasks)}

    # --- from begin to end --------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Run everything that is not up to date."""
        begun = time.monotonic()
        try:
            with self._signals():
                self._begin()
                self._work(lambda task: not task.stage.last)
                self._work(lambda task: True)
                self._stop_engine(now=bool(self.stop_signal))
                report = None if self.stop_signal else self._report()
            return self._end(time.monotonic() - begun, report)
        finally:
            self._stop_engine(now=True)  # only on the way out of an error: else it has been stopped
            self.cache.save()
            if self.log.bar is not None:
                self.log.bar.close()
            self.log.close()

    def _begin(self) -> None:
        layout = self.layout
        for folder in (layout.status_dir, layout.log_dir, layout.work_dir):
            files.make_folder(folder)
        self.definition.write(layout.run_file)
        files.remove_tree(staging_root(layout.night_dir))
        files.remove_parts(layout.night_dir, layout.status_dir, layout.work_dir)
        known = status.read_all(layout.status_dir)
        for record in known.values():
            if record.state is State.RUNNING:
                error = {"type": "Killed", "message": "the run that worked on it was killed", "where": ""}
                status.write(layout.status_dir, replace(record, state=State.ABORTED, error=error, ended=status.now()))
        for task in self.plan.tasks.values():
            record = known.get(task.id)
            if record is None or record.state is State.PENDING:
                fresh = Record(task.id, task.stage.name, parameters=task.parameters, notebook=self._relative(task))
                fresh.claims = list(record.claims) if record else []
                if status.damaged(layout.status_dir, task.id):
                    fresh.decisions = [{"code": status.LOST, "text": "the record could not be read", "severity": "warn"}]
                status.write(layout.status_dir, fresh, durable=False)
        self.engine = engines.make(self.definition.jobs, self.owner.token, self._parsl_dir(), self.place)
        self.clock = progress.Clock(known.values(), self.engine.slots)
        self.log(
            f"night {layout.night}{f' ({layout.tag})' if layout.tag else ''}: {len(self.plan.tasks)} tasks, "
            f"{self.engine.slots} at a time; log: {layout.log_dir / 'reduce.log'}"
        )
        self.log(f"run {self.owner.token} by {user_name()} on {self.owner.host}, process {self.owner.pid}", quiet=True)
        for note in self.plan.notes:
            self.log(f"note: {note}")
        for problem in self.plan.problems:
            self.log(f"problem in the raw data: {problem}", logging.WARNING)
        self.log.bar = progress.Bar(len(self.plan.tasks), self.log.console)

    def _parsl_dir(self) -> Path:
        """Parsl's files lie with the night's, reached by a link: Parsl hands the path to a shell without quotes."""
        place = self.layout.work_dir / "parsl"
        place.mkdir(parents=True, exist_ok=True)
        if self.place.spread:
            return place  # a link in this node's scratch would lead nowhere on the others
        link = self.scratch / "parsl"
        link.symlink_to(place)
        return link

    def _work(self, chosen: Callable[[Task], bool]) -> None:
        """Run the chosen ones of the waiting tasks until all of them have ended; none is begun once the run is to end."""
        while not self.stop_signal or time.monotonic() < self.deadline:
            self._settle(chosen)
            self._submit()
            if not self.running:
                if self.stop_signal or not self.ready:
                    return
                continue
            done, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                self._finished(future)
            self._check_engine()
            self._show()

    def _settle(self, chosen: Callable[[Task], bool]) -> None:
        """Decide about every waiting task whose needs have ended: it is ready, up to date, blocked or impossible."""
        moved = True
        while moved:
            moved = False
            for task in [task for task in self.waiting.values() if chosen(task)]:
                if self.stop_signal:
                    return
                if any(need not in self.records for need in task.comes_after):
                    continue
                del self.waiting[task.id]
                moved = True
                self._decide(task)
                self._show()

    def _decide(self, task: Task) -> None:
        broken = [need for need in task.waits_for if self.records[need].state is not State.SUCCEEDED]
        hoped = [name for name in task.hopes if self.records[name].state is State.SUCCEEDED]
        if task.hopeless(hoped):
            broken += list(task.hopes)[:1]
        known = status.read(self.layout.status_dir, task.id)
        if task.problem:
            self._fail(task, {"type": "MissingInput", "message": task.problem, "where": "plan"}, known)
            return
        if broken:
            first = self.records[broken[0]]
            culprit = first.error["where"] if first.state is State.BLOCKED and first.error else first.id
            record = status.blocked(task.id, task.stage.name, self._relative(task), culprit, known)
            status.write(self.layout.status_dir, record)
            self.records[task.id] = record
            self.log(f"BLOCKED {task.id}: it needs {culprit}", logging.WARNING, quiet=True)
            return
        task = self.plan.tasks[task.id] = task.told(hoped)
        upstream = {need: self.records[need].products for need in (*task.needs, *hoped)}
        upstream |= {name: products for name, (_, products) in task.earlier.items()}
        extra = records_digest(self.layout.status_dir, task.id) if task.stage.last else ""
        for note in staging.stage(staging.archives(task.frames)):
            self.log(f"note: {note}", quiet=True)
        try:
            fingerprint = self.prints.compute(task, upstream, extra)
            reason = self.prints.reason(task, fingerprint, status.last_success(known))
        except (PanaceaError, OSError) as error:
            self._fail(task, {"type": type(error).__name__, "message": str(error), "where": "inputs"}, known)
            return
        if task.id in self.forced:
            reason = "asked for (--redo)"
        if reason == UP_TO_DATE:
            record = status.last_success(known)
            assert record is not None
            if known is not record:
                status.write(self.layout.status_dir, record)  # it was blocked; what blocked it is as it was before
            self.records[task.id] = record
            self.log(f"up to date {task.id}", quiet=True)
            return
        self.log(f"ready {task.id}: {reason}", quiet=True)
        self.prepared[task.id] = fingerprint
        heapq.heappush(self.ready, (-self.levels[task.id], self.order[task.id], task.id))

    def _submit(self) -> None:
        assert self.engine is not None
        while self.ready and len(self.running) < self.engine.slots and not self.stop_signal:
            _, _, name = heapq.heappop(self.ready)
            task = self.plan.tasks[name]
            if self.engine_starts == 0:
                self._start_engine()
            self.since[name] = time.monotonic()
            self.running[self.engine.submit(self._order(task))] = task

    def _order(self, task: Task) -> Order:
        fingerprint = self.prepared[task.id]
        return Order(
            id=task.id,
            stage=task.stage.name,
            source=str(task.source),
            notebook=self._relative(task),
            parameters=task.parameters,
            fingerprint=fingerprint.value,
            inputs=fingerprint.parts,
            output=str(self.layout.output),
            night_dir=str(self.layout.night_dir),
            owner=asdict(self.owner),
            scratch=str(self.scratch),
            timeout=task.stage.timeout,
            overwrite=self.definition.overwrite,
            raw=list(staging.archives(task.frames)) if self.place.site.staging else [],
            node_local=self.place.site.staging,
            code="" if self.settings.code else self.prints.code,
        )

    def _relative(self, task: Task) -> str:
        return self.layout.relative(task.notebook)

    def _finished(self, future: Future) -> None:
        """Take in how a task ended."""
        task = self.running.pop(future)
        start = self.since.pop(task.id)
        error = future.exception()
        if error is not None:
            problem = {"type": type(error).__name__, "message": engines.why(error), "where": "worker"}
            self._fail(task, problem, status.read(self.layout.status_dir, task.id))
            return
        answer = future.result()
        record = Record.from_dict(answer["record"])
        self.records[task.id] = record
        self.ran.append(task.id)
        if record.state is State.SUCCEEDED:
            self.clock.took(task.stage.name, time.monotonic() - start)
            self._tell(f"{task.id}  {record.verdict}  {record.wall:.1f} s")
            for line in answer["log"]:
                self.log(line)
        else:
            self._tell_failure(task, record)

    def _fail(self, task: Task, problem: dict[str, Any], known: Record | None) -> None:
        """Write down that a task could not be run."""
        record = Record(
            task.id,
            task.stage.name,
            State.FAILED,
            parameters=task.parameters,
            notebook=self._relative(task),
            error=problem,
            claims=list(known.claims) if known else [],
            run=self.owner.token,
            host=self.owner.host,
            ended=status.now(),
        )
        status.write(self.layout.status_dir, record)
        self.records[task.id] = record
        self._tell_failure(task, record)

    def _tell(self, line: str) -> None:
        width = len(str(len(self.plan.tasks)))
        self.log(f"[{len(self.records):{width}d}/{len(self.plan.tasks)}] {line}")

    def _tell_failure(self, task: Task, record: Record) -> None:
        error = record.error or {}
        where = ""
        if str(error.get("where", "")).startswith("In ["):
            where = f" (see {error['where'].split(':')[0]} of {self.layout.output / record.notebook})"
        first = str(error.get("message", "")).splitlines() or [""]
        line = f"{record.state.value.upper()} {task.id}: {error.get('type', '')}: {first[0]}{where}"
        blocks = len(self.plan.dependants(task.id))
        self.log(f"{line}; this blocks {blocks} other task(s)" if blocks else line, logging.ERROR)

    def _show(self) -> None:
        if self.log.bar is not None:
            waiting = [task.stage.name for task in self.waiting.values()]
            waiting += [self.plan.tasks[name].stage.name for _, _, name in self.ready]
            left = self.clock.left(waiting, self.since)
            self.log.bar.update(len(self.records), left, self.since)

    # --- engine -------------------------------------------------------------------------------------------------------
    def _start_engine(self) -> None:
        assert self.engine is not None
        self.engine_starts += 1
        self.engine.start(len(self.ready) + len(self.waiting) + 1)

    def _stop_engine(self, *, now: bool) -> None:
        if self.engine is None:
            return
        engine, self.engine = self.engine, None
        if self.engine_starts:
            engine.stop(now=now)
        for task in self.running.values():
            record = status.read(self.layout.status_dir, task.id)
            if record is not None and not record.state.ended:
                error = {"type": "Interrupted", "message": "the run was interrupted; run again to go on", "where": ""}
                record = replace(record, state=State.ABORTED, error=error, ended=status.now())
                status.write(self.layout.status_dir, record)
            if record is not None:
                self.records[task.id] = record
                if record.run == self.owner.token:
                    self.ran.append(task.id)
        self.running.clear()

    def _check_engine(self) -> None:
        """Replace an engine that has died, and order again what it was running."""
        assert self.engine is not None
        if not self.running or self.stop_signal:
            return
        try:
            self.engine.check()
            self._check_workers()
        except engines.EngineLostError as error:
            self.engine.stop(now=True)
            if self.engine_starts >= _ENGINE_STARTS:
                self.engine_starts = 0
                raise
            self.log(f"{error}; it is started again and goes on", logging.WARNING)
            lost, self.running, self.since, self.missed = list(self.running.values()), {}, {}, {}
            self._start_engine()
            for task in lost:
                heapq.heappush(self.ready, (-self.levels[task.id], self.order[task.id], task.id))

    def _check_workers(self) -> None:
        """See whether the workers that should be at work live: a pool can lose them without noticing it.

        Raises `EngineLostError` for a task without worker, `OwnerGoneError` when the folder is not the run's own any more.
        """
        now = time.monotonic()
        if now - self.checked < _CHECK_PERIOD:
            return
        self.checked = now
        insist(self.layout.night_dir, self.owner)
        for task in self.running.values():
            record = status.read(self.layout.status_dir, task.id)
            taken = record is not None and record.run == self.owner.token
            seen = taken and is_local(record.host, record.space)
            if taken and not (seen and process_start(record.pid) is None):
                self.missed.pop(task.id, None)
                # A worker elsewhere cannot be asked: Parsl hears its pool's heartbeat, and no task outlives its limit.
                if seen or now - self.since[task.id] < task.stage.timeout + _OUT_OF_SIGHT:
                    continue
            since = self.missed.setdefault(task.id, now) if taken else self.since[task.id]
            if now - since > (_LOST_AFTER if taken else getattr(self.engine, "start_within", _START_WITHIN)):
                gone = f"the process that worked on {task.id} is gone" if taken else "no helper process takes up tasks"
                raise engines.EngineLostError(gone)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and a closed terminal end the run in order; a second Ctrl-C ends it at once.

        SIGUSR1 is the batch system's warning: running tasks may end within the grace (``PANACEA_NB_GRACE``, s).
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(number: int, _frame: object) -> None:
            if self.stop_signal not in (0, signal.SIGUSR1):
                raise KeyboardInterrupt
            if number == signal.SIGUSR1 == self.stop_signal:
                return
            self.stop_signal = number
            self.deadline = time.monotonic() + (_grace() if number == signal.SIGUSR1 else 0.0)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        # One that is ignored stays so: that is how nohup and shells keep a run going.
        heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, heard) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- the end ------------------------------------------------------------------------------------------------------
    def _report(self) -> Path | None:
        if not self.settings.report:
            return None
        try:
            return closing.build_report(self.layout, self.owner.token, lambda: bool(self.stop_signal))
        except closing.ReportError as error:
            self.log(str(error), logging.ERROR)
            return None

    def _end(self, seconds: float, report: Path | None) -> Outcome:
        if self.log.bar is not None:
            self.log.bar.close()
        shown = []
        for task in self.plan.tasks.values():
            record = self.records.get(task.id) or status.read(self.layout.status_dir, task.id)
            shown.append(record or Record(task.id, task.stage.name))
        self.log(progress.summary(shown, set(self.ran)))
        for record in shown:
            if record.state in (State.FAILED, State.ABORTED):
                self._tell_failure(self.plan.tasks[record.id], record)
        for problem in self.plan.problems:
            self.log(f"problem in the raw data: {problem}", logging.WARNING)
        code = self._exit_code(shown)
        meaning = {
            DONE: "all done",
            INCOMPLETE: "something failed or is blocked, the rest is done",
            DAMAGED: "all tasks are done, but raw data of the night could not be used (listed above): copy those files again, and "
            "run the same command",
            INTERRUPTED: "interrupted, run again to go on",
        }
        complete = all(record.state is State.SUCCEEDED for record in shown)
        said = meaning[DAMAGED if code == INCOMPLETE and complete else code]
        self.log(f"{said}: {len(self.ran)} tasks run in {progress.duration(seconds)}")
        if report is not None:
            self.log(f"report: {report}")
        return Outcome(code, {record.id: record for record in shown}, list(self.ran), report)

    def _exit_code(self, records: list[Record]) -> int:
        if self.stop_signal:
            return INTERRUPTED
        complete = all(record.state is State.SUCCEEDED for record in records)
        return DONE if complete and not self.plan.problems else INCOMPLETE


def _grace() -> float:
    try:
        return float(os.environ.get(GRACE_VARIABLE, ""))
    except ValueError:
        return _GRACE
