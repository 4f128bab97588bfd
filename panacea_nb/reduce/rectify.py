"""From native pixels to the common wavelength grid: Lanczos interpolation of what is left after the sky, with its covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from .arrays import fill_gaps, plain
from .maskbits import DQ

SUPPORT = 3
LOST_SHARE = 0.35  # of the interpolation's squared weights on masked samples: more makes the result doubtful


@dataclass(frozen=True)
class Rectified:
    """Attributes
    ----------
    value, variance : (nf, nw) float64
    mask : (nf, nw) uint8, `DQ` bits
    correlation : (3,) float, mean correlation of neighbouring elements at lags 1, 2, 3
    gain : (nf, nw), variance of an element over that of the native samples around it: less than one between two samples
    """

    value: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    correlation: np.ndarray
    gain: np.ndarray


def lanczos_weights(position: np.ndarray, nx: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and weights (..., 6) of a Lanczos-3 interpolation at fractional ``position`` [px]; weights sum to one."""
    shape = (*np.shape(position), 2 * SUPPORT)
    index, weight = np.zeros(shape, np.int64), np.zeros(shape)
    taps = -1, 2 * SUPPORT
    _lanczos(plain(np.ravel(position), np.float64), nx, index.reshape(taps), weight.reshape(taps))
    return index, weight


@njit(cache=True)
def _lanczos(position, nx, index, weight):
    """`lanczos_weights` of a vector, into ``index`` and ``weight`` (n, 6).

    The sines of all taps are those of one angle turned by multiples of pi and pi / 3: two of each are computed instead of twelve.
    """
    turn = np.pi / SUPPORT
    cos_turn, sin_turn = np.cos(turn), np.sin(turn)
    for i in range(position.size):
        base = int(np.floor(position[i]))
        u = position[i] - base + SUPPORT - 1  # distance from the first tap
        narrow, sine, cosine = np.sin(np.pi * u), np.sin(turn * u), np.cos(turn * u)
        total = 0.0
        for k in range(2 * SUPPORT):
            index[i, k] = min(max(base + k + 1 - SUPPORT, 0), nx - 1)
            if abs(u) < 1e-8:
                weight[i, k] = 1.0
            elif abs(u) < SUPPORT:
                weight[i, k] = narrow * sine * SUPPORT / (np.pi * u) ** 2
            total += weight[i, k]
            u -= 1.0
            narrow = -narrow
            sine, cosine = sine * cos_turn - cosine * sin_turn, cosine * cos_turn + sine * sin_turn
        for k in range(2 * SUPPORT):
            weight[i, k] /= total


@njit(cache=True)
def _interpolate(value, index, weight):
    """Weighted sums (nf, nw) of the samples of each fibre at ``index`` (nf, nw, 6)."""
    nf, nw, taps = index.shape
    out = np.zeros((nf, nw))
    for f in range(nf):
        row = value[f]
        for w in range(nw):
            total = 0.0
            for k in range(taps):
                total += weight[f, w, k] * row[index[f, w, k]]
            out[f, w] = total
    return out


def interpolated(value: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Samples (nf, nx) summed with the weights (nf, nw, 6) of `lanczos_weights`, (nf, nw)."""
    return _interpolate(plain(value, np.float64), plain(index, np.int64), plain(weight, np.float64))


def rectify(
    value: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    usable: np.ndarray,
    wavelength: np.ndarray,
    grid: np.ndarray,
):
    """Interpolate a density (per A) and its variance onto ``grid``.

    Parameters
    ----------
    value, variance : (nf, nx)
        Sky-subtracted density and its variance.
    mask : (nf, nx) uint8
        Bits to be handed on.
    usable : (nf, nx) bool
        Samples whose value may be used; others are bridged.
    wavelength : (nf, nx) [A]; grid : (nw,) [A]

    Returns
    -------
    Rectified
    """
    nf, nx = value.shape
    columns = np.arange(nx, dtype=float)
    position = np.stack([np.interp(grid, wavelength[f], columns, left=-9.0, right=nx + 9.0) for f in range(nf)])
    outside = (position < -0.5) | (position > nx - 0.5) | (position < 0) | (position > nx - 1)
    index, weight = lanczos_weights(np.clip(position, 0, nx - 1), nx)
    result = interpolated(fill_gaps(value, usable), index, weight)
    square = weight**2
    var = interpolated(fill_gaps(variance, usable & (variance > 0)), index, square)
    gain = square.sum(axis=-1)
    lost = interpolated(~usable, index, square) / gain
    nearest = np.clip(np.round(position).astype(int), 0, nx - 1)
    handed = mask[np.arange(nf)[:, None], nearest]
    out = np.where(lost > LOST_SHARE, handed | np.uint8(DQ.LOSTWEIGHT), 0).astype(np.uint8)
    out |= np.where(outside, np.uint8(DQ.EDGE | DQ.NODATA), 0).astype(np.uint8)
    correlation = neighbour_correlation(index, weight)
    return Rectified(np.where(outside, 0.0, result), np.where(outside, 0.0, var), out, correlation, gain)


def neighbour_correlation(index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean correlation of rectified elements at lags 1, 2, 3 for independent native samples of equal variance."""
    some = np.linspace(0, index.shape[0] - 1, min(12, index.shape[0])).astype(int)
    result = []
    for lag in (1, 2, 3):
        a, b = slice(None, -lag), slice(lag, None)
        ia, ib, wa, wb = index[some, a], index[some, b], weight[some, a], weight[some, b]
        same = ia[..., :, None] == ib[..., None, :]
        shared = np.einsum("fwi,fwj,fwij->fw", wa, wb, same)
        norm = np.sqrt((wa**2).sum(-1) * (wb**2).sum(-1))
        result.append(float(np.mean(shared / norm)))
    return np.array(result)
