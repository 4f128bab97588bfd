"""The user's choice of sky: read what it names (a mask, another exposure), and keep what 06_sky leaves for the next stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ..decisions import Decision
from ..reduce.companion import from_dict
from ..reduce.fieldmodel import FieldModel
from ..reduce.skychoice import OtherSky, SkyChoice
from ..reduce.skyregion import RegionError, fiber_list, parse_region
from ..reduce.sourceprior import SourcePrior, guided_prior, paired_prior, standards_prior
from ..reduce.spline import CommonSpectrum
from . import bundle
from .layout import locate
from .session import Task

Left = Callable[[str], bundle.Bundle]  # what 06_sky left for an exposure, by its name


def read_mask(text: str, n_fibers: int) -> np.ndarray:
    """Sky fibres (n_fibers,) bool from a list of numbers (``1-20,35``), or from a file.

    A FITS file holds an array with one value per fibre (or rows of fibres), not zero where a fibre is sky; a text file holds
    numbers of fibres, counted from 1, with comments after ``#``.

    Raises
    ------
    RegionError
    """
    if all(c.isdigit() or c in ",- " for c in text):
        return fiber_list(text, n_fibers)
    path = locate(text)
    if not path.is_file():
        raise RegionError(f"sky mask {text!r} is neither a list of fibres such as 1-20,35 nor a file")
    if path.suffix.lower() in (".fits", ".fit", ".fz", ".gz"):
        with fits.open(path, memmap=False) as hdus:
            data = next((np.asarray(hdu.data) for hdu in hdus if hdu.is_image and hdu.data is not None), np.zeros(0))
        if data.ndim not in (1, 2) or data.shape[0] != n_fibers:
            raise RegionError(
                f"sky mask {path.name} holds an array of shape {data.shape}; one value per fibre ({n_fibers}) is needed"
            )
        return (data.reshape(n_fibers, -1) != 0).any(axis=1)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return fiber_list(" ".join(line.partition("#")[0] for line in lines), n_fibers)


def read_other(path: Path, name: str) -> OtherSky:
    """The sky that 06_sky left for another exposure of the channel."""
    return other_sky(bundle.read(path, "coef", "sky_variance", "wavelength", "factor"), name)


def other_sky(found: bundle.Bundle, name: str) -> OtherSky:
    """`read_other` of what was read."""
    wave, factor = found["wavelength"], found["factor"]
    low, high = float(wave.min()), float(wave.max())
    start, step = float(found.meta["start"]), float(found.meta["step"])
    nodes = np.linspace(low, high, found["coef"].size)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(factor > 0, found["sky_variance"] / factor**2, np.nan)
    lit = [f for f in range(wave.shape[0]) if np.isfinite(density[f]).all()]
    variance = np.median([np.interp(nodes, wave[f], density[f]) for f in lit], axis=0)
    spectrum = CommonSpectrum(start, step, found["coef"].astype(float), np.zeros((1, 1)))
    return OtherSky(name, spectrum, nodes, variance, float(found.meta["exptime"]))


def choose(
    task: Task,
    exptime: float,
    n_fibers: int,
    *,
    mode: str,
    region: str,
    exclude: str,
    mask: str,
    obsid: int | None,
    exposure: int | None,
    degree: int,
    refine: str,
    left: Left | None = None,
) -> SkyChoice:
    """The choice of sky from the parameters of 06_sky; see the command line's help for what each means.

    ``left`` gives what 06_sky left for another exposure; by default it is read from its file.

    Raises
    ------
    RegionError, MissingInputError
    """
    asked: dict[str, Any] = {"mode": mode, "degree": degree, "refine": refine, "exptime": exptime}
    if mode == "region":
        asked["region"] = parse_region(region)
    if mode == "mask":
        asked["fibers"] = read_mask(mask, n_fibers)
    if mode == "exposure":
        name = f"{int(obsid or 0):07d}_exp{int(exposure or 1):02d}"
        asked["other"] = (
            read_other(task.input(task.other("06_sky", name)), name) if left is None else other_sky(left(name), name)
        )
    if exclude:
        asked["exclude"] = parse_region(exclude)
    return SkyChoice(**asked)


def expected_source(
    task: Task, names: Sequence[str], wave: float, seeing: float | None, left: Left | None = None
) -> tuple[SourcePrior, list[Decision]]:
    """What is expected of the exposure's source at ``wave`` [A].

    Parameters
    ----------
    names : exposures that 06_sky has done: standards of this channel (``0000012_exp01``); of the arm's other channel this exposure
        and its standards (``orange/0000012_exp01``)
    seeing : FWHM [arcsec] at the guide cameras during the exposure, or None
    left : function of a name, optional
        Gives what 06_sky left for it; by default it is read from its file.
    """
    left = left or (lambda name: bundle.read(task.input(task.other("06_sky", name)), "none"))
    found = {name: left(name).meta for name in names}
    own = [name for name in names if "/" not in name]
    prior, decision = standards_prior((found[name]["beta"], found[name]["beta_error"]) for name in own)
    stars = [(found[name].get("seeing"), from_dict(found[name]["source"])) for name in own]
    prior, shown = guided_prior(prior, seeing, wave, [(at, star) for at, star in stars if at and star is not None])
    pair, standards = None, []
    for name in names:
        _, _, exposure = name.rpartition("/")
        if exposure == name:
            continue
        there = from_dict(found[name]["source"])
        if exposure == f"{task.obsid or 0:07d}_exp{task.exposure or 1:02d}":
            pair = there
        elif exposure in found and there is not None and found[exposure]["source"] is not None:
            standards.append((there, from_dict(found[exposure]["source"])))
    prior, more = paired_prior(prior, pair, wave, standards)
    return prior, [decision, *shown, *more]


def sky_arrays(field: FieldModel, sky_variance: np.ndarray, choice: SkyChoice) -> dict[str, np.ndarray]:
    """What 06_sky leaves for 07_flux; all of the sky is zero where none is to be subtracted."""
    sky = field.sky
    arrays = {
        "sky": sky.native(), "sky_variance": sky_variance, "wavelength": sky.wavelength, "factor": sky.factor,
        "gradient": sky.gradient, "extra": sky.extra, "coef": sky.spectrum.coef, "mask": field.mask,
        "source": field.source_native, "fibers": sky.fibers, "throughput": field.throughput,
    }  # fmt: skip
    correction = getattr(sky, "correction", None)
    if correction is not None:
        arrays["correction"] = correction
    if field.stray is not None:
        arrays["stray"] = field.stray
    if choice.mode == "none":
        empty = ("sky", "sky_variance", "coef", "fibers", "correction")
        arrays |= {name: np.zeros_like(arrays[name]) for name in empty if name in arrays}
    return arrays


def sky_values(field: FieldModel, choice: SkyChoice, prior: SourcePrior, seeing: float | None) -> dict[str, Any]:
    """The plain values that go with `sky_arrays`; ``prior`` and ``seeing`` as in `expected_source`."""
    sky = field.sky
    values = {
        "start": sky.spectrum.start,
        "step": sky.spectrum.step,
        "chi": sky.chi,
        "level_scatter": sky.level_scatter,
    }
    scale = getattr(sky, "scale", None)
    if scale is not None:
        values |= {"sky_scale": float(scale[0]), "sky_scale_error": float(sky.scale_error[0])}
    known = {"exptime": choice.exptime, "seeing": seeing, "prior": prior.to_dict()}
    return values | known | choice.facts() | field.profile()
