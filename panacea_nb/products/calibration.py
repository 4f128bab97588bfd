"""The calibrations of a channel as the science stages need them, put together from what the calibration stages left."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .. import raw
from ..decisions import Decision
from ..instrument import DEFAULT_AREA, N_COLUMNS, ZENITH_DISTANCE, extinction, mean_telluric
from ..instrument import channel as find_channel
from ..reduce.bias import MasterBias, MasterDark
from ..reduce.calibrated import FluxOptions
from ..reduce.extract import FiberModel
from ..reduce.flux import FluxScale
from ..reduce.scatter import ScatterModel
from ..reduce.skyregion import fiber_list
from ..reduce.telluric import Transmission, at_airmass, mean_transmission
from ..reduce.trace import PROFILE_BLOCK, TraceResult
from . import bundle
from .checked import open_checked
from .layout import locate
from .session import MissingInputError, Task

SAME_AIRMASS = 0.002  # airmasses closer than that change no flux by a per mille
HET_AIRMASS = 1.0 / float(np.cos(np.deg2rad(ZENITH_DISTANCE)))


@dataclass(frozen=True)
class Calibration:
    """Attributes
    ----------
    bias, dark : master frames
    bad : (ny, nx) bool
    model : FiberModel; scatter : ScatterModel
    wavelength : (nf, nx) [A, air]; lsf : (nf, nx) sigma [px]
    throughput : (nf, nx); flat : (ny, nx) pixel flat; flat_error : (nx,), what it may be wrong by in a pixel
    profile_scale : float, K of the flux scale
    positions : (nf, 2) IFU arcsec
    arcs : (2, m), the arc lines that the wavelengths rest on [A, air], and by how much these are too large there [px]
    shares : (2, n) or None, light that fibre profiles and scattered light leave under the fibres, see `ramp.level_shares`
    """

    bias: MasterBias
    dark: MasterDark
    bad: np.ndarray
    model: FiberModel
    scatter: ScatterModel
    wavelength: np.ndarray
    lsf: np.ndarray
    throughput: np.ndarray
    flat: np.ndarray
    flat_error: np.ndarray
    profile_scale: float
    positions: np.ndarray
    arcs: np.ndarray
    shares: np.ndarray | None

    @property
    def binning(self) -> int:
        return N_COLUMNS // self.bias.data.shape[1]


def bias_arrays(bias: MasterBias, dark: MasterDark) -> tuple[dict, dict]:
    """What 01_bias leaves for the other stages: arrays and plain values."""
    arrays = {"bias": bias.data, "bad": bias.bad | dark.hot, "dark": dark.rate}
    values = {"rdnoise": bias.rdnoise, "wander": bias.wander, "n_frames": bias.n_frames}
    return arrays, values | {"dark_exposure": dark.exposure}


def _read(task: Task, stage: str, *names: str) -> bundle.Bundle:
    """A calibration file of the task's channel, noted among what went in."""
    path = task.input(task.work(stage, per_channel=True))
    task.inputs[stage] = bundle.fingerprint(path)
    return bundle.read(path, *names)


def load_bias(task: Task) -> tuple[MasterBias, MasterDark, np.ndarray]:
    """Master bias, master dark and bad pixels of the channel."""
    found = _read(task, "01_bias")
    bad = found.flag("bad")
    meta = found.meta
    noise, rows = np.array(meta["rdnoise"]), np.array(meta["wander"])
    bias = MasterBias(found["bias"], found["bias"], noise, bad, meta["n_frames"], np.zeros((0, 2)), rows)
    return bias, MasterDark(found["dark"], bad, meta["dark_exposure"]), bad


def trace_arrays(result: TraceResult, image: np.ndarray, n_frames: int, kind: str) -> tuple[dict, dict]:
    """What 02_trace leaves: arrays and plain values; ``kind`` is the type of the ``n_frames`` frames in ``image``."""
    model = result.model
    arrays = {
        "trace": model.trace, "coef": model.coef, "alive": model.alive, "sigmas": result.scatter.sigmas,
        "weights": result.scatter.weights, "widths": result.widths, "image": image.astype(np.float32),
        "background": result.background, "amplitude": result.extraction.amplitude, "variance": result.extraction.variance,
        "used": result.extraction.used,
    }  # fmt: skip
    return arrays, {"n_frames": n_frames, "kind": kind, "match": result.match}


