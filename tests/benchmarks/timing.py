"""Where the time went: from the status records of a night and the times of the cells in its executed notebooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, median

import nbformat

from panacea_nb.products.layout import Layout
from panacea_nb.workflow import status

CALIBRATIONS = ("01_", "02_", "03_", "04_")
EXPOSURES = 3
"""The unit of the goal is a channel's calibrations and this many exposures."""

GOAL_LOADS, PANACEA_LOADS = 70, 705
GOAL_OVERHEAD = 0.5  # s per notebook
GOAL_MEMORY = 1.5e9  # bytes
GOAL_WORKERS = 0.55


@dataclass(frozen=True)
class Task:
    """What one notebook cost [s], and its largest memory [bytes] (worker and kernel, shared pages counted once)."""

    stage: str
    channel: str
    exposure: str
    compute: float
    figures: float
    overhead: float
    wall: float
    cpu: float
    memory: int


@dataclass
class Night:
    """The costs of one reduced night: its tasks, the driver's CPU [s], the wall time [s], a reference load [s]."""

    tasks: list[Task]
    driver: float
    wall: float
    load: float
    jobs: int

    def per_channel(self) -> dict[str, float]:
        """CPU of each channel's calibrations and three of its mean exposures [loads]; its share of the driver's too."""
        share = self.driver / max(len(self.tasks), 1)
        result = {}
        for name in dict.fromkeys(t.channel for t in self.tasks if t.channel):
            own = [t for t in self.tasks if t.channel == name]
            cals = sum(t.cpu + share for t in own if t.stage.startswith(CALIBRATIONS))
            rest = [t for t in own if not t.stage.startswith(CALIBRATIONS)]
            each = sum(t.cpu + share for t in rest) / max(len({t.exposure for t in rest}), 1)
            result[name] = (cals + EXPOSURES * each) / self.load
        return result


def read_tasks(layout: Layout) -> list[Task]:
    """The tasks of a night that succeeded."""
    tasks = []
    for record in status.read_all(layout.status_dir).values():
        if record.state is not status.State.SUCCEEDED:
            continue
        compute, figures = cells(layout.output / record.notebook)
        parameters = record.parameters
        tasks.append(
            Task(
                record.stage, str(parameters.get("channel") or ""),
                f"{parameters.get('obsid')}-{parameters.get('exposure')}", compute, figures,
                record.wall - compute - figures, record.wall, record.cpu, record.peak_memory,
            )
        )  # fmt: skip
    return tasks


def cells(notebook: Path) -> tuple[float, float]:
    """Seconds in an executed notebook's cells that read, compute and save, and in those that draw.

    What the kernel itself took for a cell counts, so that the messages to and from it are overhead.
    """
    compute = figures = 0.0
    for cell in nbformat.read(notebook, as_version=4).cells:
        times = cell.metadata.get("execution", {})
        if cell.cell_type != "code" or "iopub.status.idle" not in times:
            continue
        seconds = _seconds(times["iopub.status.busy"], times["iopub.status.idle"])
        if "figure" in cell.metadata.get("tags", []):
            figures += seconds
        else:
            compute += seconds
    return compute, figures


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def markdown(nights: list[Night], ratio: float | None = None) -> str:
    """Time per stage in reference loads (mean per task over all nights), and the measures that have a goal."""
    head = ["stage", "tasks", "read + compute", "figures", "overhead", "whole", "CPU", "memory [GB]"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    loads = [(t, night.load) for night in nights for t in night.tasks]
    for stage in sorted({t.stage for t, _ in loads}):
        own = [(t, load) for t, load in loads if t.stage == stage]
        means = [
            mean(getattr(t, n) / load for t, load in own) for n in ("compute", "figures", "overhead", "wall", "cpu")
        ]
        peak = max(t.memory for t, _ in own) / 1e9
        lines.append(f"| {stage} | {len(own)} | " + " | ".join(f"{m:.2f}" for m in means) + f" | {peak:.2f} |")
    everything = [t for t, _ in loads]
    channels = [value for night in nights for value in night.per_channel().values()]
    overheads = [t.overhead for t in everything]
    memory = [t.memory / 1e9 for t in everything]
    load = median(night.load for night in nights)
    lines += [
        "",
        f"In reference loads of {load:.3f} s of CPU, mean per notebook, {nights[0].jobs} at a time; memory is the largest.",
        "",
        "| | Panacea | goal | here |",
        "|---|---|---|---|",
        f"| CPU of a channel's calibrations and {EXPOSURES} exposures [loads], worst | {PANACEA_LOADS} | <= {GOAL_LOADS} | "
        f"{_mark(channels, max, GOAL_LOADS, '.0f')} |",
        f"| overhead per notebook [s], median; worst | | <= {GOAL_OVERHEAD} | "
        f"{_mark(overheads, median, GOAL_OVERHEAD, '.2f')}; {_mark(overheads, max, GOAL_OVERHEAD, '.2f')} |",
        f"| memory of worker and kernel [GB] | 2.7 | <= {GOAL_MEMORY / 1e9:g} | "
        f"{_mark(memory, max, GOAL_MEMORY / 1e9, '.2f')} |",
    ]  # fmt: skip
    if ratio is not None:
        lines.append(f"| wall time, 2 workers / 1 | | <= {GOAL_WORKERS} | {_mark([ratio], max, GOAL_WORKERS, '.2f')} |")
    return "\n".join(lines) + "\n"


def _mark(values: list[float], which: Callable[[list[float]], float], most: float, digits: str) -> str:
    if not values:
        return "none"
    value = which(values)
    text = f"{value:{digits}}"
    return text if value <= most else f"**{text}**"
