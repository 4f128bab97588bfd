"""A run from a request to its end, and what it would do: the two functions that front ends call."""

from __future__ import annotations

import grp
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from ..products.layout import Layout
from . import files, limits, processes, progress, scratch, sites, stages, staging, status
from .driver import Driver, Outcome, Settings, records_digest
from .fingerprint import NEW, UP_TO_DATE, DigestCache, Fingerprinter
from .graph import Plan, Task
from .lock import NightLock, Owner
from .pool import Place
from .rundef import RunDefinition
from .status import Record, State


class GroupError(RequestError):
    """The group that products are to be given cannot be used."""


def make_plan(
    definition: RunDefinition, layout: Layout, settings: Settings, cache_dir: Path | None
) -> tuple[Plan, set[str]]:
    """The plan of a request, cut at ``--until``, and the ids that ``--redo`` forces."""
    until = stages.find(definition.until, settings.table) if definition.until else None
    redo = [stages.find(name, settings.table).name for name in definition.redo]
    plan = settings.planner(definition, layout, cache_dir=cache_dir)
    if until is not None:
        plan = plan.until(until, settings.table)
    return plan, plan.forced(redo)


@dataclass
class Forecast:
    """What a run would do: its plan, and for every task why it would run (`UP_TO_DATE` where it would not)."""

    plan: Plan
    reasons: dict[str, str]

    @property
    def due(self) -> list[str]:
        """Ids of the tasks that would run and may succeed."""
        settled = (UP_TO_DATE, *_STUCK)
        return [name for name, reason in self.reasons.items() if not reason.startswith(settled)]


_STUCK = ("cannot run", "blocked", "failed before")
# How a task fails for reasons that lie outside of it: worth another try.
_PASSING = (
    "WorkerLost",
    "ManagerLost",
    "KernelDied",
    "KernelStartError",
    "TimeOut",
    "OSError",
    "OtherCodeError",
    "Killed",
)


def dry_run(definition: RunDefinition, settings: Settings | None = None) -> str:
    """The plan as a table, with why each task would run; nothing is written.

    Returns
    -------
    str
        Table and notes.
    """
    seen = forecast(definition, settings)
    plan, reasons = seen.plan, seen.reasons
    rows = [(task.id, task.stage.title, reasons[task.id]) for task in plan.tasks.values()]
    runs = sum(reason != UP_TO_DATE for reason in reasons.values())
    lines = [progress.table(("task", "leaves", "why it would run"), rows)]
    lines += [f"note: {note}" for note in plan.notes] + [f"problem: {problem}" for problem in plan.problems]
    lines.append(f"{len(rows)} tasks, {runs} would run, {len(rows) - runs} are up to date")
    return "\n".join(lines)


def forecast(
    definition: RunDefinition,
    settings: Settings | None = None,
    *,
    retry_failed: bool = True,
    cache_dir: Path | None = None,
) -> Forecast:
    """What a run would do; nothing of the night is written.

    Parameters
    ----------
    definition : RunDefinition
        The request.
    settings : Settings, optional
        What tests replace.
    retry_failed : bool
        Whether a task whose notebook failed on the very same inputs counts as one to be run again.
    cache_dir : Path, optional
        Where the index of raw frames may be kept for a night that has none yet.
    """
    settings = settings or Settings()
    layout = Layout(Path(definition.output).absolute(), definition.night, definition.tag)
    known_index = layout.work_dir / "index"
    plan, forced = make_plan(definition, layout, settings, known_index if known_index.is_dir() else cache_dir)
    cache = DigestCache(layout.work_dir / "digests.json")
    fingerprints = Fingerprinter(layout.output, plan.baseraw, cache, settings.code, thorough=definition.thorough)
    reasons: dict[str, str] = {}
    for task in plan.tasks.values():
        reasons[task.id] = _foresee(task, reasons, forced, layout, fingerprints, retry_failed)
    return Forecast(plan, reasons)


def _foresee(
    task: Task, reasons: dict[str, str], forced: set[str], layout: Layout, prints: Fingerprinter, retry_failed: bool
) -> str:
    if task.problem:
        return f"cannot run: {task.problem}"
    if task.stage.last:
        idle = (UP_TO_DATE,) if retry_failed else (UP_TO_DATE, *_STUCK)
        if any(not reason.startswith(idle) for reason in reasons.values()):
            return "closes the run"
    hoped = [name for name in task.hopes if not reasons[name].startswith(_STUCK)]
    for need in task.waits_for:
        if reasons[need].startswith(_STUCK):
            return f"blocked by {need}"
    if task.hopeless(hoped):
        return f"blocked by {next(iter(task.hopes), 'nothing to combine')}"
    if task.id in forced:
        return "asked for (--redo)"
    changing = [need for need in (*task.needs, *hoped) if reasons[need] != UP_TO_DATE]
    record = status.read(layout.status_dir, task.id)
    known = status.last_success(record)
    if known is None or (known.state is State.PENDING and not known.fingerprint):
        return NEW  # before raw frames are read for their digests
    if changing and known.state is not State.SUCCEEDED:
        return NEW
    if changing:
        return f"input may change: {changing[0]}"
    upstream = {need: _products(status.read(layout.status_dir, need)) for need in (*task.needs, *hoped)}
    upstream |= {name: products for name, (_, products) in task.earlier.items()}
    extra = records_digest(layout.status_dir, task.id) if task.stage.last else ""
    fingerprint = prints.compute(task.told(hoped), upstream, extra)
    if not retry_failed and _will_fail_again(known, fingerprint.value):
        return "failed before, on the same inputs"
    return prints.reason(task, fingerprint, known)


