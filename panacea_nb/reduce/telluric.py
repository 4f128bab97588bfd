"""Absorption by the air in an extracted spectrum: a mean curve at the airmass, or what a standard of the night shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .flux import TELLURIC_BANDS, Response, in_hydrogen
from .optimal import ExtractedSpectrum

MIN_TRANSMISSION = 0.1  # where less comes through, nothing can be said of the flux
MEAN_ERROR = (
    0.03  # of the mean curve per unit of optical depth: water vapour changes from night to night by as much or more
)
MIN_SAMPLES = 15  # of a band, to say how deep it is
DEEPER = (0.2, 5.0)  # times the mean curve's depth: outside, a measured one is wrong
MAX_TRANSMISSION = 1.05  # of a measured curve; more is noise or a wrong response


@dataclass(frozen=True)
class Transmission:
    """Attributes
    ----------
    kind : str: mean or standard
    value, error : (nw,) transmission of the air, 1 and 0 where nothing absorbs or nothing is known
    """

    kind: str
    value: np.ndarray
    error: np.ndarray


def in_bands(wave: np.ndarray) -> np.ndarray:
    """Whether wavelengths [A, air] lie in a telluric band, (n,) bool."""
    return np.any([(wave > low) & (wave < high) for low, high in TELLURIC_BANDS], axis=0)


def at_airmass(air: Transmission, ratio: float) -> Transmission:
    """A transmission at ``ratio`` times the airmass: the optical depth goes with it.

    That is right for weak lines and for water of the same column; saturated lines of oxygen grow more slowly.
    """
    value = np.clip(air.value, 1e-3, 1.0)
    scaled = value**ratio
    return replace(air, value=scaled, error=air.error * ratio * scaled / value)


def mean_transmission(mean: np.ndarray, airmass: float, reference: float) -> Transmission:
    """The mean curve (nw,), which holds at airmass ``reference``, brought to another."""
    value = np.clip(mean, 1e-3, 1.0)
    return at_airmass(Transmission("mean", value, -MEAN_ERROR * np.log(value) * value), airmass / reference)


def measured_transmission(
    wave: np.ndarray, counts: np.ndarray, error: np.ndarray, published: np.ndarray, response: Response, mean: np.ndarray
) -> Transmission:
    """What the air let through to a standard: its flux with the smooth response over its published flux, within the bands.

    Where the star says nothing of the air - in its own hydrogen lines, beyond its published flux - the mean curve stands, as deep
    as the star shows the rest of the band to be.

    Parameters
    ----------
    mean : (nw,) transmission of the mean curve; the others are those of `standard_response`, which bridges the bands
    """
    band = in_bands(wave)
    known = band & (error > 0) & np.isfinite(published) & (published > 0) & ~in_hydrogen(wave)
    safe = np.where(known, published, 1.0)
    ratio = np.where(known, counts * response.response / safe, 1.0)
    known &= (ratio > 0) & (ratio < MAX_TRANSMISSION)
    sigma = np.hypot(error * response.response / safe, ratio * response.error / response.response)
    depth = -np.log(np.clip(mean, 1e-3, 1.0))
    value, spread = np.minimum(ratio, 1.0), sigma
    everywhere = _deeper(ratio, sigma, depth, known)
    for low, high in TELLURIC_BANDS:
        inside = (wave > low) & (wave < high)
        factor = _deeper(ratio, sigma, depth, known & inside) or everywhere or (1.0, 0.0)
        gap = inside & ~known
        value = np.where(gap, np.exp(-factor[0] * depth), value)
        spread = np.where(gap, value * depth * np.hypot(MEAN_ERROR * factor[0], factor[1]), spread)
    return Transmission("standard", np.where(band, value, 1.0), np.where(band, spread, 0.0))


def _deeper(ratio: np.ndarray, sigma: np.ndarray, depth: np.ndarray, known: np.ndarray) -> tuple[float, float] | None:
    """How many times as deep as the mean curve's the absorption is, and its error; None where too little is known of it."""
    use = known & (depth > 0.02) & (depth < 2.0) & (ratio > 2 * sigma)
    if use.sum() < MIN_SAMPLES:
        return None
    weight = (ratio[use] / sigma[use]) ** 2
    total = float((weight * depth[use] ** 2).sum())
    factor = float((weight * depth[use] * -np.log(ratio[use])).sum()) / total
    return (factor, float(total**-0.5)) if DEEPER[0] < factor < DEEPER[1] else None


def correct(spectrum: ExtractedSpectrum, air: Transmission) -> ExtractedSpectrum:
    """The spectrum above the air; the sky stays as it was seen.  Where too little comes through, flux and error are 0."""
    known = air.value > MIN_TRANSMISSION
    safe = np.where(known, air.value, 1.0)
    flux = np.where(known, spectrum.flux / safe, 0.0)
    error = np.where(known & (spectrum.error > 0), np.hypot(spectrum.error / safe, flux * air.error / safe), 0.0)
    return replace(spectrum, flux=flux, error=error)
