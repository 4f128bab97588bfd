"""Compiled parts of the sky fit: one pass over the samples instead of a dozen arrays of their size."""

from __future__ import annotations

import numpy as np
from numba import njit

RUN = 5  # neighbouring samples whose mean shows faint lines
RUN_LIMIT = 6.0  # sigma that one sample counts at most in that mean


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
    products : (3, 3, nf), sums of w a a, w a b, w b b times the powers 0, 1, 2 of the column
    right : (2, 2, nf), sums of w a rest, w b rest times the powers 0, 1
    """
    nf, nx = slope.shape
    products, right = np.zeros((3, 3, nf)), np.zeros((2, 2, nf))
    for f in range(nf):
        aa0 = aa1 = aa2 = ab0 = ab1 = ab2 = bb0 = bb1 = bb2 = a0 = a1 = b0 = b1 = 0.0
        for x in range(nx):
            w = weight[f, x]
            if w <= 0.0:
                continue
            p, q = px[f, x], x_axis[x]
            a = slope[f, x] * p * factor[f, x]
            b = 0.5 * curve[f, x] * p * p * factor[f, x]
            aa, ab, bb = w * a * a, w * a * b, w * b * b
            ar, br = w * a * rest[f, x], w * b * rest[f, x]
            aa0, ab0, bb0, a0, b0 = aa0 + aa, ab0 + ab, bb0 + bb, a0 + ar, b0 + br
            aa1, ab1, bb1, a1, b1 = aa1 + aa * q, ab1 + ab * q, bb1 + bb * q, a1 + ar * q, b1 + br * q
            aa2, ab2, bb2 = aa2 + aa * q * q, ab2 + ab * q * q, bb2 + bb * q * q
        products[0, 0, f], products[0, 1, f], products[0, 2, f] = aa0, aa1, aa2
        products[1, 0, f], products[1, 1, f], products[1, 2, f] = ab0, ab1, ab2
        products[2, 0, f], products[2, 1, f], products[2, 2, f] = bb0, bb1, bb2
        right[0, 0, f], right[0, 1, f], right[1, 0, f], right[1, 1, f] = a0, a1, b0, b1
    return products, right


def slit_equations(
    slope: np.ndarray, curve: np.ndarray, px: np.ndarray, factor: np.ndarray, weight: np.ndarray, rest: np.ndarray,
    f_axis: np.ndarray, x_axis: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Normal equations (6, 6), (6,) of shifts [px] and widths [px^2] across the slit, each as f, f x and f^2 - 1/3.

    Parameters
    ----------
    slope, curve : (nf, nx), first and second derivative of the sky's spectrum [per A, per A^2]
    px : (nf, nx) [A]; factor : (nf, nx), what multiplies the spectrum; weight, rest : (nf, nx)
    f_axis : (nf,), x_axis : (nx,), from -1 to 1
    """
    products, right = slit_sums(slope, curve, px, factor, weight, rest, x_axis)
    across, along = np.stack([f_axis, f_axis, f_axis**2 - 1 / 3]), (0, 1, 0)
    normal, rhs = np.zeros((6, 6)), np.zeros(6)
    for i in range(2):
        rhs[3 * i : 3 * i + 3] = [across[k] @ right[i, along[k]] for k in range(3)]
        for j in range(2):
            for k in range(3):
                for m in range(3):
                    normal[3 * i + k, 3 * j + m] = (across[k] * across[m]) @ products[i + j, along[k] + along[m]]
    return normal, rhs
