"""Simulate a whole night: plan it, take its exposures in several processes, write archive, guide frames and truth."""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import yaml

from ..instrument import CHANNELS, DEFAULT_AREA
from .archive import pack_night, write_members
from .exposures import Context, expose, write_channel
from .guider import CAMERAS, guider_members
from .scenario import SCENARIOS, ExposurePlan, Scenario, ScenarioError, parse_sides, plan_night, plan_previous

WEIGHTS = {"zro": 1, "drk": 2, "twi": 5, "flt": 5, "cmp": 5, "sci": 12}
"""Rough cost of an exposure, so that the longest work is begun first."""


def simulate_night(out: str | Path, date: str, seed: int, sides: str | tuple[str, ...] = tuple(CHANNELS),
                   scenario: Scenario | None = None, jobs: int = 2) -> Path:  # fmt: skip
    """Simulate a raw night with known truth.

    The result depends on date, seed, channels and scenario only, not on the number of jobs.

    Parameters
    ----------
    out : path
        Root of the raw archive (what ``--baseraw`` names); the night goes into ``out/date``.
    date : str
        Night, YYYYMMDD.
    seed : int
        Changes every truth: optics, detectors, weather, targets, noise. Nights of one seed share instrument, targets.
    sides : tuple of str or comma-separated str
        Channels to write; only their amplifiers' files exist.
    scenario : Scenario, optional
        What the night holds; by default calibrations and, for each arm, a standard, a faint target twice and a galaxy.
    jobs : int
        Processes. Scripts that ask for more than one need the usual ``if __name__ == "__main__"`` guard.

    Returns
    -------
    Path
        Folder of the night, ``out/date``, with the truth in ``truth``.

    Raises
    ------
    ScenarioError
        If the night is already there, or is no date.
    UnknownChannelError
        If a channel is unknown.
    """
    scenario = scenario or SCENARIOS["test"]
    sides = parse_sides(sides)
    plans = plan_night(date, seed, scenario, DEFAULT_AREA)
    root = Path(out)
    night_dir = root / date
    before = plan_previous(date, scenario)
    nights = sorted({p.night for p in plans + before})
    for night in nights:
        for path in (root / night, root / f"{night}.tar"):
            if path.exists():
                raise ScenarioError(f"{path} exists already: remove it, or simulate into another folder.")
    truth_dir = night_dir / "truth"
    truth_dir.mkdir(parents=True)
    first = next((p.label for p in plans if p.kind == "sci"), "")
    context = Context(seed, date, scenario, sides, truth_dir, first)
    try:
        _work(root, context, plans + before, jobs)
        _guide(night_dir, context, plans)
        manifest = _manifest(context, plans)
        (truth_dir / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        if scenario.layout.startswith("night"):
            for night in nights:
                pack_night(root, night)
    except BaseException:
        # half a night must not be taken for one
        for night in nights:
            shutil.rmtree(root / night, ignore_errors=True)
        raise
    return night_dir


def _work(root: Path, context: Context, plans: list[ExposurePlan], jobs: int) -> None:
    """Take all exposures, observation by observation, and write the channels' truth."""
    observations: dict[tuple[str, int], list[ExposurePlan]] = {}
    for plan in plans:
        observations.setdefault((plan.night, plan.obsid), []).append(plan)
    order = sorted(observations.values(), key=lambda o: -sum(WEIGHTS[p.kind] for p in o))
    if jobs <= 1:
        for group in order:
            _observe(root, context, group)
        for name in context.sides:
            write_channel(context, name)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_observe, root, context, group) for group in order]
        futures += [pool.submit(write_channel, context, name) for name in context.sides]
        for future in futures:
            future.result()


def _observe(root: Path, context: Context, plans: list[ExposurePlan]) -> None:
    """Take the exposures of one observation and write its files."""
    members = (member for plan in plans for member in expose(context, plan))
    folder = root / plans[0].night / "lrs2"
    write_members(folder, f"lrs2{plans[0].obsid:07d}.tar", members, context.scenario.layout)


def _guide(night_dir: Path, context: Context, plans: list[ExposurePlan]) -> None:
    if not context.scenario.guider:
        return
    science = [p for p in plans if p.kind == "sci"]
    for camera in CAMERAS:
        members = (m for p in science for m in guider_members(p, camera, context.seed))
        write_members(night_dir / camera, f"{camera}.tar", members, context.scenario.layout)


def _manifest(context: Context, plans: list[ExposurePlan]) -> dict:
    """What the night holds, as plain values."""
    entries = []
    for p in plans:
        entry = {"obsid": p.obsid, "exp": p.exp, "kind": p.kind, "start": p.start.isoformat(), "exptime": p.exptime,
                 "object": p.object_name}  # fmt: skip
        if p.kind == "sci":
            entry |= {
                "target": p.target.name, "target_kind": p.target.kind, "arm": p.target.arm, "program": p.target.program,
                "transparency": float(p.transparency), "area": float(p.area), "seeing": float(p.seeing),
                "beta": float(p.beta), "shear": list(p.shear), "ra": float(p.ra), "dec": float(p.dec),
            }  # fmt: skip
        if p.kind in ("twi", "flt"):
            entry["level"] = float(p.level)
        if p.flexures:
            entry["flexure"] = {
                name: {key: [float(v) for v in getattr(p.flexures[name], key)] for key in ("row", "column")}
                for name in context.sides
            }
        entries.append(entry)
    scenario = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(context.scenario).items() if k != "targets"
    }
    return {"seed": context.seed, "night": context.date, "sides": list(context.sides), "scenario": scenario,
            "exposures": entries}  # fmt: skip
