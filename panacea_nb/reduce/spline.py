"""A spectrum common to many fibres as a cubic B-spline in wavelength, seen by each sample through its own line width.

All native pixels of all fibres sample the same spectrum at different phases, so a spline with about one knot per pixel is
over-determined and no spectrum needs to be resampled before it is compared with another (Kelson 2003, PASP 115, 688).  The
spline stands for the spectrum at a reference line width; a sample with another width sees it convolved with a Gaussian whose
variance is the difference.  That convolution is a three-point Gauss-Hermite quadrature, so it stays linear in the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.linalg import solveh_banded

from .arrays import plain

MAX_REACH = 6  # knots that the convolution may reach to each side
BAND = 2 * MAX_REACH + 4


@njit(cache=True, inline="always")
def _add(row, n, start, step, lam, factor, size):
    """Add ``factor`` times the B-spline values at ``lam`` to the window ``row`` that begins at knot ``n``."""
    s = (lam - start) / step
    if s < 0.0:
        s = 0.0
    if s > size - 3 - 1e-9:
        s = size - 3 - 1e-9
    i = int(np.floor(s))
    r = s - i
    q = 1.0 - r
    j = i - n
    row[j] += factor * q * q * q / 6.0
    row[j + 1] += factor * (3.0 * r * r * r - 6.0 * r * r + 4.0) / 6.0
    row[j + 2] += factor * (3.0 * q * q * q - 6.0 * q * q + 4.0) / 6.0
    row[j + 3] += factor * r * r * r / 6.0


@njit(cache=True, inline="always")
def _row(row, start, step, size, lam, extra):
    """Weights of the coefficients for one sample: spline convolved with a Gaussian of variance ``extra`` (may be negative)."""
    h = np.sqrt(3.0 * abs(extra))
    limit = (MAX_REACH - 1.0) * step
    scale = 1.0
    if h > limit:
        scale = (h / limit) ** 2
        h = limit
    part = (1.0 / 6.0 if extra >= 0 else -1.0 / 6.0) * scale
    first = int(np.floor((lam - h - start) / step))
    if first < 0:
        first = 0
    if first > size - BAND:
        first = size - BAND
    for k in range(BAND):
        row[k] = 0.0
    if h < 1e-6 * step:
        _add(row, first, start, step, lam, 1.0, size)
    else:
        _add(row, first, start, step, lam, 1.0 - 2.0 * part, size)
        _add(row, first, start, step, lam - h, part, size)
        _add(row, first, start, step, lam + h, part, size)
    return first


@njit(cache=True)
def _accumulate(lam, extra, value, weight, factor, start, step, size):
    """Banded normal matrix (upper form of `solveh_banded`) and right side of the fit."""
    matrix = np.zeros((BAND, size))
    rhs = np.zeros(size)
    row = np.zeros(BAND)
    for s in range(lam.size):
        w = weight[s]
        if w <= 0.0:
            continue
        first = _row(row, start, step, size, lam[s], extra[s])
        g = factor[s]
        for a in range(BAND):
            if row[a] == 0.0:
                continue
            wa = w * g * row[a]
            rhs[first + a] += wa * value[s]
            for b in range(a, BAND):
                if row[b] != 0.0:
                    matrix[BAND - 1 - (b - a), first + b] += wa * g * row[b]
    return matrix, rhs


@njit(cache=True)
def _evaluate(coef, lam, extra, start, step):
    """Values at the samples."""
    out = np.zeros(lam.size)
    row = np.zeros(BAND)
    for s in range(lam.size):
        first = _row(row, start, step, coef.size, lam[s], extra[s])
        total = 0.0
        for a in range(BAND):
            total += row[a] * coef[first + a]
        out[s] = total
    return out


@njit(cache=True)
def _derivatives(coef, lam, start, step):
    """First and second derivative at the samples [per A, per A^2]."""
    first = np.zeros(lam.size)
    second = np.zeros(lam.size)
    size = coef.size
    for k in range(lam.size):
        s = (lam[k] - start) / step
        if s < 0.0 or s > size - 3 - 1e-9:
            continue
        i = int(np.floor(s))
        r = s - i
        q = 1.0 - r
        first[k] = (
            -coef[i] * q * q
            + coef[i + 1] * (3 * r * r - 4 * r)
            + coef[i + 2] * (-3 * q * q + 4 * q)
            + coef[i + 3] * r * r
        ) / (2.0 * step)
        second[k] = (coef[i] * q + coef[i + 1] * (3 * r - 2) + coef[i + 2] * (3 * q - 2) + coef[i + 3] * r) / (
            step * step
        )
    return first, second


@dataclass(frozen=True)
class CommonSpectrum:
    """A cubic B-spline with uniform knots.

    Attributes
    ----------
    start, step : float [A], first knot of the support and distance of knots
    coef : (n,) float64
    matrix : (BAND, n) float64, normal matrix of the fit (upper banded form), for variances
    """

    start: float
    step: float
    coef: np.ndarray
    matrix: np.ndarray

    def __call__(self, wavelength: np.ndarray, extra: np.ndarray | float = 0.0) -> np.ndarray:
        """The spectrum at ``wavelength`` [A], seen with a line variance larger by ``extra`` [A^2] than the reference."""
        lam = plain(wavelength, np.float64)
        wide = plain(np.broadcast_to(extra, lam.shape), np.float64)
        return _evaluate(plain(self.coef, np.float64), lam.ravel(), wide.ravel(), self.start, self.step).reshape(
            lam.shape
        )

    def derivatives(self, wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivative of the reference spectrum at ``wavelength``."""
        lam = plain(wavelength, np.float64)
        first, second = _derivatives(plain(self.coef, np.float64), lam.ravel(), self.start, self.step)
        return first.reshape(lam.shape), second.reshape(lam.shape)

    def variance(self, wavelength: np.ndarray) -> np.ndarray:
        """Variance of the fitted spectrum at ``wavelength`` (n,), from the inverse normal matrix."""
        n = self.coef.size
        inverse = solveh_banded(self.matrix, np.eye(n))
        s = np.clip((np.asarray(wavelength, float) - self.start) / self.step, 0, n - 3 - 1e-9)
        i = np.floor(s).astype(int)
        r = s - i
        q = 1 - r
        b = np.stack([q**3, 3 * r**3 - 6 * r**2 + 4, 3 * q**3 - 6 * q**2 + 4, r**3], axis=-1) / 6
        index = i[..., None] + np.arange(4)
        block = inverse[index[..., :, None], index[..., None, :]]
        return np.einsum("...a,...ab,...b->...", b, block, b)


