"""``make benchmark``: simulate nights, reduce them through the executed notebooks, and compare with truth and goals."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

# the reference load and the reductions that it stands for run on one thread each
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from scoring import Score, score_exposure

from panacea_nb.instrument import CHANNELS
from panacea_nb.products import nightly
from panacea_nb.products.layout import Layout
from panacea_nb.simulate import SCENARIOS

from . import load, rows, timing

ROOT = Path(__file__).parents[2]
NIGHT = "20250115"
STRESS = "stress-"
THREE = "SIMGALAXY"  # in the names of targets that have one exposure in each arm
README_MARKS = ("<!-- benchmark: written by `make benchmark README=1` -->", "<!-- end of benchmark -->")


def main() -> int:
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.score:
        _scored(args)
        return 0
    scenarios = [name for name in SCENARIOS if name.startswith(STRESS)] if args.stress else args.scenario.split()
    sides = args.sides or ("uv,orange" if args.stress else ",".join(CHANNELS))
    seeds = args.seeds or [int(s) for s in np.random.default_rng().integers(1000, 10**6, 1 if args.stress else 3)]
    failed = False
    for scenario in scenarios:
        tables, nights, scores, ratio = [], [], [], None
        for seed in seeds:
            folder = args.keep / f"{scenario}-{seed}" if args.keep else args.out / "nights" / f"{scenario}-{seed}"
            print(f"{scenario}, seed {seed}, {sides}", flush=True)
            try:
                raw = _simulated(folder, scenario, seed, sides)
                night, good = _reduce(folder / "reduced", raw, sides, args.jobs)
                failed |= not good
                found = score_night(Layout(folder / "reduced", NIGHT), raw / NIGHT)
                if args.workers and ratio is None:
                    walls = [_wall(folder / f"workers{jobs}", raw, sides, jobs) for jobs in (1, 2)]
                    ratio = walls[1] / walls[0]
            finally:
                if not args.keep:
                    shutil.rmtree(folder, ignore_errors=True)
            nights.append(night)
            scores += found
            tables.append(by_channel(found))
            _write(args, scenario, seeds[: len(tables)], tables, nights, scores, ratio)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make benchmark", description=__doc__)
    parser.add_argument(
        "--seeds", nargs="*", type=int, help="seeds of the nights (default: three that are drawn afresh)"
    )
    parser.add_argument("--scenario", default="test", help="what the nights hold (default test); several in quotes")
    parser.add_argument(
        "--stress", action="store_true", help="the stress nights one after the other, uv and orange, one seed"
    )
    parser.add_argument("--sides", help="channels (default all; uv,orange of stress nights)")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at the same time (default 2)")
    parser.add_argument("--workers", action="store_true", help="measure the wall time with 1 and 2 workers too (slow)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep raw nights and reductions here; raw ones are used again"
    )
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmark", help="tables go here (runs/benchmark)")
    parser.add_argument(
        "--score", nargs=2, type=Path, metavar=("RAW", "OUTPUT"), help="only score a reduction that is there"
    )
    return parser


def _command(*arguments: object) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "panacea_nb", *map(str, arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def _simulated(folder: Path, scenario: str, seed: int, sides: str) -> Path:
    raw = folder / "raw"
    if not (raw / NIGHT).is_dir():
        code = _command("simulate", raw, "--date", NIGHT, "--seed", seed, "--scenario", scenario, "--sides", sides)
        if code:
            raise SystemExit(f"the simulation of seed {seed} ended with {code}")
    return raw


def _reduce(output: Path, raw: Path, sides: str, jobs: int) -> tuple[timing.Night, bool]:
    """Reduce each arm's channels with the exposures that held its target; what it cost, and whether all was done."""
    shutil.rmtree(output, ignore_errors=True)
    loads, good, wall, driver = [load.reference_load()], True, 0.0, 0.0
    slots: dict[str, list[str]] = {}
    for name in sides.split(","):
        slots.setdefault(CHANNELS[name].ifuslot, []).append(name)
    for slot, names in slots.items():
        before, start = _children(), time.monotonic()
        where = ("--baseraw", raw, "--output", output, "--jobs", jobs)
        code = _command("reduce", "-d", NIGHT, "-s", ",".join(names), "-o", f"_{slot}_", *where)
        wall += time.monotonic() - start
        driver += _children() - before
        loads.append(load.reference_load())
        if code:
            good = False
            print(f"reduce of {','.join(names)} ended with {code}; what it made is scored", flush=True)
            for record in nightly.task_records(Layout(output, NIGHT)):
                if record["state"] == "failed":
                    print(f"  {record['id']}: {record['why']}", flush=True)
    tasks = timing.read_tasks(Layout(output, NIGHT))
    return timing.Night(tasks, driver, wall, float(np.median(loads)), jobs), good


