"""A second point source in the field: found in what the first one leaves, and told from it in the extraction."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from ..decisions import Decision
from .optimal import MIN_COUPLED, ExtractedSpectrum, coupled_variance
from .refraction import Refraction
from .source import PointSource, find_source, source_shapes
from .sourceprior import ShapePrior, SourcePrior

DETECTION = 8.0  # S/N: what the first source's model leaves is not pure noise
MODEL_ERROR = 0.05  # of the first source's local light: its model may be wrong by that
MIN_RATIO = 0.01  # of the first one's light: less beside a bright star may be what no model of it explains
PARTS = 4  # of the channel, in each of which the two are compared
MIN_SEPARATION = 1.2  # FWHM; closer ones are one source
SAME_SEEING = 0.1  # arcsec: both are seen through the same air
SAME_BETA = 0.1
SAME_OVAL = 0.02  # of the shear


def find_companion(
    first: PointSource,
    light: np.ndarray,
    positions: np.ndarray,
    wave: np.ndarray,
    rest: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    refraction: Refraction,
    *,
    systematic: float,
    electron: np.ndarray | None = None,
) -> PointSource | None:
    """The second source of a field, of the same profile as the first; None when there is none.

    Parameters
    ----------
    first : PointSource; light : (nf, nw), its light
    positions : (nf, 2) [arcsec]; wave : (nw,) [A]
    rest, variance, sky : (nf, nw), what first source and sky leave, its variance, the sky, as in `find_source`
    good : (nf, nw) bool
    systematic, electron : see `chunks.level_shapes`
    """
    if first.extended:
        return None  # its clumps are no sources of their own
    shape = ShapePrior((first.beta, SAME_BETA), (first.fwhm, SAME_SEEING), shear=(*first.shear, SAME_OVAL))
    second, search = find_source(
        positions, wave, rest, variance + (MODEL_ERROR * light) ** 2, sky, good, refraction, wave_ref=first.wave_ref,
        prior=SourcePrior(shape, path=first.path), systematic=systematic, electron=electron, lines=False,
    )  # fmt: skip
    if second is None or search["best"] < DETECTION:
        return None
    apart = np.hypot(second.x - first.x, second.y - first.y)
    inside = np.min(np.hypot(positions[:, 0] - second.x, positions[:, 1] - second.y)) < 1.0
    bright = _brightest_share(first, second) > MIN_RATIO
    return second if apart > MIN_SEPARATION * first.fwhm and inside and bright else None


def _brightest_share(first: PointSource, second: PointSource) -> float:
    """Light of the second source over the first one's in that part of the channel where it is highest: colours differ."""
    shares = []
    for part in np.array_split(np.arange(second.chunk_flux.size), min(PARTS, second.chunk_flux.size)):
        weight = 1.0 / np.maximum(second.chunk_error[part], 1e-300) ** 2
        if (weight * second.chunk_flux[part]).sum() > DETECTION / np.sqrt(PARTS) * np.sqrt(weight.sum()):
            shares.append(np.median(second.chunk_flux[part]) / max(float(np.median(first.chunk_flux[part])), 1e-300))
    return float(max(shares, default=0.0))


def companion_decision(first: PointSource, second: PointSource) -> Decision:
    """What is said of a second source."""
    apart = np.hypot(second.x - first.x, second.y - first.y)
    return Decision(
        "COMPANION",
        f"a second source at s/n {second.snr:.1f}, {apart:.1f} arcsec from the first, is modelled too",
        "info",
    )


def to_dict(source: PointSource | None) -> dict | None:
    """A source's place and profile as plain values, with their errors."""
    if source is None:
        return None
    names = ("x", "y", "wave_ref", "fwhm", "exponent", "beta", "snr", "error", "shear", "disk", "path")
    return {name: value for name, value in asdict(source).items() if name in names}


def at_wavelength(source: PointSource, wave: float, refraction: Refraction) -> PointSource:
    """The same source with its place and width given at another wavelength [A]."""
    dx, dy = source.refracted(refraction).offset(wave, source.wave_ref)
    fwhm = source.fwhm * (wave / source.wave_ref) ** source.exponent
    return replace(source, x=source.x + float(dx), y=source.y + float(dy), fwhm=float(fwhm), wave_ref=wave)


def from_dict(values: dict | None) -> PointSource | None:
    """A source from what `to_dict` has kept."""
    if values is None:
        return None
    nothing = np.zeros(1)
    return PointSource(
        **{**values, "shear": tuple(values["shear"]), "path": tuple(values["path"])},
        fixed=False,
        chi=float("nan"),
        chunk_wave=nothing,
        chunk_flux=nothing,
        chunk_error=nothing,
    )


def extract_pair(
    first: np.ndarray,
    second: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    coupling: np.ndarray | None = None,
    gain: np.ndarray | None = None,
) -> tuple[ExtractedSpectrum, np.ndarray]:
    """Optimal extraction of two sources together: least squares with both shapes at every wavelength.

    Parameters
    ----------
    first, second : (nf, nw), shares of the sources' light; the others as in `extract_source`

    Returns
    -------
    spectrum of the first source, flux (nw,) of the second; 0 where nothing could be measured
    """
    usable = good & (variance > 0)
    w = np.where(usable, (1.0 if gain is None else gain) / np.where(variance > 0, variance, 1.0), 0.0)
    aa, bb, ab = ((w * p * q).sum(axis=0) for p, q in ((first, first), (second, second), (first, second)))
    determinant = aa * bb - ab**2
    known = determinant > 1e-6 * aa * bb
    safe = np.where(known, determinant, 1.0)
    # Weights of the samples in the first source's flux: what sums them also sums the sky.
    weights = np.where(known, w * (first * bb - second * ab) / safe, 0.0)
    flux = (weights * value).sum(axis=0)
    own = np.where(usable, weights**2 * variance, 0.0).sum(axis=0)
    error = np.sqrt(np.maximum(own + coupled_variance(weights, variance, usable, coupling), MIN_COUPLED * own))
    error = np.where(known, error, 0.0)
    other = np.where(known, (w * (second * aa - first * ab) * value).sum(axis=0) / safe, 0.0)
    sky_flux = (weights * sky).sum(axis=0)
    return ExtractedSpectrum(flux, error, sky_flux, error.copy(), (first * usable).sum(axis=0)), other


def companion_light(
    first: PointSource,
    second: PointSource,
    positions: np.ndarray,
    wave: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    refraction: Refraction,
) -> np.ndarray:
    """Light (nf, nw) of the second source where the profiles of both are known."""
    one, two = (source_shapes(source, positions, wave, refraction) for source in (first, second))
    return two * extract_pair(one, two, value, variance, sky, good)[1]
