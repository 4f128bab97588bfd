"""What the checks look at: arc lines, traces, choices of sky side by side, cosmic rays, the combination of arms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .. import instrument
from ..errors import PanaceaError
from ..products import bundle, combined, cosmicmarks, frames, session
from ..products.cosmicmarks import Mark
from ..products.layout import Layout, safe_name
from ..reduce import wavelength
from ..reduce.combine import Combined, combine_spectra
from ..reduce.commongrid import common_grid
from ..reduce.wavelength import WavelengthSolution
from .choices import Choices
from .model import ExposureModel, Shown
from .there import Entry

MARKS_FILE = "choices_cosmics.txt"
SKIES = {
    "auto": ("auto", "none"),
    "auto, polynomial": ("auto", "polynomial"),
    "auto, pca": ("auto", "pca"),
    "none": ("none", "none"),
}


class Arcs:
    """The wavelength solution of a channel, with arc lines left out by hand.

    Attributes
    ----------
    lines : table of all arc lines; amplitude, variance : (nf, nx) of the summed arcs
    """

    def __init__(self, layout: Layout, channel: str) -> None:
        task = session.open(
            stage="03_wavelength", output=str(layout.output), night=layout.night, tag=layout.tag, channel=channel
        )
        found = bundle.read(task.input(task.work("03_wavelength")), "arc", "variance")
        traced = bundle.read(task.input(task.work("02_trace")), "alive", "trace", "amplitude", "image")
        self.amplitude, self.variance, self.alive = found["arc"], found["variance"], traced.flag("alive")
        self.trace, self.flat, self.level = traced["trace"], traced["image"], np.median(traced["amplitude"], axis=1)
        self.lines = instrument.channel(channel).arc_lines()
        self.reference = frames.reference_map(channel, self.amplitude.shape[1])

    def solve(self, dropped: str = "") -> WavelengthSolution:
        """The solution as 03_wavelength makes it; ``dropped`` are wavelengths of lines, as in ``3650.15,4046.56``."""
        lines, _ = wavelength.without_lines(self.lines, dropped)
        return wavelength.solve_wavelength(self.amplitude, self.variance, ~self.alive, lines, reference=self.reference)


def line_table(solution: WavelengthSolution) -> list[tuple[float, int, float, float]]:
    """Of each arc line: wavelength [A], fibres in which it was used, median residual and its spread over fibres [px]."""
    rows = []
    for k, wave in enumerate(solution.lines.wavelength):
        rest = solution.residual[k][solution.used[k]]
        middle = float(np.median(rest)) if rest.size else float("nan")
        spread = 1.4826 * float(np.median(np.abs(rest - middle))) if rest.size else float("nan")
        rows.append((float(wave), int(solution.used[k].sum()), middle, spread))
    return rows


def skies(model: ExposureModel, choices: Choices, names: Iterable[str], regions: dict[str, dict]) -> dict[str, Shown]:
    """What several choices of sky give, by name: those of `SKIES`, or of ``regions`` (options of the run definition)."""
    shown = {}
    for name in names:
        other = Choices(choices.definition.to_dict())
        take_sky(other, name, regions)
        found = model.show(other)
        if found is not None:
            shown[name] = found
    return shown


def take_sky(choices: Choices, name: str, regions: dict[str, dict]) -> None:
    """Take one of the skies that can be compared."""
    if name in SKIES:
        mode, refine = SKIES[name]
        choices.set_sky(mode, sky_refine=refine)
    else:
        options = dict(regions[name])
        choices.set_sky(options.pop("sky_mode"), **options)


@dataclass(frozen=True)
class Cutout:
    """A part of the CCD image with its cosmic rays: ``x0``, ``y0`` are column and row of its first pixel, from 0."""

    image: np.ndarray
    cosmics: np.ndarray
    found: np.ndarray
    x0: int
    y0: int


def cutout(model: ExposureModel, choices: Choices, x: int, y: int, size: tuple[int, int] = (90, 160)) -> Cutout:
    """The image around column ``x``, row ``y`` (from 1), its cosmic rays with the marks on them, and as they were found."""
    spectra = model.spectra(choices)
    found = spectra.flag("cosmics")
    ny, nx = found.shape
    y0 = int(np.clip(y - 1 - size[0] // 2, 0, max(0, ny - size[0])))
    x0 = int(np.clip(x - 1 - size[1] // 2, 0, max(0, nx - size[1])))
    part = slice(y0, y0 + size[0]), slice(x0, x0 + size[1])
    return Cutout(spectra["image"][part], found[part], found[part], x0, y0)


def toggled(
    marks: list[Mark], model: ExposureModel, cosmics: np.ndarray, corners: tuple[int, int, int, int]
) -> list[Mark]:
    """Marks with one more: the pixels from (x, y) to (x2, y2), from 1, become clean where most are hit now, else hit.

    Marks of the same pixels are replaced.
    """
    x, x2 = sorted((corners[0], corners[2]))
    y, y2 = sorted((corners[1], corners[3]))
    hit, clean = cosmicmarks.masks([m for m in marks if m.exposure == model.label], cosmics.shape)
    now = ((cosmics | hit) & ~clean)[y - 1 : y2, x - 1 : x2]
    mark = Mark(model.label, "clean" if now.mean() > 0.5 else "hit", x, y, x2, y2)
    kept = [m for m in marks if replace(m, word=mark.word) != mark]
    return [*kept, mark]


def brightest_cosmics(model: ExposureModel, choices: Choices, most: int = 12) -> list[tuple[int, int, int]]:
    """The largest tracks: column and row (from 1) of their middle, and their pixels."""
    from scipy.ndimage import center_of_mass, label

    found = model.spectra(choices).flag("cosmics")
    numbered, count = label(found, np.ones((3, 3)))
    size = np.bincount(numbered.ravel())[1:]
    order = np.argsort(size)[::-1][:most]
    centres = center_of_mass(found, numbered, order + 1) if count else []
    return [(round(cx) + 1, round(cy) + 1, int(size[k])) for k, (cy, cx) in zip(order, centres, strict=True)]


class Combination:
    """The combined spectrum of a target from what 07_flux has left on disk."""

    def __init__(self, layout: Layout, entries: list[Entry]) -> None:
        own = [e for e in entries if e.on_target and "07_flux" in e.stages]
        if not own:
            raise PanaceaError("nothing to combine: no exposure of this target has come as far as 07_flux")
        place = {"output": str(layout.output), "night": layout.night, "tag": layout.tag}
        target = safe_name(own[0].object_name)
        task = session.open(stage="09_combine", **place, program=own[0].program, target=target)
        self.parts, _, _ = combined.read(task, [f"{e.channel}/{e.name}" for e in own if e.program == own[0].program])

    def combine(self, choices: Choices) -> Combined | None:
        """As 09_combine does it, of the channels and exposures that were not left out."""
        out = set(choices.leave_out)
        names = {id(part): f"{part.obsid:07d}_exp{part.exp:02d}" for part in self.parts}
        chosen = [p for p in self.parts if p.channel in choices.sides and not {names[id(p)], f"{p.obsid:07d}"} & out]
        kept, _ = combined.with_source(chosen)
        how = {name: getattr(choices, name) for name in ("barycentric", "vacuum", "match_resolution")}
        return combine_spectra(kept, common_grid(), **how) if kept else None