def fit_common(
    wavelength: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    *,
    step: float,
    factor: np.ndarray | float = 1.0,
    extra: np.ndarray | float = 0.0,
    limits: tuple[float, float] | None = None,
    stiffness: float = 1e-6,
) -> CommonSpectrum:
    """Weighted least squares of ``value = factor * S(wavelength; extra)``.

    Parameters
    ----------
    wavelength : array [A]; value, weight : same shape
        Samples and their inverse variance; weight 0 leaves a sample out.
    step : float
        Distance of knots [A].
    factor : array
        Throughput, gradient and the like of each sample.
    extra : array
        Line variance of the sample minus the reference's [A^2].
    limits : (low, high), optional
        Range of the spline; that of the used samples by default.
    stiffness : float
        Strength of the second-difference penalty that bridges gaps, relative to the mean weight of a coefficient.
    """
    lam = plain(wavelength, np.float64).ravel()
    shape = np.shape(wavelength)
    v, w, g, wide = (plain(np.broadcast_to(a, shape), np.float64).ravel() for a in (value, weight, factor, extra))
    if limits is None:
        limits = float(lam[w > 0].min()), float(lam[w > 0].max())
    margin = (MAX_REACH + 2) * step
    start = limits[0] - margin
    size = int(np.ceil((limits[1] + margin - start) / step)) + 3
    matrix, rhs = _accumulate(lam, wide, v, w, g, start, step, size)
    mean = matrix[-1][matrix[-1] > 0].mean()
    penalty = stiffness * mean
    # sum of squared second differences of the coefficients, in banded form
    matrix[-1, 2:-2] += 6 * penalty
    matrix[-1, [0, -1]] += penalty
    matrix[-1, [1, -2]] += 5 * penalty
    matrix[-2, 1:] += -4 * penalty
    matrix[-2, [1, -1]] += 2 * penalty
    matrix[-3, 2:] += penalty
    matrix[-1] += 1e-12 * mean
    coef = solveh_banded(matrix, rhs)
    return CommonSpectrum(start, step, coef, matrix)
