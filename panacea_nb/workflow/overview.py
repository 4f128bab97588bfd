"""How runs stand, read from their records by any process at any time, also while they run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..products.layout import Layout
from . import lock, progress, status
from .status import Record, State

_SILENT = 120.0  # s without a sign of life after which a driver on another machine is taken for dead


def records(layout: Layout) -> dict[str, Record]:
    """All records of a night; what a killed run left as running is shown as aborted."""
    found = status.read_all(layout.status_dir)
    owner = working(layout)
    alive = owner.token if owner is not None else ""
    for name, record in found.items():
        if record.state is State.RUNNING and record.run != alive:
            error = {"type": "Killed", "message": "the run that worked on it is gone; run again to go on", "where": ""}
            found[name] = replace(record, state=State.ABORTED, error=error)
    return found


def night(layout: Layout) -> str:
    """A table of all tasks of a night; empty where there is no run."""
    found = records(layout)
    if not found:
        return ""
    lines = [progress.status_table(found.values()), _counts(found.values())]
    owner = working(layout)
    if owner is not None:
        job = f" in job {owner.job}" if owner.job else ""
        age = lock.heartbeat_age(layout.night_dir)
        beat = f"; last sign of life {age:.0f} s ago" if age is not None else ""
        where = Counter(record.host for record in found.values() if record.state is State.RUNNING)
        busy = f"; busy: {', '.join(f'{number} on {host}' for host, number in sorted(where.items()))}" if where else ""
        lines.append(
            f"a run is working on it: process {owner.pid} on {owner.host}{job}, since {owner.began}{beat}{busy}"
        )
    lines += _queued(layout)
    page = layout.report_dir / "index.html"
    if page.is_file():
        lines.append(f"report: {page}")
    return "\n".join(lines)


def working(layout: Layout) -> lock.Owner | None:
    """Who works on a night at this moment; on another machine that is told by the lock's sign of life."""
    owner = lock.read_owner(layout.night_dir)
    if owner is None or not owner.alive():
        return None
    age = lock.heartbeat_age(layout.night_dir)
    # The clocks of machines and file server differ by some seconds; a driver tells that it lives every five.
    silent = not owner.local and (age is None or age > _SILENT)
    return None if silent else owner


def _queued(layout: Layout) -> list[str]:
    """The night's last batch job, as far as its files tell: any machine can read them, with or without Slurm."""
    from . import jobs

    lines = []
    for job in jobs.all_jobs(layout.output):
        if job.tag == layout.tag and layout.night in job.nights and job.job:
            code = job.codes().get(layout.night)
            ended = f", ended with code {code}" if code is not None else ""
            again = f", submitted again {job.again} time(s)" if job.again else ""
            lines.append(f"batch job {job.job} ({job.name}){ended}{again}")
    return lines


def nights(output: Path) -> str:
    """A table of all nights under an output root; empty where there are none."""
    rows = []
    for run in Layout.runs(output):
        found = records(run)
        rows.append((run.night, run.tag, str(len(found)), _counts(found.values())))
    return progress.table(("night", "tag", "tasks", "states"), rows) if rows else ""


def _counts(found) -> str:  # noqa: ANN001 - any iterable of records
    states = Counter(record.state for record in found)
    return ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
