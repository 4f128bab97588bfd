"""How runs stand, read from their records by any process at any time, also while they run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..products.layout import Layout
from . import lock, progress, status
from .status import Record, State


def records(layout: Layout) -> dict[str, Record]:
    """All records of a night; what a killed run left as running is shown as aborted."""
    found = status.read_all(layout.status_dir)
    owner = lock.read_owner(layout.night_dir)
    alive = owner.token if owner is not None and owner.alive() else ""
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
    owner = lock.read_owner(layout.night_dir)
    if owner is not None and owner.alive():
        lines.append(f"a run is working on it: process {owner.pid} on {owner.host}, since {owner.began}")
    page = layout.report_dir / "index.html"
    if page.is_file():
        lines.append(f"report: {page}")
    return "\n".join(lines)


def nights(output: Path) -> str:
    """A table of all nights under an output root; empty where there are none."""
    rows = []
    for folder in sorted((output / "NIGHTS").glob("*/status")):
        date, _, tag = folder.parent.name.partition("_")
        if len(date) == 8 and date.isdigit():
            found = records(Layout(output, date, tag))
            rows.append((date, tag, str(len(found)), _counts(found.values())))
    return progress.table(("night", "tag", "tasks", "states"), rows) if rows else ""


def _counts(found) -> str:  # noqa: ANN001 - any iterable of records
    states = Counter(record.state for record in found)
    return ", ".join(f"{states[state]} {state.value}" for state in State if states[state])