def _will_fail_again(known: Record, fingerprint: str) -> bool:
    """Whether a task's notebook failed by itself on the very inputs that it would get again."""
    kind = (known.error or {}).get("type", "")
    return known.state is State.FAILED and known.fingerprint == fingerprint and kind not in _PASSING


def _products(record: Record | None) -> dict[str, str]:
    record = status.last_success(record)
    return record.products if record is not None else {}


def reduce(definition: RunDefinition, settings: Settings | None = None) -> Outcome:
    """Reduce a night as asked.

    Raises
    ------
    RequestError
        If the request is invalid, the night is missing or holds nothing to reduce, or another run works on it.
    """
    settings = settings or Settings()
    layout = Layout(Path(definition.output).absolute(), definition.night, definition.tag)
    site = sites.find(definition.site)
    root = scratch.root(site.scratch)
    limits.raise_limits()
    limits.check_semaphores()
    limits.check_folder(root, "temporary files (TMPDIR, or the site's scratch)", limits.SCRATCH)
    limits.check_folder(layout.output, "products (--output)", limits.PRODUCTS)
    folder = Path(tempfile.mkdtemp(prefix=scratch.PREFIX, dir=root))
    place = make_place(definition, site, layout, folder)
    owner = Owner.this_process(str(folder))
    leash = processes.start_leash(owner.token, folder)
    before = os.environ.get(staging.VARIABLE)
    index, fresh_index = layout.work_dir / "index", folder / "index"
    try:
        if site.staging:  # the driver reads raw files too: their digests
            os.environ[staging.VARIABLE] = str(staging.folder_of(folder))
        place.check(layout.work_dir / "parsl")
        # Planned before anything is written, so that a wrong request leaves no folder behind.
        plan, forced = make_plan(definition, layout, settings, index if index.is_dir() else fresh_index)
        with NightLock(layout.night_dir, owner) as lock:
            if lock.taken_from is not None:
                _remove_scratch(lock.taken_from)
            if fresh_index.is_dir():
                shutil.copytree(fresh_index, index, dirs_exist_ok=True)
            if definition.group:
                _hand_on(layout, definition.group)
            driver = Driver(definition, layout, plan, forced, owner, folder, settings, place)
            return driver.run()
    finally:
        if before is None:
            os.environ.pop(staging.VARIABLE, None)
        else:
            os.environ[staging.VARIABLE] = before
        leash.kill()
        leash.wait()
        files.remove_tree(folder)


def make_place(definition: RunDefinition, site: sites.Site, layout: Layout, folder: Path) -> Place:
    """Where the workers of a run are started, and what a container needs to see."""
    given = os.environ.get("SLURM_JOB_NUM_NODES", "")
    here = int(given) if given.isdigit() and site.launcher != "none" else 1
    nodes = definition.nodes or (site.nodes if definition.pilot else here)
    binds = [f"{layout.output}", f"{folder.parent}"]
    if site.container.engine != "none":
        files.make_folder(layout.output)
        binds = [f"{definition.baseraw}:{definition.baseraw}:ro", *binds] if definition.baseraw else binds
        if definition.sky_mask_file is not None:
            where = definition.sky_mask_file.parent
            binds.insert(0, f"{where}:{where}:ro")
    return Place(site, layout.night_dir, folder, nodes, definition.pilot, tuple(binds))


def _hand_on(layout: Layout, name: str) -> None:
    """Have the products' folder hand on a group: new programmes' folders, and what comes into them, belong to it."""
    try:
        files.hand_on(layout.output / "LRS2", grp.getgrnam(name).gr_gid)
    except KeyError:
        raise GroupError(f"--group: there is no group {name!r} here; `id -Gn` lists yours") from None
    except PermissionError as error:
        raise GroupError(
            f"--group: {layout.output / 'LRS2'} cannot be given to {name!r} ({error.strerror}): you must own the folder and "
            "be in the group (`id -Gn` lists yours)"
        ) from error


def _remove_scratch(dead: Owner) -> None:
    """Remove the temporary files of a killed run, if they lie where ours would."""
    folder = Path(dead.scratch)
    if dead.local and dead.scratch and folder.name.startswith(scratch.PREFIX) and len(folder.parts) > 2:
        processes.sweep(dead.token, patience=2.0)
        files.remove_tree(folder)
