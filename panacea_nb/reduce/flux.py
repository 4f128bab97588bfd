"""Flux scale: from electrons of a fibre to erg/s/cm2/A, and the response curve of a standard star."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from ..errors import PanaceaError
from .flat import smooth_design

# Bands in which the air of the Earth, or the star's own hydrogen lines, hide the instrument's response [A, air].
# Telluric: Kurucz et al. 1984 atlas bands as commonly masked; hydrogen: Balmer and Paschen series.
TELLURIC_BANDS = ((6270, 6330), (6860, 6965), (7150, 7340), (7585, 7715), (8100, 8360), (8920, 9850))
HYDROGEN_LINES = (3734.4, 3750.2, 3770.6, 3797.9, 3835.4, 3889.1, 3970.1, 4101.7, 4340.5, 4861.3, 6562.8, 8545.4, 8598.4, 8665.0,
                  8750.5, 8862.8, 9014.9, 9229.0, 9546.0, 10049.4)  # fmt: skip
HYDROGEN_HALF_WIDTH = 25.0  # A; the wings of white dwarfs reach further: there counts how well the table's steps follow them
RESPONSE_KNOT = 130.0  # A
LEAST_SHARE = 0.1  # of a channel's samples that must be comparable with the published flux
TABLE_ERROR = 0.005  # relative, of published flux
TABLE_STEP = 50.0  # A, of most published tables
BEYOND_ERROR = 0.1  # relative, of the default's shape where the table has ended
BEYOND_SPAN = 300.0  # A at the end of the table, whose level goes on


class ResponseError(PanaceaError):
    """No response can be made from this standard."""


@dataclass(frozen=True)
class FluxScale:
    """What turns a fibre's electrons into flux.

    Attributes
    ----------
    exptime : float [s]; area : float [cm2]; transparency : float; profile_scale : float, K
    """

    exptime: float
    area: float
    transparency: float
    profile_scale: float

    @property
    def factor(self) -> float:
        """Multiplies e-/A of a fibre's whole profile to give e-/s/cm2/A of the flux scale's amplitude."""
        return 1.0 / (self.profile_scale * self.exptime * self.area * self.transparency)


@dataclass(frozen=True)
class Response:
    """Attributes
    ----------
    wavelength : (n,) [A]; response, error : (n,) erg per e-
    ratio : (n,) response over the default
    measured : (n,) unsmoothed ratio of published to measured flux; fitted : (n,) bool, samples in the fit
    """

    wavelength: np.ndarray
    response: np.ndarray
    error: np.ndarray
    ratio: np.ndarray
    measured: np.ndarray
    fitted: np.ndarray


def in_hydrogen(wavelength: np.ndarray) -> np.ndarray:
    """(n,) bool: inside a line of hydrogen that the star itself may have."""
    return np.any([np.abs(wavelength - line) < HYDROGEN_HALF_WIDTH for line in HYDROGEN_LINES], axis=0)


def masked_bands(wavelength: np.ndarray) -> np.ndarray:
    """(n,) bool: inside a telluric band or a hydrogen line."""
    return in_hydrogen(wavelength) | np.any([(wavelength > low) & (wavelength < high) for low, high in TELLURIC_BANDS], axis=0)


def standard_response(
    wavelength: np.ndarray,
    counts: np.ndarray,
    error: np.ndarray,
    published: np.ndarray,
    default: np.ndarray,
    doubt: np.ndarray | float = 0.0,
) -> Response:
    """Response of a standard: published flux over measured e-/s/cm2/A, as the default curve times a smooth correction.

    Dividing by the default first leaves a curve so flat that splines of `RESPONSE_KNOT` A describe it, bridging the masked bands.
    Beyond the published range the shape of the default goes on at the level where that ends.

    Parameters
    ----------
    wavelength : (n,) [A]; counts, error : (n,) [e-/s/cm2/A]
    published : (n,) [erg/s/cm2/A]; NaN outside the published range
    default : (n,) [erg per e-]
    doubt : (n,) relative error of the published flux between the points of its table, beside `TABLE_ERROR`

    Raises
    ------
    ResponseError
    """
    usable = (error > 0) & (counts > 5 * error) & np.isfinite(published)
    usable &= ~masked_bands(wavelength)
    if usable.sum() < LEAST_SHARE * wavelength.size:
        raise ResponseError(
            f"only {int(usable.sum())} of {wavelength.size} samples of the standard can be compared with its published flux, a "
            "tenth is needed (clouds, the star at the edge of the field, or a table that does not reach this channel), so no "
            "response is made from it: use another standard, or leave this one out with --leave-out N_expNN"
        )
    ratio = np.where(usable, published / np.where(usable, counts * default, 1.0), np.nan)
    smooth = median_filter(np.where(usable, ratio, np.nanmedian(ratio)), 31, mode="nearest")
    usable &= (
        np.abs(ratio - smooth)
        < 6 * np.abs(ratio) * np.where(usable, error / np.maximum(counts, 1e-300), 1.0) + 0.03 * smooth
    )
    intervals = max(2, int(round((wavelength[-1] - wavelength[0]) / RESPONSE_KNOT)))
    design = smooth_design(wavelength.size, intervals)
    # Between two points of the table all samples are off alike: many of them know no more than one.
    together = max(1.0, TABLE_STEP / float(np.median(np.diff(wavelength))))
    own = (error / np.maximum(counts, 1e-300)) ** 2 + TABLE_ERROR**2 + together * np.asarray(doubt) ** 2
    weight = np.where(usable, 1.0 / own, 0.0)
    first, last = wavelength[np.isfinite(published)][[0, -1]]
    target = np.where(usable, ratio, 0.0)
    for outside, end in ((wavelength < first, first), (wavelength > last, last)):
        near = usable & (np.abs(wavelength - end) < BEYOND_SPAN)
        if outside.any() and near.any():
            target[outside] = np.average(ratio[near], weights=weight[near])
            weight[outside] = BEYOND_ERROR**-2
    penalty = np.diff(np.eye(design.shape[1]), 2, axis=0)
    normal = (design.T * weight) @ design
    normal += 1e-3 * np.trace(normal) / normal.shape[0] * penalty.T @ penalty
    coef = np.linalg.solve(normal, (design.T * weight) @ target)
    fit = design @ coef
    spread = 1.4826 * np.median(np.abs((ratio - fit)[usable]))
    covariance = np.linalg.inv(normal)
    sigma = np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design)) * max(1.0, spread / TABLE_ERROR)
    sigma = np.hypot(sigma, np.where(np.isfinite(published), 0.0, BEYOND_ERROR * fit))
    return Response(
        wavelength, default * fit, default * sigma, fit, np.where(np.isfinite(ratio), ratio * default, np.nan), usable
    )
