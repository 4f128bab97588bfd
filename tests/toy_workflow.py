"""A small workflow for tests: a stage table, notebooks of a second, a planner; as a script, a driver to be killed.

    python toy_workflow.py OUT JOBS [OPTION=VALUE ...]

Options are those of the toy notebooks (``knob.01_base=5``, ``trouble.02_mid-uv=raise``, ``seconds=0.5``) and of
`RunDefinition` (``redo=02_mid``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from panacea_nb.errors import PanaceaError
from panacea_nb.products.layout import Layout
from panacea_nb.workflow import driver, runs, warm
from panacea_nb.workflow.plan import Plan, Task, task_id
from panacea_nb.workflow.rundef import RunDefinition
from panacea_nb.workflow.stages import CHANNEL, EXPOSURE, NIGHT, Stage

TOY_NIGHT = "20250101"
TOY_CHANNELS = ("uv", "red")
TABLE = (
    Stage("00_start", NIGHT, "a beginning"),
    Stage("01_base", CHANNEL, "a number", after=("00_start",)),
    Stage("02_mid", CHANNEL, "its tens", needs=("01_base",)),
    Stage("05_leaf", EXPOSURE, "twice that", needs=("02_mid",), hopes="also", timeout=30.0),
    Stage("10_end", NIGHT, "the end", last=True),
)

PARAMETERS = """output: str = ""
night: str = ""
tag: str = ""
baseraw: str = ""
channel: str = ""  # none for the night's own stages
reads: list = []  # files of earlier stages
also: list = []  # files of the other exposure, if it was to be had
writes: list = []  # files to make
stage: str = ""
knob: int = 0
trouble: str = ""
seconds: float = 0.0"""
COMPUTE = """import hashlib, json, os, pathlib, sys, time
root = pathlib.Path(output)
value = knob + sum(int((root / name).read_text()) for name in reads)
more = 100 * sum(int((root / name).read_text()) for name in also)
value = {"01_base": value, "02_mid": value // 10, "05_leaf": 2 * value + more}.get(stage, value)
time.sleep(seconds)"""
TROUBLE = """if trouble == "raise":
    raise ValueError("it cannot be\\ndone")
elif trouble == "exit":
    sys.exit(0)
elif trouble == "os_exit":
    os._exit(0)
elif trouble == "kill":
    os.kill(os.getpid(), 9)
elif trouble == "hang":
    (root / "hanging").touch()
    time.sleep(1000)
print("value", value)"""
SAVE = """staging = pathlib.Path(os.environ["PANACEA_NB_STAGING"])
products = []
for name in writes:
    place = staging / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(value))
    products.append({"path": name, "digest": hashlib.sha256(place.read_bytes()).hexdigest()})
log = [f"{stage}, {channel}: source found at s/n: {value}.00"] if stage == "05_leaf" else []
result = {"token": os.environ["PANACEA_NB_TOKEN"], "stage": stage, "verdict": "pass", "products": products, "log": log}
(staging / ".result.json").write_text(json.dumps(result))"""
LAST = '"after the account of its end"'


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells, the first tagged ``parameters``."""
    made = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"cell{number}",
            "outputs": [],
            "source": source,
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
        }
        for number, source in enumerate(cells)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def planner(options: dict[str, str], notebooks: Path):
    """A planner for `TABLE`: two channels, two exposures each."""

    def plan(definition: RunDefinition, layout: Layout, *, cache_dir: Path | None = None) -> Plan:
        tasks: dict[str, Task] = {}
        for stage in TABLE:
            source = notebooks / f"{stage.name}.ipynb"
            if not source.exists():
                write_notebook(source, PARAMETERS, COMPUTE, TROUBLE, SAVE, LAST)
            channels = ("",) if stage.scope == NIGHT else definition.sides
            exposures = (1, 2) if stage.scope == EXPOSURE else (None,)
            for channel, obsid in ((c, o) for c in channels for o in exposures):
                add(tasks, stage, source, channel, obsid, definition, layout)
        return Plan(tasks)

    def add(tasks, stage, source, channel, obsid, definition, layout) -> None:
        name = task_id(stage.name, channel, obsid)
        known = {key: options[key] for key in (f"knob.{stage.name}", f"knob.{name}") if key in options}
        knob = int(next(reversed(known.values()), 7))
        place = layout.relative(layout.cals_dir)
        needs = tuple(task_id(need, channel) for need in stage.needs)
        parameters = {
            "output": str(layout.output),
            "night": layout.night,
            "tag": layout.tag,
            "baseraw": "",
            "stage": stage.name,
            "channel": channel,
            "reads": [f"{place}/{need}.txt" for need in needs],
            "writes": [f"{place}/{name}.txt"],
            "knob": knob,
            "seconds": float(options.get("seconds", 0)),
        }
        first = task_id(stage.name, channel, 1)
        limit = options.get(f"limit.{name}")
        trouble = options.get(f"trouble.{name}", "")
        parameters |= {trouble: 1} if trouble == "misspelt" else {"trouble": trouble}
        tasks[name] = Task(
            id=name,
            stage=dataclasses.replace(stage, timeout=float(limit)) if limit else stage,
            source=source,
            notebook=layout.night_dir / "notebooks" / f"{name}.ipynb",
            parameters=parameters,
            depends={"knob": knob, "channel": channel},
            needs=needs,
            after=tuple(task_id(one) for one in stage.after),
            hopes={first: f"{place}/{first}.txt"} if obsid == 2 and "hope." in options else {},
            problem=options.get(f"problem.{name}", ""),
        )

    return plan


def definition_of(output: Path, jobs: int, options: dict[str, str]) -> RunDefinition:
    """The run definition; the toy's own options are left out."""
    fields = {key: value for key, value in options.items() if "." not in key and key != "seconds"}
    values = {"night": TOY_NIGHT, "sides": TOY_CHANNELS, "output": str(output), "jobs": jobs, **fields}
    values["overwrite"] = str(values.get("overwrite", "")) == "True"
    return RunDefinition.from_dict(values)


def settings_of(output: Path, options: dict[str, str]) -> driver.Settings:
    """Settings that put the toy in the place of the real stages."""
    plan = planner(options, output.parent / "toy_notebooks")
    return driver.Settings(planner=plan, table=TABLE, code=options.get("code.", "toy"), report=False)


def reduce(output: Path, jobs: int = 0, options: dict[str, str] | None = None) -> driver.Outcome:
    """Reduce the toy night in this process."""
    options = options or {}
    before = os.environ.get(warm.KERNELS)
    # Notebooks of a second gain nothing from a warm kernel, whose imports take longer.
    os.environ[warm.KERNELS] = before or "plain"
    try:
        return runs.reduce(definition_of(output, jobs, options), settings_of(output, options))
    finally:
        if before is None:
            del os.environ[warm.KERNELS]


if __name__ == "__main__":
    pairs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    try:
        sys.exit(reduce(Path(sys.argv[1]), int(sys.argv[2]), pairs).exit_code)
    except PanaceaError as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
