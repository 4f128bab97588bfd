"""The graph of tasks: what each waits for, what it is told, and what of it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import PanaceaError
from . import stages
from .stages import TARGET, Stage


class PlanError(PanaceaError):
    """The graph of tasks contradicts itself."""


@dataclass
class Task:
    """One run of one notebook.

    Parameters
    ----------
    id : str
        ``00_inventory``, ``01_bias-uv``, ``05_extract-0000012-exp01-uv``, ``09_combine.HET25-1-101.NGC_1``.
    stage : Stage
        Its line in the stage table.
    source : Path
        The notebook to run.
    notebook : Path
        Where the executed notebook goes.
    parameters : dict
        What the notebook is given.
    depends : dict
        The part of the request that belongs to its fingerprint: parameters without where things lie.
    needs, after : tuple of str
        Ids of tasks whose products it reads, and of tasks that must only have ended well before.
    hopes : dict
        Id -> what the notebook is told (in the parameter ``stage.hopes``) of a task whose products it reads if it succeeded.
    earlier : dict
        Id -> (what the notebook is told, products) of a task that an earlier run has done, whose products it reads as well.
    frames : tuple
        Raw frames it reads (`panacea_nb.raw.FrameRecord`).
    facts : dict
        Further digests of what goes in, known when the plan is made.
    guider : object or None
        The exposure (`panacea_nb.raw.Exposure`) whose guide-camera frames it reads.
    problem : str
        Why it cannot be run at all; empty when it can.
    """

    id: str
    stage: Stage
    source: Path
    notebook: Path
    parameters: dict[str, Any]
    depends: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    hopes: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    frames: tuple[Any, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    guider: Any = None
    problem: str = ""

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Ids of all tasks that must have succeeded before."""
        return tuple(dict.fromkeys((*self.after, *self.needs)))

    @property
    def comes_after(self) -> tuple[str, ...]:
        """Ids of all tasks that must have ended before, well or not."""
        return tuple(dict.fromkeys((*self.waits_for, *self.hopes)))

    def told(self, succeeded: Iterable[str]) -> Task:
        """This task with the notebook told which of its hopes came true."""
        if not self.stage.hopes:
            return self
        known = set(succeeded)
        words = [word for name, word in self.hopes.items() if name in known]
        names = {self.stage.hopes: sorted([*words, *(word for word, _ in self.earlier.values())])}
        return replace(self, parameters={**self.parameters, **names}, depends={**self.depends, **names})

    def hopeless(self, succeeded: Iterable[str]) -> bool:
        """Whether it needs one of its hopes at least, and none of them came true."""
        return self.stage.scope == TARGET and not self.earlier and not set(succeeded).intersection(self.hopes)


@dataclass
class Plan:
    """Tasks in an order in which they could be run one by one, and what was noticed while planning."""

    tasks: dict[str, Task]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    baseraw: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for task in self.tasks.values():
            missing = [need for need in task.comes_after if need not in seen]
            if missing and not task.stage.last:
                raise PlanError(
                    f"task {task.id} waits for {', '.join(missing)}, which the plan does not hold before it"
                )
            seen.add(task.id)

    def dependants(self, task_id: str, *, hoping: bool = False) -> list[str]:
        """Ids of all tasks that cannot run without this one, directly or not, in plan order.

        With ``hoping`` also those that only hope for it; closing tasks are not among them.
        """
        found = {task_id}
        for task in self.tasks.values():
            if found.intersection(task.comes_after if hoping else task.waits_for):
                found.add(task.id)
        return [name for name in self.tasks if name in found and name != task_id]

    def levels(self) -> dict[str, int]:
        """Length of the longest chain of tasks that begins with each: the longest is to be started first."""
        level = dict.fromkeys(self.tasks, 1)
        for task in reversed(self.tasks.values()):
            for need in task.comes_after:
                level[need] = max(level[need], level[task.id] + 1)
        return level

    def until(self, stage: Stage, table: tuple[Stage, ...] = stages.STAGES) -> Plan:
        """The plan up to and with ``stage``, and whatever its tasks wait for."""
        order = {item.name: number for number, item in enumerate(table)}
        keep = {name for name, task in self.tasks.items() if order[task.stage.name] <= order[stage.name]}
        for task in reversed(self.tasks.values()):
            if task.id in keep:
                keep.update(task.comes_after)
        return Plan({n: t for n, t in self.tasks.items() if n in keep}, self.notes, self.problems, self.baseraw)

    def forced(self, names: Iterable[str]) -> set[str]:
        """Ids of the tasks of the named stages and of all that depend on them."""
        found: set[str] = set()
        for name in names:
            for task in self.tasks.values():
                if task.stage.name == name:
                    found.update((task.id, *self.dependants(task.id, hoping=True)))
        return found


def task_id(
    stage: str, channel: str = "", obsid: int | None = None, exp: int | None = None, program: str = "", target: str = ""
) -> str:
    """The id of a task, which is also the name of its status record."""
    if target:
        return f"{stage}.{program}.{target}"
    if obsid is not None:
        return f"{stage}-{obsid:07d}-exp{exp or 1:02d}-{channel}"
    return f"{stage}-{channel}" if channel else stage


def text_digest(value: Any) -> str:
    """sha256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