def load_model(found: bundle.Bundle) -> tuple[FiberModel, ScatterModel]:
    """Fibre and scattered-light model from the file of 02_trace."""
    model = FiberModel(found["trace"], found["coef"], PROFILE_BLOCK, found.flag("alive"))
    return model, ScatterModel(found["sigmas"], found["weights"])


def load(task: Task) -> Calibration:
    """All calibrations of the task's channel.

    Raises
    ------
    MissingInputError
        When a calibration stage has not run.
    """
    bias, dark, bad = load_bias(task)
    traced = _read(task, "02_trace", "trace", "coef", "alive", "sigmas", "weights")
    model, scatter = load_model(traced)
    waves = _read(task, "03_wavelength", "wavelength", "lsf")
    flats = _read(task, "04_flat", "throughput", "pixelflat", "pixelerror", "defects", "shares")
    return Calibration(
        bias, dark, bad | flats.flag("defects"), model, scatter, waves["wavelength"], waves["lsf"], flats["throughput"],
        flats["pixelflat"], flats["pixelerror"], float(flats.meta["profile_scale"]),
        find_channel(task.channel).fiber_positions(),
        np.asarray(waves.meta.get("lines", [[], []]), float),  # reductions made before they were kept have none
        flats.arrays.get("shares"),  # the same
    )  # fmt: skip


@dataclass(frozen=True)
class ScienceCalibration:
    """What the later science stages need of the calibrations: a `Calibration` without its large frames.

    Attributes
    ----------
    model : FiberModel; lsf, throughput : (nf, nx); flat : (ny, nx); profile_scale : float; positions : (nf, 2)
    """

    model: FiberModel
    lsf: np.ndarray
    throughput: np.ndarray
    flat: np.ndarray
    profile_scale: float
    positions: np.ndarray

    @property
    def alive(self) -> np.ndarray:
        return self.model.alive

    @property
    def rows(self) -> np.ndarray:
        """Where the fibres lie on the chip, (nf,) [px]."""
        return np.median(self.model.trace, axis=1)

    def without(self, fibers: str) -> ScienceCalibration:
        """These calibrations with some fibres switched off: numbers from 1, as in ``12-14,80``."""
        if not fibers:
            return self
        alive = self.alive & ~fiber_list(fibers, self.alive.size)
        return replace(self, model=replace(self.model, alive=alive))


def load_science(task: Task, dead_fibers: str = "") -> ScienceCalibration:
    """Calibrations for 06_sky and 07_flux; ``dead_fibers`` were switched off by hand, which is recorded with the task."""
    traced = _read(task, "02_trace", "trace", "coef", "alive", "sigmas", "weights")
    waves = _read(task, "03_wavelength", "lsf")
    flats = _read(task, "04_flat", "throughput", "pixelflat")
    if dead_fibers:
        task.record([Decision("FIBERSOFF", f"fibres switched off by hand: {dead_fibers}", "info")])
    return ScienceCalibration(
        load_model(traced)[0], waves["lsf"], flats["throughput"], flats["pixelflat"], float(flats.meta["profile_scale"]),
        find_channel(task.channel).fiber_positions(),
    ).without(dead_fibers)  # fmt: skip


