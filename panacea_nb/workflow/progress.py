"""What a run tells while it runs and at its end: log, progress bar with the time left, tables."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from .status import Record, State


class RunLog:
    """The log of a run: every line goes to ``logs/reduce.log`` with its time, and to the console.

    Parameters
    ----------
    path : Path or None
        The log file, added to; None keeps none.
    console : TextIO, optional
        Where people look; standard output by default.
    """

    def __init__(self, path: Path | None, console: TextIO | None = None) -> None:
        self.console = console or sys.stdout
        self.bar: Bar | None = None
        self._logger = logging.Logger("panacea_nb.run", logging.INFO)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S"))
            self._logger.addHandler(handler)

    def __call__(self, line: str, level: int = logging.INFO, *, quiet: bool = False) -> None:
        """Log a line; ``quiet`` keeps it off the console."""
        self._logger.log(level, "%s", line)
        if quiet:
            return
        if self.bar is not None and self.bar.shown:
            self.bar.write(line)
        else:
            print(line, file=self.console, flush=True)

    def close(self) -> None:
        """Close the log file."""
        for handler in list(self._logger.handlers):
            self._logger.removeHandler(handler)
            handler.close()


class Bar:
    """The progress bar: shown on a terminal only.

    Parameters
    ----------
    total : int
        Tasks of the plan.
    console : TextIO
        The console; a bar is shown when it is a terminal.
    """

    def __init__(self, total: int, console: TextIO) -> None:
        self.shown = console.isatty()
        self.console = console
        self._bar = None
        if self.shown:
            from tqdm import tqdm

            layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} tasks, {elapsed}{postfix}"
            self._bar = tqdm(total=total, file=console, bar_format=layout, dynamic_ncols=True, leave=False)

    def update(self, done: int, left: float, running: Iterable[str]) -> None:
        """Show the number of tasks done, the time left [s] and what is running."""
        if self._bar is not None:
            self._bar.n = done
            busy = " ".join(running)
            self._bar.set_postfix_str(f"about {duration(left)} left  {busy}", refresh=True)

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        from tqdm import tqdm

        tqdm.write(line, file=self.console)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self.shown = None, False


class Clock:
    """Estimates how long the rest takes from how long tasks of the same stage took, in this run or before.

    Parameters
    ----------
    records : iterable of Record
        Of earlier runs.
    slots : int
        Tasks that run at the same time.
    """

    def __init__(self, records: Iterable[Record], slots: int) -> None:
        self.slots = max(1, slots)
        self._times: dict[str, list[float]] = {}
        for record in records:
            if record.state is State.SUCCEEDED and record.wall > 0:
                self._times.setdefault(record.stage, []).append(record.wall)
        self._fresh: set[str] = set()

    def took(self, stage: str, wall: float) -> None:
        """Learn the time of a task; what this run measures replaces what earlier ones did."""
        if stage not in self._fresh:
            self._fresh.add(stage)
            self._times[stage] = []
        self._times[stage].append(wall)

    def expected(self, stage: str) -> float:
        """Seconds that a task of this stage is expected to take."""
        known = self._times.get(stage) or [t for times in self._times.values() for t in times] or [10.0]
        return sum(known) / len(known)

    def left(self, waiting: Sequence[str], running: dict[str, float]) -> float:
        """Seconds left, from the stages that wait and the tasks that run (id -> start, monotonic)."""
        now = time.monotonic()
        rest = sum(self.expected(stage) for stage in waiting)
        rest += sum(
            max(0.0, self.expected(stage.partition("-")[0]) - (now - start)) for stage, start in running.items()
        )
        return rest / self.slots


def duration(seconds: float) -> str:
    """A time for people: ``45 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain text table with aligned columns."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def summary(records: Sequence[Record], fresh: set[str]) -> str:
    """One line per stage: how many tasks ended how, with which verdicts, and how long they took.

    Parameters
    ----------
    records : sequence of Record
        Of all tasks of the plan.
    fresh : set of str
        Ids of the tasks that were run now; the other successes were up to date.
    """
    rows = []
    for stage in sorted({record.stage for record in records}):
        of_stage = [record for record in records if record.stage == stage]
        states = Counter(record.state for record in of_stage)
        done = [record for record in of_stage if record.state is State.SUCCEEDED]
        verdicts = Counter(record.verdict for record in done)
        ran = [record for record in done if record.id in fresh]
        rows.append(
            (
                stage,
                str(len(of_stage)),
                str(states[State.SUCCEEDED]),
                str(len(done) - len(ran)),
                str(states[State.FAILED]),
                str(states[State.BLOCKED]),
                str(states[State.ABORTED] + states[State.PENDING] + states[State.RUNNING]),
                "/".join(str(verdicts[name]) for name in ("pass", "warn", "fail")),
                f"{sum(r.wall for r in ran) / len(ran):.1f}" if ran else "",
            )
        )
    head = (
        "stage",
        "tasks",
        "succeeded",
        "of these up to date",
        "failed",
        "blocked",
        "not done",
        "pass/warn/fail",
        "s/task",
    )
    return table(head, rows)


_NOTE = 160  # characters of a reason in the table


def status_table(records: Iterable[Record]) -> str:
    """One line per task, for ``panacea-nb status``; reasons too long for a line follow whole."""
    rows, reasons = [], []
    for record in records:
        note = record.verdict
        if record.error:
            note = f"{record.error.get('type', '')}: {record.error.get('message', '')}"
        if len(note) > _NOTE:
            reasons.append(f"{record.id}: {note}")
            note = f"{note[:_NOTE]} ... (all of it below)"
        rows.append((record.id, record.state.value, f"{record.wall:.1f}" if record.wall else "", note))
    return "\n\n".join([table(("task", "state", "s", "verdict or reason"), rows), *reasons])
