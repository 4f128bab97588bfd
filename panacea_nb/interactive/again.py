"""05_extract once more, with cosmic rays marked by hand; and what of a run would be made again before what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import instrument, raw
from ..decisions import Decision
from ..products import bundle, calibration, cosmicmarks, frames
from ..products.bundle import Bundle
from ..products.cosmicmarks import Mark
from ..products.layout import Layout
from ..products.session import Task
from ..qa import metrics
from ..reduce import exposure as physics
from ..workflow import status
from ..workflow.graph import Plan, task_id

PLACE = ("output", "night", "tag", "baseraw", "cosmics_file")  # where things lie changes no result
EARLIER = ("02_trace", "03_wavelength", "04_flat", "05_extract")


def extracted(task: Task, found: raw.Exposure, marks: Iterable[Mark]) -> Bundle:
    """What 05_extract leaves of an exposure with these marks; ``task`` is of that stage."""
    channel = str(task.channel)
    cal = calibration.load(task)
    image = frames.load_reduced(found, channel, cal.bias, cal.dark)
    data = image.data / cal.flat
    noise = frames.noise_rows(cal.bias)
    facts = instrument.channel(channel)
    sky_lines = facts.sky_lines()
    templates = instrument.sky_templates(channel) if sky_lines.size < 3 else None
    own = list(marks)
    marked = cosmicmarks.masks(own, data.shape) if own else None
    known = {"marked": marked, "sky_lines": sky_lines, "wander": cal.bias.wander, "templates": templates}
    known |= {"flat_error": cal.flat_error, "arcs": cal.arcs, "shares": cal.shares}
    optics = (cal.bad, cal.model, cal.scatter, cal.wavelength, cal.lsf, cal.throughput, cal.positions)
    result = physics.extract_exposure(data, image.mask, noise, *optics, **known, response=facts.response())
    arrays = {
        "amplitude": result.extraction.amplitude, "variance": result.extraction.variance, "used": result.extraction.used,
        "coupling": result.extraction.coupling, "mask": result.mask, "wavelength": result.wavelength,
        "trace": result.model.trace, "cosmics": result.cosmics, "image": image.data, "background": result.background,
    }  # fmt: skip
    values = {"object": found.object_name, "exptime": found.exptime, "binning": image.binning}
    return bundle.as_read(arrays, values | metrics.flexure_values(result))


def made_with_marks(layout: Layout, channel: str, obsid: int, exp: int) -> bool:
    """Whether the file of 05_extract was made with cosmic rays marked by hand."""
    record = status.read(layout.status_dir, task_id("05_extract", channel, obsid, exp))
    return record is not None and bool(record.parameters.get("cosmics_file"))


def stale(layout: Layout, plan: Plan, channel: str, obsid: int, exp: int) -> list[Decision]:
    """Warns of stages before 06_sky that a reduction with these choices would make otherwise than the files that are there."""
    changed = []
    for stage in EARLIER:
        name = task_id(stage, channel, obsid, exp) if stage == "05_extract" else task_id(stage, channel)
        record = status.read(layout.status_dir, name)
        if record is None or name not in plan.tasks:
            continue
        if _differ(plan.tasks[name].parameters, record.parameters):
            changed.append(stage)
    if not changed:
        return []
    text = f"{', '.join(changed)} will be made anew with these choices: what is shown here still rests on the files that are there"
    return [Decision("STALE", text, "warn")]


def _differ(asked: Mapping[str, Any], done: Mapping[str, Any]) -> bool:
    return any(done.get(key, value) != value for key, value in asked.items() if key not in PLACE)


def nearest_pixel(x: float, y: float, shape: tuple[int, int]) -> tuple[int, int]:
    """Column and row, counted from 1, of the pixel at a place whose pixels are centred on whole numbers from 0."""
    return int(np.clip(round(x), 0, shape[1] - 1)) + 1, int(np.clip(round(y), 0, shape[0] - 1)) + 1