def flux_scale(task: Task, exposure: raw.Exposure, baseraw: str, cal: ScienceCalibration, options: FluxOptions):
    """Exposure time, illuminated area, transparency and response of an exposure; every default is recorded with the task.

    Returns
    -------
    scale : FluxScale, guide : GuiderSummary, response : (n_wave,) on the channel's grid
    """
    exptime = exposure.exptime
    if exptime is None or exptime <= 0:
        exptime = 1.0
        task.record(
            [
                Decision(
                    "NOEXPTIME",
                    "the header has no exposure time that can be used: fluxes are those of the whole exposure, not per second: "
                    "divide them by its length [s], or correct EXPTIME and reduce it again",
                    "warn",
                )
            ]
        )
    guide = raw.guider(
        locate(baseraw), exposure.start, exptime, task.layout.night, cache_dir=task.layout.work_dir / "index"
    )
    task.record(guide.decisions)
    transparency = 1.0 if guide.transparency is None else guide.transparency
    area = DEFAULT_AREA if guide.illumination is None else guide.illumination * DEFAULT_AREA
    channel = find_channel(task.channel)
    response = np.interp(channel.wave_grid(), *channel.response())
    if options.standard_obsid is not None:
        path = standard_response_path(task, options)
        response, there = bundle_response(task.input(path))
        more, said = extinction_between(channel.wave_grid(), airmass(exposure), there)
        response = response * more
        text = f"response of the standard in {task.layout.relative(path)} used instead of the default{said}"
        task.record([Decision("STDRESP", text, "info")])
    else:
        task.record([Decision("DEFRESP", "default response curve used", "info")])
    return FluxScale(float(exptime), float(area), float(transparency), cal.profile_scale), guide, response


def airmass(exposure: raw.Exposure) -> float:
    """Airmass of an exposure: of the header where it makes sense for this telescope, else at its fixed zenith distance."""
    found = exposure.value("AIRMASS")
    return float(found) if found is not None and 1.0 <= found < 2.0 else HET_AIRMASS


def transmission(task: Task, options: FluxOptions, exposure: raw.Exposure) -> Transmission | None:
    """Transmission of the air for ``--telluric``, or None; what was used is recorded with the task.

    Raises
    ------
    MissingInputError
        When the response of the standard is not there, or was made without the extension.
    """
    if options.telluric == "none":
        return None
    here, grid = airmass(exposure), find_channel(task.channel).wave_grid()
    if options.telluric == "mean":
        task.record([Decision("TELLMEAN", f"telluric correction by the mean curve at airmass {here:.3f}", "info")])
        return mean_transmission(mean_telluric(grid), here, HET_AIRMASS)
    path = task.input(standard_response_path(task, options))
    with open_checked(path) as hdus:
        if "TELLURIC" not in hdus:
            raise MissingInputError(f"{path.name} holds no telluric transmission: reduce that standard again")
        _, value, error = np.asarray(hdus["TELLURIC"].data, float)
        there = float(hdus["TELLURIC"].header["AIRMASS"])
    text = f"telluric correction from {path.name}, airmass {there:.3f}, brought to {here:.3f}"
    task.record([Decision("TELLSTD", text, "info")])
    return at_airmass(Transmission("standard", value, error), here / there)


def standard_response_path(task: Task, options: FluxOptions):
    """File of the response that ``--standard_star_date --standard_star_obsid`` name."""
    night = options.standard_date or task.layout.night
    layout = replace(task.layout, night=night)
    found = sorted(layout.cals_dir.glob(f"response_{night}_{int(options.standard_obsid):07d}_exp*_{task.channel}.fits"))
    return found[0] if found else layout.response(options.standard_obsid, 1, task.channel)


def bundle_response(path) -> tuple[np.ndarray, float]:
    """Response (n_wave,) of a response file, and the airmass at which it holds."""
    with open_checked(path) as hdus:
        there = hdus["telluric"].header["AIRMASS"] if "telluric" in hdus else HET_AIRMASS
        return np.asarray(hdus[0].data[1], float), float(there)


def extinction_between(wave: np.ndarray, here: float, there: float) -> tuple[np.ndarray, str]:
    """Factor (n,) of a response that a standard gave at airmass ``there``, for a target at ``here``, and what is said of it."""
    if abs(here - there) < SAME_AIRMASS:
        return np.ones(wave.size), ""
    factor = 10 ** (0.4 * extinction(wave) * (here - there))
    return factor, f", corrected by mean extinction from airmass {there:.3f} to {here:.3f}"
