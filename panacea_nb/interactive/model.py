"""An exposure at work: its inputs are read once, and what a choice changes is computed again, as 06_sky and 07_flux do it."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import instrument
from ..decisions import Decision
from ..errors import RequestError
from ..products import bundle, calibration, cosmicmarks, frames, session, skyinput
from ..products.bundle import Bundle
from ..products.cosmicmarks import Mark
from ..products.layout import Layout
from ..reduce import calibrated, fieldmodel, skychoice, skyrefine
from ..reduce.calibrated import Calibrated, FluxOptions, Measured, Rectified
from ..reduce.fieldmodel import FieldModel
from ..reduce.refraction import Refraction
from ..reduce.skychoice import SkyChoice
from ..reduce.sourceprior import prior_from_dict
from ..workflow import plan, status
from ..workflow.graph import task_id
from . import again
from .choices import Choices
from .there import Entry

KEPT = 3  # skies of an exposure, to go back to without a second computation: 60 MB each
_SKY_STAGE, _FLUX_STAGE = "06_sky", "07_flux"


class NotChosenError(RequestError):
    """The choices leave an exposure out, or do not come to it."""


@dataclass(frozen=True)
class SkyState:
    """The sky of an exposure under some choices.

    Attributes
    ----------
    field : FieldModel; choice : SkyChoice; good : (nf, nx) bool
    left : Bundle, what 06_sky leaves of it
    exact : bool; a first look takes the source from the sky before, and is not what a reduction gives
    """

    field: FieldModel
    choice: SkyChoice
    good: np.ndarray
    left: Bundle
    exact: bool
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class Shown:
    """All that is shown of an exposure under some choices."""

    sky: SkyState
    even: Rectified
    found: Measured
    options: FluxOptions
    decisions: tuple[Decision, ...]
    seconds: float

    @property
    def centre(self) -> float:
        return self.found.centre

    def digest(self) -> str:
        """sha256 over the rows of the spectrum as the product holds them: the same of what was seen and what was reduced."""
        one, even = self.found.spectrum, self.even
        return spectrum_digest(np.stack([even.grid, one.flux, one.sky, one.error, one.sky_error, even.response]))


def spectrum_digest(rows: np.ndarray) -> str:
    """sha256 over the primary array (6, nw) of a spectrum file."""
    return hashlib.sha256(np.ascontiguousarray(rows, ">f8").tobytes()).hexdigest()


class Kept:
    """The last few results of a computation, by what they depend on."""

    def __init__(self, most: int) -> None:
        self.most, self.values = most, OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result for a key, made when it is not there."""
        if key not in self.values:
            self.values[key] = make()
        self.values.move_to_end(key)
        while len(self.values) > self.most:
            self.values.popitem(last=False)
        return self.values[key]


def _key(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items()))


