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
from scipy.linalg import cholesky_banded, solveh_banded

from .arrays import plain

MAX_REACH = 6  # knots that the convolution may reach to each side
BAND = 2 * MAX_REACH + 4


@njit(cache=True, inline="always")
def _knot(lam, start, step, size):
    """Index of the first of the four splines at ``lam``, and the place [knots] beyond it."""
    s = (lam - start) / step
    s = min(max(s, 0.0), size - 3 - 1e-9)
    i = int(s)
    return i, s - i


@njit(cache=True, inline="always")
def _widening(extra, step):
    """Distance [A] and weight of the outer points of the quadrature for a Gaussian of variance ``extra`` (may be negative)."""
    h = np.sqrt(3.0 * abs(extra))
    limit = (MAX_REACH - 1.0) * step
    scale = 1.0
    if h > limit:
        scale = (h / limit) ** 2
        h = limit
    if h < 1e-6 * step:
        return 0.0, 0.0
    return h, (1.0 / 6.0 if extra >= 0 else -1.0 / 6.0) * scale


@njit(cache=True, inline="always")
def _add(row, i, r, factor):
    """Add ``factor`` times the values of the four splines from ``i`` on to ``row``."""
    q = 1.0 - r
    f = factor / 6.0
    row[i] += f * q * q * q
    row[i + 1] += f * ((3.0 * r - 6.0) * r * r + 4.0)
    row[i + 2] += f * ((3.0 * q - 6.0) * q * q + 4.0)
    row[i + 3] += f * r * r * r


@njit(cache=True)
def _accumulate(lam, extra, value, weight, factor, start, step, size):
    """Banded normal matrix (upper form of `solveh_banded`) and right side of the fit."""
    products = np.zeros((size, BAND))  # of each spline with itself and those after it: together in memory
    rhs = np.zeros(size)
    row = np.zeros(BAND)
    for s in range(lam.size):
        w = weight[s]
        if w <= 0.0:
            continue
        h, part = _widening(extra[s], step)
        i, r = _knot(lam[s], start, step, size)
        first, last = i, i
        if h > 0.0:
            first, r1 = _knot(lam[s] - h, start, step, size)
            last, r2 = _knot(lam[s] + h, start, step, size)
            n = last - first + 4
            for k in range(n):
                row[k] = 0.0
            _add(row, 0, r1, part)
            _add(row, i - first, r, 1.0 - 2.0 * part)
            _add(row, last - first, r2, part)
        else:
            n = 4
            for k in range(n):
                row[k] = 0.0
            _add(row, 0, r, 1.0)
        g = factor[s]
        for a in range(n):
            wa = w * g * row[a]
            rhs[first + a] += wa * value[s]
            wa *= g
            out = products[first + a]
            for b in range(n - a):
                out[b] += wa * row[a + b]
    matrix = np.zeros((BAND, size))
    for a in range(size):
        for b in range(min(BAND, size - a)):
            matrix[BAND - 1 - b, a + b] = products[a, b]
    return matrix, rhs


@njit(cache=True)
def _pieces(coef):
    """The spline as cubics c0 + c1 r + c2 r^2 + c3 r^3 between its knots, (n - 3, 4): quicker to evaluate."""
    out = np.empty((coef.size - 3, 4))
    for i in range(coef.size - 3):
        a, b, c, d = coef[i], coef[i + 1], coef[i + 2], coef[i + 3]
        out[i, 0] = (a + 4.0 * b + c) / 6.0
        out[i, 1] = (c - a) / 2.0
        out[i, 2] = (a - 2.0 * b + c) / 2.0
        out[i, 3] = (d - a + 3.0 * (b - c)) / 6.0
    return out


@njit(cache=True, inline="always")
def _value(pieces, lam, start, step):
    """The spline at ``lam``."""
    i, r = _knot(lam, start, step, pieces.shape[0] + 3)
    return pieces[i, 0] + r * (pieces[i, 1] + r * (pieces[i, 2] + r * pieces[i, 3]))


@njit(cache=True)
def _evaluate(coef, lam, extra, start, step, out):
    """Values at the samples, into ``out``."""
    pieces = _pieces(coef)
    for s in range(lam.size):
        h, part = _widening(extra[s], step)
        total = _value(pieces, lam[s], start, step)
        if h > 0.0:
            sides = _value(pieces, lam[s] - h, start, step) + _value(pieces, lam[s] + h, start, step)
            total += part * (sides - 2.0 * total)
        out[s] = total


@njit(cache=True)
def _inverse_band(factor):
    """Elements [i, d] = (i, i + d) of the inverse of a banded matrix, d < 4, from its Cholesky factor (lower form, (b, n)).

    Takahashi's recursion upwards: within the band an element needs only elements of the band.
    """
    b, n = factor.shape
    inverse = np.zeros((n, b))
    for i in range(n - 1, -1, -1):
        m = min(b, n - i)
        for d in range(m - 1, -1, -1):
            j = i + d
            total = 1.0 / factor[0, i] if d == 0 else 0.0
            for k in range(1, m):
                at = i + k
                low, high = min(at, j), max(at, j)
                total -= factor[k, i] * inverse[low, high - low]
            inverse[i, d] = total / factor[0, i]
    return inverse[:, :4].copy()


@njit(cache=True)
def _derivatives(coef, lam, start, step, first, second):
    """First and second derivative at the samples [per A, per A^2], into ``first`` and ``second``, which hold 0."""
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
        out = np.empty(lam.shape)
        _evaluate(plain(self.coef, np.float64), lam.ravel(), wide.ravel(), self.start, self.step, out.reshape(-1))
        return out

    def derivatives(self, wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivative of the reference spectrum at ``wavelength``."""
        lam = plain(wavelength, np.float64)
        first, second = np.zeros(lam.shape), np.zeros(lam.shape)
        coef = plain(self.coef, np.float64)
        _derivatives(coef, lam.ravel(), self.start, self.step, first.reshape(-1), second.reshape(-1))
        return first, second

    def variance(self, wavelength: np.ndarray) -> np.ndarray:
        """Variance of the fitted spectrum at ``wavelength`` (n,), from the inverse normal matrix."""
        n = self.coef.size
        inverse = _inverse_band(plain(cholesky_banded(_lower(self.matrix), lower=True), np.float64))
        s = np.clip((np.asarray(wavelength, float) - self.start) / self.step, 0, n - 3 - 1e-9)
        i = np.floor(s).astype(int)
        r = s - i
        q = 1 - r
        b = np.stack([q**3, 3 * r**3 - 6 * r**2 + 4, 3 * q**3 - 6 * q**2 + 4, r**3]) / 6
        total = sum(b[a] ** 2 * inverse[i + a, 0] for a in range(4))
        return total + 2 * sum(b[a] * b[c] * inverse[i + a, c - a] for a in range(4) for c in range(a + 1, 4))


def _lower(upper: np.ndarray) -> np.ndarray:
    """A banded symmetric matrix (b, n) in lower form, from its upper form."""
    b, n = upper.shape
    lower = np.zeros((b, n))
    for d in range(b):
        lower[d, : n - d] = upper[b - 1 - d, d:]
    return lower


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
