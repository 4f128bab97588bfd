"""Absorption by the air in an extracted spectrum: a mean curve at the airmass, or what a standard of the night shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .flux import TELLURIC_BANDS, Response
from .optimal import ExtractedSpectrum

MIN_TRANSMISSION = 0.1  # where less comes through, nothing can be said of the flux
MEAN_ERROR = (
    0.03  # of the mean curve per unit of optical depth: water vapour changes from night to night by as much or more
)
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
    wave: np.ndarray, counts: np.ndarray, error: np.ndarray, published: np.ndarray, response: Response
) -> Transmission:
    """What the air let through to a standard: its flux with the smooth response over its published flux, within the bands.

    Parameters are those of `standard_response`, which bridges the bands.
    """
    known = in_bands(wave) & (error > 0) & np.isfinite(published) & (published > 0)
    safe = np.where(known, published, 1.0)
    ratio = np.where(known, counts * response.response / safe, 1.0)
    known &= (ratio > 0) & (ratio < MAX_TRANSMISSION)
    sigma = np.hypot(error * response.response / safe, ratio * response.error / response.response)
    return Transmission("standard", np.where(known, np.minimum(ratio, 1.0), 1.0), np.where(known, sigma, 0.0))


def correct(spectrum: ExtractedSpectrum, air: Transmission) -> ExtractedSpectrum:
    """The spectrum above the air; the sky stays as it was seen.  Where too little comes through, flux and error are 0."""
    known = air.value > MIN_TRANSMISSION
    safe = np.where(known, air.value, 1.0)
    flux = np.where(known, spectrum.flux / safe, 0.0)
    error = np.where(known & (spectrum.error > 0), np.hypot(spectrum.error / safe, flux * air.error / safe), 0.0)
    return replace(spectrum, flux=flux, error=error)
