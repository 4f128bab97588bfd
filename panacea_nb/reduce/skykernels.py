"""Compiled parts of the sky fit: one pass over the samples instead of a dozen arrays of their size."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.polynomial import legendre

RUN = 5  # neighbouring samples whose mean shows faint lines
RUN_LIMIT = 6.0  # sigma that one sample counts at most in that mean
# Degrees over fibres and columns of the Legendre terms across the slit; what all fibres have in common is in the spectrum.
SHIFT_TERMS = ((1, 0), (1, 1), (2, 0), (1, 2), (2, 1), (3, 0))
WIDTH_TERMS = ((1, 0), (1, 1), (2, 0))
POWERS = 5  # of the column, that the products of two terms have


@njit(cache=True)
def compare(data, model, variance, usable, model_error, clip_one, clip_run, z, clipped):
    """Fill ``z`` = (data - model) / sigma and ``clipped``, the outliers, each (nf, nx).

    sigma^2 is the variance and ``model_error`` of the model squared; what is not usable has z = 0.  Outliers are single samples
    beyond ``clip_one``, and the middle of `RUN` samples whose mean is beyond ``clip_run`` of its own error (mirrored at the ends).
    """
    nf, nx = data.shape
    limited = np.empty(nx + RUN - 1)
    half = RUN // 2
    norm = np.sqrt(RUN) / RUN
    for f in range(nf):
        for x in range(nx):
            value = 0.0
            if usable[f, x]:
                m = model_error * model[f, x]
                value = (data[f, x] - model[f, x]) / np.sqrt(max(variance[f, x], 1e-9) + m * m)
            z[f, x] = value
            limited[half + x] = min(max(value, -RUN_LIMIT), RUN_LIMIT)
        for k in range(half):
            limited[half - 1 - k] = limited[half + k]
            limited[half + nx + k] = limited[half + nx - 1 - k]
        for x in range(nx):
            run = 0.0
            for k in range(RUN):
                run += limited[x + k]
            clipped[f, x] = abs(z[f, x]) > clip_one or run * norm > clip_run


@njit(cache=True)
def slit_sums(slope, curve, px, factor, weight, rest, x_axis):
    """Sums over the columns of each fibre for the shifts and widths across the slit.

    The derivatives of the model are a = slope px factor (shift) and b = curve px^2 factor / 2 (width).

    Returns
    -------
    products : (3, POWERS, nf), sums of w a a, w a b, w b b times the powers of the column
    right : (2, POWERS, nf), sums of w a rest, w b rest times them
    """
    nf, nx = slope.shape
    products, right = np.zeros((3, POWERS, nf)), np.zeros((2, POWERS, nf))
    sums = np.zeros((5, POWERS))
    for f in range(nf):
        sums[:] = 0.0
        for x in range(nx):
            w = weight[f, x]
            if w <= 0.0:
                continue
            p, q = px[f, x], x_axis[x]
            a = slope[f, x] * p * factor[f, x]
            b = 0.5 * curve[f, x] * p * p * factor[f, x]
            aa, ab, bb, ar, br = w * a * a, w * a * b, w * b * b, w * a * rest[f, x], w * b * rest[f, x]
            power = 1.0
            for k in range(POWERS):
                sums[0, k] += aa * power
                sums[1, k] += ab * power
                sums[2, k] += bb * power
                sums[3, k] += ar * power
                sums[4, k] += br * power
                power *= q
        products[:, :, f], right[:, :, f] = sums[:3], sums[3:]
    return products, right


def slit_equations(
    slope: np.ndarray, curve: np.ndarray, px: np.ndarray, factor: np.ndarray, weight: np.ndarray, rest: np.ndarray,
    f_axis: np.ndarray, x_axis: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Normal equations (n, n), (n,) of the shifts [px], `SHIFT_TERMS`, and widths [px^2], `WIDTH_TERMS`, across the slit.

    Parameters
    ----------
    slope, curve : (nf, nx), first and second derivative of the sky's spectrum [per A, per A^2]
    px : (nf, nx) [A]; factor : (nf, nx), what multiplies the spectrum; weight, rest : (nf, nx)
    f_axis : (nf,), x_axis : (nx,), from -1 to 1
    """
    products, right = slit_sums(slope, curve, px, factor, weight, rest, x_axis)
    terms = [(0, *degrees) for degrees in SHIFT_TERMS] + [(1, *degrees) for degrees in WIDTH_TERMS]
    across = [_legendre(i, f_axis) for _, i, _ in terms]
    along = [legendre.leg2poly(np.eye(j + 1)[j]) for _, _, j in terms]
    rhs = np.array([across[k] @ (right[t, : p.size].T @ p) for k, ((t, *_), p) in enumerate(zip(terms, along, strict=True))])
    normal = np.zeros((rhs.size, rhs.size))
    for k, (t, *_) in enumerate(terms):
        for m, (u, *_) in enumerate(terms[: k + 1]):
            both = np.polynomial.polynomial.polymul(along[k], along[m])
            normal[k, m] = normal[m, k] = (across[k] * across[m]) @ (products[t + u, : both.size].T @ both)
    return normal, rhs


def slit_field(coef: np.ndarray, terms: tuple[tuple[int, int], ...], f_axis: np.ndarray, x_axis: np.ndarray) -> np.ndarray:
    """Field (nf, nx) of the coefficients (n,) of `SHIFT_TERMS` or `WIDTH_TERMS`."""
    return sum(c * _legendre(i, f_axis)[:, None] * _legendre(j, x_axis) for c, (i, j) in zip(coef, terms, strict=True))


def _legendre(degree: int, x: np.ndarray) -> np.ndarray:
    return legendre.legval(x, np.eye(degree + 1)[degree])