class ExposureModel:
    """One exposure on one channel, with all that its choices change.

    Parameters
    ----------
    layout : Layout; entry : Entry
    baseraw : str, root of the raw archive
    others : function of a channel and an exposure's name, giving the model of another exposure
    """

    def __init__(
        self, layout: Layout, entry: Entry, baseraw: str, others: Callable[[str, str], ExposureModel] | None = None
    ) -> None:
        self.layout, self.entry, self.baseraw, self.others = layout, entry, baseraw, others
        self.task = self._task(_SKY_STAGE)
        self.calibration = calibration.load_science(self.task)
        self._file = bundle.read(self.task.input(self.task.work("05_extract")))
        self.facts = instrument.channel(entry.channel)
        self.wave_ref = 0.5 * (self.facts.wave_min + self.facts.wave_max)
        path = self.facts.refraction()
        self.refraction = Refraction(*(np.asarray(path[name], float) for name in ("wavelength", "x", "y")))
        self.exposure = frames.find_exposure(self._task(_FLUX_STAGE), baseraw, "sci")
        self._skies, self._even, self._scales, self._spectra = Kept(KEPT), Kept(KEPT), Kept(8), Kept(2)
        self.marked = again.made_with_marks(layout, entry.channel, entry.obsid, entry.exposure)
        self._last: SkyState | None = None
        self.stale: list[Decision] = []

    def _task(self, stage: str) -> session.Task:
        at = {"channel": self.entry.channel, "obsid": self.entry.obsid, "exposure": self.entry.exposure}
        where = {"output": str(self.layout.output), "night": self.layout.night, "tag": self.layout.tag}
        return session.open(stage=stage, **where, **at, program=self.entry.program)

    @property
    def label(self) -> str:
        """``uv/0000012_exp01``."""
        return f"{self.entry.channel}/{self.entry.name}"

    def marks(self, choices: Choices) -> list[Mark]:
        """Cosmic rays of this exposure that were marked by hand."""
        path = choices.cosmics_file
        return [mark for mark in cosmicmarks.load(path) if mark.exposure == self.label] if path else []

    def spectra(self, choices: Choices) -> Bundle:
        """What 05_extract leaves: its file, or extracted again where cosmic rays were marked otherwise than for the file."""
        marks = self.marks(choices)
        if not marks and not self.marked:
            return self._file
        make = lambda: again.extracted(self._task("05_extract"), self.exposure, marks)  # noqa: E731
        return self._spectra.get(tuple(marks), make)

    # --- what a reduction would do -----------------------------------------------------------------------------------
    def parameters(self, choices: Choices) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters that `panacea-nb reduce` would give 06_sky and 07_flux of this exposure.

        Raises
        ------
        NotChosenError
        """
        definition = replace(choices.definition, baseraw=str(self.baseraw))
        made = plan.build(definition, self.layout, cache_dir=self.layout.work_dir / "index")
        at = (self.entry.channel, self.entry.obsid, self.entry.exposure)
        names = [task_id(stage, *at) for stage in (_SKY_STAGE, _FLUX_STAGE)]
        if names[0] not in made.tasks:
            raise NotChosenError(
                f"{self.entry.channel} {self.entry.name} is not among what was chosen: nothing to show"
            )
        self.stale = again.stale(self.layout, made, *at)
        sky = made.tasks[names[0]]
        ended = [name for name, word in sky.hopes.items() if self._shows(word)]
        return sky.told(ended).parameters, made.tasks[names[1]].parameters

    def _named(self, name: str) -> tuple[str, int, int]:
        """Channel, observation and exposure of a name such as ``orange/0000012_exp01``."""
        channel, _, exposure = name.rpartition("/")
        obsid, _, exp = exposure.partition("_exp")
        return channel or self.entry.channel, int(obsid), int(exp)

    def _shows(self, name: str) -> bool:
        """Whether a reduction would have the sky of another exposure to read: it has it, or it can be made on the way."""
        at = self._named(name)
        record = status.last_success(status.read(self.layout.status_dir, task_id(_SKY_STAGE, *at)))
        if record is not None and record.state in (status.State.FAILED, status.State.BLOCKED):
            return False
        made = record is not None and record.state is status.State.SUCCEEDED
        return made or (self.others is not None and self.layout.work("05_extract", *at).is_file())

    def left_by(self, choices: Choices, name: str) -> Bundle:
        """What 06_sky leaves for another exposure: its file, or computed when the choices make it another than in the file."""
        channel, obsid, exp = self._named(name)
        record = status.read(self.layout.status_dir, task_id(_SKY_STAGE, channel, obsid, exp))
        if self.others is not None:
            other = self.others(channel, f"{obsid:07d}_exp{exp:02d}")
            asked, _ = other.parameters(choices)
            place = ("output", "night", "tag", "baseraw")
            done = record.parameters if record is not None and record.state is status.State.SUCCEEDED else {}
            same = all(key in done and done[key] == value for key, value in asked.items() if key not in place)
            if not same or other.marks(choices) or other.marked:
                return other.sky(choices).left
        return bundle.read(self.task.input(self.task.other(_SKY_STAGE, name)))

    # --- the sky -------------------------------------------------------------------------------------------------------
    def sky(self, choices: Choices, asked: Mapping[str, Any] | None = None) -> SkyState:
        """The sky as 06_sky makes it."""
        asked = self.parameters(choices)[0] if asked is None else asked
        self._last = self._skies.get(self._sky_key(choices, asked), lambda: self._sky(choices, asked, None))
        return self._last

    def first_look(self, choices: Choices, asked: Mapping[str, Any]) -> SkyState | None:
        """The sky under another choice with the source as it was before: near to it, in a third of the time.

        None when it is known exactly, or nothing was before.
        """
        if self._sky_key(choices, asked) in self._skies.values or self._last is None or asked["sky_mode"] == "exposure":
            return None
        return self._sky(choices, asked, self._last)

    def _sky_key(self, choices: Choices, asked: Mapping[str, Any]) -> tuple:
        return _key(asked), tuple(self.marks(choices))

    def _sky(self, choices: Choices, asked: Mapping[str, Any], before: SkyState | None) -> SkyState:
        spectra, facts, refraction = self.spectra(choices), self.facts, self.refraction
        cal = self.calibration.without(asked["dead_fibers"])
        left = lambda name: self.left_by(choices, name)  # noqa: E731
        seeing = self._file.meta.get("seeing")  # marks do not change it; older runs have none
        if before is None:
            prior, decisions = skyinput.expected_source(self.task, asked["profile_from"], self.wave_ref, seeing, left)
        else:
            prior, decisions = prior_from_dict(before.left.meta["prior"]), []
        named = {
            "mode": asked["sky_mode"], "region": asked["sky_region"], "exclude": asked["sky_exclude"], "mask": asked["sky_mask"],
            "obsid": asked["sky_obsid"], "exposure": asked["sky_exp"], "degree": asked["sky_degree"],
            "refine": asked["sky_refine"],
        }  # fmt: skip
        exptime = float(spectra.meta["exptime"] or 0.0)
        choice = skyinput.choose(self.task, exptime, cal.alive.size, **named, left=left)
        place = (cal.positions, refraction, (facts.wave_min, facts.wave_max), asked["central_wave"] or self.wave_ref)
        sky_fit = skychoice.sky_fit(choice, *place)
        samples = [spectra[name] for name in ("amplitude", "variance", "mask", "wavelength")]
        data = (*samples, cal.lsf, cal.throughput, cal.positions, cal.alive)
        if before is None:
            how = {"correct_ftf": asked["correct_ftf"], "prior": prior, "rows": cal.rows, "sky_fit": sky_fit}
            field = fieldmodel.model_field(*data, refraction, self.wave_ref, **how)
        else:
            usable = before.good & (samples[1] > 0)
            rest = (samples[3], cal.lsf, before.field.throughput, cal.positions, cal.alive)
            share = {"source": before.field.source_native, "exclude": None}
            light = before.field.cleaned(samples[0])
            field = replace(before.field, sky=sky_fit(light, samples[1], usable, *rest, **share, rounds=3))
        good = fieldmodel.usable_samples(field.mask) & cal.alive[:, None]
        field = skyrefine.refined(field, asked["sky_refine"], field.cleaned(samples[0]), samples[1], good)
        arrays = skyinput.sky_arrays(field, field.sky.native_variance(), choice)
        values = skyinput.sky_values(field, choice, prior, seeing)
        said = (*decisions, choice.decision(int(field.sky.fibers.sum())), *field.decisions)
        return SkyState(field, choice, good, bundle.as_read(arrays, values), before is None, said)

    # --- flux and source -----------------------------------------------------------------------------------------------
    def show(self, choices: Choices, *, first_look: bool = False) -> Shown | None:
        """Everything under the choices; with ``first_look`` only what `first_look` can tell, if that."""
        start = time.perf_counter()
        asked, flux = self.parameters(choices)
        sky = self.first_look(choices, asked) if first_look else self.sky(choices, asked)
        if sky is None:
            return None
        options = flux_options(flux)
        scale, response, air, decisions = self._scale(options)
        cal = self.calibration.without(flux["dead_fibers"])

        def rectify() -> Rectified:
            spectra = self.spectra(choices)
            return calibrated.rectified(self.entry.channel, cal, spectra, sky.left, scale, response)

        key = (self._sky_key(choices, asked), flux["dead_fibers"], options.standard_date, options.standard_obsid)
        even = self._even.get(key, rectify) if sky.exact else rectify()
        found = calibrated.measured(even, options, air)
        said = (*self.stale, *sky.decisions, *decisions, *found.decisions)
        return Shown(sky, even, found, options, said, time.perf_counter() - start)

    def _scale(self, options: FluxOptions):
        """Flux scale, response and transmission of the air, which few choices change."""

        def make():
            task = self._task(_FLUX_STAGE)
            scale, _, response = calibration.flux_scale(task, self.exposure, self.baseraw, self.calibration, options)
            return scale, response, calibration.transmission(task, options, self.exposure), tuple(task.decisions)

        return self._scales.get((options.telluric, options.standard_date, options.standard_obsid), make)

    def image(self, shown: Shown) -> tuple[np.ndarray, Any]:
        """The collapsed image and its spaxels, as they go into the products."""
        return calibrated.collapsed_image(shown.even, shown.found.source, shown.centre, shown.options.wavelength_bin)

    def calibrated(self, shown: Shown) -> Calibrated:
        """All that 07_flux makes products of."""
        return calibrated.assembled(shown.even, shown.found, shown.options)


def flux_options(asked: Mapping[str, Any]) -> FluxOptions:
    """Options of `calibrate` from the parameters of 07_flux."""
    taken = {"extraction": asked["extraction"], "aperture": asked["aperture"]}
    taken |= {name: asked[name] for name in ("extract_region", "telluric", "covariance")}
    taken["aperture_correction"] = not asked["no_aperture_correction"]
    places = [asked[n] for n in ("central_wave", "wavelength_bin", "source_x", "source_y")]
    return FluxOptions(*places, asked["standard_star_date"], asked["standard_star_obsid"], **taken)


def moved(
    choices: Choices, centre: float, half_width: float, refraction: Refraction, old_centre: float
) -> dict[str, Any]:
    """Changes of the choices when the collapse window goes elsewhere: places move with the light, as refraction moves it."""
    dx, dy = (float(d) for d in refraction.offset(centre, old_centre))
    changes: dict[str, Any] = {"central_wave": round(centre, 2), "wavelength_bin": half_width}
    if choices.source_x is not None:
        changes |= {"source_x": round(choices.source_x + dx, 4), "source_y": round(choices.source_y + dy, 4)}
    for name in ("sky_region", "sky_exclude", "extract_region"):
        text = getattr(choices, name)
        if text:
            changes[name] = shifted(text, dx, dy)
    return changes


def shifted(region: str, dx: float, dy: float) -> str:
    """The text of a region with all its shapes moved [arcsec]."""
    from ..reduce.skyregion import parse_region

    shapes = []
    for shape in parse_region(region).shapes:
        x, y, *size = shape.numbers
        numbers = [round(x + dx, 4), round(y + dy, 4), *size]
        shapes.append(f"{shape.kind}({','.join(f'{number:g}' for number in numbers)})")
    return "+".join(shapes)
