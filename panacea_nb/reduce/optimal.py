"""Optimal extraction of a source from the fibres it falls on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_TOLD = 1e-6  # of the product of the norms: sources whose images are more alike cannot be told apart
MIN_COUPLED = 0.25  # of the variance without it that correlated fibres must leave; only guards against nonsense


@dataclass(frozen=True)
class ExtractedSpectrum:
    """Attributes
    ----------
    flux, error : (nw,), of the whole source, and 1 sigma; 0 where nothing could be measured
    sky, sky_error : (nw,), sky through the same weights
    share : (nw,) float, part of the source's light that fell on usable fibres
    """

    flux: np.ndarray
    error: np.ndarray
    sky: np.ndarray
    sky_error: np.ndarray
    share: np.ndarray


def coupled_variance(
    weights: np.ndarray, variance: np.ndarray, usable: np.ndarray, coupling: np.ndarray | None
) -> np.ndarray:
    """What the correlation of neighbouring fibres adds to the variance (nw,) of a sum with ``weights`` over the fibres.

    Fibres whose profiles overlap are told apart by the fit of the extraction, so that what one gains the next one loses: the sum
    of both is surer than their errors say.

    Parameters
    ----------
    weights, variance : (nf, nw); usable : (nf, nw) bool
    coupling : (nf, nw), correlation of each fibre's error with that of the next one, or None
    """
    if coupling is None:
        return np.zeros(weights.shape[1])
    part = np.where(usable, weights * np.sqrt(np.where(usable, variance, 0.0)), 0.0)
    return 2.0 * (coupling[:-1] * part[:-1] * part[1:]).sum(axis=0)


def extract_source(
    shape: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
    sky: np.ndarray,
    good: np.ndarray,
    shared: np.ndarray | None = None,
    coupling: np.ndarray | None = None,
    gain: np.ndarray | None = None,
    beside: Sequence[np.ndarray] = (),
) -> ExtractedSpectrum:
    """Optimal extraction with the source's own shape as profile (Horne 1986), normalised to all of its light.

    All arrays (nf, nw).  ``shared`` is the part of the 1-sigma error that all fibres have in common at a wavelength, that of the
    sky model: a bright star's light is summed over so many fibres that it counts for more than their own noise.  The fibres'
    covariance is diagonal but for it, so the best weights follow by the formula of Sherman and Morrison.  ``coupling`` is the
    correlation of a fibre's own error with that of the next one: too small to change the weights, not too small for the error.
    ``gain`` is what interpolation made of the native samples' variance (`rectify`): it changes from element to element with
    their place between the samples, what the fibre knows does not.  Weights that followed it would turn what the shape is wrong
    by into noise, so they leave it out.  ``beside`` are the shapes of other sources in the field, whose light is free at every
    wavelength.
    ``sky`` is summed with the weights of the shape alone, as users of the spectrum files expect.
    """
    weights, usable, own, common, w = _best_weights((shape, *beside), variance, good, shared, gain)
    kept = weights[0]
    alone = (kept**2 * np.where(usable, own, 0.0)).sum(axis=0) + (kept * common).sum(axis=0) ** 2
    pairs = coupled_variance(kept, own, usable, coupling)
    error = np.sqrt(np.maximum(alone + pairs, MIN_COUPLED * alone))
    sky_flux = (w * shape * sky).sum(axis=0) / np.maximum((w * shape**2).sum(axis=0), 1e-300)
    flux = (kept * np.where(usable, value, 0.0)).sum(axis=0)
    sky_flux = np.where(error > 0, sky_flux, 0.0)
    return ExtractedSpectrum(flux, error, sky_flux, error.copy(), (shape * usable).sum(axis=0))


def extract_fluxes(
    shapes: Sequence[np.ndarray],
    value: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    shared: np.ndarray | None = None,
    gain: np.ndarray | None = None,
) -> np.ndarray:
    """Fluxes (k, nw) of sources that are fitted together, 0 where they cannot be told apart; arguments as in `extract_source`."""
    weights, usable, *_ = _best_weights(shapes, variance, good, shared, gain)
    return (weights * np.where(usable, value, 0.0)).sum(axis=1)


def _best_weights(shapes: Sequence[np.ndarray], variance, good, shared, gain):
    """Weights (k, nf, nw) of the fibres in the flux of each of k sources, 0 where it cannot be measured; see `extract_source`.

    Returns
    -------
    weights, usable (nf, nw) bool, own variance, common error, weight of each element alone, each (nf, nw)
    """
    usable = good & (variance > 0)
    common = np.zeros_like(variance) if shared is None else np.where(usable, shared, 0.0)
    own = np.where(usable, np.maximum(variance - common**2, 0.05 * variance), np.inf)
    w = 1.0 / own if gain is None else gain / own
    rest = 1.0 + (w * common**2).sum(axis=0)
    single = [w * (shape - common * ((w * shape * common).sum(axis=0) / rest)) for shape in shapes]
    normal = np.stack([[(one * shape).sum(axis=0) for shape in shapes] for one in single]).transpose(2, 0, 1)
    norms = np.diagonal(normal, axis1=1, axis2=2)
    known = (norms > 0).all(axis=1)
    unit = np.sqrt(np.where(known[:, None], norms, 1.0))
    alike = np.where(known[:, None, None], normal / (unit[:, :, None] * unit[:, None, :]), np.eye(len(shapes)))
    known &= np.linalg.det(alike) > MIN_TOLD
    alike[~known] = np.eye(len(shapes))
    inverse = np.linalg.inv(alike) / (unit[:, :, None] * unit[:, None, :]) * known[:, None, None]
    weights = np.stack([sum(inverse[:, i, j] * single[j] for j in range(len(shapes))) for i in range(len(shapes))])
    return weights, usable, own, common, w