def _wall(output: Path, raw: Path, sides: str, jobs: int) -> float:
    """Wall time [s] of one run of all channels with some three exposures each: the galaxies of both arms and the standards."""
    shutil.rmtree(output, ignore_errors=True)
    start = time.monotonic()
    _command("reduce", "-d", NIGHT, "-s", sides, "-o", THREE, "--baseraw", raw, "--output", output, "--jobs", jobs)
    return time.monotonic() - start


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def score_night(layout: Layout, night_dir: Path) -> list[Score]:
    """Scores of all exposures of a night."""
    table = nightly.night_table(layout)
    where = [(int(r["obsid"]), int(r["exposure"]), str(r["channel"]), str(r["program"])) for r in table]
    return [score_exposure(layout, night_dir, *w) for w in where]


def by_channel(scores: list[Score]) -> rows.Table:
    """The rows of one night by channel."""
    return {name: rows.measure(own) for name in CHANNELS if (own := [s for s in scores if s.channel == name])}


def _scored(args: argparse.Namespace) -> None:
    raw, output = args.score
    layout = Layout(output.absolute(), NIGHT)
    found = score_night(layout, raw / NIGHT)
    night = timing.Night(timing.read_tasks(layout), 0.0, 0.0, load.reference_load(), args.jobs)
    _write(args, output.name, [], [by_channel(found)], [night], found, None)


def _write(args, scenario: str, seeds: list[int], tables: list[rows.Table], nights: list[timing.Night],
           scores: list[Score], ratio: float | None) -> None:  # fmt: skip
    """Print and write what is known so far, so that an interrupted benchmark leaves its nights."""
    total = rows.merge(tables)
    heading = f"Scenario {scenario}" + (f", seeds {', '.join(map(str, seeds))}" if seeds else "")
    intro = (
        f"{heading}: each channel's worst value over the nights; bold where it misses the goal, italics where the noise"
        " of the simulated photons themselves explains it (2.5 sigma)."
    )
    accuracy = rows.markdown(total)
    missed = rows.missed(total)
    cost = timing.markdown(nights, ratio)
    text = f"# {heading}\n\n{intro}\n\n{accuracy}\n## Goals missed: {len(missed)}\n\n"
    text += (
        "".join(f"- {line}\n" for line in missed)
        + f"\n## Time\n\n{cost}\n## Single exposures\n\n{rows.exposures(scores)}"
    )
    path = args.out / f"{scenario}.md"
    path.write_text(text, encoding="utf-8")
    values = [{"obsid": s.obsid, "exp": s.exp, "channel": s.channel, "kind": s.kind, **s.values} for s in scores]
    path.with_suffix(".json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    print(f"{text}\nwritten to {path}", flush=True)
    if args.readme:
        write_readme(ROOT / "README.md", f"{intro}\n\n{accuracy}\n{cost}")


def write_readme(path: Path, block: str) -> None:
    """Replace what stands between the benchmark's marks."""
    text = path.read_text(encoding="utf-8")
    begin, end = README_MARKS
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path} must hold these lines once each: {begin} and {end}")
    head, tail = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{head}{begin}\n{block}{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
